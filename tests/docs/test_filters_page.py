"""docs/filters.md is true: its examples are accepted, its tables have exactly the fields."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from server.db import open_engine, reading, writing
from server.filters import check, devices_where
from server.filters.subjects import SUBJECTS
from server.filters.syntax import OPERATORS, SPELLINGS
from server.tables import Device, Group

HEADINGS = {"devices": "## Devices", "rollouts": "## Rollouts", "events": "## Events"}


@pytest.fixture(scope="module")
def page(checkout: Path) -> str:
    return (checkout / "docs" / "filters.md").read_text(encoding="utf-8")


def rows(page: str, kind: str) -> list[list[str]]:
    """Cells of the table of a subject."""
    section = page.split(HEADINGS[kind])[1].split("\n## ")[0]
    found = re.findall(r"^\| (`.*) \|$", section, re.MULTILINE)
    return [row.split(" | ") for row in found]


@pytest.mark.parametrize("kind", HEADINGS)
def test_tables_list_exactly_the_fields(page: str, kind: str) -> None:
    told = [name for first, *_ in rows(page, kind) for name in re.findall(r"`([^`]+)`", first)]
    subject = SUBJECTS[kind]
    families = {name.partition(".")[0] for name in told if "<" in name}
    assert sorted(name for name in told if "<" not in name) == sorted(subject.fields)
    assert families == set(subject.families)


@pytest.mark.parametrize("kind", HEADINGS)
def test_examples_are_accepted(page: str, kind: str) -> None:
    for *_, example in rows(page, kind):
        check(kind, example.strip("`"))


def test_every_operator_is_told(page: str) -> None:
    table = page.split("| operator |")[1].split("\n\n")[0]
    assert [sign for sign in [*OPERATORS, *SPELLINGS] if f"`{sign}" not in table] == []


def test_examples_at_the_top_find_devices(page: str, database_url: str) -> None:
    examples = re.findall(r"^    (\S.*)$", page, re.MULTILINE)
    assert len(examples) == 3
    engine: Engine = open_engine(database_url)
    with writing(engine) as session:
        session.add(Group(name="satellites", filter="tags==orbit"))
        session.add(Device(id="a", name="camera-1", token_hash="a"))
    with reading(engine) as session:
        for text in examples:
            assert session.scalars(select(Device).where(devices_where(session, text))).all() == []
    engine.dispose()
