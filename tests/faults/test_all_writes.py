"""`edge_agent.files` makes every write of the agent: by the source, and by what a process does."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

MODULES = {"shutil", "tempfile", "fcntl"}
METHODS = {
    *("unlink", "remove", "rmdir", "removedirs", "rename", "renames", "mkdir", "makedirs"),
    *("symlink", "symlink_to", "hardlink_to", "link_to", "write_text", "write_bytes", "touch"),
    *("truncate", "ftruncate", "pwrite", "fsync", "chmod", "chown", "fchmod"),
}
#: What looks like a write and is none to the state directory.
ALLOWED = {
    ("cli.py", "open"),  # /dev/null
    ("heavy/__main__.py", "open"),  # a pipe to the agent
    ("runtimes/serving.py", "fchmod"),  # the socket of a program
    ("runtimes/serving.py", "chmod"),
    ("runtimes/serving.py", "chown"),
}


def writes(source: str) -> Iterator[str]:
    """What in a module changes a disk without `files`, or could be used for it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            yield node.module
        elif isinstance(node, ast.Call):
            yield from changes(node)


def changes(call: ast.Call) -> Iterator[str]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    by_files = isinstance(owner, ast.Name) and owner.id == "files"
    if name in METHODS and isinstance(call.func, ast.Attribute) and not by_files:
        yield name
    elif name == "replace" and len(call.args) == 1 and not call.keywords and owner is not None:
        yield name  # that of a path: the one of a text has two arguments
    elif name == "open":
        constants = [node.value for node in ast.walk(call) if isinstance(node, ast.Constant)]
        names = {node.attr for node in ast.walk(call) if isinstance(node, ast.Attribute)}
        modes = [
            text for text in constants if isinstance(text, str) and set(text) <= set("rwaxbt+")
        ]
        if any(set(mode) & set("wax+") for mode in modes) or names & {"O_WRONLY", "O_RDWR"}:
            yield name


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import shutil", ["shutil"]),
        ("from tempfile import mkstemp", ["tempfile"]),
        ("open(path, 'wb')", ["open"]),
        ("path.open(mode='r+b')", ["open"]),
        ("os.open(path, os.O_RDWR)", ["open"]),
        ("path.replace(target)", ["replace"]),
        ("os.rename(one, other)", ["rename"]),
        ("path.unlink(missing_ok=True)", ["unlink"]),
        ("path.write_bytes(data)", ["write_bytes"]),
        ("files.remove(path)", []),
        ("open(path, 'rb'), path.open(), os.open(path, os.O_RDONLY)", []),
        ("text.replace('a', 'b'), replace(weights, path=path), now.replace(tzinfo=None)", []),
    ],
)
def test_a_write_is_seen_in_the_source(source: str, found: list[str]) -> None:
    assert list(writes(source)) == found


def test_no_other_module_of_the_agent_writes(checkout: Path) -> None:
    package = checkout / "edge_agent"
    found = {
        (str(path.relative_to(package)), name)
        for path in package.rglob("*.py")
        for name in writes(path.read_text())
    }
    assert {name for module, name in found if module == "files.py"} >= {"fsync", "unlink", "fcntl"}
    assert {one for one in found if one[0] != "files.py"} == ALLOWED


# Python imports this at its start, in the children of a process too.
AUDIT = """
import mmap, os, sys

state, log = os.environ["AUDITED"], os.open(os.environ["AUDIT"], os.O_WRONLY | os.O_APPEND)
CHANGES = {
    "os.rename", "os.remove", "os.symlink", "os.link", "os.mkdir", "os.rmdir", "os.truncate",
    "os.chmod", "os.chown", "os.utime", "os.setxattr",
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

def place(given):
    if isinstance(given, int):
        return os.readlink(f"/proc/self/fd/{given}") if given >= 0 else ""
    return os.path.abspath(os.fsdecode(given))

def changes(event, given):
    if event == "open":
        return given[2] & WRITING
    if event == "mmap.__new__":
        return given[2] not in (mmap.ACCESS_READ, mmap.ACCESS_COPY)
    return event in CHANGES

def author():
    frame = sys._getframe(2)
    while frame and "site-packages" not in frame.f_code.co_filename:
        parts = frame.f_code.co_filename.split("/")
        if {"edge_agent", "shared"} & set(parts):
            return "/".join(parts[-2:])
        frame = frame.f_back
    return "somebody"

def note(event, given):
    if not (event == "open" or event in CHANGES or event == "mmap.__new__"):
        return
    named = given[:2] if event in ("os.rename", "os.link") else given[:1]
    if event == "os.symlink":
        named = given[1:2]
    if changes(event, given) and any(place(one).startswith(state) for one in named):
        os.write(log, f"{event} {author()} {os.getpid()}\\n".encode())

sys.addaudithook(note)
"""


@pytest.fixture
def audited(bench: Any, tmp_path: Path) -> Any:
    """Runs Python on the bench's settings; gives what it has changed, who, in which process."""
    (tmp_path / "sitecustomize.py").write_text(AUDIT)
    log = tmp_path / "audit"

    def run(*arguments: str) -> list[tuple[str, str, str]]:
        log.write_text("")
        there = {"PYTHONPATH": str(tmp_path), "AUDIT": str(log)}
        environment = bench.environment | there | {"AUDITED": str(bench.config.state_dir)}
        done = subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return [tuple(line.split(" ")) for line in log.read_text().splitlines()]  # type: ignore[misc]

    return run


def test_a_write_is_seen_in_a_process(bench: Any, audited: Any) -> None:
    path = bench.config.state_dir / "file"
    path.parent.mkdir()
    path.write_text("x")
    for code in ("open({!r}, 'a')", "os.remove({!r})", "os.symlink('x', {!r})"):
        told = audited("-c", "import os; " + code.format(str(path)))
        assert [author for _, author, _ in told] == ["somebody"]
    assert audited("-c", f"open({str(path.parent / '..' / 'other')!r}, 'w')") == []


@pytest.mark.parametrize("storage", ["ab", "inplace"])
def test_whatever_an_update_does_to_the_disk_files_does(
    bench: Any, plane: Any, shelf: Any, audited: Any, storage: str
) -> None:
    runtime = {"kind": "file", "holds_copy": True}
    bench.settings["models"]["digits"] = {"storage": storage, "runtime": runtime}
    seen: list[tuple[str, str, str]] = []
    for version, package in ((1, "full-1"), (2, "xor-12")):
        plane.offer(shelf, shelf.wanted(version, package, version))
        seen += audited("-m", "edge_agent.cli", "once")
    assert bench.in_use() == shelf.digests[2]
    assert {author for _, author, _ in seen} == {"edge_agent/files.py"}
    assert {event for event, _, _ in seen} >= {
        *("open", "os.rename", "os.remove", "os.symlink", "os.mkdir"),
    }
    assert len({process for _, _, process in seen}) >= 4  # two agents, and a child of each
    assert os.getpid() not in {int(process) for _, _, process in seen}
