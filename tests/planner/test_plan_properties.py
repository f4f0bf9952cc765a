"""Whatever is published and whatever a device says: the plan against a slow, plain search."""

from __future__ import annotations

from itertools import pairwise, permutations

from hypothesis import given
from hypothesis import strategies as st

from server.planner.abilities import Abilities, Needs
from server.planner.paths import Offer, Packages
from server.planner.plan import Build, Download, Hold, Holding, Switch, Target, Terms, plan

NODES = [letter * 64 for letter in "abcde"]
METHODS = ("ka", "xor", "full")
TARGET = NODES[-1]

digests = st.sampled_from(NODES)


@st.composite
def shelves(draw: st.DrawFn) -> list[Offer]:
    """Up to seven packages between five versions, some of which need new methods or coders."""
    ends = st.tuples(st.none() | digests, digests)
    made = draw(st.lists(st.tuples(ends, st.integers(1, 30), _needs()), max_size=7))
    return [
        Offer(id_, base, target, needs, size)
        for id_, ((base, target), size, needs) in enumerate(made)
        if base != target
    ]


@st.composite
def _needs(draw: st.DrawFn) -> Needs:
    return Needs(
        draw(st.sampled_from(METHODS)),
        draw(st.sampled_from((None, 1, 2))),
        draw(st.sampled_from((None, 1, 2))),
        draw(st.sampled_from((None, "zstd/1", "zstd/2"))),
        draw(st.sampled_from((frozenset(), frozenset({"F32"}), frozenset({"F32", "F16"})))),
    )


@st.composite
def holdings(draw: st.DrawFn) -> Holding:
    abilities = Abilities(
        draw(st.dictionaries(st.sampled_from(METHODS), st.integers(1, 2))),
        draw(st.frozensets(st.integers(1, 2))),
        draw(st.frozensets(st.sampled_from(("zstd/1", "zstd/2")))),
        draw(st.frozensets(st.sampled_from(("F32", "F16")))),
        draw(st.integers(1, 4)),
    )
    slots = draw(st.frozensets(digests, max_size=2))
    return Holding(draw(st.none() | digests), slots, abilities)


def terms() -> st.SearchStrategy[Terms]:
    return st.builds(
        Terms,
        st.integers(0, 40),
        st.lists(st.integers(0, 7), max_size=3).map(tuple),
    )


def leads(device: Holding, path: tuple[Offer, ...]) -> bool:
    """Whether the device can go this way, by the words of the rules."""
    return (
        0 < len(path) <= device.abilities.chain
        and path[0].base in {None, device.current, *device.slots}
        and path[-1].target == TARGET
        and all(one.target == other.base for one, other in pairwise(path))
        and all(device.abilities.decodes(offer.needs) for offer in path)
    )


def cheapest(device: Holding, offers: list[Offer]) -> int | None:
    """The bytes of the cheapest way, by trying all."""
    lengths = range(1, min(len(offers), device.abilities.chain) + 1)
    ways = (path for n in lengths for path in permutations(offers, n) if leads(device, path))
    return min((sum(offer.size for offer in path) for path in ways), default=None)


@given(holdings(), shelves(), terms())
def test_a_plan_keeps_all_promises(device: Holding, offers: list[Offer], terms: Terms) -> None:
    target = Target(9, TARGET, {digest: n for n, digest in enumerate(NODES)})
    found = plan(device, target, Packages(offers), terms)
    least = cheapest(device, offers)
    if isinstance(found, Switch):
        assert TARGET in {device.current, *device.slots}
        return
    assert TARGET not in {device.current, *device.slots}
    if isinstance(found, Download):
        total = sum(offer.size for offer in found.packages)
        assert leads(device, found.packages)
        assert terms.budget == 0 or total <= terms.budget
        stands = tuple(offer.package_id for offer in found.packages) == terms.standing
        assert stands or total == least
        return
    assert least is None or 0 < terms.budget < least
    if isinstance(found, Build):
        wanted = found.wanted
        assert device.abilities.decodes(Needs(wanted.method, 1, 1, "zstd/1"))
        assert wanted.base_id is None or NODES[wanted.base_id] in {device.current, *device.slots}
        base = None if wanted.base_id is None else NODES[wanted.base_id]
        assert not any(
            (o.base, o.target, o.needs.method) == (base, TARGET, wanted.method) for o in offers
        )
        return
    assert isinstance(found, Hold)
    if found.reason == "over_budget":
        assert found.detail == {"bytes": least, "budget": terms.budget}
    else:
        assert least is None
