"""Every device, at once."""

from __future__ import annotations

from server.rollouts.strategies import Snapshot


def admit(snapshot: Snapshot) -> tuple[str, ...]:
    """All that wait."""
    return snapshot.waiting
