"""What a device's Ed25519 key has signed: an enrolment, a report, a renewal of its token."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from fastapi import Depends, Header

from server.errors import BadDevice
from shared.wire import SIGNATURE_HEADER, signed_bytes

What = Literal["enrol", "report", "token"]

#: Base64 of 64 bytes.
SIGNATURE_LETTERS = 88


async def _signature(
    signature: Annotated[
        str | None,
        Header(
            alias=SIGNATURE_HEADER, description="Base64 of the Ed25519 signature by the device."
        ),
    ] = None,
) -> str | None:
    return signature


SignatureDep = Annotated[str | None, Depends(_signature)]


def check_signature(
    public_key: str | None, what: What, device_id: str, body: bytes, signature: str | None
) -> str:
    """The signature, where this key (hex) has made it over this body.

    Raises BadDevice `unsigned`, `key_unknown`, `bad_signature`.
    """
    if signature is None:
        raise BadDevice("unsigned", f"the request carries no {SIGNATURE_HEADER}")
    if public_key is None:
        raise BadDevice("key_unknown", "the device has enrolled without a key")
    if not has_signed(public_key, what, device_id, body, signature):
        raise BadDevice("bad_signature", "the signature is not the device's, of these bytes")
    return signature


def has_signed(public_key: str, what: What, device_id: str, body: bytes, signature: str) -> bool:
    """Whether this key (hex) has made the signature (base64). Raises nothing."""
    try:
        raw = base64.b64decode(signature, validate=True)
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(raw, signed_bytes(what, device_id, body))
    except (binascii.Error, ValueError, InvalidSignature):
        return False
    return True
