"""Working as the user to whom the state belongs.

What root wrote there, the service could not read or replace; and a health command has no business
to run as root.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path


def become_owner(directory: Path) -> None:
    """As root, become the owner of `directory` for good, if it is there and another user's."""
    if os.geteuid() != 0 or not directory.exists():
        return
    found = directory.stat()
    if found.st_uid == 0:
        return
    try:
        os.initgroups(pwd.getpwuid(found.st_uid).pw_name, found.st_gid)
    except KeyError:  # an owner without a name
        os.setgroups([])
    os.setgid(found.st_gid)
    os.setuid(found.st_uid)
