"""`make bench-coders`: bytes and seconds of our coders, DeepCABAC, zstd; about 5 minutes.

Symbols are those of really trained updates that the tests have (`tests/shared/data`), drawn ones,
and drawn ones in the shapes of ResNet18, of which times are taken: of the processor, on one core.
Each part is one JSON in benchmarks/results/coders; a part that is there is not repeated.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.coders.page import page
from benchmarks.measure import machine
from benchmarks.peers.outside import PYTHON
from server import zoo
from shared import coding
from shared.tensors import CHUNK_ELEMENTS
from shared.weights import write_weights
from tests.shared.symbols import entropy, laplace, trained

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "coders"
PAGE = ROOT / "docs" / "results" / "coders.md"
COMMAND = "make bench-coders"
UPDATES = ("sparse", "sparse-large", "ka", "direct")
SIZES, ZEROS, BITS = (10_000, 100_000, 1_000_000), (0.9, 0.99, 0.999), (2, 4, 8)
ROWS, SEED, QUICK = 100, 0, 200_000
#: Repeats of a decoding, of which the fastest counts.
REPEATS = 3

Symbols = NDArray[np.int64]
Row = dict[str, Any]


def main() -> int:
    """Measure what is not there yet; write the page."""
    parts: dict[str, Callable[[], list[Row]]] = {
        "trained": of_updates,
        "drawn": of_drawn,
        "speed": speed,
    }
    for name, measure in parts.items():
        path = RESULTS / f"{name}.json"
        if not path.exists():
            begin = time.perf_counter()
            record = {"command": COMMAND, "seed": SEED, "rows": measure(), "machine": _machine()}
            record["seconds"] = round(time.perf_counter() - begin, 1)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(record, indent=1) + "\n")
    found = {name: json.loads((RESULTS / f"{name}.json").read_text()) for name in parts}
    PAGE.write_text(page(found))
    return 0


def of_updates() -> list[Row]:
    """Trained updates: each tensor alone, and all together as a package has them."""
    rows = []
    for update in UPDATES:
        arrays = trained(update)
        peer = deepcabac(arrays, quick=False)
        for number, (array, theirs) in enumerate(zip(arrays, peer["arrays"], strict=True)):
            told = {"update": update, "tensor": number, "shape": list(array.shape)}
            rows.append(
                told | _bytes([array]) | {"deepcabac": theirs["bytes"], **theirs["options"]}
            )
        rows.append(
            {"update": update, "tensor": None} | _bytes(arrays) | {"deepcabac": peer["whole"]}
        )
    return rows


def of_drawn() -> list[Row]:
    """Laplace with so many zeros, and normal ones of so many bits."""
    drawn: list[tuple[Row, Symbols]] = []
    for size in SIZES:
        drawn += [({"zeros": zeros}, laplace(size, zeros, SEED)) for zeros in ZEROS]
    drawn += [
        ({"bits": bits}, normal(bits, SIZES[-1], np.random.default_rng(SEED))) for bits in BITS
    ]
    rows = []
    for told, symbols in drawn:
        array = symbols.reshape(ROWS, -1)
        peer = deepcabac([array], quick=symbols.size > QUICK)
        rows.append(told | {"size": symbols.size} | _bytes([array]) | {"deepcabac": peer["whole"]})
    return rows


def speed() -> list[Row]:
    """Seconds of processor time for the tensors of ResNet18."""
    model = zoo.get("resnet18").build({})
    sizes = [p.numel() for p in model.parameters() if p.ndim > 1]
    rng = np.random.default_rng(SEED)
    sparse = [laplace(size, 0.99, number) for number, size in enumerate(sizes)]
    cases = {"1% not zero": (sparse, tuple(coding.CODERS))}
    for bits in (4, 8):
        dense = [normal(bits, size, rng) for size in sizes]
        cases[f"direct, {bits} bits"] = (dense, ("dense/1", "zstd/1"))
    return [
        {
            "symbols": name,
            "size": sum(sizes),
            "others": sum(int(np.count_nonzero(a)) for a in arrays),
        }
        | {"entropy": round(sum(map(entropy, arrays)))}
        | _timed(coding.coder(id_), arrays)
        for name, (arrays, ids) in cases.items()
        for id_ in ids
    ]


def normal(bits: int, size: int, rng: np.random.Generator) -> Symbols:
    """Normal symbols of so many bits, the largest at 3.5 spreads; at 2 bits at 1.7."""
    top = (1 << bits - 1) - 1
    values = (rng.standard_normal(size) * max(top / 3.5, 0.6)).clip(-top, top)
    return np.array(np.rint(values), np.int64)


def deepcabac(arrays: list[Symbols], quick: bool) -> Row:
    """What `benchmarks.coders.deepcabac_line` answers, in the order of the arrays."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "arrays"
        write_weights(file, {f"{i:04}": ("I64", array) for i, array in enumerate(arrays)})
        done = subprocess.run(
            [str(PYTHON), "-m", "benchmarks.coders.deepcabac_line"],
            input=json.dumps({"arrays": str(file), "quick": quick}),
            text=True,
            check=True,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
    answer: Row = json.loads(done.stdout.splitlines()[-1])
    return answer


def _bytes(arrays: list[Symbols]) -> Row:
    flat = [array.reshape(-1) for array in arrays]
    others = sum(int(np.count_nonzero(array)) for array in flat)
    ours = {
        id_: len(coder.encode(flat)) if others <= coder.most else None
        for id_, coder in coding.CODERS.items()
    }
    chosen = coding.smallest(flat)
    return {
        "entropy": round(sum(map(entropy, flat)), 1),
        "others": others,
        "chosen": chosen,
        **ours,
    }


def _timed(coder: coding.Coder, arrays: list[Symbols]) -> Row:
    begin = time.process_time()
    data = coder.encode(arrays)
    encoding = time.process_time() - begin
    decoding = min(_seconds(lambda: _decode(coder, data, arrays)) for _ in range(REPEATS))
    tracemalloc.start()
    _decode(coder, data, arrays)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    told: Mapping[str, Any] = {"encoding": encoding, "decoding": decoding, "peak": peak}
    return {"coder": coder.id, "bytes": len(data), **told}


def _seconds(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def _decode(coder: coding.Coder, data: bytes, arrays: list[Symbols]) -> None:
    """As a device does, in pieces. Raises ValueError where something else comes back."""
    source = coder.source(io.BytesIO(data))
    for array in arrays:
        source.start()
        for at in range(0, array.size, CHUNK_ELEMENTS):
            piece = array[at : at + CHUNK_ELEMENTS]
            if not np.array_equal(source.read(piece.size), piece):
                raise ValueError(f"{coder.id} gives other symbols back")
    source.finish()


def _machine() -> dict[str, str]:
    asked = "import importlib.metadata as m; print(m.version('nncodec'))"
    found = subprocess.run([str(PYTHON), "-c", asked], text=True, check=True, capture_output=True)
    return {**machine(), "zstandard": version("zstandard"), "nncodec": found.stdout.strip()}


if __name__ == "__main__":
    sys.exit(main())
