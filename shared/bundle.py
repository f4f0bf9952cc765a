"""The bundle: a version's packages in one file, for a device that no network reaches.

A tar file (ustar) that any tar lists and extracts, in one form only:

    bundle.json             `Bundle`
    metadata                signed metadata, as an answer to a device that holds none of them
                            (`shared.metadata`): what is released, and which packages are listed
    <sha256>.weft           each package that its ways name, in their order, once
    two blocks of zeros

So a reader needs no parser of tar: it makes each header itself and compares. The same content gives
the same bytes. The manifest changes only by addition, as what it consists of does (`shared.wire`);
nothing in it is trusted, it only says what the metadata must confirm. Format 1 had no metadata, and
is refused.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from pydantic import Field

from shared.errors import BadBundle
from shared.metadata import MAX_BYTES
from shared.wire import MAX_CHAIN, DesiredModel, Digest, Message, ModelName, PackageOffer

FORMAT = 2
_UNSIGNED = 1
MANIFEST, METADATA = "bundle.json", "metadata"
#: What the size field of ustar holds.
MAX_PACKAGE_BYTES = 8**11 - 1
#: Ways of one bundle: from so many different weights.
MAX_WAYS = 64
#: Days for which the metadata of a bundle hold, if nothing else is asked for.
VALID_DAYS = 90
MAX_MANIFEST_BYTES = 1 << 18
MAX_METADATA_BYTES = MAX_BYTES

_BLOCK = 512
_SIZE_FIELD = slice(124, 135)
_END = bytes(2 * _BLOCK)
_READ_BYTES = 1 << 20


class Way(Message):
    """Packages that lead to the version, in order. `base_version` is for people only."""

    base_version: int | None = Field(default=None, ge=1)
    packages: list[PackageOffer] = Field(min_length=1, max_length=MAX_CHAIN)

    @property
    def base_digest(self) -> str | None:
        """The weights that it starts from; None: from nothing."""
        return self.packages[0].base_digest

    @property
    def size(self) -> int:
        """Bytes of its packages."""
        return sum(offer.size for offer in self.packages)


class Bundle(Message):
    """What `bundle.json` says."""

    format: int = FORMAT
    model: ModelName
    version: int = Field(ge=1)
    weights_digest: Digest
    metadata_bytes: int = Field(gt=0, le=MAX_METADATA_BYTES, description="Of the member.")
    ways: list[Way] = Field(min_length=1, max_length=MAX_WAYS)

    @property
    def offers(self) -> list[PackageOffer]:
        """Every package, once."""
        return list(dict.fromkeys(offer for way in self.ways for offer in way.packages))

    def desired(self, way: Way | None) -> DesiredModel:
        """What a device should do that goes this way; None: it holds the weights already."""
        packages = way.packages if way else []
        return DesiredModel(
            model=self.model,
            version=self.version,
            weights_digest=self.weights_digest,
            package=packages[0] if len(packages) == 1 else None,
            chain=packages if len(packages) > 1 else None,
        )


def written(
    bundle: Bundle, metadata: bytes, read: Callable[[PackageOffer], Iterator[bytes]]
) -> Iterator[bytes]:
    """The bytes of a bundle; `read` gives those of a package."""
    assert len(metadata) == bundle.metadata_bytes
    yield _head(bundle)
    yield _header(METADATA, len(metadata)) + metadata + _padding(len(metadata))
    for offer in bundle.offers:
        yield _header(_name(offer), offer.size)
        yield from read(offer)
        yield _padding(offer.size)
    yield _END


def size_of(bundle: Bundle) -> int:
    """Bytes of the whole file."""
    sizes = [bundle.metadata_bytes, *(offer.size for offer in bundle.offers)]
    return len(_head(bundle)) + sum(map(_entry_bytes, sizes)) + len(_END)


class BundleReader:
    """A bundle in an open file. Raises BadBundle, here and where it is read."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self.bundle, self._metadata_at = self._manifest()
        size = self.bundle.metadata_bytes
        if self._read_at(self._metadata_at, _BLOCK) != _header(METADATA, size):
            raise self._malformed("the metadata are not where they should be")
        place = self._metadata_at + _entry_bytes(size)
        self._starts: dict[str, int] = {}
        for offer in self.bundle.offers:
            is_large = offer.size > MAX_PACKAGE_BYTES
            if is_large or self._read_at(place, _BLOCK) != _header(_name(offer), offer.size):
                raise self._malformed(f"package {offer.sha256} is not where it should be")
            if offer.sha256 in self._starts:
                raise self._malformed(f"package {offer.sha256} is there twice")
            self._starts[offer.sha256] = place + _BLOCK
            place += _entry_bytes(offer.size)
        if self._read_at(place, len(_END) + 1) != _END:
            raise self._malformed("it is cut off, or something follows it")

    def metadata(self) -> bytes:
        """The signed metadata, packed; nothing of them has been verified."""
        return self._read_at(self._metadata_at + _BLOCK, self.bundle.metadata_bytes)

    def pieces(self, offer: PackageOffer) -> Iterator[bytes]:
        """The bytes of a package, exactly as many as it says."""
        place, left = self._starts[offer.sha256], offer.size
        while left:
            piece = self._read_at(place, min(left, _READ_BYTES))
            if not piece:
                raise self._malformed("it is cut off")
            yield piece
            place, left = place + len(piece), left - len(piece)

    def check(self, offer: PackageOffer) -> None:
        """Raise BadBundle unless the package has the SHA-256 that it should have."""
        found = hashlib.sha256()
        for piece in self.pieces(offer):
            found.update(piece)
        if found.hexdigest() != offer.sha256:
            raise self._malformed(f"package {offer.sha256} has other bytes")

    def _manifest(self) -> tuple[Bundle, int]:
        """What it says, and where that ends."""
        header = self._read_at(0, _BLOCK)
        digits = header[_SIZE_FIELD]
        size = int(digits, 8) if digits.isdigit() and not set(digits) & set(b"89") else 0
        if not 0 < size <= MAX_MANIFEST_BYTES or header != _header(MANIFEST, size):
            raise self._malformed("this is no bundle")
        text = self._read_at(_BLOCK, size)
        try:
            said: Any = json.loads(text)
            if isinstance(said, dict) and said.get("format") != FORMAT:
                told = f"{self._name}: format {said.get('format')!r}"
                is_old = said.get("format") == _UNSIGNED
                raise BadBundle("unsigned" if is_old else "unknown_format", told[:200])
            bundle = Bundle.model_validate(said)
        except (ValueError, RecursionError) as error:  # pydantic's is a ValueError too
            raise self._malformed("its content makes no sense") from error
        return bundle, _BLOCK + size + len(_padding(size))

    def _read_at(self, place: int, size: int) -> bytes:
        try:
            self._file.seek(place)
            return self._file.read(size)
        except OSError as error:
            raise BadBundle("unreadable", f"{self._name}: {error.strerror or error}") from error

    def _malformed(self, why: str) -> BadBundle:
        return BadBundle("malformed", f"{self._name}: {why}")


def _head(bundle: Bundle) -> bytes:
    said = bundle.model_dump(mode="json")
    text = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
    return _header(MANIFEST, len(text)) + text + _padding(len(text))


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry.tobuf(tarfile.USTAR_FORMAT)


def _name(offer: PackageOffer) -> str:
    return f"{offer.sha256}.weft"


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


def _entry_bytes(size: int) -> int:
    return _BLOCK + size + len(_padding(size))
