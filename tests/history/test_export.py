"""The history as a file."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from server.db import writing
from server.history.events import record
from server.history.export import BATCH, COLUMNS


def export(fleet: Any, query: str) -> Any:
    answer = fleet.server.client.get(f"/api/v1/events/export?{query}")
    answer.raise_for_status()
    return answer


def test_json_lines_hold_what_the_list_holds(fleet: Any) -> None:
    answer = export(fleet, "kind=version")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert "events.jsonl" in answer.headers["content-disposition"]
    listed = fleet.call("GET", "/api/v1/events?kind=version&order=oldest")["items"]
    assert [json.loads(line) for line in answer.text.splitlines()] == listed


def test_csv_has_stable_columns_and_nothing_that_a_spreadsheet_runs(fleet: Any) -> None:
    evil = {"device_id": "=cmd|' /C calc'!A0", "data": {"name": '=1+1,"x"\n', "n": -1}}
    with writing(fleet.server.app.state.engine) as session:
        for kind in ("@sum", "+1", "-1", "plain"):
            record(session, kind, **evil)
    answer = export(fleet, "format=csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert tuple(rows[0]) == COLUMNS
    assert [row["kind"] for row in rows[-4:]] == ["'@sum", "'+1", "'-1", "plain"]
    assert {row["device_id"] for row in rows[-4:]} == {"'=cmd|' /C calc'!A0"}
    assert json.loads(rows[-1]["data"]) == evil["data"]
    assert rows[0]["device_id"] == ""


@pytest.mark.parametrize("more", [0, 1])
def test_every_event_is_there_once_however_many_batches(fleet: Any, more: int) -> None:
    with writing(fleet.server.app.state.engine) as session:
        for number in range(2 * BATCH + more):
            record(session, "counted", {"n": number})
    lines = export(fleet, "kind=counted").text.splitlines()
    assert [json.loads(line)["data"]["n"] for line in lines] == list(range(2 * BATCH + more))
    assert export(fleet, "kind=webhook").text == ""
