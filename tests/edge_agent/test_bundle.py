"""Bundles: what was brought along is installed like a download, or refused without any loss."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from edge_agent import bundle as bundles
from edge_agent.errors import TrustError
from edge_agent.journal import load_journal
from shared.bundle import MAX_MANIFEST_BYTES, Bundle, BundleReader, Way, size_of, written
from shared.errors import BadBundle

MODEL = "digits"


def signed(plane: Any, shelf: Any) -> bytes:
    """That all versions and packages of the shelf are released."""
    plane.sign(shelf)
    return bytes(plane.repository(MODEL).answer({}))


def made(
    shelf: Any, plane: Any, path: Path, version: int, *ways: tuple[int | None, list[str]]
) -> Path:
    """A bundle to a version: the number of each base, and the packages from there."""
    metadata = signed(plane, shelf)
    offers = {name: shelf.wanted(version, name).package for way in ways for name in way[1]}
    bundle = Bundle(
        model=MODEL,
        version=version,
        weights_digest=shelf.digests[version],
        metadata_bytes=len(metadata),
        ways=[Way(base_version=base, packages=[offers[n] for n in names]) for base, names in ways],
    )
    content = {offers[name].sha256: shelf.packages[name].path.read_bytes() for name in offers}
    path.write_bytes(
        b"".join(written(bundle, metadata, lambda offer: iter([content[offer.sha256]])))
    )
    assert path.stat().st_size == size_of(bundle)
    return path


@pytest.fixture
def stick(shelf: Any, plane: Any, tmp_path: Path) -> Path:
    """Version 2 from 1, or from nothing; of the same bytes each time."""
    return made(
        shelf, plane, tmp_path / "stick.weft-bundle", 2, (1, ["xor-12"]), (None, ["full-2"])
    )


@pytest.fixture
def at_one(bench: Any, shelf: Any) -> Any:
    bench.settings["models"][MODEL]["initial"] = str(shelf.weights[1])
    return bench


def install(bench: Any, path: Path) -> list[str]:
    with bundles.opened(path) as reader, bench.running() as agent:
        return [error.code for error in bundles.install(agent, bench.config, reader)]


def test_tar_lists_it_and_extracts_what_was_put_in(
    stick: Path, plane: Any, shelf: Any, tmp_path: Path
) -> None:
    with tarfile.open(stick) as archive:
        names = archive.getnames()
        archive.extractall(tmp_path / "out", filter="data")
    packages = [shelf.packages[name] for name in ("xor-12", "full-2")]
    assert names == ["bundle.json", "metadata", *(f"{package.sha256}.weft" for package in packages)]
    found = [(tmp_path / "out" / name).read_bytes() for name in names[1:3]]
    assert found == [signed(plane, shelf), packages[0].path.read_bytes()]
    with bundles.opened(stick) as reader:
        assert reader.metadata() == signed(plane, shelf)
    said = json.loads((tmp_path / "out" / "bundle.json").read_text())
    assert (said["format"], said["model"], said["version"]) == (2, MODEL, 2)


def test_the_smallest_way_from_what_is_held_is_taken(
    at_one: Any, plane: Any, shelf: Any, stick: Path
) -> None:
    assert install(at_one, stick) == []
    assert (at_one.in_use(), at_one.leftovers()) == (shelf.digests[2], set())
    (report,) = plane.reports
    assert (report.assignment, report.version, report.result) == (None, 2, "committed")
    assert not plane.asked("/device/v1/packages")


def test_a_device_that_holds_nothing_takes_the_full_one(
    bench: Any, shelf: Any, stick: Path
) -> None:
    assert install(bench, stick) == []
    assert bench.in_use() == shelf.digests[2]


def test_weights_that_are_held_already_need_no_package(
    at_one: Any, plane: Any, shelf: Any, stick: Path
) -> None:
    install(at_one, stick)
    changed(stick, manifest(stick)[1] + 600, b"\xff" * 8)  # nobody looks at it
    assert install(at_one, stick) == []
    assert [report.result for report in plane.reports] == ["committed", "committed"]


def test_without_a_server_it_is_installed_now_and_reported_later(
    at_one: Any, plane: Any, shelf: Any, stick: Path
) -> None:
    url = at_one.settings["server"]
    at_one.settings["server"] = "http://127.0.0.1:9"  # discard: nothing listens
    assert install(at_one, stick) == []
    assert at_one.in_use() == shelf.digests[2]
    at_one.settings["server"] = url
    assert at_one.round() == []
    told = [(r.version, r.result) for r in plane.reports]
    assert told == [(2, "committed"), (None, "committed")]  # what is held now has the last word


def test_the_same_health_check_judges_it(at_one: Any, plane: Any, shelf: Any, stick: Path) -> None:
    at_one.settings["models"][MODEL]["health_command"] = ["false"]
    assert install(at_one, stick) == ["health.failed"]
    assert (at_one.in_use(), at_one.leftovers()) == (shelf.digests[1], set())
    assert [report.result for report in plane.reports] == ["failed_rolled_back"]


def test_a_device_without_the_base_is_told_what_it_needs(
    bench: Any, plane: Any, shelf: Any, tmp_path: Path
) -> None:
    bench.settings["models"][MODEL]["initial"] = str(shelf.weights[1])
    third = made(shelf, plane, tmp_path / "third", 3, (2, ["xor-23"]))
    with pytest.raises(BadBundle) as raised:
        install(bench, third)
    assert raised.value.code == "bundle.no_way"
    assert shelf.digests[1][:12] in raised.value.message
    assert f"version 2 ({shelf.digests[2][:12]})" in raised.value.message
    assert bench.in_use() == shelf.digests[1]


def test_a_chain_is_not_taken_where_storage_takes_none(shelf: Any, tmp_path: Path) -> None:
    offers = [shelf.wanted(2, "xor-12").package, shelf.wanted(3, "xor-23").package]
    bundle = Bundle(
        model=MODEL,
        version=3,
        weights_digest=shelf.digests[3],
        metadata_bytes=1,
        ways=[Way(packages=offers)],
    )
    held = [bundles.Held(digest=shelf.digests[1], version=1)]
    assert bundles.choose(bundle, held, 8) == bundle.ways[0]
    with pytest.raises(BadBundle, match="2 packages would be needed"):
        bundles.choose(bundle, held, 1)


def test_a_bundle_of_another_model(bench: Any, shelf: Any, stick: Path) -> None:
    bench.settings["models"] = {"faces": {}}
    with pytest.raises(BadBundle) as raised:
        install(bench, stick)
    assert raised.value.code == "bundle.other_model"


# Bad bundles.


def changed(stick: Path, place: int, data: bytes) -> None:
    with stick.open("r+b") as file:
        file.seek(place)
        file.write(data)


def manifest(stick: Path) -> tuple[dict[str, Any], int]:
    """What it says, and where the packages begin."""
    text, end = member(stick.read_bytes(), 0)
    return json.loads(text), member(stick.read_bytes(), end)[1]


def member(data: bytes, start: int) -> tuple[bytes, int]:
    """What is in the member of the archive that begins there, and where the next one does."""
    size = int(data[start + 124 : start + 135], 8)
    return data[start + 512 : start + 512 + size], start + 512 + size + -size % 512


def with_manifest(stick: Path, said: Any) -> None:
    """Put another manifest into it."""
    text = said if isinstance(said, bytes) else json.dumps(said).encode()
    rest = stick.read_bytes()[member(stick.read_bytes(), 0)[1] :]
    entry = tarfile.TarInfo("bundle.json")
    entry.size = len(text)
    head = entry.tobuf(tarfile.USTAR_FORMAT)
    stick.write_bytes(head + text + bytes(-len(text) % 512) + rest)


def said_otherwise(stick: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    said, _ = manifest(stick)
    change(said)
    with_manifest(stick, said)


def renamed(stick: Path, name: str) -> None:
    """Give the first package another name, with a header that is right in itself."""
    start = manifest(stick)[1]
    entry = tarfile.TarInfo(name)
    entry.size = int(stick.read_bytes()[start + 124 : start + 135], 8)
    changed(stick, start, entry.tobuf(tarfile.USTAR_FORMAT))


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "empty": lambda stick: stick.write_bytes(b""),
    "text": lambda stick: stick.write_text("hello"),
    "zeros": lambda stick: stick.write_bytes(bytes(1 << 16)),
    "cut in the header": lambda stick: os.truncate(stick, 300),
    "cut in the manifest": lambda stick: os.truncate(stick, 700),
    "cut in a package": lambda stick: os.truncate(stick, stick.stat().st_size - 1500),
    "cut in the end": lambda stick: os.truncate(stick, stick.stat().st_size - 1),
    "something behind it": lambda stick: stick.write_bytes(stick.read_bytes() + bytes(512)),
    "a package that differs": lambda stick: changed(stick, manifest(stick)[1] + 600, b"\xff" * 8),
    "a header that differs": lambda stick: changed(stick, manifest(stick)[1] + 100, b"0000777"),
    "a path that leads out": lambda stick: renamed(stick, "../../etc/passwd"),
    "an absolute path": lambda stick: renamed(stick, "/etc/passwd"),
    "a link": lambda stick: changed(stick, manifest(stick)[1] + 156, b"2"),
    "another SHA-256": lambda stick: said_otherwise(
        stick, lambda said: said["ways"][0]["packages"][0].update(sha256="0" * 64)
    ),
    "another size": lambda stick: said_otherwise(
        stick, lambda said: said["ways"][0]["packages"][0].update(size=10**15)
    ),
    "one package twice": lambda stick: said_otherwise(
        stick,
        lambda said: said["ways"][1]["packages"].insert(
            0, {**said["ways"][0]["packages"][0], "method": "ka"}
        ),
    ),
    "other metadata than their size": lambda stick: said_otherwise(
        stick, lambda said: said.update(metadata_bytes=said["metadata_bytes"] + 1)
    ),
    "metadata without an end": lambda stick: said_otherwise(
        stick, lambda said: said.update(metadata_bytes=1 << 40)
    ),
    "no metadata": lambda stick: said_otherwise(stick, lambda said: said.update(metadata_bytes=0)),
    "no way": lambda stick: said_otherwise(stick, lambda said: said.update(ways=[])),
    "a model that is a path": lambda stick: said_otherwise(
        stick, lambda said: said.update(model="../x")
    ),
    "a list": lambda stick: with_manifest(stick, [1]),
    "no JSON": lambda stick: with_manifest(stick, b"{"),
    "JSON without an end": lambda stick: with_manifest(stick, b"[" * 200_000),
    "a manifest that is too large": lambda stick: with_manifest(
        stick, b" " * (MAX_MANIFEST_BYTES + 1)
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_bad_bundle_is_refused_and_nothing_is_lost(
    at_one: Any, plane: Any, shelf: Any, stick: Path, damage: str
) -> None:
    cut = half_a_download(at_one, plane, shelf)
    DAMAGE[damage](stick)
    with pytest.raises(BadBundle) as raised:
        install(at_one, stick)
    assert raised.value.code == "bundle.malformed"
    assert cut.stat().st_size == 300  # what the server wants goes on where it was
    assert load_journal(at_one.folder / "journal.json").state == "downloading"
    assert at_one.in_use() == shelf.digests[1]


def half_a_download(bench: Any, plane: Any, shelf: Any) -> Path:
    """Leave an update of the server's half downloaded; gives the file."""

    def cut(handler: Any) -> bool:
        if "/packages/" in handler.path:
            handler.package(handler.plane.files[handler.path.rpartition("/")[2]], cut=300)
            return True
        return False

    plane.faults = [cut]
    plane.offer(shelf, shelf.wanted(2, "xor-12"))
    assert bench.round() == ["server.unreachable"]
    return Path(bench.folder / f"package-{shelf.packages['xor-12'].sha256}.weft")


def test_a_later_format_is_told_apart(at_one: Any, stick: Path) -> None:
    said_otherwise(stick, lambda said: said.update(format=3, what="ever"))
    with pytest.raises(BadBundle) as raised:
        install(at_one, stick)
    assert raised.value.code == "bundle.unknown_format"


def test_one_of_the_time_before_signatures_is_refused(at_one: Any, shelf: Any, stick: Path) -> None:
    said_otherwise(stick, lambda said: (said.update(format=1), said.pop("metadata_bytes")))
    with pytest.raises(BadBundle) as raised:
        install(at_one, stick)
    assert raised.value.code == "bundle.unsigned"
    assert at_one.in_use() is None


def test_fields_that_came_later_are_ignored(at_one: Any, shelf: Any, stick: Path) -> None:
    def add(said: dict[str, Any]) -> None:
        said["signed"] = "x"
        said["ways"][0]["packages"][0]["colour"] = "green"

    said_otherwise(stick, add)
    assert install(at_one, stick) == []
    assert at_one.in_use() == shelf.digests[2]


def test_a_package_that_does_not_give_what_the_bundle_says(
    at_one: Any, plane: Any, shelf: Any, stick: Path
) -> None:
    for version, digest in ((9, "ab" * 32), (2, "ab" * 32), (3, shelf.digests[3])):
        said_otherwise(
            stick, lambda said, v=version, d=digest: said.update(weights_digest=d, version=v)
        )
        with pytest.raises(TrustError) as raised:
            install(at_one, stick)
        assert raised.value.code == (
            "trust.wrong_listing" if version == 3 else "trust.not_released"
        )
        assert (at_one.in_use(), at_one.leftovers()) == (shelf.digests[1], set())
    assert plane.reports == []


def test_a_medium_that_fails(at_one: Any, shelf: Any, stick: Path) -> None:
    class Failing:
        def __init__(self) -> None:
            self.file = stick.open("rb")

        def seek(self, place: int) -> None:
            self.file.seek(place)

        def read(self, size: int) -> bytes:
            if self.file.tell() > manifest(stick)[1] + 512 and size > 512:
                raise OSError(5, "Input/output error")
            return self.file.read(size)

    failing: Any = Failing()
    with failing.file, at_one.running() as agent, pytest.raises(BadBundle) as raised:
        bundles.install(agent, at_one.config, BundleReader(failing, "stick"))
    assert raised.value.code == "bundle.unreadable"
    assert at_one.in_use() == shelf.digests[1]


# The command.


def command(bench: Any, *arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "edge_agent.cli", "apply-bundle", "--json", *map(str, arguments)]
    return subprocess.run(words, env=bench.environment, capture_output=True, text=True)


def test_the_command_reads_from_a_read_only_medium(
    at_one: Any, plane: Any, shelf: Any, stick: Path
) -> None:
    stick.chmod(0o444)
    stick.parent.chmod(0o555)
    done = command(at_one, stick)
    stick.parent.chmod(0o755)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["models"][MODEL]["version"] == 2
    assert (said["errors"], said["pending_reports"]) == ([], 0)


def test_the_command_says_what_is_wrong(at_one: Any, stick: Path, tmp_path: Path) -> None:
    done = command(at_one, tmp_path / "none")
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (1, "bundle.unreadable")
    stick.write_bytes(b"x")
    done = command(at_one, stick)
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (1, "bundle.malformed")


def test_while_the_agent_runs_it_says_so(at_one: Any, plane: Any, stick: Path) -> None:
    polled = threading.Event()
    plane.faults = [lambda h: polled.set()]
    words = [sys.executable, "-m", "edge_agent.cli", "run"]
    with subprocess.Popen(words, env=at_one.environment) as process:
        assert polled.wait(60)
        done = command(at_one, stick)
        process.terminate()
    said = json.loads(done.stdout)["error"]
    assert (done.returncode, said["code"]) == (2, "agent.busy")
    assert "systemctl stop" in said["todo"]


def test_a_crash_while_packages_are_brought_leaves_nothing(
    at_one: Any, shelf: Any, stick: Path
) -> None:
    class Crash(BaseException):
        pass

    class Crashing(BundleReader):
        def pieces(self, offer: Any) -> Any:
            for piece in super().pieces(offer):
                yield piece
                if self.checked:
                    raise Crash

        checked = False

        def check(self, offer: Any) -> None:
            super().check(offer)
            self.checked = True

    with stick.open("rb") as file, pytest.raises(Crash), at_one.running() as agent:
        bundles.install(agent, at_one.config, Crashing(file, "stick"))
    leftover = at_one.folder / f"package-{shelf.packages['xor-12'].sha256}.weft"
    leftover.write_bytes(b"of a process that was killed between two packages")
    assert at_one.round() == []
    assert (at_one.in_use(), at_one.leftovers()) == (shelf.digests[1], set())


def test_the_service_goes_on_with_what_a_killed_command_has_begun(
    at_one: Any, plane: Any, shelf: Any, stick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_agent.agent import model

    class Killed(BaseException):
        pass

    persist = model.persist_journal

    def die(path: Path, journal: Any) -> None:
        persist(path, journal)
        if journal.state == "reconstituting":
            raise Killed

    monkeypatch.setattr(model, "persist_journal", die)
    with pytest.raises(Killed):
        install(at_one, stick)
    monkeypatch.undo()
    assert at_one.round() == []
    assert (at_one.in_use(), at_one.leftovers()) == (shelf.digests[2], set())
    assert [(r.version, r.result) for r in plane.reports] == [(2, "committed")]


def test_it_does_not_wait_for_the_hours(at_one: Any, shelf: Any, stick: Path) -> None:
    hour = datetime.now().astimezone().hour
    hours = f"{(hour + 2) % 24:02}:00-{(hour + 3) % 24:02}:00"
    at_one.settings["models"][MODEL]["install_window"] = hours
    assert install(at_one, stick) == []
    assert at_one.in_use() == shelf.digests[2]
