"""The rules of the plan, one by one."""

from __future__ import annotations

import pytest

from server.planner.plan import Build, Download, FullPackage, Hold, Holding, Offer, Switch, plan

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
FULL = FullPackage(1, 2)
KA = Offer(1, A, B, "ka", 9_000)
XOR = Offer(2, A, B, "xor", 800_000)
WHOLE = Offer(3, None, B, "full", 900_000)
OTHER = Offer(4, C, B, "ka", 10)


@pytest.mark.parametrize(
    ("device", "offers", "expected"),
    [
        (Holding(B), [KA], Switch()),
        (Holding(A, frozenset({A, B})), [KA], Switch()),
        (Holding(A), [XOR, KA, WHOLE, OTHER], Download(KA)),
        (Holding(A, methods={"xor": 1, "full": 1}), [XOR, KA, WHOLE], Download(XOR)),
        (Holding(A), [OTHER, WHOLE], Download(WHOLE)),
        (Holding(None), [KA, WHOLE], Download(WHOLE)),
        (Holding(A, frozenset({A, C})), [OTHER], Build(FULL)),
        (Holding(None), [], Build(FULL)),
        (Holding(None, methods={"full": 1}), [], Build(FULL)),
        (Holding(A, methods={"ka": 1}), [XOR, WHOLE], Hold("no_suitable_package")),
        (Holding(A), [Offer(5, A, C, "ka", 1)], Build(FULL)),
    ],
)
def test_rules(device, offers, expected):
    assert plan(device, B, offers, FULL) == expected


def test_equal_sizes_are_decided_by_age():
    twin = Offer(9, A, B, "ka", KA.size)
    assert plan(Holding(A), B, [twin, KA], FULL) == Download(KA)
