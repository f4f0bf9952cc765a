"""The draw: in which order a rollout admits devices, another one in each rollout.

A device has a lot, fixed by its id; a rollout has two numbers, fixed by its own. The device's place
is `(lot * a + b) mod p`, which the database computes by itself: see ADR 0008.
"""

from __future__ import annotations

import hashlib

from sqlalchemy import ColumnElement

from server.tables import Device

#: A prime. Products of two numbers up to it stay below 2^63, which both databases compute exactly.
P = 2**31 - 1


def lot_of(device_id: str) -> int:
    """The device's lot: the first 31 bits of the SHA-256 of its id."""
    return int.from_bytes(hashlib.sha256(device_id.encode()).digest()[:4], "big") >> 1


def numbers_of(rollout_id: int) -> tuple[int, int]:
    """The rollout's `a`, from 1 to P - 1, and `b`, from 0 to P - 1."""
    digest = hashlib.sha256(f"rollout {rollout_id}".encode()).digest()
    a, b = int.from_bytes(digest[:16], "big"), int.from_bytes(digest[16:], "big")
    return 1 + a % (P - 1), b % P


def place_of(lot: int, rollout_id: int) -> int:
    """The place in the rollout of a device with this lot; the lowest is admitted first."""
    a, b = numbers_of(rollout_id)
    return (lot * a + b) % P


def place(rollout_id: int) -> ColumnElement[int]:
    """The same as an SQL expression over Device."""
    a, b = numbers_of(rollout_id)
    return (Device.lot * a + b) % P
