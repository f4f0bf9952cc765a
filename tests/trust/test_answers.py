"""Answers to devices: only what is lacking, small, and right whatever a device says it holds."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

import pytest

from server.db import reading
from server.tables import now
from server.trust import answers, edition
from shared.metadata import PACKAGES, ROOT, SNAPSHOT, TARGETS, TIMESTAMP, known_bytes, unpack
from tests.trust.shop import Shop, TufDevice, find_model

Make = Callable[..., TufDevice]
DAY = timedelta(days=1)


@pytest.fixture
def listed(shop: Shop) -> Shop:
    shop.release(1)
    shop.offer(shop.build(1))
    return shop


def answer(shop: Shop, **held: int) -> bytes | None:
    with reading(shop.engine) as session:
        return shop.trust.answer(session, find_model(session), held)


def roles(content: bytes | None, known: bytes = b"") -> list[str]:
    return [file.role for file in unpack(content or b"", known)]


def test_answers_are_small(listed: Shop, device: Make) -> None:
    """Bytes of a body: 620 and 490 as measured; four signatures are 256 of them."""
    camera = device()
    camera.refresh()
    assert camera.answer is not None
    assert len(camera.answer) < 700  # first, with one version and one package
    listed.release(2)
    listed.offer(listed.build(2, base=1))
    camera.refresh()
    assert len(camera.answer) < 600  # all four are new
    listed.trust.renew(now() + 8 * DAY)
    camera.refresh()
    assert len(camera.answer) < 200  # the timestamp alone
    assert len(device("new").ask()) == 5


def test_only_what_is_lacking_is_sent(listed: Shop, device: Make) -> None:
    camera = device()
    camera.refresh()
    held = camera.versions
    listed.trust.renew(now() + 8 * DAY)
    known = known_bytes(camera.held)
    assert roles(answer(listed, **held), known) == [TIMESTAMP]
    listed.trust.renew(now() + 30 * DAY)
    assert roles(answer(listed, **held), known) == [TIMESTAMP, SNAPSHOT, PACKAGES]
    listed.trust.renew(now() + 400 * DAY)
    found = roles(answer(listed, **held), known)
    assert found == [ROOT, TIMESTAMP, SNAPSHOT, TARGETS, PACKAGES]


def test_whoever_holds_nothing_gets_all_roots(listed: Shop) -> None:
    listed.trust.renew(now() + 400 * DAY)
    found = roles(answer(listed))
    assert found == [ROOT, ROOT, TIMESTAMP, SNAPSHOT, TARGETS, PACKAGES]


def test_before_anything_is_released_there_are_only_roots(shop: Shop) -> None:
    assert roles(answer(shop)) == [ROOT]
    assert answer(shop, root=1) is None


@pytest.mark.parametrize("role", [TIMESTAMP, TARGETS])
def test_what_is_not_known_here_any_more_is_no_dictionary(
    listed: Shop, device: Make, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    monkeypatch.setattr(edition, "KEPT", 2)
    camera = device()
    camera.refresh()
    for turn in range(4):
        listed.trust.renew(now() + turn * 200 * DAY)
    assert roles(answer(listed, **camera.versions))[-1] == PACKAGES  # as from nothing
    camera.refresh(at=now() + 600 * DAY)
    made_up = camera.versions | {role: camera.versions[role] - 1}
    assert role in roles(answer(listed, **made_up))


def test_a_device_that_says_it_holds_the_newest_gets_nothing_of_it(listed: Shop) -> None:
    """It hurts itself: the server cannot know better."""
    with reading(listed.engine) as session:
        held = {e.role: e.version for e in listed.trust.expiries(session)}
    assert answer(listed, **held) is None


def test_a_device_ahead_of_the_server_is_told_of_in_the_log_once(
    listed: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert answer(listed, root=2, targets=9 * 10**11) is not None
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert said[0].startswith("root of m: a device says it holds version 2, here is 1. Lay")
    assert "sign the list of versions anew: `weft release`" in said[1]


def test_the_same_question_is_packed_once_and_others_push_it_out(
    listed: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = []
    monkeypatch.setattr(answers, "KEPT_ANSWERS", 2)
    real = answers.pack
    monkeypatch.setattr(answers, "pack", lambda *given: packed.append(given) or real(*given))
    first = answer(listed, root=1)
    assert answer(listed, root=1) == first
    assert len(packed) == 1
    answer(listed, root=1, timestamp=1)
    answer(listed, root=1, timestamp=2)
    assert answer(listed, root=1) == first
    assert len(packed) == 4
    listed.release(2)
    assert answer(listed, root=1) != first
