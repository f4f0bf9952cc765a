"""Write the golden vectors that are not there yet: `python tests/golden/make.py`.

For a new format, method or method version. Each name has a base, a package, and in `digests.json`
the digest of the result. Those that are there stay as they are: packages of past releases must
decode for ever, to the same bits, on every machine.

The base `shapes` holds the inputs on which factorisations of different machines differ most, and
the tensors that have no factorisation. The chain is what a device lives through: three updates,
each on the result of the one before.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np

from server.packaging import gate
from server.packaging.encode import build_package
from shared import coding
from shared.grid import round_to
from shared.tensors import Array, TensorSpec
from shared.weights import WeightsReader, write_weights

HERE = Path(__file__).parent
OPTIONS: dict[str, dict[str, float]] = {
    "ka": {"rank": 2},
    "ml": {"rank": 6},
    "ml_delta": {"rank": 6},
    "lra": {"rank": 4},
    "lru": {"rank": 3, "seed": 7},
    "lora": {"rank": 2},
    "rm": {"proportion": 0.2, "seed": 7},
    "sparse": {"step": 0.1},
    "direct": {"bits": 6},
    "xor": {},
    "full": {},
}
Tensors = dict[str, tuple[str, Array]]


def shapes(rng: np.random.Generator) -> Tensors:
    """The base: one tensor a difficulty, named by it."""

    def gaussian(*shape: int) -> Array:
        return rng.standard_normal(shape) * 0.1

    def orthogonal(size: int) -> Array:
        return np.linalg.qr(gaussian(size, size))[0]

    half = orthogonal(16) @ np.diag([1.0 - j / 20 if j < 8 else 2e-5 for j in range(16)])
    A = gaussian(16, 12)
    outliers = gaussian(16, 24)
    outliers[3, 5], outliers[10, 2] = 40.0, -90.0
    damaged = gaussian(16, 24)
    damaged[4:8], damaged[9] = 0.0, damaged[2]
    masked = np.where(rng.random((16, 24)) < 0.7, -0.0, gaussian(16, 24))
    single = {
        "antisymmetric": np.hstack([A, -A]),
        "constant": np.full((12, 20), 0.25),
        "damaged_filters": damaged,
        "depthwise": gaussian(20, 1, 3, 3),
        "gaussian_large": gaussian(96, 160),
        "gaussian_square": gaussian(16, 16),
        "gaussian_tall": gaussian(40, 12),
        "half_null": half @ orthogonal(16).T,
        "masked_negative_zeros": masked,
        "orthogonal": orthogonal(16),
        "outliers": outliers,
        "rank_deficient": gaussian(16, 5) @ gaussian(5, 24),
        "scalar": np.array(0.5),
        "subnormal": rng.integers(1, 1 << 22, (16, 24)).astype(np.uint32).view(np.float32),
        "transposed_convolution": gaussian(12, 8, 3, 3),
        "vector": gaussian(20),
    }
    tensors: Tensors = {name: ("F32", v.astype(np.float32)) for name, v in single.items()}
    tensors["half_precision"] = ("F16", round_to(gaussian(16, 24), "F16"))
    tensors["bfloat16"] = ("BF16", round_to(gaussian(16, 24), "BF16"))
    tensors["double"] = ("F64", gaussian(12, 16))
    tensors["integer"] = ("I64", rng.integers(-9, 9, (6,)))
    tensors["attention_mask"] = ("F32", np.triu(np.full((6, 6), -np.inf, np.float32), 1))
    return tensors


def retrained(path: Path, rng: np.random.Generator) -> Tensors:
    """The target: every number moved a little, in proportion to its tensor's spread."""
    out: Tensors = {}
    with WeightsReader(path) as weights:
        for name, spec in weights.schema.items():
            out[name] = (spec.dtype, _moved(weights.read(name), spec, rng))
    return out


def _moved(old: Array, spec: TensorSpec, rng: np.random.Generator) -> Array:
    if not spec.is_float:
        return old + 1
    if np.isinf(old.astype(np.float64)).any():
        return old
    values = old.astype(np.float64)
    if spec.dtype == "BF16":
        values = (old.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    spread = max(float(np.abs(values).mean()), 2.0**-110) * 0.05
    return round_to(values + rng.standard_normal(spec.shape) * spread, spec.dtype)


def new_head(base: Path, target: Path, rng: np.random.Generator) -> None:
    """A classifier that grows from 5 classes to 8, loses one tensor and gains another."""
    body, head, bias = rng.standard_normal((20, 12)), rng.standard_normal((5, 20)), np.zeros(5)
    old = {"body": body, "head.weight": head, "head.bias": bias, "unused": np.ones(3)}
    new = {
        "body": body + 0.1 * rng.standard_normal(body.shape),
        "head.weight": np.vstack([head + 0.1, rng.standard_normal((3, 20))]),
        "head.bias": rng.standard_normal(8),
        "temperature": np.array(1.5),
    }
    for path, tensors in ((base, old), (target, new)):
        write_weights(path, {n: ("F32", np.asarray(v, np.float32)) for n, v in tensors.items()})


def main() -> None:
    """Make all vectors in a folder of their own, and take over those that are new."""
    committed = HERE / "digests.json"
    digests: dict[str, str] = json.loads(committed.read_text())
    with tempfile.TemporaryDirectory() as folder:
        made = make_all(Path(folder))
        for path in Path(folder).iterdir():
            if not (HERE / path.name).exists():
                shutil.copy(path, HERE)
                print(path.name)
    new = {name: digest for name, digest in made.items() if name not in digests}
    committed.write_text(json.dumps(digests | new, indent=2) + "\n")


def make_all(out: Path) -> dict[str, str]:
    """Write all vectors into a folder; returns the digests of the results."""
    digests: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        base, target = Path(scratch) / "base", Path(scratch) / "target"
        # The committed base where there is one: another machine's would differ in its last bits.
        if (HERE / "shapes.base.safetensors").exists():
            shutil.copy(HERE / "shapes.base.safetensors", base)
        else:
            write_weights(base, shapes(np.random.default_rng(1)))
        write_weights(target, retrained(base, np.random.default_rng(2)))
        shutil.copy(base, out / "shapes.base.safetensors")
        for method, options in OPTIONS.items():
            name = f"shapes.{method}"
            report = build_package(base, target, method, options, out / f"{name}.weft", "shapes")
            digests[name] = report.result_digest
        with mock.patch.object(gate, "MIN_GUARD", 0.02):  # so that many elements are guarded
            path = out / "shapes.ka_guarded.weft"
            report = build_package(base, target, "ka", {"rank": 1}, path, "shapes")
            digests["shapes.ka_guarded"] = report.result_digest
        for method, options in (("ka", {"rank": 2, "bits": 4}), ("direct", {"bits": 3})):  # range/1
            name = f"shapes.{method}_ranged"
            report = build_package(base, target, method, options, out / f"{name}.weft", "shapes")
            digests[name] = report.result_digest
        for coder, bits in (("range/2", 3), ("dense/1", 8)):
            name = f"shapes.direct_{coder.partition('/')[0]}{coder[-1]}"
            path = out / f"{name}.weft"
            with mock.patch.object(coding, "smallest", return_value=coder):
                report = build_package(base, target, "direct", {"bits": bits}, path, "shapes")
            digests[name] = report.result_digest
        new_head(base, target, np.random.default_rng(9))
        shutil.copy(base, out / "head.base.safetensors")
        report = build_package(base, target, "ka", {"rank": 1}, out / "head.ka.weft", "head")
        digests["head.ka"] = report.result_digest
        held = Path(scratch) / "shapes"
        write_weights(held, shapes(np.random.default_rng(1)))
        for step, method in enumerate(("lra", "ka", "ka"), start=1):
            name = f"chain{step}.{method}"
            shutil.copy(held, out / f"chain{step}.base.safetensors")
            write_weights(target, retrained(held, np.random.default_rng(2 + step)))
            result = Path(scratch) / f"result{step}"
            package = out / f"{name}.weft"
            report = build_package(held, target, method, {"rank": 4}, package, "chain", result)
            digests[name], held = report.result_digest, result
    return digests


if __name__ == "__main__":
    main()
