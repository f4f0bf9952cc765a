"""The threat model of `docs/security.md` tells of every attack, and of none that is not tried."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.attacks.test_attacks import ATTACKS

ROW = re.compile(
    r"^\| (?P<attacker>[^|]+) \| (?P<can>[^|]+) \| (?P<cannot>[^|]+) \| (?P<by>[^|]+) \|$"
)


@pytest.fixture(scope="module")
def rows(checkout: Path) -> list[re.Match[str]]:
    """Those of the table."""
    page = (checkout / "docs" / "security.md").read_text(encoding="utf-8")
    table = page.partition("## Threat model")[2].partition("## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")][2:]
    found = [ROW.match(line) for line in lines]
    assert None not in found
    return [row for row in found if row is not None]


def test_every_row_is_shown_by_attacks(rows: list[re.Match[str]]) -> None:
    for row in rows:
        names = re.findall(r"`(\w+)`", row["by"])
        assert names, row["attacker"]
        assert [name for name in names if name not in ATTACKS] == [], row["attacker"]


def test_every_attack_stands_in_a_row(rows: list[re.Match[str]]) -> None:
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row["by"])}
    assert sorted(ATTACKS.keys() - told) == []
