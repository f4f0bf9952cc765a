"""What a package asks of a device, and what a device has said that it can do.

Pure. A device that has said nothing of something is taken to know it: it may be an old one, which
was delivered when there was only one of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from shared import coding, methods, package
from shared.wire import MAX_CHAIN

FULL, XOR = "full", "xor"


@dataclass(frozen=True)
class Needs:
    """What a device must know to decode a package. None, empty: not noted."""

    method: str
    version: int | None = None
    format: int | None = None
    coder: str | None = None
    dtypes: frozenset[str] = frozenset()
    """Of the tensors whose elements are changed by arithmetic, not sent as they are."""


#: What the lossless packages need that this server builds.
LOSSLESS: Final[Mapping[str, Needs]] = {
    id_: Needs(id_, methods.get(id_).version, package.FORMAT, coding.DEFAULT_CODER)
    for id_ in (XOR, FULL)
}


@dataclass(frozen=True)
class Abilities:
    """What a device has said that it decodes."""

    methods: Mapping[str, int] = field(default_factory=dict)
    formats: frozenset[int] = frozenset()
    coders: frozenset[str] = frozenset()
    dtypes: frozenset[str] = frozenset()
    chain: int = 1
    """Most packages that it applies in one update."""
    in_place: frozenset[str] = frozenset()
    """Models of which it changes the one file: to weights of the same tensors only."""

    @classmethod
    def of(cls, capabilities: Mapping[str, Any]) -> Abilities:
        """From the capabilities of `shared.wire`, as they are stored."""
        return cls(
            methods=dict(capabilities.get("methods") or {}),
            formats=frozenset(capabilities.get("formats") or ()),
            coders=frozenset(capabilities.get("coders") or ()),
            dtypes=frozenset(capabilities.get("dtypes") or ()),
            chain=int(capabilities.get("chain") or 1),
            in_place=frozenset(capabilities.get("in_place") or ()),
        )

    @property
    def most_packages(self) -> int:
        """Packages of one update: what the device applies, at most MAX_CHAIN."""
        return max(1, min(self.chain, MAX_CHAIN))

    def decodes(self, needs: Needs) -> bool:
        """Whether the device can decode a package with these needs.

        It keeps the earlier versions of a method that it knows (see `shared.methods.DECODABLE`).
        """
        if self.methods and self.methods.get(needs.method, 0) < (needs.version or 1):
            return False
        return (
            _knows(self.formats, needs.format)
            and _knows(self.coders, needs.coder)
            and (not self.dtypes or needs.dtypes <= self.dtypes)
        )


def _knows(said: frozenset[Any], needed: object) -> bool:
    return not said or needed is None or needed in said
