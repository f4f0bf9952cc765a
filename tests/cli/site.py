"""A server with models, the folders of its ceremonies, and devices that python-tuf's client is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server.trust import sealed
from tests.cli.conftest import Done, save_weights
from tests.trust.shop import TufDevice

PASSPHRASE = "correct horse battery"


class Site:
    """`server`: a folder of a server; `offline`: of the keys that are outside of it."""

    def __init__(self, folder: Path, serve: Callable[..., Any], weft: Callable[..., Any]) -> None:
        self.folder, self._serve, self._weft = folder, serve, weft
        self.data, self.keys = folder / "server", folder / "server" / "keys"
        self.offline = folder / "stick"
        self.running: Any = None

    def start(self, **settings: Any) -> None:
        """Start the server, again if it runs."""
        if self.running is not None:
            self.running.stop()
        self.running = self._serve(data_dir=self.data, require_keys=False, **settings)

    def weft(self, *words: object) -> Any:
        """A command to the server."""
        return self._weft(*words, "--json", "--server", self.running.url)

    def refusal(self, *words: object) -> dict[str, str]:
        """The error of a command that must be refused."""
        alone = words[0] == "keys" and words[1] in ("init", "make", "sign")
        done: Done = self._weft(*words, "--json") if alone else self.weft(*words)
        assert done.status == 1, done.err
        return dict(json.loads(done.err.splitlines()[-1])["error"])

    def alone(self, *words: object) -> Any:
        """A command that needs no server, and must do what it should; its answer."""
        done = self._weft(*words, "--json")
        assert done.status == 0, done.err
        return json.loads(done.out)

    def done(self, *words: object) -> Any:
        """A command that must do what it should; its answer."""
        done = self.weft(*words)
        assert done.status == 0, done.err
        return json.loads(done.out) if done.out else None

    def keys_do(self, *words: object) -> Any:
        """A ceremony with the offline folder and the server's own, without questions."""
        return self.done("keys", *words, "--folder", self.offline, "--online", self.keys, "--yes")

    def add_model(self, name: str = "digits", versions: int = 2) -> None:
        """A model with so many versions, of which none is released."""
        self.done("models", "create", name)
        for number in range(1, versions + 1):
            path = save_weights(self.folder / f"{name}-{number}.safetensors", number / 8)
            self.done("versions", "upload", name, path)

    def device(self, name: str = "device", model: str = "digits") -> TufDevice:
        """A new device, which holds the first root alone."""
        return TufDevice(self, self.folder / name, model)  # type: ignore[arg-type]

    @property
    def trust(self) -> Any:
        return self.running.app.state.trust

    @property
    def engine(self) -> Any:
        return self.running.app.state.engine

    def private(self, folder: Path) -> list[str]:
        """Words of the roles whose private keys lie in a folder."""
        return sorted(path.name.partition("-")[0] for path in folder.glob("*.pem"))

    def keyids(self, word: str) -> list[str]:
        """The keys that sign for a role now."""
        told = self.done("keys", "status")
        return [key["keyid"] for key in told["keys"] if key["role"] == word]


@pytest.fixture(autouse=True)
def passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody sits at the terminal; and guessing passphrases is no matter here."""
    monkeypatch.setenv("WEFT_KEYS_PASSPHRASE", PASSPHRASE)
    monkeypatch.setattr(sealed, "ROUNDS", 1000)


@pytest.fixture
def site(tmp_path: Path, serve: Any, weft: Any) -> Site:
    """A server whose keys were made in a ceremony: two of three root keys sign."""
    site = Site(tmp_path, serve, weft)
    site.alone("keys", "init", "--folder", site.offline, "--online", site.keys, "--yes")
    site.start(keys_dir=site.keys)
    site.add_model()
    return site


@pytest.fixture
def embedded(tmp_path: Path, serve: Any, weft: Any) -> Site:
    """A server that has made its keys itself."""
    site = Site(tmp_path, serve, weft)
    site.start()
    site.add_model()
    return site


def release(site: Site, number: int, *words: object, model: str = "digits") -> Any:
    """Release a version by the offline key."""
    return site.done("release", model, number, "--folder", site.offline, "--yes", *words)
