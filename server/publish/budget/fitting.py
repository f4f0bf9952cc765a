"""Making a package fit: what matters least of a trained change is left out.

First symbols of the matrices go, those by which the loss would rise least; where even none of them
leave room, the grids of biases and BatchNorm become coarser, until nothing is left. BatchNorm is
settled anew each time, on what devices will decode.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from server.errors import BadRefinement
from server.packaging.assemble import BuildReport
from server.packaging.encode import code_matrices
from server.publish import update
from server.publish.spec import Result, Task
from server.refine.job import Job
from server.refine.outcome import Refined
from server.refine.worth import worth
from shared import coding, methods
from shared.tensors import Array
from shared.weights import WeightsReader

#: Bytes that biases and BatchNorm may grow by when they are settled anew.
_SLACK = 8
_ATTEMPTS = 3
#: Factors on the steps of biases and BatchNorm, when the matrices have nothing more to give.
_COARSER = (1.0, 4.0, 16.0, 64.0, 256.0)
_CHANGE = "change"


def fit(task: Task, job: Job, folder: Path, size: int, most: int, report: update.Report) -> Result:
    """The update that `job` has trained, in at most `most` bytes instead of `size`.

    The results are those of `make_update`. Raises BadRefinement `too_few_bytes`, with the fewest
    bytes that it can be made of.
    """
    began = time.monotonic()
    refined = job.train(report)  # from its checkpoint: there is nothing left to train
    report({"stage": "fit"})
    symbols = _Symbols(task, job, refined)
    room = most - (size - symbols.bytes(symbols.count)) - _SLACK
    for _ in range(_ATTEMPTS if symbols.count else 0):
        fitted = symbols.within(room)
        built = update.package(task, job, fitted, folder)
        if built.size <= most:
            return _conclude(task, job, fitted, built, folder, began, report)
        room -= built.size - most + _SLACK
    fewest = size
    for coarser in _COARSER:
        fitted = symbols.within(0)
        built = update.package(task, job, fitted, folder, coarser)
        if built.result_digest == built.base_digest:
            break
        if built.size <= most:
            return _conclude(task, job, fitted, built, folder, began, report)
        fewest = built.size
    raise BadRefinement("too_few_bytes", f"the least change that was found takes {fewest} bytes")


def _conclude(
    task: Task,
    job: Job,
    refined: Refined,
    built: BuildReport,
    folder: Path,
    began: float,
    report: update.Report,
) -> Result:
    report({"stage": "evaluate"})
    return update.conclude(task, job, refined, built, folder, began)


class _Symbols:
    """The changed elements of all matrices, the most worth first."""

    def __init__(self, task: Task, job: Job, refined: Refined) -> None:
        self._task, self._refined = task, refined
        self._changes = {n: p[_CHANGE] for n, p in refined.parameters.items() if _CHANGE in p}
        worths = worth(job.changed(refined), job.data, self._changes) if self._changes else {}
        flat = _flat(worths)
        self._order = np.argsort(-flat, kind="stable")
        self._order = self._order[_flat(self._changes)[self._order] != 0]

    @property
    def count(self) -> int:
        """How many elements are changed."""
        return len(self._order)

    def first(self, count: int) -> Refined:
        """With only so many of them changed."""
        kept = np.zeros(sum(c.size for c in self._changes.values()))
        kept[self._order[:count]] = 1.0
        parameters, at = dict(self._refined.parameters), 0
        for name, change in self._changes.items():
            mask = kept[at : at + change.size].reshape(change.shape)
            parameters[name] = parameters[name] | {_CHANGE: change * mask}
            at += change.size
        return replace(self._refined, parameters=parameters)

    def bytes(self, count: int) -> int:
        """What the symbols of so many take, coded by themselves."""
        method = methods.get(self._task.job.method)
        options: Any = methods.options(method, self._task.job.options)
        assert isinstance(method, methods.LossyMethod)
        with WeightsReader(self._task.job.base) as base:
            coded = code_matrices(base, self.first(count).parameters, method, options)
        symbols = [array for name in sorted(coded.sent) for array in coded.sent[name].symbols]
        return len(coding.coder(coding.smallest(symbols)).encode(symbols)) if symbols else 0

    def within(self, room: int) -> Refined:
        """With as many of them changed as `room` bytes hold."""
        if room <= 0:
            return self.first(0)
        return self.first(bisect.bisect_right(range(self.count), room, key=self._size_of) - 1)

    def _size_of(self, count: int) -> int:
        return self.bytes(count) if count else 0


def _flat(arrays: Mapping[str, Array]) -> Array:
    return np.concatenate([a.reshape(-1) for a in arrays.values()]) if arrays else np.zeros(0)
