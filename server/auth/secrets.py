"""Random secrets, what is stored of them, and how they are compared."""

from __future__ import annotations

import hashlib
import hmac
import secrets


def new_token() -> str:
    """A secret of 256 bits, as 43 characters that need no quotes anywhere."""
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """What is stored of a token; tokens are random, so a plain hash cannot be reversed."""
    return hashlib.sha256(token.encode()).hexdigest()


def same_secret(given: str, wanted: str) -> bool:
    """Whether two secrets are equal, in a time that tells nothing, not even their lengths."""
    return same_hash(token_hash(given), token_hash(wanted))


def same_hash(given: str, wanted: str) -> bool:
    """Whether two results of `token_hash` are equal, in a time that tells nothing."""
    return hmac.compare_digest(given, wanted)
