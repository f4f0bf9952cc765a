"""How long inferences of ResNet18 wait while new weights are taken over, and what memory it takes.

    python -m benchmarks.live [ROUNDS]

One thread infers without a pause, and another has new weights taken over, `ROUNDS` times, in turn
from two files: once with all float tensors changed, once with every eighth. Each pause is held
against one memcpy of the bytes that change, in the same round, while inferences wait as well.
Writes benchmarks/results/live.json and docs/results/live.md.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import re
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.live_page import page
from benchmarks.measure import machine
from edge_agent.runtimes import Weights
from edge_agent.runtimes.lease import Lease
from edge_agent.runtimes.torch_live import LiveModel
from server import zoo
from server.refine.weights import State, save_state, state_of
from shared.weights import WeightsReader

HERE = Path(__file__).parent
ROUNDS, WARM_UP = 40, 5
INPUT = (1, 3, 64, 64)
#: Case -> which of the float tensors change.
CASES = {"all": 1, "every eighth": 8}


class TimedLease(Lease):
    """Notes for how long no inference could run: from the end of the last to the release."""

    def __init__(self) -> None:
        super().__init__()
        self.closed_at = 0.0
        self.pauses: list[float] = []

    def close(self, timeout: float) -> None:
        """See `Lease`."""
        super().close(timeout)
        self.closed_at = time.perf_counter()

    def open(self) -> None:
        """See `Lease`."""
        if self.is_closed:
            self.pauses.append(time.perf_counter() - self.closed_at)
        super().open()


@dataclass
class Inferences:
    """A thread that infers; `waits` are the seconds that each waited for the lease."""

    live: LiveModel
    waits: list[float] = field(default_factory=list)
    over: bool = False

    def run(self) -> None:
        """Infer until it is `over`."""
        x = torch.zeros(INPUT)
        while not self.over:
            asked = time.perf_counter()
            with self.live.lease() as model, torch.inference_mode():
                self.waits.append(time.perf_counter() - asked)
                model(x)

    def next(self) -> None:
        """Wait until one more has begun and another has ended."""
        until = len(self.waits) + 2
        while len(self.waits) < until:
            time.sleep(0.001)


def main() -> None:
    """Measure, and write both files."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    torch.set_num_threads(1)
    result: dict[str, Any] = {"command": "make bench-live", "machine": machine(), "cases": {}}
    with tempfile.TemporaryDirectory() as scratch:
        module = zoo.get("resnet18").build({"classes": 1000}).eval()
        base = state_of(module)
        for name, step in CASES.items():
            files = _files(Path(scratch), base, step)
            result["cases"][name] = _case(module, files, rounds)
            result["model_bytes"] = files[0].path.stat().st_size
    (HERE / "results" / "live.json").write_text(json.dumps(result, indent=1) + "\n")
    (HERE.parent / "docs" / "results" / "live.md").write_text(page(result))


def _files(folder: Path, base: State, step: int) -> list[Weights]:
    """Two versions, which differ in every `step`-th float tensor, by the same seed."""
    torch.manual_seed(step)
    other = dict(base)
    floats = [name for name, tensor in base.items() if tensor.is_floating_point()]
    for name in floats[::step]:
        other[name] = base[name] + 1e-3 * torch.rand_like(base[name])
    found = []
    for number, state in enumerate((base, other)):
        path = folder / f"{step}-{number}.safetensors"
        save_state(path, state)
        with WeightsReader(path) as reader:
            found.append(Weights(path, reader.digest().hex(), number))
    return found


def _case(module: nn.Module, files: list[Weights], rounds: int) -> dict[str, Any]:
    live = LiveModel(module, files[0].path)
    lease = live._lease = TimedLease()  # what is measured is from within
    lease.open()
    changed = _changed(files)
    inferences = Inferences(live)
    thread = threading.Thread(target=inferences.run)
    thread.start()
    copy = _memcpy(changed)
    measured = [
        _swap(live, lease, inferences, new, copy)
        for new in itertools.islice(itertools.cycle(reversed(files)), WARM_UP + rounds)
    ][WARM_UP:]
    inferences.over = True
    thread.join()
    assert live.verify(measured[-1].pop("new"), None).digest == live.digest
    keys = [key for key in measured[-1] if key != "new"]
    return {
        "changed_bytes": changed,
        "rounds": {key: [one[key] for one in measured] for key in keys},
        "inference": statistics.median(inferences.waits),
    }


def _swap(
    live: LiveModel,
    lease: TimedLease,
    inferences: Inferences,
    new: Weights,
    copy: Callable[[], float],
) -> dict[str, Any]:
    """One change of weights, and one memcpy beside it."""
    inferences.next()
    before = _memory()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    live.prepare(new)
    ready = _memory()
    began, count = len(inferences.waits), len(lease.pauses)
    live.swap(new)
    inferences.next()
    lease.close(60)
    seconds = copy()
    Lease.open(lease)
    return {
        "new": new,
        "pause": max(lease.pauses[count:]),
        "felt": max(inferences.waits[began:]),
        "memcpy": seconds,
        "mapped_bytes": ready["RssFile"] - before["RssFile"],
        "anonymous_bytes": ready["RssAnon"] - before["RssAnon"],
        "peak_bytes": _memory()["VmHWM"] - before["VmRSS"],
    }


def _changed(files: list[Weights]) -> int:
    with WeightsReader(files[0].path) as old, WeightsReader(files[1].path) as new:
        return sum(
            spec.nbytes
            for name, spec in old.schema.items()
            if not np.array_equal(old.read(name), new.read(name))
        )


def _memcpy(size: int) -> Callable[[], float]:
    """One memcpy of so many bytes between buffers that are in memory; gives the seconds."""
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)

    def copy() -> float:
        began = time.perf_counter()
        ctypes.memmove(target.ctypes.data, source.ctypes.data, size)
        return time.perf_counter() - began

    return copy


def _memory() -> dict[str, int]:
    """What of this process is in memory, in bytes."""
    text = Path("/proc/self/status").read_text()
    found = re.findall(r"^(VmHWM|VmRSS|RssAnon|RssFile):\s+(\d+) kB", text, re.MULTILINE)
    return {name: int(size) << 10 for name, size in found}


if __name__ == "__main__":
    main()
