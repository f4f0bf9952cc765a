"""Releasing and listing, as a client of the specification sees it."""

from __future__ import annotations

from collections.abc import Callable

from server.db import reading
from tests.trust.shop import STREAM, Shop, TufDevice, find_model, sha


def test_a_released_version_and_its_package_are_accepted(
    shop: Shop, device: Callable[..., TufDevice]
) -> None:
    shop.release(1, 2)
    package = shop.build(2, base=1)
    shop.offer(package)
    found = device().refresh("v/1", "v/2", "v/3", f"p/{package}")
    assert set(found) == {"v/1", "v/2", f"p/{package}"}
    version, listed = found["v/2"], found[f"p/{package}"]
    assert (version.length, version.hashes) == (STREAM, {"sha256": sha("m 2")})
    assert version.custom == {"schema": sha("schema")}
    assert (listed.length, listed.hashes) == (1002, {"sha256": package})
    assert listed.custom == {"base": sha("m 1"), "result": sha("m 2"), "method": "ka"}


def test_nothing_is_sent_to_whoever_has_all(shop: Shop, device: Callable[..., TufDevice]) -> None:
    shop.release(1)
    camera = device()
    camera.refresh()
    with reading(shop.engine) as session:
        assert shop.trust.answer(session, find_model(session), camera.versions) is None
