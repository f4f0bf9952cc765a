"""The rules of the plan, one by one."""

from __future__ import annotations

from typing import Any

import pytest

from server.planner.abilities import Abilities, Needs
from server.planner.paths import Offer, Packages
from server.planner.plan import (
    Build,
    Download,
    Hold,
    Holding,
    Switch,
    Target,
    Terms,
    Wanted,
    plan,
    way_of,
)

A, B, C, X = ("a" * 64, "b" * 64, "c" * 64, "f" * 64)
#: Ids of the versions: A is 1, B is 2, C is 3; X is unknown.
TO_C = Target(3, C, {A: 1, B: 2})
ALONE = Target(3, C)


def offer(id_: int, base: str | None, target: str, method: str, size: int, **needs: Any) -> Offer:
    return Offer(id_, base, target, Needs(method, **needs), size)


AB = offer(1, A, B, "ka", 10)
BC = offer(2, B, C, "ka", 20)
AC = offer(3, A, C, "ml", 50)
XOR = offer(4, A, C, "xor", 800)
FULL = offer(5, None, C, "full", 900)
FULL_B = offer(6, None, B, "full", 700)

NEWLY_CODED = offer(7, A, C, "sparse", 5, coder="range/2")
OF_RANGE_1 = frozenset({"zstd/1", "range/1"})

FULL_WANTED, XOR_WANTED = Wanted(3), Wanted(3, 1)


def device(current: str | None, *slots: str, chain: int = 8, **said: Any) -> Holding:
    return Holding(current, frozenset(slots), Abilities(chain=chain, **said))


def going(*offers: Offer) -> Download:
    return Download(offers)


@pytest.mark.parametrize(
    ("holding", "offers", "expected"),
    [
        (device(C), [AC], Switch()),
        (device(A, A, C), [AC], Switch()),
        (device(A), [AC, XOR, FULL], going(AC)),
        (device(A), [AB, BC, AC, FULL], going(AB, BC)),
        (device(A, chain=1), [AB, BC, AC, FULL], going(AC)),
        (device(A, chain=1), [AB, BC, FULL], going(FULL)),
        (device(A, A, B), [BC, AC], going(BC)),
        (device(None), [AC, FULL], going(FULL)),
        (device(None), [FULL_B, BC, FULL], going(FULL_B, BC)),
        (device(X), [AC, FULL], going(FULL)),
        (device(A, methods={"xor": 1, "full": 1}), [AC, XOR, FULL], going(XOR)),
        (device(A), [AB], Build(XOR_WANTED)),
        (device(B), [AB], Build(Wanted(3, 2))),
        (device(A, A, B), [], Build(XOR_WANTED)),
        (device(X, B), [], Build(Wanted(3, 2))),
        (device(X), [], Build(FULL_WANTED)),
        (device(None), [], Build(FULL_WANTED)),
        (device(A, methods={"full": 1}), [AC], Build(FULL_WANTED)),
        (device(A, coders=OF_RANGE_1), [NEWLY_CODED, XOR], going(XOR)),
        (device(A, coders=OF_RANGE_1), [NEWLY_CODED], Build(XOR_WANTED)),
        (device(A, coders=OF_RANGE_1 | {"range/2"}), [NEWLY_CODED, XOR], going(NEWLY_CODED)),
        (device(A, methods={"ka": 1}), [AC, XOR], Hold("cannot_decode")),
        (device(B, methods={"ka": 1}), [AC], Hold("no_suitable_package")),
    ],
)
def test_ways(holding, offers, expected):
    assert plan(holding, TO_C, Packages(offers), Terms()) == expected


@pytest.mark.parametrize(
    ("offers", "budget", "expected"),
    [
        ([AC, FULL], 50, going(AC)),
        ([AC, FULL], 49, Build(XOR_WANTED)),
        ([XOR, FULL], 800, going(XOR)),
        ([XOR], 799, Build(FULL_WANTED)),
        ([XOR, FULL], 799, Hold("over_budget", {"bytes": 800, "budget": 799})),
        ([AC, XOR, FULL], 49, Hold("over_budget", {"bytes": 50, "budget": 49})),
        ([XOR, FULL], 0, going(XOR)),
    ],
)
def test_the_budget_decides_once_the_bytes_are_known(offers, budget, expected):
    assert plan(device(A), TO_C, Packages(offers), Terms(budget)) == expected


def test_a_full_package_is_held_against_the_budget_like_any_other():
    found = plan(device(X), ALONE, Packages([FULL]), Terms(899))
    assert found == Hold("over_budget", {"bytes": 900, "budget": 899})


def test_nobody_builds_what_might_be_smaller_than_what_fits():
    assert plan(device(A), TO_C, Packages([FULL]), Terms(1000)) == going(FULL)


def test_an_offer_stands_while_it_is_possible():
    both = Packages([AC, XOR])
    assert plan(device(A), TO_C, both, Terms(standing=(4,))) == going(XOR)
    assert plan(device(A), TO_C, both, Terms(100, standing=(4,))) == going(AC)
    assert plan(device(A), TO_C, Packages([AC]), Terms(standing=(4,))) == going(AC)
    assert plan(device(A, methods={"ml": 1}), TO_C, both, Terms(standing=(4,))) == going(AC)
    chain = Packages([AB, BC, AC])
    assert plan(device(A), TO_C, chain, Terms(standing=(1, 2))) == going(AB, BC)
    assert plan(device(A, chain=1), TO_C, chain, Terms(standing=(1, 2))) == going(AC)
    assert plan(device(A), TO_C, chain, Terms(standing=(2,))) == going(AB, BC)


def test_a_build_that_failed_gives_way_to_the_next():
    nothing = Packages()
    failed = Terms(unbuildable={XOR_WANTED})
    assert plan(device(A), TO_C, nothing, failed) == Build(FULL_WANTED)
    both = Terms(unbuildable={XOR_WANTED, FULL_WANTED})
    assert plan(device(A), TO_C, nothing, both) == Hold("build_failed")
    over = Terms(10, unbuildable={XOR_WANTED, FULL_WANTED})
    assert plan(device(A), TO_C, Packages([AC]), over).reason == "over_budget"


def test_weights_that_are_gone_cannot_be_reached_but_by_a_slot():
    gone = Target(3, C, {A: 1}, is_removed=True)
    assert plan(device(A), gone, Packages([AC]), Terms()) == Hold("weights_removed")
    assert plan(device(A, C), gone, Packages(), Terms()) == Switch()


def test_weights_that_the_device_cannot_store_are_not_offered_but_a_slot_is_taken():
    unfit = Target(3, C, fits=False)
    assert plan(device(A), unfit, Packages([AC, FULL]), Terms(standing=(3,))) == Hold("needs_ab")
    assert plan(device(A, C), unfit, Packages(), Terms()) == Switch()


@pytest.mark.parametrize(
    ("said", "needs", "decodes"),
    [
        ({}, {"version": 9, "format": 9, "coder": "new/1", "dtypes": frozenset({"F8"})}, True),
        ({"methods": {"ka": 1}}, {"version": 1}, True),
        ({"methods": {"ka": 2}}, {"version": 1}, True),
        ({"methods": {"ka": 1}}, {"version": 2}, False),
        ({"methods": {"ml": 1}}, {}, False),
        ({"formats": frozenset({1})}, {"format": 2}, False),
        ({"coders": frozenset({"zstd/1"})}, {"coder": "zstd/2"}, False),
        ({"dtypes": frozenset({"F32"})}, {"dtypes": frozenset({"F32"})}, True),
        ({"dtypes": frozenset({"F32"})}, {"dtypes": frozenset({"F32", "BF16"})}, False),
    ],
)
def test_what_a_device_decodes(said, needs, decodes):
    assert Abilities(**said).decodes(Needs("ka", **needs)) is decodes


def test_a_chain_has_eight_packages_at_most():
    digests = [f"{n:064x}" for n in range(10)]
    steps = [offer(n, digests[n], digests[n + 1], "ka", 1) for n in range(9)]
    to_last = Target(9, digests[9])
    assert plan(device(digests[1], chain=99), to_last, Packages(steps), Terms()) == going(
        *steps[1:]
    )
    far = plan(device(digests[0], chain=99), to_last, Packages(steps), Terms())
    assert far == Build(Wanted(9))


def test_equal_sizes_are_decided_by_fewer_packages_then_by_age():
    same, twin = offer(7, A, C, "ka", 30), offer(9, A, C, "ka", 30)
    assert plan(device(A), TO_C, Packages([AB, BC, twin, same]), Terms()) == going(same)


def test_each_way_has_a_word():
    words = [way_of(path) for path in ((), (AC,), (AB, BC), (XOR,), (FULL,))]
    assert words == ["switch", "direct", "chain", "lossless", "full"]
