"""What a server does with keys and roots when it starts."""

from __future__ import annotations

import logging

from sqlalchemy import Engine, select

from server.db import reading, writing
from server.errors import BadTrust
from server.settings import Settings
from server.tables import TrustRoot, now
from server.trust.embedded import make_keys, roots_in
from server.trust.keyring import Keyring
from server.trust.keys import keys_in
from server.trust.offline import require_online_keys
from server.trust.repository import Trust
from shared.errors import WeftError

log = logging.getLogger("weft.trust")


def open_trust(settings: Settings, engine: Engine) -> Trust:
    """The server's repositories, ready to sign; what is due is signed anew.

    At the first start keys are made, unless WEFT_KEYS_DIR names those of a ceremony. Roots that lie
    beside the keys and are newer than those of the database are taken.
    Raises BadTrust `keys_missing`, `key_missing`, `no_root`, `other_root` and what taking a root
    raises, BadKey, NoSpace.
    """
    folder = settings.keys_folder
    with reading(engine) as session:
        known = session.scalar(select(TrustRoot.version).limit(1)) is not None
    if not keys_in(folder):
        if known or settings.keys_dir is not None:
            raise BadTrust("keys_missing", f"no keys lie in {folder}")
        make_keys(folder, now())
    trust = Trust(engine, Keyring(folder))
    _take_roots(trust)
    with reading(engine) as session:
        require_online_keys(trust.root(session), trust.keyring)
    try:
        trust.renew()
    except WeftError:
        log.exception("metadata are not renewed; it is tried again")
    return trust


def _take_roots(trust: Trust) -> None:
    folder = trust.keyring.folder
    with writing(trust.engine) as session:
        known = {row.version: row.content for row in session.scalars(select(TrustRoot))}
        found = dict(roots_in(folder))
        if known and known[1].encode() != found.get(1, known[1].encode()):
            raise BadTrust("other_root", f"{folder}/1.root.json is not this database's")
        new = sorted(found.keys() - known.keys())
        for version in new:
            trust.accept_root(session, found[version], more_follow=version != new[-1])
