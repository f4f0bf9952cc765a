"""The page, from records; and the fleet that the records are of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from benchmarks.load import report
from benchmarks.load.__main__ import Records
from server.db import reading
from server.tables import Device, DeviceModel, Event, Run
from tests.device_keys import DeviceKey
from tests.load.conftest import FLEET, IDLE


def seen(per_second: float, p99: float) -> dict[str, Any]:
    return {"per_second": per_second, "p50": p99 / 4, "p99": p99, "cpu_per_1000": 0.07}


@pytest.fixture
def records(tmp_path: Path) -> Path:
    kept = Records(tmp_path / "load", runs=3, resume=False)
    kept.keep("machine", lambda: {"command": "make bench-load", "processor": "P", "cores": "2",
                                  "memory": "1 kB", "kernel": "6", "python": "3.11"})  # fmt: skip
    for kind in ("sqlite", "postgresql"):
        kept.keep(f"{kind}-fleet", lambda: {"devices": 110_000, "bytes_a_device": 1600.4})
        kept.keep_all(
            f"{kind}-polls",
            lambda: ({"empty": seen(8000, 0.01), "poll": seen(9000 + n, 0.012)} for n in range(3)),
        )
        kept.keep_all(
            f"{kind}-refining",
            lambda: ({"calm": seen(2700, 0.002), "refining": seen(2700, 0.003)} for _ in range(3)),
        )
        for run in range(3):
            made = {"seconds": 12.5, "answer_seconds": 0.1, "cpu_seconds": 9.0}
            made |= {"idle_bytes": 1 << 28, "peak_bytes": 1 << 29, "bytes_an_assignment": 380.0}
            about = {"calm": seen(2700, 0.002), "creating": seen(2700, 0.0035)}
            kept.keep(f"{kind}-rollout-{run}", lambda record=made | about: record)
    return tmp_path / "load"


def test_the_page_has_medians_and_spreads(records):
    text = report.page(records)
    assert "| SQLite | poll | 9,001 (9,000 to 9,002) |" in text
    assert "1.13 (1.12 to 1.13) |" in text
    assert "| PostgreSQL | rollout | 2,700 (2,700 to 2,700) |" in text
    assert "1.75 (1.75 to 1.75) |" in text
    assert "| 0.10 (0.10 to 0.10) | 12.5 (12.5 to 12.5) |" in text
    assert "110,000 enrolled devices" in text


def test_the_page_says_which_targets_were_met(records):
    told = report.page(records).partition("## Targets")[2]
    assert "- met: SQLite: throughput of polls / empty: 1.13 (1.12 to 1.13)" in told
    assert "- met: PostgreSQL: p99 of polls beside the rollout's creation / calm: 1.75" in told
    for run in range(3):
        path = records / f"sqlite-refining-{run}.json"
        slow = json.loads(path.read_text())
        slow["refining"]["p99"] = slow["calm"]["p99"] * 2.5
        path.write_text(json.dumps(slow))
    assert "- **missed**: SQLite: p99 of polls beside a refinement" in report.page(records)


def test_a_run_that_was_interrupted_goes_on_from_its_records(records):
    again = Records(records, runs=3, resume=True)
    assert again.keep("sqlite-fleet", lambda: pytest.fail("measured again"))["devices"] == 110_000
    (records / "sqlite-polls-2.json").unlink()
    made = ({"empty": seen(1, 1), "poll": seen(1, 1)} for _ in range(3))
    assert [r["poll"]["per_second"] for r in again.keep_all("sqlite-polls", lambda: made)] == [
        1
    ] * 3
    Records(records, runs=3, resume=False)
    assert list(records.glob("*.json")) == []


def test_a_plot_is_drawn(records, tmp_path):
    report.plot(records, tmp_path / "load.png")
    assert (tmp_path / "load.png").stat().st_size > 1000


def test_records_say_when_they_were_measured(records):
    assert json.loads((records / "machine.json").read_text())["measured_at"].endswith("+00:00")


def test_a_simulated_device_leaves_the_rows_of_an_enrolled_one(loaded):
    body = {"name": "cam", "token": "enrol-me-please", "models": {"fleet": {"current": "0" * 64}}}
    loaded.client.post("/device/v1/enrol", **DeviceKey().enrolment(body)).raise_for_status()
    with reading(loaded.app.state.engine) as session:
        counts = [
            session.scalar(select(func.count()).select_from(table).where(*which))
            for table, which in (
                (Device, []),
                (DeviceModel, []),
                (Run, []),
                (Event, [Event.kind == "device.enrolled"]),
            )
        ]
        other = session.scalar(select(func.count()).where(Event.device_id.is_not(None)))
    assert counts == [FLEET + IDLE + 1] * 4
    assert other == FLEET + IDLE + 1  # an enrolment writes no other event about its device
