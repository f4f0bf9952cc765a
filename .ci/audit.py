"""Holds the pinned versions against known weaknesses, where somebody can be asked about them.

`make check` runs it. Exit status 1: a pinned version has a known weakness.
Without an advisory source (no network, or an index that knows of no weaknesses) it says so within
seconds and lets the check pass: a desk without the Internet must be able to work.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: A release with known weaknesses: who lists none for it lists none at all.
PROBE = "https://pypi.org/pypi/jinja2/2.4.1/json"
PROBE_SECONDS = 3.0
AUDIT_SECONDS = 120.0
SKIPPED = "audit: skipped: no advisory source"


def lists_weaknesses(url: str = PROBE) -> bool:
    """Whether the source at `url` answers, and knows of what is known."""
    try:
        with urllib.request.urlopen(url, timeout=PROBE_SECONDS) as answer:  # noqa: S310 - ours
            return bool(json.load(answer).get("vulnerabilities"))
    except (OSError, ValueError, AttributeError):
        return False


def audit(*command: str) -> int:
    """Run pip-audit on the pinned versions. 1: weaknesses; 0: none, or it could not be known."""
    asked = ["--disable-pip", "--no-deps", "--progress-spinner=off", "-r", "constraints.txt"]
    try:
        ended = subprocess.run(  # noqa: S603 - our own command
            [*command, *asked],
            cwd=ROOT,
            timeout=AUDIT_SECONDS,
            capture_output=True,
            text=True,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"{SKIPPED}: {error}")
        return 0
    print(ended.stdout, end="")
    if ended.returncode and not ended.stdout.strip():  # it lists weaknesses on stdout
        print(f"{SKIPPED}: {ended.stderr.strip().rpartition(chr(10))[2]}")
        return 0
    print(ended.stderr.strip())
    return ended.returncode


if __name__ == "__main__":
    if not lists_weaknesses():
        print(SKIPPED)
        sys.exit(0)
    sys.exit(audit(sys.executable, "-m", "pip_audit"))
