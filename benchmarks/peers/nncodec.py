"""NNCodec on the change of dense retrained weights, at its best: every step it takes is searched.

Searched, on held-out rows with one initial model: the decay towards the base, the step of the
matrices (qp), that of biases and BatchNorm (other qp), and the weight of bytes in the encoder's
choice of symbols. What lies on the envelope of lift over bytes is then measured on the test set,
the same points for all models and seeds. Both with full trainings: points that were found with
short ones lost accuracy where changes had wandered for longer.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.lift.protocol import Protocol
from benchmarks.peers import outside, rows
from benchmarks.peers.dense import DECAYS, Dense
from benchmarks.peers.folding import Folding, change, changed, matrices
from server.refine.job import Job
from server.refine.weights import State, load_state, save_state

#: Steps are (4 + qp mod 4) * 2^(floor(qp / 4) - 2): from 1/64 to 3/32, of changes that spread 0.05.
QPS = (-24, -22, -20, -18, -16, -14)
OTHER_QPS = (-26, -22)
#: Of bytes against squared error; the library's own default is 0.
WEIGHTS = (0.0, 0.3, 1.0)
#: What makes a larger point worth a full measurement: 7 of 5,000 images more.
_GAIN = 0.0014
#: Training rows that BatchNorm is re-estimated on while points are searched.
_ROWS = 10_000


@dataclass(frozen=True, order=True)
class Point:
    """How the codec is used."""

    decay: float
    qp: int
    weight: float
    other_qp: int

    @property
    def family(self) -> str:
        """As a row of a table."""
        return f"nncodec-qp{self.qp}-o{self.other_qp}-w{self.weight:g}-d{self.decay:g}"


@dataclass(frozen=True)
class Coded:
    """What a point came to: bytes of the stream, share of right answers after decoding."""

    point: Point
    bytes: int
    after: float


def searched(protocol: Protocol, decays: Sequence[float] = DECAYS) -> tuple[list[Point], int]:
    """The envelope on held-out rows, and of how many points it is."""
    made = [_search(protocol, decay) for decay in decays]
    return [coded.point for coded in best(made)], sum(len(row["points"]) for row in made)


def best(searches: Iterable[dict[str, Any]]) -> list[Coded]:
    """The envelope of the searches on the same rows."""
    rows = list(searches)
    found = [Coded(Point(**c["point"]), c["bytes"], c["after"]) for r in rows for c in r["points"]]
    return envelope(found, max((r["before"] for r in rows), default=0.0))


def _search(protocol: Protocol, decay: float) -> dict[str, Any]:
    setting = protocol.setting.name
    dense = Dense(protocol, "search", decay, 0, 0)
    name = f"search-nncodec-d{decay:g}-0-0"
    there: dict[str, Any] | None = rows.found(setting, name)
    if there is not None:
        return there
    grid = itertools.product([decay], QPS, WEIGHTS, OTHER_QPS)
    trained, seconds = dense.trained()
    job = dense.job()
    made = _coded(job, Folding(job, _ROWS), trained, [Point(*values) for values in grid])
    told = {"stage": "search", "setting": setting, "model": 0, "seed": 0, "recipe": dense.recipe}
    told |= {"seconds": seconds, "before": job.measure.base().accuracy}
    return rows.written(setting, name, told | {"points": [asdict(coded) for coded in made]})


def envelope(found: Iterable[Coded], least: float = 0.0) -> list[Coded]:
    """The points that no other one beats with fewer bytes, by bytes.

    `least` is the accuracy of the base: what does not beat that is no update.
    """
    most, chosen = least, []
    for coded in sorted(found, key=lambda c: (c.bytes, -c.after)):
        if coded.after > most + _GAIN:
            most = coded.after
            chosen.append(coded)
    return chosen


def measure(
    protocol: Protocol, points: Sequence[Point], searched: int, model: int, seed: int
) -> None:
    """Full trainings of the points' decays, judged on the test set; `searched` led to them."""
    setting = protocol.setting.name
    for decay, own in itertools.groupby(sorted(points), key=lambda point: point.decay):
        missing = [p for p in own if not rows.found(setting, _name(p, model, seed))]
        if not missing:
            continue
        dense = Dense(protocol, "test", decay, model, seed)
        trained, seconds = dense.trained()
        job = dense.job()
        before = job.measure.base().accuracy
        for coded in _coded(job, Folding(job), trained, missing):
            row = dense.row(coded.point.family, coded.bytes, before, coded.after, seconds)
            told = {"method": "nncodec", "options": asdict(coded.point), "points": searched}
            rows.written(setting, _name(coded.point, model, seed), row | told)


def _name(point: Point, model: int, seed: int) -> str:
    return f"test-{point.family}-{model}-{seed}"


def _coded(job: Job, folding: Folding, trained: State, points: Sequence[Point]) -> list[Coded]:
    """Code the matrices; fold BatchNorm on what they decode to; code all; measure that."""
    moved = change(matrices(trained), job.base)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        save_state(work / "matrices", moved)
        ways = sorted({(p.qp, p.weight) for p in points})
        outside.call(
            "nncodec_line",
            [
                _request(work / "matrices", work / f"{qp}{weight}", qp, weight)
                for qp, weight in ways
            ],
        )
        for qp, weight in ways:
            decoded = changed(job.base, load_state(work / f"{qp}{weight}"))
            settled = change(folding(trained | decoded), job.base)
            save_state(work / f"all{qp}{weight}", settled | moved)
        requests = [
            _request(work / f"all{p.qp}{p.weight}", work / p.family, p.qp, p.weight, p.other_qp)
            for p in points
        ]
        sizes = outside.call("nncodec_line", requests)
        return [
            Coded(p, size, _accuracy(job, load_state(work / p.family)))
            for p, size in zip(points, sizes, strict=True)
        ]


def _request(
    change: Path, decoded: Path, qp: int, weight: float, other_qp: int = OTHER_QPS[0]
) -> dict[str, Any]:
    return {
        "change": str(change),
        "decoded": str(decoded),
        "qp": qp,
        "other_qp": other_qp,
        "weight": weight,
    }


def _accuracy(job: Job, decoded: State) -> float:
    return job.evaluate_state(changed(job.base, decoded)).accuracy
