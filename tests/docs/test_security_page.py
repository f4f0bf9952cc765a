"""docs/security.md is true of ceremonies: its lines run as written, and devices accept the end."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from server.trust.keys import make_signer
from tests.cli.conftest import weft
from tests.cli.site import Site, passphrases

__all__ = ["passphrases", "weft"]

pytestmark = pytest.mark.sqlite("the lines name a data folder")

BLOCK = re.compile(r"(?:^    .*\n)+", re.MULTILINE)
#: Where an id stands in the page, and of which role.
PLACES = {"ROOT_KEY": "root", "RELEASE_KEY": "release", "SNAPSHOT_KEY": "snapshot"}


class Terminal:
    """Somebody sits there."""

    def isatty(self) -> bool:
        return True


class Reader:
    """Does what the page says; `/etc`, `/media` and `~` lie in the site's folder."""

    def __init__(self, site: Site, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.site, self._page, self._patch = site, page, monkeypatch
        site.keys, site.offline = self.place("/etc/weft/keys"), self.place("/media/stick/weft")
        for place in ("/etc/weft", "/media/stick", "~"):
            self.place(place).mkdir(parents=True)
        monkeypatch.setenv("WEFT_DATA_DIR", str(site.data))
        monkeypatch.setenv("WEFT_JOBS_AT_ONCE", "0")
        monkeypatch.setattr(sys, "stdin", Terminal())
        monkeypatch.setattr(typer, "confirm", lambda *_, **__: True)

    def place(self, text: str) -> Path:
        return Path(self._local(text))

    def blocks(self, heading: str) -> Iterator[list[str]]:
        """The code of a section, block by block."""
        _, found, rest = self._page.partition(f"\n### {heading}\n")
        assert found, heading
        section = re.split(r"^##", rest, maxsplit=1, flags=re.MULTILINE)[0]
        for block in BLOCK.findall(section):
            yield [line.strip() for line in block.splitlines()]

    def follow(self, heading: str, incomplete: bool = False) -> None:
        for block in self.blocks(heading):
            for line in block:
                self.run(line, incomplete)

    def run(self, line: str, incomplete: bool = False) -> None:
        """`incomplete`: it ends so, as the page says."""
        if line.startswith("chown"):  # no such user here
            return
        if line.endswith("weft serve"):
            self.start()
            return
        for name, role in PLACES.items():
            if name in line:
                line = line.replace(name, self.site.keyids(role)[-1])
        words = [w for word in shlex.split(self._local(line)) for w in _expanded(word)]
        if words[0] != "weft":
            subprocess.run(words, check=True, timeout=20)
            return
        done = self.site._weft(*words[1:])
        warned = words[1] == "doctor" and done.status == 1
        assert done.status == 0 or warned or (incomplete and "ceremony.incomplete" in done.err), (
            line,
            done.err,
        )

    def start(self, **settings: Any) -> None:
        self.site.start(**{"keys_dir": self.site.keys, **settings})
        self._patch.setenv("WEFT_SERVER", self.site.running.url)
        self._patch.setenv("WEFT_PORT", self.site.running.url.rpartition(":")[2])
        self._patch.setenv("WEFT_KEYS_DIR", str(self.site.running.settings.keys_folder))

    def _local(self, text: str) -> str:
        text = re.sub(
            r"(?<!\S)(/etc/|/media/|~)", lambda m: f"{self.site.folder}/{m[1].strip('/')}/", text
        )
        return re.sub(r"(digits-\d\.safetensors|release\.pem)", rf"{self.site.folder}/\1", text)


def _expanded(word: str) -> list[str]:
    """As a shell does it."""
    if "*" not in word:
        return [word]
    folder = Path(word).parent
    return sorted(map(str, folder.glob(Path(word).name)))


@pytest.fixture
def reader(
    tmp_path: Path,
    serve: Callable[..., Any],
    weft: Any,
    checkout: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Reader:
    page = (checkout / "docs" / "security.md").read_text(encoding="utf-8")
    return Reader(Site(tmp_path, serve, weft), page, monkeypatch)


def test_the_life_of_keys_that_began_with_a_ceremony(reader: Reader) -> None:
    site = reader.site
    reader.follow("A first ceremony")
    site.add_model(versions=2)
    device = None
    releasing = next(reader.blocks("Releasing and withdrawing"))
    for line in releasing:
        reader.run(line)
        device = device or site.device()
        device.refresh()
    assert device
    assert device.lists(1, 2) == [2]
    for heading in (
        "Renewing, before it expires",
        "Changing keys while all are well",
        "One root key of several",
        "The release key",
        "A key of the server",
    ):
        reader.follow(heading)
        assert device.lists(1, 2) == [2], heading

    site.running.stop()
    for path in site.keys.iterdir():
        path.unlink()
    first, second = reader.blocks("A server that cannot start")
    for line in first:
        reader.run(line)
    reader.start()
    for line in second:
        reader.run(line)
    assert device.lists(1, 2) == [2]

    site.running.stop()
    reader.follow("When too few root keys are left")
    reader.start()
    site.done("release", "digits", 2, "--folder", reader.place("/media/stick/weft-2"), "--yes")
    assert site.device("anew").lists(1, 2) == [2]
    with pytest.raises(Exception, match=r"root|verif|sign|version"):
        device.refresh()


def test_several_holders(reader: Reader) -> None:
    site = reader.site
    making, drafting, signing, handing = reader.blocks(
        "With several holders, who never hand over a key"
    )
    for line in making:
        reader.run(line)
    for line in drafting:
        reader.run(line, incomplete=True)
    for line in (*signing, *drafting, *handing):
        reader.run(line)
    assert not list(reader.place("~/weft-office").glob("*.pem"))
    reader.start()
    site.add_model(versions=3)
    draft, sign, publish = list(reader.blocks("Releasing and withdrawing"))[1]
    reader.run(draft, incomplete=True)
    reader.run(sign)
    reader.run(publish)
    assert site.device().lists(1, 2, 3) == [3]


def test_moving_an_embedded_server(reader: Reader) -> None:
    site = reader.site
    reader.start(keys_dir=None)
    site.add_model()
    site.done("release", "digits", 1)
    device = site.device()
    assert device.lists(1) == [1]
    reader.follow("Moving a server that has made its keys itself")
    assert site.private(site.data / "keys") == ["packages", "snapshot", "timestamp"]
    assert device.lists(1) == [1]


def test_naming_a_key_of_a_service(reader: Reader) -> None:
    public = make_signer().public_key._crypto_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (reader.site.folder / "release.pem").write_bytes(pem)
    reader.follow("Keys in a KMS or an HSM")
    [kept] = reader.site.offline.glob("release-*.json")
    assert '"awskms:alias/weft-release"' in kept.read_text()


def test_every_ceremony_of_the_page_is_followed(reader: Reader, checkout: Path) -> None:
    """A section with code that no test here names is a section that nobody runs."""
    source = Path(__file__).read_text(encoding="utf-8")
    page = (checkout / "docs" / "security.md").read_text(encoding="utf-8")
    part = page.partition("\n## Key ceremonies\n")[2].partition("\n## Threat model\n")[0]
    for section in part.split("\n### ")[1:]:
        if BLOCK.search(section):
            assert section.splitlines()[0] in source
