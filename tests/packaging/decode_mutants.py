"""Decode mutants of packages under limits of memory and file size, as a device would.

`python decode_mutants.py FOLDER MUTANTS` reads pairs `NAME.base`, `NAME.weft` from FOLDER and
prints a JSON object: how many mutants there were, how many were refused with which code, how many
were accepted, the longest time, and everything that should not have happened. The larger vectors,
`golden.*`, are mutated less often.
"""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import BinaryIO

from mutate import MUTATIONS, Parts

from shared.decode import decode
from shared.errors import BadResult, UserError
from shared.package import PackageReader
from shared.weights import WeightsReader

MEMORY_BYTES = 512 << 20
FILE_BYTES = 64 << 20
GOLDEN_EVERY = 20


def limit() -> None:
    """Leave room for 512 MiB beside what the process has already."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    ceiling = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))


class Vector:
    """A sound package and the base below it."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self.base = WeightsReader(path.with_suffix(".base"))
        self.parts = Parts(path.read_bytes())
        with PackageReader(path) as package:
            self.promised = package.result_digest


class MemoryFile:
    """A file without a disk: ten thousand times truncated, a real one takes a minute."""

    def __init__(self, name: str) -> None:
        self.file = os.fdopen(os.memfd_create(name), "w+b")
        self.path = Path(f"/proc/self/fd/{self.file.fileno()}")

    def clear(self) -> BinaryIO:
        """The file, empty."""
        self.file.seek(0)
        self.file.truncate()
        return self.file

    def fill(self, data: bytes) -> None:
        """Make `data` the whole content."""
        self.clear().write(data)
        self.file.flush()


def outcome(vector: Vector, mutant: MemoryFile, out: MemoryFile) -> str:
    """What becomes of a mutant: a code, or `accepted`; anything else is raised."""
    try:
        with PackageReader(mutant.path) as package:
            digest = decode(vector.base, package, out.clear())
            out.file.flush()
    except (UserError, BadResult) as error:
        return error.code
    except OSError as error:
        if error.errno != errno.EFBIG:  # of the caller's file, which is not the decoder's business
            raise
        return "file.too_large"
    with WeightsReader(out.path) as weights:
        if not digest == weights.digest() == vector.promised:
            raise AssertionError("accepted other weights than the sound package leads to")
    return "accepted"


def main(folder: Path, count: int) -> None:
    """Decode `count` mutants and report."""
    paths = sorted(folder.glob("*.weft"))
    golden = [Vector(path) for path in paths if path.name.startswith("golden.")]
    small = [Vector(path) for path in paths if not path.name.startswith("golden.")]
    mutant, out = MemoryFile("mutant"), MemoryFile("out")
    codes: Counter[str] = Counter()
    wrong: list[str] = []
    slowest = 0.0
    limit()
    for number in range(count):
        rng = random.Random(number)
        vector = rng.choice(golden if number % GOLDEN_EVERY == 0 else small)
        mutation = rng.choice(MUTATIONS)
        mutant.fill(mutation(vector.parts, rng))
        start = time.perf_counter()
        try:
            codes[outcome(vector, mutant, out)] += 1
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            wrong.append(f"{number} {vector.name} {mutation.__name__}: {what}"[:300])
        slowest = max(slowest, time.perf_counter() - start)
    report = {"mutants": count, "codes": codes, "slowest": slowest, "wrong": wrong}
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
