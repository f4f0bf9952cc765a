"""docs/fleets.md names tests that exist, one for each pain."""

from __future__ import annotations

import re
from pathlib import Path

NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def test_the_tests_that_it_names_exist(checkout: Path) -> None:
    page = (checkout / "docs" / "fleets.md").read_text(encoding="utf-8")
    table = page.partition("| shown by |")[2].splitlines()[2:]
    assert len(table) >= 9
    for row in table:
        named = NAMED.findall(row)
        assert named, row
        for file, test in named:
            assert f"def {test}" in (checkout / file).read_text(encoding="utf-8"), (file, test)
