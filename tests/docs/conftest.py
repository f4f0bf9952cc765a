"""The documents, and the code that stands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^    .*$", re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")


@pytest.fixture(scope="session")
def documents(checkout: Path) -> dict[Path, str]:
    """Every Markdown file that a user reads, by path."""
    paths = [*checkout.glob("*.md"), *checkout.glob("docs/**/*.md")]
    return {path: path.read_text(encoding="utf-8") for path in sorted(paths)}


@pytest.fixture(scope="session")
def code_lines(documents: dict[Path, str]) -> list[tuple[str, str]]:
    """Every line of code in the documents, without prompt and comment: (document's name, line)."""
    return [(path.name, line) for path, text in documents.items() for line in _code_lines(text)]


def _code_lines(text: str) -> Iterator[str]:
    blocks = FENCED.findall(text)
    prose = FENCED.sub("", text)
    blocks += INDENTED.findall(prose)
    for block in blocks:
        joined = block.replace("\\\n", " ")
        for line in joined.splitlines():
            yield re.sub(r"\s#\s.*$", "", line).strip().removeprefix("$ ")
    yield from (line.strip() for line in INLINE.findall(INDENTED.sub("", prose)))
