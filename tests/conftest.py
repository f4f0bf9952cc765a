"""What every test stands on: fixed seeds, no network but loopback (see pyproject.toml)."""

from __future__ import annotations

import random
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest

# The same examples in every run: a failure seen in CI is the failure seen at the desk.
hypothesis.settings.register_profile("weft", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("weft")


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)  # for libraries that draw from the global generator
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the working tree."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file, to be copied."""
    from server.db import migrate

    path = tmp_path_factory.mktemp("migrated") / "weft.db"
    migrate(f"sqlite:///{path}")
    return path


class LiveServer:
    """The real app behind real HTTP on loopback, in a thread; `client` speaks to it."""

    def __init__(self, **settings: object) -> None:
        import httpx
        import uvicorn

        from server.app import create_app
        from server.settings import load_settings

        self.settings = load_settings(**settings)
        self.app = create_app(self.settings)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(self.app, log_config=None, timeout_graceful_shutdown=5)
        self._uvicorn = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._uvicorn.run, args=([self._socket],))
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def start(self) -> LiveServer:
        self._thread.start()
        # The socket listens already: the first request waits until the app has started.
        self.client.get("/healthz").raise_for_status()
        return self

    def stop(self) -> None:
        self.client.close()
        self._uvicorn.should_exit = True
        self._thread.join()
        self._socket.close()


@pytest.fixture
def serve(tmp_path: Path, migrated_database: Path) -> Iterator[Callable[..., LiveServer]]:
    """Starts servers on a data folder of the test; settings by keyword."""
    running: list[LiveServer] = []

    def start(**settings: object) -> LiveServer:
        chosen = {"data_dir": tmp_path / "server", "enrolment_token": "enrol-me-please"} | settings
        folder = Path(str(chosen["data_dir"]))
        if not folder.exists():
            folder.mkdir(parents=True)
            shutil.copy(migrated_database, folder / "weft.db")
        running.append(LiveServer(**chosen).start())
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def server(serve: Callable[..., LiveServer]) -> LiveServer:
    """A server with the default settings."""
    return serve()


@pytest.fixture
def weights_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes small weights files; arrays by keyword replace or add tensors (None drops one)."""
    from shared.tensors import write_weights

    def write(seed: int = 0, **changes: np.ndarray | None) -> Path:
        draw = np.random.default_rng(seed)
        arrays: dict[str, np.ndarray | None] = {
            "conv.weight": draw.normal(size=(4, 3, 3, 3)).astype(np.float32),
            "norm.weight": np.ones(4, np.float32),
            "norm.running_mean": draw.normal(size=4).astype(np.float32),
            "norm.running_var": np.full(4, 0.5, np.float32),
        } | {name.replace("__", "."): array for name, array in changes.items()}
        path = tmp_path / f"weights-{len(list(tmp_path.iterdir()))}.safetensors"
        write_weights(path, {n: ("F32", a) for n, a in arrays.items() if a is not None})
        return path

    return write
