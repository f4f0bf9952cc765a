"""The one gate through which package bytes come.

Whatever reads a package on a device takes an `Admitted`, and only this module makes one. Before an
update begins, `edge_agent.trust.released` has held its offer against signed metadata: so the bytes
are held against the offer. The checks, in order:

    1. the length is the one offered;
    2. the SHA-256 of the file is the one offered;
    3. the header is well formed, and of a format and coder known here;
    4. model, method, base digest and result digest are the ones offered. (A package built by hand
       may name no model; its digests still bind it.) In a chain, a package must give what the next
       one starts from, and the last one the version's weights.

The agent knows promises and obtains bytes; packages are opened by its child (`edge_agent.heavy`).
So neither what downloads nor what parses packages is imported until it is needed.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent import files
from edge_agent.errors import TrustError
from shared.wire import DesiredModel, PackageOffer

if TYPE_CHECKING:
    from edge_agent.api import DeviceApi
    from edge_agent.journal import Target
    from edge_agent.link import Link
    from shared.package import PackageReader

_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Promise:
    """What a package must turn out to be. `result`: digest of the weights that it gives."""

    model: str
    offer: PackageOffer
    result: str


def promises(wanted: DesiredModel | Target) -> list[Promise]:
    """What is promised of each package of an update, in order; there may be none."""
    offers = wanted.packages
    results = [offer.base_digest or "" for offer in offers[1:]] + [wanted.weights_digest]
    return [
        Promise(wanted.model, offer, result) for offer, result in zip(offers, results, strict=False)
    ]


@dataclass(frozen=True)
class Admitted:
    """A package that passed the gate, open for reading."""

    package: PackageReader


def obtain(api: DeviceApi, offer: PackageOffer, path: Path, link: Link, until: float) -> bool:
    """Download a slice of the offered package; True once it is here and its bytes are checked.

    Those are steps 1 and 2. Other bytes are removed: resuming from them would never end well.
    Raises TrustError and whatever `download` raises.
    """
    from edge_agent.download import download  # not in the child, which needs no HTTP

    if not download(api, offer, path, link, until):
        return False
    try:
        _check_bytes(path, offer)
    except TrustError:
        files.remove(path)
        raise
    return True


@contextlib.contextmanager
def admit(path: Path, promise: Promise) -> Iterator[Admitted]:
    """Open the package at `path`, once it is known to be the one that was promised.

    Raises TrustError, BadPackage.
    """
    from shared.package import PackageReader

    _check_bytes(path, promise.offer)
    # 3. The header.
    with PackageReader(path, max_bytes=promise.offer.size) as package:
        _check_header(package, promise)
        yield Admitted(package)


@contextlib.contextmanager
def admit_local(path: Path, max_bytes: int) -> Iterator[Admitted]:
    """Open a package that an operator gives by hand, without an offer to hold it against."""
    from shared.package import PackageReader

    with PackageReader(path, max_bytes=max_bytes) as package:
        yield Admitted(package)


def _check_bytes(path: Path, offer: PackageOffer) -> None:
    # 1. The length.
    size = files.size(path)
    if size != offer.size:
        raise TrustError("wrong_length", f"the package has {size} bytes, offered {offer.size}")
    # 2. The SHA-256.
    found = _sha256(path)
    if found != offer.sha256:
        raise TrustError("wrong_hash", f"the package has SHA-256 {found}, not {offer.sha256}")


def _check_header(package: PackageReader, promise: Promise) -> None:
    # 4. What the header says.
    base = package.base_digest.hex() if package.base_digest else None
    checks = (
        ("wrong_model", "model", package.header.model or promise.model, promise.model),
        ("wrong_method", "method", _id(package.header.method), _id(promise.offer.method)),
        ("wrong_base", "base", base, promise.offer.base_digest),
        ("wrong_result", "result", package.result_digest.hex(), promise.result),
    )
    for code, what, found, expected in checks:
        if found != expected:
            raise TrustError(code, f"the package says {what} {found}, the offer {expected}")


def _id(method: str) -> str:
    """A method's id without its version; a version unknown here is refused by the decoder."""
    return method.partition("/")[0]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()
