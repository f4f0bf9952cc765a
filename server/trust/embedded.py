"""The keys that a server makes for itself at its first start, where nobody has held a ceremony.

All keys then lie on the server, the root's and the release key too: whoever steals them can sign
anything. `weft doctor` says so, and `docs/security.md` how to move them.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

from server.trust import documents
from server.trust.documents import KeyRole
from server.trust.keys import WORDS, make_signer, write_private
from server.trust.written import sync_folder, write_new
from shared.errors import NoSpace
from shared.metadata import PACKAGES, ROOT

log = logging.getLogger("weft.trust")

_ROOT_FILE: Final = re.compile(r"([1-9][0-9]{0,5})\.root\.json")


def make_keys(folder: Path, at: datetime) -> None:
    """Make all keys and the first root in `folder`, unless it is there; wholly or not at all.

    Raises NoSpace.
    """
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(folder.parent):
            if folder.exists():
                return
            for left in folder.parent.glob(f".{folder.name}-*"):
                shutil.rmtree(left)  # of a process that was killed
            beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            _fill(beside, at)
            beside.rename(folder)
            sync_folder(folder.parent)
    except OSError as error:
        raise NoSpace("unusable", f"{folder}: {error.strerror}") from error


def keep_root(folder: Path, version: int, content: bytes) -> None:
    """Keep a root beside the keys. Raises NoSpace."""
    try:
        write_new(root_file(folder, version), content, 0o644)
    except OSError as error:
        raise NoSpace("unusable", f"{folder}: {error.strerror}") from error


def try_to_keep(folder: Path, version: int, content: bytes) -> None:
    """As `keep_root`; where the folder is not for this process to write to, it is let be."""
    try:
        keep_root(folder, version, content)
    except NoSpace as error:
        log.info("root %d is not kept beside the keys: %s", version, error.message)


def roots_in(folder: Path) -> list[tuple[int, bytes]]:
    """The roots that lie beside the keys, by version."""
    found = (
        (int(match[1]), path.read_bytes())
        for path in folder.iterdir()
        if (match := _ROOT_FILE.fullmatch(path.name))
    )
    return sorted(found)


def root_file(folder: Path, version: int) -> Path:
    """Where a folder of keys has a version of the root."""
    return folder / f"{version}.root.json"


def _fill(folder: Path, at: datetime) -> None:
    signers = {role: make_signer() for role in WORDS}
    for role, signer in signers.items():
        write_private(folder, role, signer)
    roles = {r: KeyRole([s.public_key]) for r, s in signers.items() if r != PACKAGES}
    root = documents.draft_root(1, roles, at)
    write_new(root_file(folder, 1), documents.sign(root, [signers[ROOT]]), 0o644)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder / "keys.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
