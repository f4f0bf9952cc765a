"""`make bench-edge`: what it costs a device to reconstitute ResNet18 with each method.

Each row is `edge-agent apply` as a whole process on one core, beside `cp` and `sha256sum` of the
same weights file in the same round; rounds are interleaved, so that a machine whose speed drifts
slows all alike. "start" is the same command on a network of one small matrix, by `ka`: what any
update costs. "decode" and the peaks are what comes on top of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import cost, machine
from server import zoo
from server.packaging.encode import build_package
from shared.weights import write_weights

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).resolve().parent.parent / "docs" / "results" / "edge.md"
MIB = 1 << 20
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


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """All costs, per method and round."""
    base, target, output = folder / "base", folder / "target", folder / "output"
    tiny = write_tiny_update(folder)
    largest = write_models(base, target)
    sizes = {}
    for method, options in METHODS.items():
        print(f"packing {method}", file=sys.stderr)
        report = build_package(base, target, method, options, folder / method, "resnet18")
        sizes[method] = report.size
    commands = {"cp": ["cp", str(base), str(output)], "sha256sum": ["sha256sum", str(base)]}
    commands["start"] = [AGENT, "apply", *tiny, "--output", str(output)]
    for method in METHODS:
        files = ["--base", str(base), "--package", str(folder / method), "--output", str(output)]
        commands[method] = [AGENT, "apply", *files]
    costs: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        print(f"round {number} of {rounds}", file=sys.stderr)
        for name, command in commands.items():
            output.unlink(missing_ok=True)
            spent = cost(command, ONE_CORE)
            if number:  # the first one warms the page cache
                costs[name].append(spent)
    return {
        "command": "make bench-edge",
        "machine": machine(),
        "model_bytes": base.stat().st_size,
        "largest_tensor_float64_bytes": largest * 8,
        "package_bytes": sizes,
        "options": METHODS,
        "costs": costs,
    }


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown: medians, with minimum and maximum over the rounds."""
    costs = result["costs"]
    files = [
        a["seconds"] + b["seconds"] for a, b in zip(costs["cp"], costs["sha256sum"], strict=True)
    ]
    start = [c["seconds"] for c in costs["start"]]
    idle = statistics.median(c["peak_bytes"] for c in costs["start"])
    lines = [
        "# Reconstituting ResNet18 on one core",
        "",
        f"Made by `{result['command']}` on {result['machine']['processor']}, "
        f"{len(start)} rounds; median (minimum to maximum). ",
        f"The weights file has {result['model_bytes']:,} bytes. `cp` + `sha256sum` of it: "
        f"{_spread(files)} s. The same command on a network of one small matrix: "
        f"{_spread(start)} s, {idle / MIB:.0f} MiB; the figures below come on top of that.",
        "",
        "| method | package bytes | decode s | decode / (cp + sha256sum) | peak MiB "
        "| read MiB | written MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for method, size in result["package_bytes"].items():
        rounds = costs[method]
        decode = [c["seconds"] - s for c, s in zip(rounds, start, strict=True)]
        ratio = [d / f for d, f in zip(decode, files, strict=True)]
        peak = statistics.median(c["peak_bytes"] for c in rounds) - idle
        read, written = (
            statistics.median(c[key] for c in rounds) / MIB
            for key in ("read_bytes", "written_bytes")
        )
        lines.append(
            f"| `{method}` | {size:,} | {_spread(decode)} | {_spread(ratio)} | {peak / MIB:.0f} "
            f"| {read:.0f} | {written:.0f} |"
        )
    limit = 3 * result["largest_tensor_float64_bytes"] / MIB
    lines += [
        "",
        "Budgets ([architecture](../architecture.md)): factorising methods (`ka`, `ml`, "
        f"`ml_delta`) at most 2.5 s and 3x the largest tensor in float64 ({limit:.0f} MiB) over "
        "idle; the others at most 0.5 s, 5x `cp` + `sha256sum`, and 64 MiB over idle.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), rounds)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "edge.json").write_text(json.dumps(result, indent=1) + "\n")
    PAGE.write_text(table(result))
    print(table(result))


if __name__ == "__main__":
    main()
