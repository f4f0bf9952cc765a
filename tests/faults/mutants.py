"""Recordings in which one sync is missing, or comes on the wrong side of what it belongs to.

A sync changes nothing that a running process sees. So a mutant of the agent's source is a changed
recording: what was noted of that line of the source is left out, or moved.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults.recording import (
    PACKAGE,
    Fsync,
    FsyncDirectory,
    Noted,
    Operation,
    Rename,
    Site,
    Write,
)

Mutation = Callable[[list[Noted], Site], list[Noted]]


def sync_sites() -> Iterator[Site]:
    """Each line of the agent that asks for a sync: found in the source, so that none is missed."""
    for path in sorted(Path(PACKAGE).rglob("*.py")):
        module = str(path.relative_to(PACKAGE))
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                for node in ast.walk(function):
                    if isinstance(node, ast.Call) and _is_sync(node.func, module):
                        yield Site(module, function.name, node.lineno)


def _is_sync(called: ast.expr, module: str) -> bool:
    match called:
        case ast.Attribute(value=ast.Name(id="disk"), attr="fsync" | "fsync_directory"):
            return True
        case ast.Attribute(value=ast.Name(id="files"), attr="sync"):
            return True
        case ast.Name(id="sync"):
            return module == "files.py"
    return False


def unchanged(noted: list[Noted], _: Site) -> list[Noted]:
    return noted


def removed(noted: list[Noted], site: Site) -> list[Noted]:
    """Without the sync."""
    return [each for each in noted if not _is_of(each, site)]


def too_late(noted: list[Noted], site: Site) -> list[Noted]:
    """What should follow the sync of a file comes before it: a rename, or a write to another."""
    mutant: list[Noted] = []
    held: list[Noted] = []
    for each in noted:
        if _is_of(each, site) and isinstance(each.operation, Fsync):
            held.append(each)
            continue
        mutant.append(each)
        if held and _follows(each.operation, held[0].operation):
            mutant += held
            held = []
    return mutant + held


def too_early(noted: list[Noted], site: Site) -> list[Noted]:
    """The sync of a directory comes before the change of names that it is for."""
    mutant: list[Noted] = []
    for each in noted:
        at = len(mutant)
        if _is_of(each, site) and isinstance(each.operation, FsyncDirectory):
            while at and isinstance(mutant[at - 1].operation, (Fsync, FsyncDirectory)):
                at -= 1
            at = max(0, at - 1)
        mutant.insert(at, each)
    return mutant


def _is_of(noted: Noted, site: Site) -> bool:
    return isinstance(noted.operation, (Fsync, FsyncDirectory)) and site in noted.sites


def _follows(operation: Operation, sync: Operation) -> bool:
    assert isinstance(sync, Fsync)
    return isinstance(operation, Rename) or (
        isinstance(operation, Write) and operation.file != sync.file
    )
