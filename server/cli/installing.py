"""Ceremonies without the server: for one that cannot start, and for one that must begin again."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from sqlalchemy import delete, update

from server import db
from server.cli.ceremony import Signing
from server.cli.changing import Changing, Wish
from server.errors import BadCeremony
from server.lock import only_process
from server.settings import Settings
from server.tables import TrustMetadata, TrustRoot, Version
from server.trust.ceremony import finished
from server.trust.desk import load
from server.trust.written import write_new


def install_rotation(signing: Signing, changing: Changing, purpose: str, roles: list[str]) -> Path:
    """Rotate roles that the root names, and put the root where the server's next start takes it.

    Raises BadCeremony `incomplete` and what drafting and signing raise.
    """
    desk = signing.desk
    version = changing.root.version + 1
    draft = desk.root_draft(version)
    changing.draft(purpose, [changing.wanted(Wish(role)) for role in roles])
    signing.sign([draft])
    if lacking := signing.lacking([draft]):
        raise BadCeremony("incomplete", "; ".join(lacking))
    content = finished(load(draft))
    place = changing.online / f"{version}.root.json"
    if not place.exists():
        write_new(place, content, 0o644)
    desk.learn_roots([content])
    return place


def forget(settings: Settings) -> None:
    """Empty the database of all that was ever signed. No server may run.

    Raises DatabaseError.
    """
    with ExitStack() as stack:
        if settings.is_sqlite:
            stack.enter_context(only_process(settings.data_dir))
        engine = db.open_existing(settings.url)
        stack.callback(engine.dispose)
        db.check_current(engine)
        with db.writing(engine) as session:
            for table in (TrustMetadata, TrustRoot):
                session.execute(delete(table))
            session.execute(update(Version).values(released_at=None))
