"""Publications that end at a chosen step: by an error, or as a power cut ends a process.

A step is a statement, or the commit, on the connection that writes. The functions here run in
processes that a fork server makes, so that each costs no more than a fork.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from server.db import open_engine
from server.settings import load_settings
from server.tables import now
from server.trust.keyring import Keyring
from server.trust.repository import Trust
from tests.trust.shop import Shop, find_model, find_package

#: What is published, by name: each does nothing more where it was done already.
PUBLICATIONS: dict[str, Callable[[Shop], object]] = {}


def publication(does: Callable[[Shop], object]) -> Callable[[Shop], object]:
    PUBLICATIONS[does.__name__] = does
    return does


@publication
def release(shop: Shop) -> None:
    shop.release(3)


@publication
def list_a_package(shop: Shop) -> None:
    shop.offer(shop.packages[1])


@publication
def withdraw(shop: Shop) -> None:
    shop.withdraw(2)


@publication
def renew(shop: Shop) -> None:
    shop.trust.renew(now() + timedelta(days=20))


@publication
def rotate_the_root(shop: Shop) -> None:
    with shop.writing() as session:
        if len(shop.trust.roots(session)) == 1:
            shop.trust.accept_root(session, shop.next_root.read_bytes())


@publication
def make_a_bundle(shop: Shop) -> None:
    with shop.writing() as session:
        package = find_package(session, shop.packages[0])
        shop.trust.bundle_metadata(session, find_model(session), [package], 90)


@contextmanager
def ending_at(engine: Engine, step: int, end: Callable[[], object]) -> Iterator[list[int]]:
    """`end` is called before the step of this number, counted from 1; yields the count so far."""
    count = [0]

    def take_step(*_: Any) -> None:
        count[0] += 1
        if count[0] == step:
            end()

    names = ("before_cursor_execute", "commit")
    for name in names:
        event.listen(engine, name, take_step)
    try:
        yield count
    finally:
        for name in names:
            event.remove(engine, name, take_step)


def die_at(url: str, data_dir: Path, packages: list[str], what: str, step: int) -> None:
    """In a process of its own: publish, and die before the step."""
    engine = open_engine(url)
    shop = Shop.__new__(Shop)  # as it is left: opening it would publish, too
    shop.engine, shop.settings = engine, load_settings(data_dir=data_dir)
    shop.trust = Trust(engine, Keyring(shop.settings.keys_folder))
    shop.packages = packages
    with ending_at(engine, step, lambda: os.kill(os.getpid(), signal.SIGKILL)):
        PUBLICATIONS[what](shop)
    engine.dispose()
