"""A server with models, the folders of its ceremonies, and devices that python-tuf's client is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cli.conftest import save_weights
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
