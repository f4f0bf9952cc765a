"""`weft rollouts devices`: by which way each device comes, and with how many bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.cli import run
from server.cli.commands import app


def test_the_table_tells_way_and_bytes_in_a_hundred_columns(
    fleet: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.publish(1, 2, b"x" * 1234)
    device = fleet.enrol(current=fleet.digests[0], name="hall-7-cam-1")
    there = fleet.enrol(current=fleet.digests[1], name="hall-7-cam-2")
    rollout = fleet.roll_out(2)
    fleet.offer(device)
    words = ["rollouts", "devices", str(rollout["id"]), "--server", fleet.server.url]
    assert run(app, words) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    named = ["device", "phase", "state", "held", "way", "bytes", "error", "since"]
    assert head.split() == named
    told = {cells[0]: cells[1:7] for cells in (row.split() for row in rows)}
    assert told["hall-7-cam-1"] == ["1", "offered", "-", "direct", "1234", "-"]
    assert told["hall-7-cam-2"] == ["1", "committed", "-", "-", "-", "-"]
    assert max(map(len, [head, *rows])) <= 100
    assert run(app, [*words, "--json"]) == 0
    found = {a["device_id"]: a for a in json.loads(capsys.readouterr().out)["items"]}
    assert [found[device["device_id"]][name] for name in ("way", "size_bytes")] == ["direct", 1234]
    assert found[there["device_id"]]["way"] is None
