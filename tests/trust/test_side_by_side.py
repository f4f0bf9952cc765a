"""Several processes publish at once: nothing is lost, and devices accept each state."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from server.db import open_engine, reading, writing
from server.trust.opening import open_trust
from shared.metadata import ROLES
from tests.trust.shop import Shop, TufDevice, find_package, find_version, rows_of

Make = Callable[..., TufDevice]


def each_on_its_own(
    shop: Shop, does: Callable[[Shop], None], *those: Callable[[Shop], None]
) -> None:
    """All at once, each with its own connections and its own view of the keys."""
    start = Barrier(len(those) + 1)

    def run(one: Callable[[Shop], None]) -> None:
        engine = open_engine(shop.engine.url.render_as_string(hide_password=False))
        try:
            own = Shop.__new__(Shop)
            own.engine, own.settings = engine, shop.settings
            own.trust = open_trust(shop.settings, engine)
            start.wait()
            one(own)
        finally:
            engine.dispose()

    with ThreadPoolExecutor(len(those) + 1) as pool:
        list(pool.map(run, (does, *those)))


def test_what_several_list_at_once_is_all_listed(shop: Shop, device: Make) -> None:
    shop.release(1, 2)
    packages = [shop.build(2, base=1, note=str(n)) for n in range(4)]

    def offer(sha256: str) -> Callable[[Shop], None]:
        return lambda own: own.offer(sha256)

    camera = device()
    camera.refresh()
    each_on_its_own(shop, *map(offer, packages))
    assert camera.lists(*packages) == packages
    own = {row[:3] for row in rows_of(shop)["metadata"]}
    assert len(own) == len(rows_of(shop)["metadata"]), "each version is published once"


def test_releases_renewals_and_withdrawals_at_once(shop: Shop, device: Make) -> None:
    shop.release(1, 2)
    package = shop.build(1)

    def withdraw(own: Shop) -> None:
        own.withdraw(2)

    def release(own: Shop) -> None:
        own.release(3)

    def offer(own: Shop) -> None:
        own.offer(package)

    camera = device()
    camera.refresh()
    each_on_its_own(shop, withdraw, release, offer)
    assert camera.lists(1, 2, 3, package) == [1, 3, package]


def test_a_process_signs_by_a_root_that_another_one_took(shop: Shop, device: Make) -> None:
    shop.release(1)
    camera = device()
    other = open_trust(shop.settings, shop.engine)
    shop.prepare_root()
    with shop.writing() as session:
        other.accept_root(session, shop.next_root.read_bytes())
    shop.release(2)
    assert camera.lists(1, 2) == [1, 2]


def test_what_is_rolled_back_was_never_seen(shop: Shop, device: Make) -> None:
    """The same numbers of versions are used again, for other content."""
    shop.release(1)
    camera = device()
    before = rows_of(shop)
    try:
        with writing(shop.engine) as session:
            shop.trust.release(session, find_version(session, 2))
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert rows_of(shop) == before
    shop.release(3)
    assert camera.lists(1, 2, 3) == [1, 3]


def test_reading_never_signs(shop: Shop) -> None:
    shop.release(1)
    package = shop.build(1)
    before = rows_of(shop)
    with reading(shop.engine) as session:
        assert not shop.trust.is_listed(session, [find_package(session, package)])
        assert shop.trust.can_release(session)
    assert rows_of(shop) == before
    shop.offer(package)
    with reading(shop.engine) as session:
        assert shop.trust.is_listed(session, [find_package(session, package)])
    assert {row[1] for row in rows_of(shop)["metadata"]} == set(ROLES) - {"root"}
