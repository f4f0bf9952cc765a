"""Files below a folder: plain ones only, in bounded number and depth.

A link is refused, to a file or to a folder: it may lead anywhere on the machine, and in a circle.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from server.errors import BadDataset
from server.registry.bounds import MAX_DEPTH, check_rows


def files_in(files: Any, folder: str) -> dict[str, int]:
    """Path -> bytes of each file below a folder, by path. Raises BadDataset `unreadable`."""
    found: dict[str, int] = {}
    for entry in _below(files, folder, MAX_DEPTH):
        found[entry["name"]] = int(entry.get("size") or 0)
        check_rows(len(found), folder)
    return dict(sorted(found.items()))


def folders_in(files: Any, folder: str) -> list[str]:
    """The folders right in a folder, by name."""
    return sorted(e["name"] for e in _entries(files, folder) if e["type"] == "directory")


def _below(files: Any, folder: str, depth: int) -> Iterator[Any]:
    if depth == 0:
        raise BadDataset("unreadable", f"{folder}: over {MAX_DEPTH} folders deep")
    for entry in _entries(files, folder):
        if entry["type"] == "directory":
            yield from _below(files, entry["name"], depth - 1)
        elif entry["type"] == "file":
            yield entry


def _entries(files: Any, folder: str) -> Iterator[Any]:
    """What a folder holds, but for the entry by which some stores name the folder itself."""
    for entry in files.ls(folder, detail=True):
        if entry.get("islink"):
            raise BadDataset("unreadable", f"{entry['name']}: links are not followed")
        if entry["name"].rstrip("/") != folder.rstrip("/"):
            yield entry
