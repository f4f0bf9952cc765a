"""Which weights ran where and when, where they came from, and what was made of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import Engine, select

from server.db import reading, writing
from server.history.runs import note
from server.tables import Dataset, Device, Model, Refinement, Run, Version
from tests.conftest import Fleet

OTHER = "f" * 64


@pytest.fixture
def family(server: Any, weights_file: Callable[..., Path]) -> Fleet:
    """Versions 1 -> 2 (refined on `week-9`) -> 3, 4 approximates 2, and 5 for itself."""
    fleet = Fleet(server, [weights_file(seed) for seed in range(5)])
    with writing(server.app.state.engine) as session:
        for name in ("week-9", "other"):
            row = {"uri": name, "fingerprint": OTHER, "rows": 1, "classes": []}
            session.add(Dataset(name=name, **row))
        session.flush()
        session.add(
            Refinement(
                model_id=1,
                base_version_id=1,
                dataset_id=1,
                evaluation_dataset_id=2,
                method={"id": "ka", "options": {}},
                recipe={},
                state="succeeded",
                target_version_id=2,
            )
        )
        for child, parent, approximated in ((2, 1, None), (3, 2, None), (4, 1, 2)):
            version = session.get_one(Version, child)
            version.parent_id, version.approximates_id = parent, approximated
    fleet.publish(1, 2, b"a package")
    return fleet


def runs(engine: Engine) -> list[tuple[str, bool]]:
    with reading(engine) as session:
        rows = session.scalars(select(Run).order_by(Run.id))
        return [(row.weights_digest, row.until is None) for row in rows]


def test_a_run_ends_where_the_next_one_begins(engine: Engine) -> None:
    with writing(engine) as session:
        session.add(Device(id="d", name="cam", token_hash="t"))
        session.flush()
        for digest in (None, "a" * 64, "a" * 64, "b" * 64, "b" * 64):
            note(session, "d", "m", digest)
        note(session, "d", "another", "c" * 64)
    assert runs(engine) == [("a" * 64, False), ("b" * 64, True), ("c" * 64, True)]
    with writing(engine) as session:
        note(session, "d", "m", None)
        first, second = session.scalars(select(Run).where(Run.model_name == "m").order_by(Run.id))
        assert first.until == second.since
    assert runs(engine)[1] == ("b" * 64, False)


def test_enrolment_and_reports_say_what_runs(family: Fleet) -> None:
    device = family.enrol(family.digests[0])
    family.roll_out(2)
    wanted = family.offer(device)
    family.report(device, wanted["assignment"], family.digests[1])
    again = family.report(device, None, family.digests[1], state="idle")
    assert again.is_success
    found = family.call("GET", "/api/v1/lineage?model=m&version=1")["items"]
    assert [run["version"] for run in found] == [1, 2]
    assert found[0]["until"] == found[1]["since"]
    assert found[1]["until"] is None
    reported = family.call("GET", "/api/v1/events?kind=device.reported")["items"]
    assert reported[0]["model_id"] == 1


def test_devices_that_ran_what_was_learnt_from_a_dataset(family: Fleet) -> None:
    devices = [family.enrol(family.digests[n - 1], name=str(n)) for n in (1, 3, 4, 5)]
    found = family.call("GET", "/api/v1/lineage?dataset=week-9")["items"]
    assert [(run["device"], run["version"]) for run in found] == [("3", 3), ("4", 4)]
    assert found[0]["device_id"] == devices[1]["device_id"]
    assert family.call("GET", "/api/v1/lineage?dataset=other")["items"] == []
    of_one = family.call("GET", "/api/v1/lineage?model=m&version=1")["items"]
    assert [run["device"] for run in of_one] == ["1", "3", "4"]
    both = family.call("GET", "/api/v1/lineage?dataset=week-9&model=m&version=3")["items"]
    assert [run["device"] for run in both] == ["3"]
    page = family.call("GET", "/api/v1/lineage?dataset=week-9&limit=1")
    more = family.call("GET", f"/api/v1/lineage?dataset=week-9&cursor={page['next']}")
    assert page["items"] + more["items"] == found


def test_runs_are_bound_by_dates(family: Fleet) -> None:
    with writing(family.server.app.state.engine) as session:
        session.add(Device(id="d", name="cam", token_hash="t"))
        session.flush()
        moments = [datetime.fromisoformat(f"2026-0{month}-01T00:00:00Z") for month in (1, 2)]
        note(session, "d", "m", family.digests[1], moments[0])
        note(session, "d", "m", family.digests[2], moments[1])

    def ran(since: str, until: str) -> list[int]:
        dates = f"since={quote(since)}&until={quote(until)}"
        found = family.call("GET", f"/api/v1/lineage?dataset=week-9&{dates}")["items"]
        return [run["version"] for run in found]

    assert ran("2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z") == []
    assert ran("2026-01-15T00:00:00Z", "2026-01-16T00:00:00Z") == [2]
    assert ran("2026-02-15T01:00:00+01:00", "2027-01-01T00:00:00Z") == [3]
    assert ran("2026-01-15T00:00:00Z", "2026-02-15T00:00:00Z") == [2, 3]


def test_a_version_knows_its_ancestors_and_descendants(family: Fleet) -> None:
    found = family.call("GET", "/api/v1/models/m/versions/3/lineage")
    assert [link["number"] for link in found["ancestors"]] == [2, 1]
    assert found["datasets"] == ["week-9"]
    assert found["descendants"] == []
    [made] = found["ancestors"][0]["refinements"]
    assert (made["dataset"], made["evaluation_dataset"]) == ("week-9", "other")
    [sent] = found["ancestors"][0]["packages"]
    assert (sent["base"], sent["state"]) == (1, "published")
    found = family.call("GET", "/api/v1/models/m/versions/1/lineage")
    assert [link["number"] for link in found["descendants"]] == [2, 3, 4]
    assert found["ancestors"] == found["datasets"] == []
    [four] = [link for link in found["descendants"] if link["number"] == 4]
    assert (four["parent"], four["approximates"]) == (1, 2)


def test_a_long_line_is_followed_to_its_end(engine: Engine) -> None:
    from server.history.lineage import version_lineage

    with writing(engine) as session:
        model = Model(name="m")
        session.add(model)
        session.flush()
        for number in range(1, 1201):
            digest = f"{number:064x}"
            row = {"blob": digest, "weights_digest": digest, "schema_digest": digest}
            parent = number - 1 or None
            common = {"size_bytes": 1, "schema": {}, "source": "uploaded", "parent_id": parent}
            session.add(Version(model_id=model.id, number=number, **row, **common))
        session.flush()
        found = version_lineage(session, model, session.get_one(Version, 600))
    assert (len(found.ancestors), len(found.descendants)) == (599, 600)


def test_what_cannot_be_is_refused(family: Fleet) -> None:
    for query, status, code in (
        ("lineage", 422, "request.invalid"),
        ("lineage?model=m", 422, "request.invalid"),
        ("lineage?dataset=typo", 404, "dataset.not_found"),
        ("lineage?model=typo&version=1", 404, "model.not_found"),
        ("lineage?model=m&version=99", 404, "version.not_found"),
        ("models/m/versions/99/lineage", 404, "version.not_found"),
    ):
        assert family.call("GET", f"/api/v1/{query}", status=status)["code"] == code
