"""How a receiver knows that a delivery is ours, and fresh: HMAC-SHA256 over the time and the body.

    Weft-Signature: t=1772361300,v1=<hex of HMAC-SHA256(secret, "1772361300." + body)>

The time is that of the attempt, in seconds since 1970: a receiver refuses what is older than a few
minutes, so that nobody can send a recorded delivery again. `docs/webhooks.md` shows how to verify.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

SIGNATURE_HEADER = "Weft-Signature"
DELIVERY_HEADER = "Weft-Delivery"
EVENT_HEADER = "Weft-Event"


def new_secret() -> str:
    """A secret of 256 bits."""
    return secrets.token_urlsafe(32)


def sign(secret: str, timestamp: int, body: bytes) -> str:
    """The signature header of an attempt at `timestamp`."""
    signed = str(timestamp).encode() + b"." + body
    return f"t={timestamp},v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"
