"""The root that a device believes first, and the newest one that it has led to.

Either the enrolment token carries the SHA-256 of the first root (`shared.wire.pinned`) and the
server hands the root out, or the file itself is configured. Without one of them nothing would say
whose server it is: there is no unsigned mode. To configure another one is to begin anew.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent import files
from edge_agent.errors import TrustError
from shared.errors import BadConfig
from shared.metadata import MAX_BYTES
from shared.wire import split_pinned

if TYPE_CHECKING:
    from edge_agent.config import Config

_log = logging.getLogger(__name__)


class RootStore:
    """`<state_dir>/trust`. Raises NoSpace.

    `pinned` is the root that the device began with, `root.json` the newest one.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path, self._pinned = directory / "root.json", directory / "pinned"

    def prepare(self) -> None:
        """Make the directory, and finish what a killed agent has begun there."""
        files.make_directory(self.directory)
        files.clean(self.directory)

    def begin(self, root: bytes) -> None:
        """Believe this root, and none that another one has led to.

        `pinned` is written last: until then the next start begins anew.
        """
        self.forget()
        files.write(self.path, root)
        files.write(self._pinned, root)

    def forget(self) -> None:
        """Believe none."""
        files.remove(self._pinned)
        files.remove(self.path)

    @property
    def pinned(self) -> bytes | None:
        """The one that it began with."""
        return read(self._pinned)

    @property
    def newest(self) -> bytes | None:
        """The one that signs for all others now."""
        return read(self.path)


def read(path: Path) -> bytes | None:
    """A file of metadata; None where there is none, or none that can be meant."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError:
        return None
    return content if len(content) <= MAX_BYTES else None


def sha256(root: bytes) -> str:
    """What a root is pinned by."""
    return hashlib.sha256(root).hexdigest()


def begin(config: Config, store: RootStore) -> str | None:
    """Have the store begin with the root that is configured, where it has not begun with it yet.

    Returns the SHA-256 that the server's first root must have, where one is configured. Raises
    BadConfig where there is neither a root nor a pin, NoSpace.
    """
    configured = _configured(config)
    token = config.enrolment_token
    pin = split_pinned(token.get_secret_value())[1] if token else None
    pin = sha256(configured) if configured else pin
    begun = store.pinned
    if pin and (begun is None or sha256(begun) != pin) and store.newest:
        _log.warning("another root is pinned than the one that this device began with")
        store.forget()
    if store.newest is None and begun is None and pin is None:
        told = "an `enrolment_token` that carries the root's SHA-256, or `root`"
        raise BadConfig("missing", f"nothing says whose metadata are to be believed: give {told}")
    if configured and store.pinned is None:
        store.begin(configured)
    return pin


def check_first(root: bytes, pin: str | None) -> None:
    """Raise TrustError `wrong_root` unless it is the root that is pinned."""
    if pin is None or sha256(root) != pin:
        told = f"the server's first root has SHA-256 {sha256(root)}; to be believed is {pin}"
        raise TrustError("wrong_root", told if root else f"the server gives no root, not {pin}")


def accepted(store: RootStore, roots: Sequence[bytes], pin: str | None) -> bytes:
    """The root to begin with, of those that a server hands out at the enrolment.

    Raises TrustError `wrong_root` where it is not this device's server.
    """
    begun = store.pinned
    if begun is None:
        begun = roots[0] if roots else b""
        check_first(begun, pin)
    elif begun not in roots:
        raise TrustError("wrong_root", f"the server's roots do not begin with {sha256(begun)}")
    return begun


def _configured(config: Config) -> bytes | None:
    if config.root is None:
        return None
    content = read(config.root)
    if not content:
        raise BadConfig("invalid", f"root: {config.root} is no file of root metadata")
    return content
