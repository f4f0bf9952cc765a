"""Lossless packages that nobody has to ask for: to an uploaded version from its parent.

What is missing is found by looking, not by remembering: so a crash between the upload and the
package loses nothing, and what retention removed later is not made again.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from server.tables import Package, Version

#: Most that one look finds.
AT_ONCE = 20


def missing_packages(
    session: Session, but: Collection[tuple[int, int]] = ()
) -> list[tuple[int, int]]:
    """(target id, base id) of each `xor` that is still to be made, the newest targets first.

    `but`: those that cannot be made at present, so that they do not stand before others.
    """
    parent = aliased(Version)
    made = select(Package.id).where(
        Package.target_version_id == Version.id,
        Package.base_version_id == parent.id,
        Package.method == "xor",
    )
    query = (
        select(Version.id, parent.id)
        .join(parent, Version.parent_id == parent.id)
        .where(
            Version.source == "uploaded",
            Version.schema_digest == parent.schema_digest,
            Version.removed_at.is_(None),
            parent.removed_at.is_(None),
            ~made.exists(),
        )
        .order_by(Version.id.desc())
        .limit(AT_ONCE + len(but))
    )
    found = [(target, base) for target, base in session.execute(query)]
    return [pair for pair in found if pair not in but][:AT_ONCE]
