"""What the operator has released, and whether an update keeps to it. Pure.

An update is held against signed metadata once, before anything of it is done:

    1. its version is released, and with these very weights;
    2. each of its packages is listed, with this length, base and method, and with the result that
       the next one starts from, or that the version is;
    3. that result is a released version too, whoever has listed the package: a server whose keys
       are stolen can withhold weights, and never introduce any;
    4. it does not lead to an older version than the one in use, unless that is said to be meant.

What is installed is never held against later metadata: neither their expiry nor a withdrawal takes
anything from a device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_agent.errors import TrustError
from edge_agent.trust.gate import Promise, promises

if TYPE_CHECKING:
    from edge_agent.journal import Held, Target


@dataclass(frozen=True)
class Listed:
    """What is signed of a package."""

    size: int
    base: str | None
    result: str
    method: str


@dataclass(frozen=True)
class Released:
    """What verified metadata say of one model.

    `versions`: weights digests by number. `packages`: by SHA-256. `expires_at`: Unix time at which
    the first of the metadata expires.
    """

    versions: Mapping[int, str]
    packages: Mapping[str, Listed]
    expires_at: float

    def fields(self) -> dict[str, Any]:
        """As plain values."""
        packages = {sha256: vars(listed) for sha256, listed in self.packages.items()}
        versions = {str(number): digest for number, digest in self.versions.items()}
        return {"versions": versions, "packages": packages, "expires_at": self.expires_at}

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Released:
        """The same again. Raises KeyError, TypeError, ValueError, AttributeError."""
        versions = {int(number): digest for number, digest in fields["versions"].items()}
        packages = {sha256: Listed(**listed) for sha256, listed in fields["packages"].items()}
        return cls(versions, packages, fields["expires_at"])

    def number_of(self, held: Held | None) -> int | None:
        """The version that weights are: as noted when they came, or as they are listed."""
        if held is None or held.version is not None:
            return held.version if held else None
        return next((n for n, digest in self.versions.items() if digest == held.digest), None)


def check(target: Target, released: Released, in_use: Held | None) -> None:
    """Hold an update against what is released, see above. Raises TrustError."""
    check_version(target, released)
    for promise in promises(target):
        check_listing(promise, released)
        check_result(promise.result, released)
    check_direction(target, released.number_of(in_use))


def check_version(target: Target, released: Released) -> None:
    """1. The version."""
    found = released.versions.get(target.version or 0)
    if found is None:
        told = f"version {target.version} of {target.model} is not released, or not any more"
        raise TrustError("not_released", told)
    if found != target.weights_digest:
        told = f"released as version {target.version} is {found}, not {target.weights_digest}"
        raise TrustError("not_released", told)


def check_listing(promise: Promise, released: Released) -> None:
    """2. What is signed of a package."""
    offer = promise.offer
    listed = released.packages.get(offer.sha256)
    if listed is None:
        raise TrustError("not_listed", f"package {offer.sha256} is not listed")
    checks = (
        ("size", listed.size, offer.size),
        ("base", listed.base, offer.base_digest),
        ("method", _id(listed.method), _id(offer.method)),
        ("result", listed.result, promise.result),
    )
    for what, signed, offered in checks:
        if signed != offered:
            told = f"package {offer.sha256} is listed with {what} {signed}, offered with {offered}"
            raise TrustError("wrong_listing", told)


def check_result(result: str, released: Released) -> None:
    """3. What a package gives."""
    if result not in released.versions.values():
        raise TrustError("not_released", f"{result} is no released version")


def check_direction(target: Target, in_use: int | None) -> None:
    """4. Back only where it is meant."""
    is_older = in_use is not None and target.version is not None and target.version < in_use
    if is_older and not target.rollback:
        told = f"version {target.version} is older than version {in_use}, which is in use"
        raise TrustError("older_version", told)


def _id(method: str) -> str:
    """A method's id without its version."""
    return method.partition("/")[0]
