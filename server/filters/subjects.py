"""Looks at the form of a filter only, without a database."""

from __future__ import annotations

from typing import Literal

from server.filters import devices, events, rollouts
from server.filters.grammar import parse
from server.filters.sql import where

Kind = Literal["devices", "rollouts", "events"]

SUBJECTS = {
    "devices": devices.subject(devices.anybody),
    "rollouts": rollouts.SUBJECT,
    "events": events.SUBJECT,
}


def check(kind: Kind, text: str) -> None:
    """Raise BadFilter where the syntax, a field or a value is wrong; groups are not looked up."""
    where(SUBJECTS[kind], parse(text))
