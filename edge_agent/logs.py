"""The agent's log: one line an event on standard error, whatever is in it.

Where standard error is the journal's (JOURNAL_STREAM, systemd.exec(5)), a line begins with its
level as sd-daemon(3) says, by which `journalctl -p warning` finds it.
"""

from __future__ import annotations

import logging
import os
import sys

#: syslog(3).
_PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


def begin(level: int) -> None:
    """Log what has that level or a higher one, unless somebody else takes care of it."""
    logging.captureWarnings(capture=True)
    logging.getLogger("httpcore").setLevel(logging.WARNING)
    root = logging.getLogger()
    root.setLevel(level)
    if not root.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(OneLine())
        root.addHandler(handler)


class OneLine(logging.Formatter):
    """Level and message; what was raised follows on the same line."""

    def format(self, record: logging.LogRecord) -> str:
        """See `line`."""
        text = super().format(record)
        return line(record.levelname, f"{record.levelname} {text}")


def line(level: str, text: str) -> str:
    """`text` as a line of that level, without line breaks and other signs that a terminal obeys.

    What servers and programs said is in it too: they must not be able to write lines of their own.
    """
    shown = plain(text)
    return f"<{_PRIORITIES.get(level, 6)}>{shown}" if _is_journal() else shown


def plain(text: str) -> str:
    """`text` in one line, harmless to a terminal."""
    joined = " | ".join(part.rstrip() for part in text.splitlines())
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in joined)


def _is_journal() -> bool:
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
