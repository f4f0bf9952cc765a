"""Passphrases of key files: where they come from, and what is good enough."""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from server.errors import BadKey

SHORTEST_PASSPHRASE = 12

#: Asked for the passphrase of what is named.
Ask = Callable[[str], bytes]


def check_passphrase(passphrase: bytes) -> None:
    """Raise BadKey `weak_passphrase` for one that is soon tried out."""
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise BadKey("weak_passphrase", f"{len(passphrase)} characters are too few")


def passphrase_from(environment: Mapping[str, str]) -> Ask | None:
    """Answer with $WEFT_KEYS_PASSPHRASE or what is in $WEFT_KEYS_PASSPHRASE_FILE; None: neither.

    A last end of line is no part of it. Raises BadKey `not_found`.
    """
    if (text := environment.get("WEFT_KEYS_PASSPHRASE")) is not None:
        return lambda _: text.encode()
    if path := environment.get("WEFT_KEYS_PASSPHRASE_FILE"):
        check_closed(Path(path))
        content = read_file(Path(path)).removesuffix(b"\n").removesuffix(b"\r")
        return lambda _: content
    return None


def _cannot_ask(what: str) -> bytes:
    raise BadKey("no_passphrase", f"{what} is under a passphrase")


#: For those that cannot ask: what is under a passphrase is refused.
NOBODY: Final[Ask] = _cannot_ask


def check_closed(path: Path) -> None:
    """Raise BadKey `open_to_others` where others may read a file."""
    if path.is_file() and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise BadKey("open_to_others", f"others may read {path}")


def read_file(path: Path) -> bytes:
    """The bytes of a file. Raises BadKey `not_found`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadKey("not_found", f"{path}: {error.strerror}") from error
