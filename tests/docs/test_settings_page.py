"""`docs/settings.md` lists every setting of the server as the code declares it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

from pydantic_settings import BaseSettings

ROW = re.compile(r"^\| `WEFT_[A-Z_]+` \|.*\|$", re.MULTILINE)


def _settings(checkout: Path) -> Iterator[type[BaseSettings]]:
    """The settings of the server, then those of its rooms: they live in modules `settings.py`."""
    paths = sorted((checkout / "server").rglob("settings.py"), key=lambda path: len(path.parts))
    for path in paths:
        parts = path.relative_to(checkout).with_suffix("").parts
        members = vars(importlib.import_module(".".join(parts))).values()
        classes = [member for member in members if isinstance(member, type)]
        yield from (cls for cls in classes if cls in BaseSettings.__subclasses__())


def _shown(default: object) -> str:
    if default in (None, "", ()):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def test_page_lists_exactly_the_settings(checkout: Path) -> None:
    expected = [
        f"| `{cls.model_config['env_prefix']}{name.upper()}` | {_shown(field.default)} "
        f"| {field.description} |"
        for cls in _settings(checkout)
        for name, field in cls.model_fields.items()
    ]
    found = ROW.findall((checkout / "docs" / "settings.md").read_text(encoding="utf-8"))
    assert found == expected, "docs/settings.md should say:\n" + "\n".join(expected)
