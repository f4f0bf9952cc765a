"""What an agent is recorded at: one update each, from what a device holds to how it ends."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from edge_agent.config import StorageMode
from shared.metadata import PACKAGES, SNAPSHOT, TARGETS, TIMESTAMP
from shared.wire import PACKAGES_PATH, DesiredModel, Result
from tests.edge_agent.plane import MODEL, Plane, Shelf

#: Held by the server under this name: a package whose header and offer promise other weights.
LYING = "lying"
HOLDS_COPY = MappingProxyType({"runtime": {"kind": "file", "holds_copy": True}})
REJECTING = MappingProxyType({"health_command": ["false"]})
NO_SETTINGS: Mapping[str, Any] = MappingProxyType({})
#: Before the recording, while it is made, and after a crash.
When: TypeAlias = Literal["before", "recorded", "after"]


@dataclass(frozen=True)
class Offer:
    """A version, and the packages by which to come to it; `cut`: bytes that come at first."""

    version: int
    packages: tuple[str, ...] = ()
    cut: int | None = None


@dataclass(frozen=True)
class Scene:
    """`before`: what the device installs first. `ends`: the version in use at the end.

    `mode` is the storage mode of the recorded update, `mode_before` of those before it.
    `delivered`: the device begins with version 1 beside its state directory.
    `news`: what the server wants once the crash has happened, if that is something else; a version
    of 0 is nothing. `rejected`: weights that were accepted before are not any more. `rotates`: all
    that is signed is so by other keys when the recording begins.
    """

    name: str
    mode: StorageMode
    offer: Offer
    ends: int | None
    before: tuple[Offer, ...] = ()
    result: Result = "committed"
    mode_before: StorageMode | None = None
    delivered: bool = False
    settings: Mapping[str, Any] = field(default_factory=lambda: NO_SETTINGS)
    code: str | None = None
    news: Offer | None = None
    rejected: bool = False
    rotates: bool = False

    @property
    def starts(self) -> int | None:
        """The version in use when the recording begins."""
        return self.before[-1].version if self.before else None

    def allowed(self) -> set[int | None]:
        """The versions that may be in use after a crash; None: there are no weights to be found."""
        found = {self.starts, self.ends}
        if self.result != "failed_no_change":
            found.add(self.offer.version)
        if self.delivered:
            found.add(1)
        return found | {None} if self.mode == "inplace" else found

    def model(self, shelf: Shelf, when: When) -> dict[str, Any]:
        """The settings of the model at that time."""
        mode = (when == "before" and self.mode_before) or self.mode
        delivered = {"initial": str(shelf.weights[1])} if self.delivered else {}
        judged = self.settings if when != "before" else {}
        if self.rejected and when == "after":
            judged = REJECTING
        return {"storage": mode, **HOLDS_COPY, **delivered, **judged}


FULL, FIRST, SECOND = Offer(1, ("full-1",)), Offer(2, ("xor-12",)), Offer(3, ("xor-23",))
CHAIN = Offer(3, ("xor-12", "xor-23"))
BAD = {"settings": REJECTING, "result": "failed_rolled_back", "code": "health.failed"}
LIE: Any = {"result": "failed_no_change", "code": "result.mismatch"}
NOTHING, OTHER = Offer(0), Offer(3, ("full-3",))

SCENES = {
    scene.name: scene
    for scene in (
        Scene("update", "ab", FIRST, 2, (FULL,)),
        Scene("first installation", "ab", FULL, 1),
        Scene("delivered weights", "ab", FIRST, 2, delivered=True),
        Scene("over an older slot", "ab", SECOND, 3, (FULL, FIRST)),
        Scene("from its own slot", "ab", SECOND, 3, (FULL, FIRST, Offer(1))),
        Scene("back to a slot", "ab", Offer(1), 1, (FULL, FIRST)),
        Scene("chain", "ab", CHAIN, 3, (FULL,)),
        Scene("download in two parts", "ab", Offer(2, ("full-2",), 2000), 2, (FULL,)),
        Scene("other keys", "ab", FIRST, 2, (FULL,), rotates=True),
        Scene("rolled back", "ab", FIRST, 1, (FULL,), **BAD),
        Scene("first rolled back", "ab", FULL, None, **BAD),
        Scene("refused", "ab", Offer(3, (LYING,)), 1, (FULL,), **LIE),
        Scene("update in place", "inplace", FIRST, 2, (FULL,)),
        Scene("full package in place", "inplace", Offer(2, ("full-2",)), 2, (FULL,)),
        Scene("first in place", "inplace", FULL, 1),
        Scene("rolled back in place", "inplace", FIRST, 1, (FULL,), **BAD),
        Scene("first rolled back in place", "inplace", FULL, None, **BAD),
        Scene("refused in place", "inplace", Offer(3, (LYING,)), 1, (FULL,), **LIE),
        Scene("to one file", "inplace", SECOND, 3, (FULL, FIRST), mode_before="ab"),
        Scene("to two slots", "ab", FIRST, 2, (FULL,), mode_before="inplace"),
        Scene("rejected afterwards", "ab", FIRST, 2, (FULL,), rejected=True),
        Scene("rejected afterwards in place", "inplace", FIRST, 2, (FULL,), rejected=True),
        Scene("withdrawn", "ab", FIRST, 2, (FULL,), news=NOTHING),
        Scene("another", "ab", FIRST, 2, (FULL,), news=OTHER),
        Scene("another than a chain", "ab", CHAIN, 3, (FULL,), news=Offer(2, ("full-2",))),
        Scene("another than a bad one", "ab", FIRST, 1, (FULL,), news=OTHER, **BAD),
        Scene("withdrawn in place", "inplace", FIRST, 2, (FULL,), news=NOTHING),
        Scene("another in place", "inplace", FIRST, 2, (FULL,), news=OTHER),
        Scene("a bad one withdrawn in place", "inplace", FIRST, 1, (FULL,), news=NOTHING, **BAD),
    )
}


def wanted(shelf: Shelf, offer: Offer, assignment: int) -> DesiredModel:
    """The offer as the server says it."""
    found = [_package(shelf, offer.version, name) for name in offer.packages]
    named = {"package": found[0]} if len(found) == 1 else {"chain": found or None}
    fields = shelf.wanted(offer.version, None, assignment).model_dump()
    return DesiredModel.model_validate(fields | named)


def _package(shelf: Shelf, version: int, name: str) -> dict[str, Any]:
    if name != LYING:
        package = shelf.wanted(version, name).package
        assert package is not None
        return package.model_dump()
    sha256, data = lie(shelf)
    true = _package(shelf, version, "xor-12")
    return true | {"sha256": sha256, "size": len(data), "url": f"{PACKAGES_PATH}/{sha256}"}


def lie(shelf: Shelf) -> tuple[str, bytes]:
    """A package that promises version 3 and gives version 2; its SHA-256."""
    true = shelf.packages["xor-12"].path.read_bytes()
    lying = true.replace(bytes.fromhex(shelf.digests[2]), bytes.fromhex(shelf.digests[3]))
    assert lying != true
    return hashlib.sha256(lying).hexdigest(), lying


def rotate(plane: Plane) -> None:
    """Have others sign, so that a device has all to replace that it holds of what is signed."""
    names = f"{len(plane.roots.files)}"
    for role in (TARGETS, SNAPSHOT, TIMESTAMP):
        plane.roots.rotate(role, f"{role} {names}")
    plane.repository(MODEL).publish(TARGETS, PACKAGES)


def offer(plane: Plane, shelf: Shelf, what: Offer, assignment: int) -> None:
    """Have the server want this."""
    plane.offer(shelf, wanted(shelf, what, assignment) if what.version else None)
    sha256, data = lie(shelf)
    plane.files[sha256] = data
    plane.faults = []
    if what.cut is not None:
        plane.faults.append(lambda handler: _cut(handler, what.cut))


def _cut(handler: Any, after: int | None) -> bool:
    if PACKAGES_PATH not in handler.path:
        return False
    handler.package(handler.plane.files[handler.path.rpartition("/")[2]], after)
    return True
