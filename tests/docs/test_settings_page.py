"""`docs/settings.md` lists every setting of the server as the code declares it."""

from __future__ import annotations

import re
from pathlib import Path

from server.settings import Settings

ROW = re.compile(r"^\| `WEFT_[A-Z_]+` \|.*\|$", re.MULTILINE)


def _shown(default: object) -> str:
    if default in (None, "", ()):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def test_page_lists_exactly_the_settings(checkout: Path) -> None:
    expected = [
        f"| `WEFT_{name.upper()}` | {_shown(field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    found = ROW.findall((checkout / "docs" / "settings.md").read_text(encoding="utf-8"))
    assert found == expected, "docs/settings.md should say:\n" + "\n".join(expected)
