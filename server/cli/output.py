"""What commands print: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from shared.errors import WeftError

Record = Mapping[str, Any]

#: Columns of a "terminal" that is a pipe or a file.
UNBOUNDED = 10_000

_DIGEST = re.compile(r"([0-9a-f]{16})[0-9a-f]{48}")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?Z")


def _stdout() -> Console:
    """Lines keep their length where a program reads them, and are cut to a terminal's width."""
    width = None if sys.stdout.isatty() else UNBOUNDED
    return Console(highlight=False, markup=False, width=width)


def _stderr() -> Console:
    return Console(stderr=True, highlight=False, markup=False)


def show_json(value: Any) -> None:
    """One JSON document on stdout, at once: `weft serve` prints one and goes on."""
    print(json.dumps(value, indent=2, ensure_ascii=False), flush=True)


def show_record(record: Record, as_json: bool, columns: Sequence[str] = ()) -> None:
    """One thing: its fields, a line each (all, or those of `columns`), whole."""
    if as_json:
        show_json(record)
        return
    names = columns or list(record)
    width = max(map(len, names))
    for name in names:
        _stdout().print(f"{name:{width}}  {_text(record.get(name))}", soft_wrap=True)


def show_page(page: Record, as_json: bool, columns: Sequence[str]) -> None:
    """A page of a list as a table, with the way to the next one."""
    if as_json:
        show_json(page)
        return
    show_table(page["items"], columns)
    if page.get("next"):
        say(f"more: --cursor {page['next']}")


def show_table(rows: Iterable[Record], columns: Sequence[str]) -> None:
    """A table of the named fields; digests and times are cut short."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(columns):
        table.add_column(name, no_wrap=index == 0 or name == "id", overflow="fold")
    for row in rows:
        table.add_row(*(_brief(row.get(name)) for name in columns))
    console = _stdout()
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as written:
        console.print(table)
    for line in written.get().splitlines():
        print(line.rstrip())


def show_line(record: Record, as_json: bool, columns: Sequence[str]) -> None:
    """One thing of a stream on one line, at once."""
    if as_json:
        print(json.dumps(record, ensure_ascii=False), flush=True)
    else:
        print("  ".join(_brief(record.get(name)) for name in columns), flush=True)


def say(text: str) -> None:
    """A line on stderr; never broken, so that what it tells to type can be copied."""
    _stderr().print(text, soft_wrap=True)


def show_error(error: WeftError, as_json: bool) -> None:
    """The error on stderr: what was found, its code, what to do."""
    if as_json:
        told = {"code": error.code, "message": error.message, "todo": error.todo}
        print(json.dumps({"error": told}, ensure_ascii=False), file=sys.stderr)
        return
    console = _stderr()
    console.print(f"error: {error.message} [{error.code}]", style="red", soft_wrap=True)
    console.print(error.todo, soft_wrap=True)


@contextmanager
def transfer(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar of bytes on stderr; call what it gives with the bytes of each piece."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = _stderr()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total)
        yield lambda size: bar.advance(task, size)


def _brief(value: Any) -> str:
    """A value in a table: a digest's first 16 digits, a time to the second, an error's code."""
    if isinstance(value, dict) and {"code", "message"} <= value.keys():
        return str(value["code"])
    if isinstance(value, dict):
        return ", ".join(f"{name}={_brief(part)}" for name, part in value.items()) or "-"
    text = _text(value)
    if match := _DIGEST.fullmatch(text):
        return match[1]
    if match := _TIME.fullmatch(text):
        return f"{match[1]} {match[2]}Z"
    return text


def _text(value: Any) -> str:
    """A value for people."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
