"""`docs/errors.md` lists every code with what to do about it, word for word as the program says."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

from shared.errors import UserError, WeftError

ROOTS = ("shared", "edge_agent", "server")
ROW = re.compile(r"^\| `[a-z_]+\.[a-z_]+` \|.*\|$", re.MULTILINE)


def _import_tables(checkout: Path) -> None:
    """Import each module that declares codes; the classes are then found by inheritance."""
    for root in ROOTS:
        for path in (checkout / root).rglob("*.py"):
            if "codes: ClassVar" in path.read_text(encoding="utf-8"):
                name = path.relative_to(checkout).with_suffix("").as_posix().replace("/", ".")
                importlib.import_module(name)


def _classes(root: type[WeftError]) -> Iterator[type[WeftError]]:
    for cls in root.__subclasses__():
        yield cls
        yield from _classes(cls)


def _rows(checkout: Path) -> list[str]:
    _import_tables(checkout)
    rows = []
    for cls in _classes(WeftError):
        for code, todo in vars(cls).get("codes", {}).items():
            rows.append(f"| `{cls.area}.{code}` | {todo} | {cls.exit_status} |")
    return rows


def test_page_lists_exactly_the_codes(checkout: Path) -> None:
    expected = _rows(checkout)
    found = ROW.findall((checkout / "docs" / "errors.md").read_text(encoding="utf-8"))
    missing = [row for row in expected if row not in found]
    wrong = [row for row in found if row not in expected]
    assert not missing, "add to docs/errors.md:\n" + "\n".join(missing)
    assert not wrong, "remove from docs/errors.md:\n" + "\n".join(wrong)


def test_codes_are_unique(checkout: Path) -> None:
    codes = [row.split("`")[1] for row in _rows(checkout)]
    assert not {code for code in codes if codes.count(code) > 1}


def test_each_code_says_what_to_do_in_a_sentence(checkout: Path) -> None:
    _import_tables(checkout)
    for cls in _classes(WeftError):
        assert issubclass(cls, UserError) == (cls.exit_status == 1), cls
        for code, todo in cls.codes.items():
            assert todo.endswith("."), f"{cls.area}.{code}"
