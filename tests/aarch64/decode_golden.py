"""Decode every golden vector with the shared decode loop and compare the digests.

Runs under the emulator (see `run` beside this file) and anywhere else; needs only what a device
needs. Prints the machine and the raw factorisation that BLAS gives there, which differs between
machines, then one line a vector, whose digest must not differ.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np

from shared.decode import decode, known_answer
from shared.errors import WeftError
from shared.package import PackageReader
from shared.weights import WeightsReader


def machine() -> str:
    """Name the machine and fingerprint its floating-point factorisation of a fixed matrix."""
    matrix = np.random.default_rng(0).standard_normal((48, 96))
    factors = np.linalg.svd(matrix, full_matrices=False)
    raw = hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in factors))
    return f"{platform.machine()}, numpy {np.__version__}, raw SVD {raw.hexdigest()[:16]}"


def decoded_digest(folder: Path, name: str) -> str:
    """Decode `BASE.METHOD.weft` over `BASE.base.safetensors`; the digest in hex."""
    base = WeightsReader(folder / f"{name.partition('.')[0]}.base.safetensors")
    update = PackageReader(folder / f"{name}.weft")
    with base as reader, update as package, tempfile.TemporaryFile() as file:
        return decode(reader, package, file).hex()


def main(folder: Path) -> int:
    """Compare all vectors in `digests.json`; 0 when every digest is the expected one."""
    expected: dict[str, str] = json.loads((folder / "digests.json").read_text())
    print(machine())
    known_answer()
    wrong = 0
    for name, digest in sorted(expected.items()):
        try:
            got = decoded_digest(folder, name)
        except WeftError as error:
            got = str(error)
        wrong += got != digest
        print(f"  {'ok   ' if got == digest else 'WRONG'} {name} {got[:64]}")
    print(f"{len(expected) - wrong} of {len(expected)} vectors decode to the expected digest")
    return 1 if wrong or not expected else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
