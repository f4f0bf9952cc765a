"""What knows nothing of models: binary patches of the retrained file, and our own `xor`.

The file is that of the dense retraining without decay, with BatchNorm folded, so that as much of it
as can be is as on the device. What all of them give is the same, to the bit.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from benchmarks.lift.protocol import Protocol
from benchmarks.peers import outside, rows
from benchmarks.peers.dense import Dense
from benchmarks.peers.folding import Folding
from server.packaging.encode import build_package
from server.refine.weights import save_state
from shared import methods

FAMILIES = ("zstd-patch", "bsdiff", "xor")
#: The strongest level there is, and a window that the whole base fits in.
_ZSTD = ("zstd", "--ultra", "-22", "--long=27", "-qq", "-f")


def measure(protocol: Protocol, model: int, seed: int) -> None:
    """All of them, for one initial model."""
    setting = protocol.setting.name
    missing = [f for f in FAMILIES if not rows.found(setting, f"test-{f}-{model}-{seed}")]
    if not missing:
        return
    dense = Dense(protocol, "test", 0.0, model, seed)
    trained, seconds = dense.trained()
    job = dense.job()
    folded = Folding(job)(trained)
    before, after = job.measure.base().accuracy, job.evaluate_state(folded).accuracy
    with tempfile.TemporaryDirectory() as place:
        new = Path(place) / "new.safetensors"
        save_state(new, folded)
        for family, size in sizes(protocol.initial(model), new, Path(place)).items():
            row = dense.row(family, size, before, after, seconds)
            told = {**row, "method": family, "options": {}}
            rows.written(setting, f"test-{family}-{model}-{seed}", told)


def sizes(base: Path, new: Path, folder: Path) -> dict[str, int]:
    """Bytes of each patch from `base` to `new`."""
    return {
        "zstd-patch": zstd(base, new, folder),
        "bsdiff": int(outside.call("bsdiff_line", {"base": str(base), "new": str(new)})),
        "xor": xor(base, new, folder),
    }


def zstd(base: Path, new: Path, folder: Path) -> int:
    """Bytes of `zstd --patch-from`."""
    patch = folder / "patch.zst"
    subprocess.run([*_ZSTD, f"--patch-from={base}", str(new), "-o", str(patch)], check=True)
    return patch.stat().st_size


def xor(base: Path, new: Path, folder: Path) -> int:
    """Bytes of a package: bits that differ, shuffled by bytes, zstd."""
    places = folder / "xor.weft", "peers", folder / "xor.safetensors"
    options = methods.options(methods.get("xor"), {})
    return build_package(base, new, "xor", options.model_dump(), *places).size
