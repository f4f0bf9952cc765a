"""A migrated database without a server; receivers of webhooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine

from server.db import open_engine
from tests.history.receiver import Receiver


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def receivers() -> Iterator[Callable[[], Receiver]]:
    running: list[Receiver] = []

    def start() -> Receiver:
        running.append(Receiver())
        return running[-1]

    yield start
    for receiver in running:
        receiver.close()


@pytest.fixture
def receiver(receivers: Callable[[], Receiver]) -> Receiver:
    return receivers()
