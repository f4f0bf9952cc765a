"""A model in a database, its repository, and devices that follow python-tuf's own client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from server.db import open_engine
from server.settings import load_settings
from tests.trust.shop import Shop, TufDevice


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def shop(engine: Engine, tmp_path: Path) -> Shop:
    """A repository whose keys the server has made, and a model `m` of three versions."""
    shop = Shop(engine, load_settings(data_dir=tmp_path / "server"))
    shop.register("m", versions=3)
    return shop


@pytest.fixture
def device(shop: Shop, tmp_path: Path) -> Callable[..., TufDevice]:
    """New devices that hold the first root alone."""

    def make(name: str = "device", model: str = "m") -> TufDevice:
        return TufDevice(shop, tmp_path / name, model)

    return make
