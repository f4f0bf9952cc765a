"""`weft bundle`: a real server, over loopback."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.bundle import BundleReader


def test_it_tells_the_ways(ask: Any, model: str, tmp_path: Path) -> None:
    path = tmp_path / "m.weft-bundle"
    said = ask("bundle", "export", model, 2, "--from", 1, "--full", "-o", path).json
    assert (said["path"], said["size_bytes"]) == (str(path), path.stat().st_size)
    assert said["version"] == 2
    assert [(way["from"], way["methods"]) for way in said["ways"]] == [
        (1, ["xor"]),
        (None, ["full"]),
    ]
    with path.open("rb") as file:
        reader = BundleReader(file, path.name)
        for offer in reader.bundle.offers:
            reader.check(offer)
    assert reader.bundle.weights_digest == said["weights_digest"]


def test_without_a_base_it_is_for_any_device(ask: Any, model: str, tmp_path: Path) -> None:
    said = ask("bundle", "export", model, 2, "-o", tmp_path / "m").json
    assert [way["from"] for way in said["ways"]] == [None]


def test_it_tells_until_when_devices_accept_it(ask: Any, model: str, tmp_path: Path) -> None:
    for days, words in ((90, ()), (7, ("--valid-days", 7))):
        said = ask("bundle", "export", model, 2, *words, "-o", tmp_path / f"{days}").json
        left = datetime.fromisoformat(said["valid_until"]) - datetime.now(UTC)
        assert timedelta(days=days, hours=-1) < left <= timedelta(days=days)


def test_an_export_tells_people_what_it_wrote(
    weft: Any, server: str, model: str, tmp_path: Path
) -> None:
    done = weft("bundle", "export", model, 2, "-o", tmp_path / "m", "--server", server)
    assert done.status == 0
    assert "full" in done.out


@pytest.mark.parametrize("words", [["--from", 2], ["--from", 9]])
def test_what_is_refused_leaves_no_file(
    ask: Any, model: str, tmp_path: Path, words: list[Any]
) -> None:
    done = ask("bundle", "export", model, 2, *words, "-o", tmp_path / "m")
    assert (done.status, done.code) == (
        1,
        "update.no_way" if 2 in words else "version.not_found",
    )
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(("m", ".part"))]
