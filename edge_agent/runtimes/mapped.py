"""A weights file mapped into a program: what is looked at is in memory, until it is forgotten."""

from __future__ import annotations

import mmap

import numpy as np

from shared.tensors import STORAGE, Array
from shared.weights import WeightsReader


class MappedWeights:
    """The tensors of a file, in storage form, where they lie.

    Pages stay mapped as long as this object or one of its arrays is there. The mapping is private
    and counts as writable, which frameworks ask for; whoever writes to it changes no file.
    """

    def __init__(self, reader: WeightsReader) -> None:
        self._reader = reader
        self.schema = reader.schema
        self._memory = mmap.mmap(reader.fileno(), 0, access=mmap.ACCESS_COPY)

    def array(self, name: str) -> Array:
        """A tensor, shaped; nothing of it is read yet."""
        spec = self.schema[name]
        if not spec.size:
            return np.empty(spec.shape, STORAGE[spec.dtype])
        start = self._reader.place(name)
        return np.frombuffer(self._memory, STORAGE[spec.dtype], spec.size, start).reshape(
            spec.shape
        )

    def load(self, name: str) -> Array:
        """A tensor, shaped, with all of its pages in memory."""
        array = self.array(name)
        np.max(array.reshape(-1).view(np.uint8)[:: mmap.PAGESIZE], initial=0)
        return array

    def forget(self, name: str) -> None:
        """Give back the pages that hold nothing but this tensor."""
        start = self._reader.place(name)
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (start + self.schema[name].nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if end > first:
            self._memory.madvise(mmap.MADV_DONTNEED, first, end - first)
