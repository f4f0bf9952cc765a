"""The stages of attacks: a server with keys, and a device with its server."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.attacks.device import Device
from tests.attacks.plant import Plant
from tests.attacks.ranks import Ranks
from tests.attacks.victim import Victim
from tests.certificates import Authority, authority
from tests.edge_agent.plane import MODEL, Bench, Plane, Shelf, make_shelf, serving


@pytest.fixture
def plant(serve: Callable[..., Any], weights_file: Callable[..., Path]) -> Plant:
    """A server that asks for keys, with a model `m` and a viewer."""
    return Plant(serve, weights_file)


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return make_shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture
def plane() -> Iterator[Plane]:
    with serving(Plane()) as served:
        yield served


@pytest.fixture
def device(plane: Plane, shelf: Shelf, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Device:
    """A device that runs version 1."""
    caplog.set_level(logging.INFO)
    settings = {
        "server": plane.url,
        "name": "lamp-3",
        "state_dir": str(tmp_path / "state"),
        "enrolment_token": plane.enrolment_token,
        "models": {MODEL: {}},
    }
    return Device(Bench(settings), plane, shelf, caplog)


@pytest.fixture
def ranks(plant: Plant) -> Ranks:
    """The server of `plant`, at which devices enrol."""
    return Ranks(plant)


@pytest.fixture
def victim(tmp_path: Path) -> Victim:
    """What a device trusts that runs version 1 of three."""
    return Victim(tmp_path / "state")


@pytest.fixture
def signer(tmp_path: Path) -> Authority:
    """A private authority."""
    return authority(tmp_path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder that datasets may lie in, beside one that they may not."""
    for name in ("allowed", "secret"):
        (tmp_path / name).mkdir()
    images = {"images": np.zeros((2, 4, 4), np.uint8), "labels": np.array([0, 1])}
    np.savez(tmp_path / "secret" / "x.npz", **images)
    return tmp_path


@pytest.fixture
def tls() -> Iterator[Callable[[ssl.SSLContext], Any]]:
    """Serves device planes over TLS, until the end of the test."""
    with ExitStack() as stack:
        yield lambda context: stack.enter_context(serving(Plane(), context))
