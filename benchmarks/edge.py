"""`make bench-edge`: what the agent costs a device.

* Reconstituting ResNet18 with each method: `edge-agent apply` as a whole process on one core,
  beside `cp` and `sha256sum` of the same weights file in the same round; rounds are interleaved,
  so that a machine whose speed drifts slows all alike. "start" is the same command on a network
  of one small matrix, by `ka`: what any update costs. "decode" and the peaks come on top of it.
* The same in place: writing the undo file, and turning the weights file with it.
* The agent as a process (`benchmarks/agent.py`): its start, at rest, and a whole update.

The page is laid out in `benchmarks/edge_page.py`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import agent
from benchmarks.edge_page import page
from benchmarks.measure import cost, machine
from edge_agent.undo import scratch_of
from server import zoo
from server.packaging.encode import build_package
from shared.weights import write_weights

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).resolve().parent.parent / "docs" / "results" / "edge.md"
ONE_CORE = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
AGENT = str(Path(sys.executable).with_name("edge-agent"))
METHODS: dict[str, dict[str, float]] = {
    "ka": {"rank": 3},
    "ml": {"rank": 16},
    "ml_delta": {"rank": 16},
    "lra": {"rank": 8},
    "lru": {"rank": 3},
    "rm": {"proportion": 0.01},
    "direct": {},
    "xor": {},
    "full": {},
}
#: Of those, measured in place and as whole updates: small changes everywhere, and sparse ones.
WHOLE = ("ka", "rm", "xor")
#: Polls counted for the cost of one, and the time between them.
POLLS, POLL_SECONDS = 200, 0.05
#: Time in which an agent that waits is watched.
WAITING_SECONDS = 5.0
CHECKOUT = PAGE.parents[2]
_DTYPES = {"float32": "F32", "int64": "I64"}


def write_models(base: Path, target: Path) -> int:
    """A ResNet18 and a copy in which each weight moved by 2% of its tensor's spread.

    Returns the elements of the largest tensor.
    """
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    old, new, largest = {}, {}, 0
    for name, tensor in zoo.get("resnet18").build({}).state_dict().items():
        values = tensor.numpy()
        moved = values
        if values.ndim and values.dtype == np.float32:
            noise = rng.standard_normal(values.shape) * 0.02 * values.std()
            moved = (values + noise).astype(np.float32)
        old[name] = (_DTYPES[values.dtype.name], values)
        new[name] = (_DTYPES[values.dtype.name], moved)
        largest = max(largest, values.size)
    write_weights(base, old)
    write_weights(target, new)
    return largest


def write_tiny_update(folder: Path) -> list[str]:
    """Base and package of a network of one 16 x 32 matrix, as arguments of `edge-agent apply`."""
    rng = np.random.default_rng(0)
    base, target, package = (folder / name for name in ("tiny-base", "tiny-target", "tiny"))
    for path in (base, target):
        weight = rng.standard_normal((16, 32)).astype(np.float32)
        write_weights(path, {"weight": ("F32", weight)})
    build_package(base, target, "ka", {"rank": 1}, package)
    return ["--base", str(base), "--package", str(package)]


def build(folder: Path, base: Path, target: Path) -> dict[str, dict[str, Any]]:
    """A package by each method, in `folder` by its name, and what is to be said of it."""
    packages = {}
    for method, options in METHODS.items():
        print(f"packing {method}", file=sys.stderr)
        report = build_package(base, target, method, options, folder / method, "resnet18")
        fields = ("size", "sha256", "base_digest", "result_digest")
        packages[method] = {"method": method, **{name: getattr(report, name) for name in fields}}
    return packages


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """All costs, per method and round."""
    base, target, output = folder / "base", folder / "target", folder / "output"
    place, undo = folder / "place", folder / "undo"
    tiny = write_tiny_update(folder)
    largest = write_models(base, target)
    packages = build(folder, base, target)
    commands = {"cp": ["cp", str(base), str(output)], "sha256sum": ["sha256sum", str(base)]}
    commands["start"] = [AGENT, "apply", *tiny, "--output", str(output)]
    for method in METHODS:
        files = ["--base", str(base), "--package", str(folder / method), "--output", str(output)]
        commands[method] = [AGENT, "apply", *files]
    step = [sys.executable, "-m", "benchmarks.in_place"]
    for method in WHOLE:
        files = [str(place), str(folder / method), str(undo)]
        commands[f"{method} undo"] = [*step, "write", *files]
        for side in ("new", "old"):
            commands[f"{method} {side}"] = [*step, side, str(place), str(undo)]
    costs: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    extra = {}
    shutil.copyfile(base, place)
    for number in range(rounds + 1):
        print(f"round {number} of {rounds}", file=sys.stderr)
        for name, command in commands.items():
            output.unlink(missing_ok=True)
            spent = cost(command, ONE_CORE)
            if name.endswith(" undo"):
                extra[name.split()[0]] = sum(p.stat().st_size for p in (undo, scratch_of(undo)))
            if number:  # the first one warms the page cache
                costs[name].append(spent)
    return {
        "command": "make bench-edge",
        "machine": machine(),
        "model_bytes": base.stat().st_size,
        "largest_tensor_float64_bytes": largest * 8,
        "package_bytes": {method: package["size"] for method, package in packages.items()},
        "undo_bytes": extra,
        "options": METHODS,
        "costs": costs,
        "agent": measure_agent(folder, rounds, packages),
    }


def measure_agent(
    folder: Path, rounds: int, packages: dict[str, dict[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Start, rest and updates of the agent's process, on each Python that is here."""
    pythons = {"": sys.executable, **agent.pythons(CHECKOUT)}
    found: dict[str, list[dict[str, Any]]] = {}

    def note(name: str, number: int, figures: dict[str, float]) -> None:
        if number:
            found.setdefault(name, []).append(figures)

    for number in range(rounds + 1):
        print(f"agent, round {number} of {rounds}", file=sys.stderr)
        for version, python in pythons.items():
            state = folder / f"state{version}"
            note(f"start {version}".strip(), number, agent.start(state, python))
            rest = agent.idle(state, python, POLLS, POLL_SECONDS)
            rest["waiting"] = agent.waiting(state, python, WAITING_SECONDS)
            note(f"idle {version}".strip(), number, rest)
        for method in WHOLE:
            state = folder / "updating"
            figures = agent.update(folder, state, sys.executable, folder / "base", packages[method])
            note(f"update {method}", number, figures)
            shutil.rmtree(state)
    return found


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), rounds)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "edge.json").write_text(json.dumps(result, indent=1) + "\n")
    PAGE.write_text(page(result))
    print(page(result))


if __name__ == "__main__":
    main()
