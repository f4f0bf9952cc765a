"""The smallest network there is, without a framework; and a program that serves it.

python -m tests.runtimes.number DIRECTORY SOCKET [block | pass | refuse]
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edge_agent.runtimes.holder import Holder
from edge_agent.runtimes.serving import serve
from shared.tensors import Array, TensorSpec, WeightsDigest
from shared.weights import WeightsReader


class Number:
    """The smallest network: one number, added to every input, which is the label."""

    holds_copy = True

    def __init__(self) -> None:
        self.value = 0.0
        self.fails = False

    def change(self, path: Path, *, keep: bool) -> NumberChange:
        with WeightsReader(path) as reader:
            return NumberChange(self, float(reader.read("n")[0]), keep)

    def digest(self) -> str:
        return digest(self.value)

    def labels(self, inputs: Array) -> list[int]:
        return [int(row[0] + self.value) for row in inputs]


class NumberChange:
    def __init__(self, number: Number, new: float, keep: bool) -> None:
        self._number, self._new = number, new
        self._kept = number.value if keep else None

    def apply(self) -> None:
        if self._number.fails:
            self._number.value = -1
            raise MemoryError("in the middle of it")
        self._number.value = self._new

    def undo(self) -> None:
        assert self._kept is not None
        self._number.value = self._kept

    def close(self) -> None:
        self._kept = None


def digest(value: float) -> str:
    made = WeightsDigest()
    made.start(TensorSpec("n", "F32", (1,)))
    made.update(np.array([value], "<f4"))
    return made.digest().hex()


def tensors(value: float) -> dict[str, Array]:
    return {"n": np.array([value], np.float32)}


def check_for(way: str, directory: Path) -> Callable[[Number], bool]:
    """A check that lets the test know of it, and then does as it is told."""

    def check(_: Number) -> bool:
        (directory / "checking").touch()
        if way == "block":
            threading.Event().wait()
        return way == "pass"

    return check


def main() -> None:
    directory, socket = Path(sys.argv[1]), Path(sys.argv[2])
    number = Number()
    check = check_for(sys.argv[3], directory) if len(sys.argv) > 3 else None
    holder = Holder(number, number, directory, check=check)
    with serve({"digits": holder}, socket):
        print("ready", flush=True)
        for line in sys.stdin:  # each asks for an answer
            with holder.lease(timeout=float(line)) as given:
                print(given.value, flush=True)


if __name__ == "__main__":
    main()
