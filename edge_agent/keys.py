"""The device's own key, Ed25519: who reports, and who asks for another token, proves it by this.

32 bytes, in a file that its owner alone may read. It is on the disk before anything is signed by
it, so that no server knows a device by a key that is lost.

What signs is imported when it is first needed: it takes 8 MB of memory, and an agent that was
never told to enrol needs none.
"""

from __future__ import annotations

import base64
import logging
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edge_agent import files
from edge_agent.errors import AgentError
from shared.wire import signed_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_BYTES = 32
#: Bits by which others than the owner could read a key.
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_log = logging.getLogger(__name__)


class DeviceKey:
    """The key in the file at `path`, read when it is first needed. Raises AgentError, NoSpace."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._private: Ed25519PrivateKey | None = None

    @property
    def exists(self) -> bool:
        """Whether there is one."""
        return files.exists(self._path)

    def make(self) -> None:
        """Persist a new key, where there is none."""
        if not self.exists:
            files.write(self._path, os.urandom(KEY_BYTES), files.PRIVATE)
            _log.info("the device has a new key")

    @property
    def public(self) -> str:
        """The public key, as 64 hex digits."""
        return self._loaded().public_key().public_bytes_raw().hex()

    def sign(self, what: Literal["enrol", "report", "token"], device_id: str, body: bytes) -> str:
        """The signature of a request's body, in base64."""
        raw = self._loaded().sign(signed_bytes(what, device_id, body))
        return base64.b64encode(raw).decode("ascii")

    def _loaded(self) -> Ed25519PrivateKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if self._private is None:
            self._private = Ed25519PrivateKey.from_private_bytes(self._read())
        return self._private

    def _read(self) -> bytes:
        try:
            found, mode = self._path.read_bytes(), self._path.stat().st_mode
        except OSError as error:
            raise AgentError("state_damaged", f"{self._path} cannot be read") from error
        if len(found) != KEY_BYTES:
            raise AgentError("state_damaged", f"{self._path} holds no key")
        if mode & _OTHERS:
            _log.error("%s could be read by others than its owner: they may have it", self._path)
            files.write(self._path, found, files.PRIVATE)
        return found
