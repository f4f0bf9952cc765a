"""Secrets are compared in a time that tells nothing: as often, and of the same length, for all."""

from __future__ import annotations

import hmac
from collections.abc import Callable

import pytest

from tests.attacks.plant import ADMIN, Plant
from tests.device_keys import DeviceKey

Ask = Callable[[str], object]


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The lengths of what is compared, for as long as the test lasts."""
    found: list[tuple[int, int]] = []
    real = hmac.compare_digest

    def watched(given: str, wanted: str) -> bool:
        found.append((len(given), len(wanted)))
        return real(given, wanted)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    return found


def comparisons(ask: Ask, guesses: list[str], compared: list[tuple[int, int]]) -> set[object]:
    """What is compared for each guess."""
    found = set()
    for guess in guesses:
        compared.clear()
        ask(guess)
        found.add(tuple(compared))
    return found


def test_keys_of_operators(plant: Plant, compared: list[tuple[int, int]]) -> None:
    known = plant.key("admin")
    unknown = known.replace(known[5:17], "0" * 12)
    guesses = [known[:-1] + "_", known[:-43] + "A" * 43, unknown, "weft", ADMIN[:-1], "A" * 300]
    (found,) = comparisons(
        lambda guess: plant.seen("GET", "/api/v1/models", guess), guesses, compared
    )
    assert found == ((64, 64), (64, 64))  # WEFT_ADMIN_KEY's, and the table's: of hashes, in hex


def test_enrolment_tokens(plant: Plant, compared: list[tuple[int, int]]) -> None:
    key = DeviceKey()

    def ask(guess: str) -> object:
        body = key.enrolment({"name": "cam", "token": guess})
        return plant.ask("POST", "/device/v1/enrol", None, **body)

    guesses = ["enrol-me-pleasf", "enrol-me", "A" * 300]
    (found,) = comparisons(ask, guesses, compared)
    assert found == ((64, 64),)  # that of the setting; others are found by their hash
