"""What the documents tell to `make` can be made."""

from __future__ import annotations

import re
from pathlib import Path


def test_targets_exist(code_lines: list[tuple[str, str]], checkout: Path) -> None:
    makefile = (checkout / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    named = {
        (document, word)
        for document, line in code_lines
        if (match := re.match(r"(?:[A-Z]+=\S+ )*make (.*)", line))
        for word in match[1].split()
        if re.fullmatch(r"[\w-]+", word)
    }
    assert ("README.md", "demo") in named
    assert not [f"{document}: make {word}" for document, word in named if word not in targets]
