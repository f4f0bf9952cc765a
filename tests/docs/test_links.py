"""Links between documents lead somewhere, headings included."""

from __future__ import annotations

import re
from pathlib import Path

LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


def _anchor(heading: str) -> str:
    """The anchor that forges give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def test_links_resolve(documents: dict[Path, str]) -> None:
    broken = []
    for path, text in documents.items():
        for link in LINK.findall(text):
            if re.match(r"[a-z]+:", link):
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            anchors = map(_anchor, HEADING.findall(documents.get(target, "")))
            if not target.exists() or (anchor and anchor not in anchors):
                broken.append(f"{path.name}: {link}")
    assert not broken


def test_every_page_is_reachable_from_the_readme(
    documents: dict[Path, str], checkout: Path
) -> None:
    reached: set[Path] = set()
    waiting = [checkout / "README.md"]
    while waiting:
        path = waiting.pop()
        if path in reached or path not in documents:
            continue
        reached.add(path)
        links = LINK.findall(documents[path])
        waiting += [(path.parent / link.partition("#")[0]).resolve() for link in links]
    records = checkout / "docs" / "adr"
    lost = [path.name for path in documents if path not in reached and path.parent != records]
    assert not lost, "link these from README.md or from a page it leads to"
