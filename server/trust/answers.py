"""What a device lacks, in one answer: compressed against the metadata that it holds.

A device tells which versions it holds. What is beyond those is sent; what it holds serves as the
dictionary, where this server still has all of it, byte for byte.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.tables import Model, TrustMetadata, TrustRoot, now
from server.trust.edition import Rows, in_use
from server.trust.expiry import Concern, Reminder
from server.trust.keys import WORDS
from shared.metadata import (
    PACKAGES,
    ROLES,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    MetadataFile,
    known_bytes,
    pack,
)

#: Packed answers that are kept: the devices of a fleet hold much the same.
KEPT_ANSWERS: Final = 64

#: What to do where this server's database is older than what was published.
_AHEAD: Final = {
    ROOT: "Lay the roots that were published since into the keys folder: `<version>.root.json`.",
    TARGETS: "Where a backup was restored, sign the list of versions anew: `weft release`.",
} | dict.fromkeys(
    (TIMESTAMP, SNAPSHOT, PACKAGES),
    "Set the clock of this machine; if it is right, somebody else signs: rotate the server's keys.",
)

#: Above all versions that are ever published: hundredths of seconds since 1970, in a far century.
_HIGHEST: Final = 10**12
_HIGHEST_ROOT: Final = 2**31 - 1

_Key = tuple[int, tuple[tuple[str, int], ...], tuple[tuple[str, int], ...]]


class Answers:
    """Makes answers, and keeps the last ones; safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Key, bytes] = OrderedDict()
        self._reminder = Reminder()

    def answer(self, session: Session, model: Model, held: Mapping[str, int]) -> bytes | None:
        """See `Trust.answer`."""
        rows = in_use(session, model.id)
        files = _lacking(session, rows, held)
        self._reminder.remind(_ahead(session, model, rows, held), now())
        if not files:
            return None
        versions = tuple((file.role, file.version) for file in files)
        key = (model.id, versions, tuple(sorted(held.items())))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        packed = pack(files, _known(session, model, held))
        with self._lock:
            self._kept[key] = packed
            while len(self._kept) > KEPT_ANSWERS:
                self._kept.popitem(last=False)
        return packed


def whole(session: Session, model: Model) -> bytes:
    """All metadata of the model, from the first root on."""
    return pack(_lacking(session, in_use(session, model.id), {}))


def _lacking(session: Session, rows: Rows, held: Mapping[str, int]) -> list[MetadataFile]:
    """All roots after the one that is held, then each role's metadata if they are others."""
    newer = TrustRoot.version > min(held.get(ROOT, 0), _HIGHEST_ROOT)
    roots = session.scalars(select(TrustRoot).where(newer).order_by(TrustRoot.version))
    files = [MetadataFile(ROOT, root.version, root.content.encode()) for root in roots]
    return files + [
        MetadataFile(role, rows[role].version, rows[role].content.encode())
        for role in ROLES
        if role in rows and held.get(role) != rows[role].version
    ]


def _ahead(
    session: Session, model: Model, rows: Rows, held: Mapping[str, int]
) -> Iterator[Concern]:
    """What a device says that it holds, and that is newer than all that is published here."""
    published = {role: row.version for role, row in rows.items()}
    published[ROOT] = session.scalar(select(func.max(TrustRoot.version))) or 0
    for role, version in held.items():
        if role in published and version > published[role]:
            text = f"a device says it holds version {version}, here is {published[role]}"
            yield Concern(f"{WORDS[role]} of {model.name}", text, _AHEAD[role])


def _known(session: Session, model: Model, held: Mapping[str, int]) -> bytes:
    """The bytes of all that is held; empty where one of them is not known here any more."""
    found: dict[str, bytes] = {}
    for role, version in held.items():
        row = _row(session, model, role, version)
        if row is None:
            return b""
        found[role] = row.content.encode()
    return known_bytes(found)


def _row(
    session: Session, model: Model, role: str, version: int
) -> TrustRoot | TrustMetadata | None:
    if version > (_HIGHEST_ROOT if role == ROOT else _HIGHEST):
        return None  # more than a database could compare
    if role == ROOT:
        return session.get(TrustRoot, version)
    return session.get(TrustMetadata, (model.id, role, version))
