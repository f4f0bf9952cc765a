"""Requests as a device sends them: signed by a key of its own."""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from shared.wire import SIGNATURE_HEADER, signed_bytes


class DeviceKey:
    """A device's key; `public` as the wire has it."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        self.public = self._key.public_key().public_bytes_raw().hex()

    def sign(self, what: Any, device_id: str, body: bytes) -> str:
        """The value of the header."""
        return base64.b64encode(self._key.sign(signed_bytes(what, device_id, body))).decode()

    def signed(
        self, what: Any, device_id: str, body: Any, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Content and headers of a request, as httpx takes them."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        signature = {SIGNATURE_HEADER: self.sign(what, device_id, content)}
        kind = {"Content-Type": "application/json"}
        return {"content": content, "headers": {**kind, **(headers or {}), **signature}}

    def enrolment(self, body: dict[str, Any]) -> dict[str, Any]:
        """The same of an enrolment, with this key named in it."""
        return self.signed("enrol", "", {"key": self.public, **body})


def has_signed(public: str, what: Any, device_id: str, body: bytes, signature: str | None) -> bool:
    """Whether the key has made the signature of a request."""
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
    try:
        key.verify(base64.b64decode(signature or ""), signed_bytes(what, device_id, body))
    except InvalidSignature:
        return False
    return True
