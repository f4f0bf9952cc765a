"""Metadata for a medium: they hold for long, list what lies there, and give way to later ones."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from tuf.api.exceptions import ExpiredMetadataError

from server.errors import BadTrust, BadVersion
from server.tables import now
from shared.metadata import ROOT, TARGETS, unpack
from tests.trust.shop import Shop, TufDevice, find_model, find_package, rows_of

Make = Callable[..., TufDevice]
DAY = timedelta(days=1)


@pytest.fixture
def listed(shop: Shop) -> Shop:
    shop.release(1, 2)
    shop.packages = [shop.build(1), shop.build(2, base=1)]
    shop.offer(shop.packages[0])
    return shop


def bundle(shop: Shop, days: int, *packages: str) -> bytes:
    with shop.writing() as session:
        those = [find_package(session, sha256) for sha256 in packages]
        return shop.trust.bundle_metadata(session, find_model(session), those, days)


def bring(device: TufDevice, content: bytes) -> None:
    """Have the device hold what lies on the medium, as a client that verified it would."""
    for file in unpack(content):
        (device.folder / f"{file.role}.json").write_bytes(file.content)


def test_a_bundle_holds_as_long_as_asked_and_lists_its_packages_alone(
    listed: Shop, device: Make
) -> None:
    first, second = listed.packages
    content = bundle(listed, 180, second)
    camera = device()
    bring(camera, content)
    listed.trust = _Silent()  # type: ignore[assignment]
    assert set(camera.refresh("v/1", f"p/{first}", f"p/{second}", at=now() + 179 * DAY)) == {
        "v/1",
        f"p/{second}",
    }
    with pytest.raises(ExpiredMetadataError):
        camera.refresh(at=now() + 181 * DAY)


class _Silent:
    """A server that is out of reach."""

    def answer(self, *_: object) -> None:
        return None


def test_a_bundle_brings_all_roots(listed: Shop) -> None:
    listed.trust.renew(now() + 400 * DAY)
    found = [(f.role, f.version) for f in unpack(bundle(listed, 30, listed.packages[0]))]
    assert found[:2] == [(ROOT, 1), (ROOT, 2)]
    assert len(found) == 6


def test_a_device_that_is_back_online_takes_what_the_server_has(listed: Shop, device: Make) -> None:
    first, second = listed.packages
    camera, another = device(), device("another")
    another.refresh()
    bring(camera, bundle(listed, 180, second))
    for one in (camera, another):
        assert one.lists(first, second) == [first]
        with pytest.raises(ExpiredMetadataError):
            one.refresh(at=now() + 31 * DAY)


def test_a_bundle_of_what_is_not_released_is_refused(listed: Shop) -> None:
    package = listed.build(3, base=2)
    before = rows_of(listed)
    with pytest.raises(BadVersion):
        bundle(listed, 30, package)
    assert rows_of(listed) == before


def test_a_list_that_ends_sooner_is_signed_anew_where_its_key_is(listed: Shop) -> None:
    def end(content: bytes) -> list[bytes]:
        return [f.content for f in unpack(content) if f.role == TARGETS]

    assert end(bundle(listed, 360, listed.packages[0])) != end(
        bundle(listed, 366, listed.packages[0])
    )
    listed.take_offline(TARGETS)
    before = rows_of(listed)
    with pytest.raises(BadTrust, match="list of versions holds until") as caught:
        bundle(listed, 400, listed.packages[0])
    assert caught.value.code == "repository.ends_sooner"
    assert rows_of(listed) == before


def test_a_bundle_holds_no_longer_than_the_root(listed: Shop) -> None:
    with pytest.raises(BadTrust, match="root holds until"):
        bundle(listed, 731, listed.packages[0])
