"""Packages of past releases decode to the same bits, whatever factorises the weights below them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.decode import decode
from shared.package import PackageReader
from shared.weights import WeightsReader

HERE = Path(__file__).parent
DIGESTS: dict[str, str] = json.loads((HERE / "digests.json").read_text())
DECODER = HERE.parent / "aarch64" / "decode_golden.py"

#: Kernels of OpenBLAS with a number of threads; a processor that lacks one falls back to another.
SETTINGS = [
    ("Haswell", "1"),
    ("Haswell", "2"),
    ("SkylakeX", "1"),
    ("SkylakeX", "2"),
    ("Prescott", "2"),
    ("Zen", "1"),
]


@pytest.mark.parametrize("name", DIGESTS)
def test_a_committed_package_decodes_to_its_digest(name: str) -> None:
    base = WeightsReader(HERE / f"{name.partition('.')[0]}.base.safetensors")
    package = PackageReader(HERE / f"{name}.weft")
    with base as reader, package as update, tempfile.TemporaryFile() as file:
        assert decode(reader, update, file).hex() == DIGESTS[name]


def test_every_committed_package_has_a_digest() -> None:
    assert sorted(DIGESTS) == sorted(path.stem for path in HERE.glob("*.weft"))


def test_the_vectors_hold_what_they_should() -> None:
    with WeightsReader(HERE / "shapes.base.safetensors") as weights:
        assert {"F16", "BF16", "F32", "F64", "I64"} == {s.dtype for s in weights.schema.values()}
        assert {"half_null", "antisymmetric", "orthogonal", "subnormal"} <= set(weights.schema)
    with PackageReader(HERE / "shapes.ka_guarded.weft") as package:
        assert sum(plan.guard.indices.size for plan in package.plans(1, 3)) > 100


def lines(core: str, threads: str) -> tuple[str, dict[str, str]]:
    """Decode all vectors in a process of its own: the raw SVD's fingerprint, digests by name."""
    forced = {"OPENBLAS_CORETYPE": core, "OPENBLAS_NUM_THREADS": threads}
    environment = {**os.environ, **forced, "PYTHONPATH": str(HERE.parent.parent)}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(DECODER), str(HERE)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    first, *rest = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    return first.rpartition(" ")[2], {name: got for _, name, got in map(str.split, rest[:-1])}


def test_kernels_that_factorise_differently_decode_to_the_same_digests() -> None:
    with ThreadPoolExecutor(2) as pool:
        decoded = list(pool.map(lambda setting: lines(*setting), SETTINGS))
    for setting, (_, digests) in zip(SETTINGS, decoded, strict=True):
        assert digests == DIGESTS, setting
    fingerprints = {fingerprint for fingerprint, _ in decoded}
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the kernels are those of x86-64; `make test-aarch64` has those of aarch64")
    assert len(fingerprints) > 1, "all factorised alike, so equal digests prove nothing"
