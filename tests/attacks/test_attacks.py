"""The table of attacks: each is refused and changes nothing, and each needs its one defence."""

from __future__ import annotations

import inspect
from collections import Counter
from typing import Any

import pytest

# Each module puts its attacks into the table.
from tests.attacks import (  # noqa: F401
    by_data,
    by_devices,
    by_stolen_keys,
    by_uploads,
    on_the_api,
    on_the_network,
    on_the_repository,
    on_tls,
)
from tests.attacks.attack import ATTACKS, Attack

each_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=list(ATTACKS))


def staged(attack: Attack, request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """The stage, and the act upon it: parameters are fixtures, the first one is the stage."""
    names = list(inspect.signature(attack.arrange).parameters)
    given = [request.getfixturevalue(name) for name in names]
    return given[0], attack.arrange(*given)


@each_attack
def test_refused_and_unchanged(attack: Attack, request: pytest.FixtureRequest) -> None:
    stage, act = staged(attack, request)
    before = stage.state()
    seen = act()
    attack.judge(before, seen, stage.state())


@each_attack
def test_needs_its_defence(
    attack: Attack, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, act = staged(attack, request)
    before = stage.state()
    with attack.defenceless(monkeypatch):
        seen = act()
    with pytest.raises(AssertionError):
        attack.judge(before, seen, stage.state())
    assert seen.code == attack.then, seen.told


def test_there_are_enough_of_each_kind() -> None:
    found = Counter(attack.area for attack in ATTACKS.values())
    assert found.total() >= 30
    assert set(found) == {"repository", "network", "device", "api"}


@each_attack
def test_each_says_what_it_does(attack: Attack) -> None:
    assert (attack.arrange.__doc__ or "").endswith(".")
