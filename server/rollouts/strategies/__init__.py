"""Which devices are admitted now: pure functions of a snapshot, one file each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Snapshot:
    """A rollout at one moment: ids of devices not yet in it, and how many are."""

    waiting: tuple[str, ...]
    admitted: int
