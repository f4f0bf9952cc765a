"""Where a file can be put: asked before any work, so that the answer names what was asked for."""

from __future__ import annotations

from pathlib import Path

from shared.errors import NoSpace


def check_place(target: Path) -> None:
    """Raise NoSpace `unusable` where no file can be put in place of `target` by renaming.

    A device or a pipe would be replaced by the file, which nobody means who names one.
    """
    if target.is_dir():
        raise NoSpace("unusable", f"{target} is a folder, not a file")
    if target.exists() and not target.is_file():
        raise NoSpace("unusable", f"{target} is no regular file")
    if not target.parent.is_dir():
        raise NoSpace("unusable", f"{target}: there is no folder {target.parent}")
