"""TUF metadata as it travels: the names that both ends use, and an answer of what a device lacks.

A model has one repository (design: trust). Its targets are

    v/<number>   a released version: length and SHA-256 of the stream that its weights digest is
                 over, custom {"schema": schema digest}; signed by the release key, in `targets`
    p/<sha256>   an update package: length and SHA-256 of the file, custom {"base": weights digest
                 or null, "result": weights digest, "method": id}; in the delegated role `packages`

All metadata but the root's name their model in `MODEL_FIELD`, so that those of one model are never
taken for another's; a timestamp says in `ISSUED_FIELD` when it was signed (RFC 3339), which is the
time that a device without a clock may trust. The root is the same for all models.

An answer is one byte (1: compressed against what the device holds, else 0) and a zstd frame of

    <role> SP <version> SP <length> LF <content>      once for each file, roots in order first

Both are compressed against `SKELETON` too, which is what all metadata have in common. It belongs to
the format: another text is another flag.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import zstandard

from shared.errors import BadMetadata

ROOT, TIMESTAMP, SNAPSHOT, TARGETS, PACKAGES = (
    "root",
    "timestamp",
    "snapshot",
    "targets",
    "packages",
)
#: In the order in which they are told and used.
ROLES: Final = (ROOT, TIMESTAMP, SNAPSHOT, TARGETS, PACKAGES)
MODEL_FIELD, ISSUED_FIELD = "weft-model", "weft-issued"
CONTENT_TYPE = "application/vnd.weft.metadata"

#: Of one answer, unpacked.
MAX_BYTES = 1 << 20
_LEVEL = 19
#: What metadata consist of, but for keys, digests, times and versions (see above).
SKELETON: Final = (
    b'"consistent_snapshot":true,"keys":{"":{"keytype":"ed25519","keyval":{"public":""},"scheme":'
    b'"ed25519"},"roles":{"root":{"keyids":[""],"threshold":1},"snapshot":"timestamp":'
    b'"p/":{"custom":{"base":null,"method":"full","result":""},"hashes":{"sha256":""},"length":'
    b'"method":"ka","method":"lra","method":"direct","method":"sparse","method":"xor","result":"'
    b'timestamp 1 389\n{"signatures":[{"keyid":"","sig":""}],"signed":{"_type":"timestamp",'
    b'"expires":"2026-12-05T16:41:04Z","meta":{"snapshot.json":{"version":17}},"spec_version":'
    b'"1.0.31","version":17,"weft-issued":"2026-11-21T16:41:04Z","weft-model":""}}'
    b'snapshot 1 389\n{"signatures":[{"keyid":"","sig":""}],"signed":{"_type":"snapshot",'
    b'"expires":"2026-12-21T16:41:04Z","meta":{"packages.json":{"version":17},"targets.json":'
    b'{"version":17}},"spec_version":"1.0.31","version":17,"weft-model":""}}'
    b'targets 1 861\n{"signatures":[{"keyid":"","sig":""}],"signed":{"_type":"targets",'
    b'"delegations":{"keys":{"":{"keytype":"ed25519","keyval":{"public":""},"scheme":"ed25519"}},'
    b'"roles":[{"keyids":[""],"name":"packages","paths":["p/*"],"terminating":true,"threshold":1}'
    b']},"expires":"2027-11-21T16:41:04Z","spec_version":"1.0.31","targets":{"v/1":{"custom":'
    b'{"schema":""},"hashes":{"sha256":""},"length":32812}},"version":17,"weft-model":""}}'
    b'packages 1 361\n{"signatures":[{"keyid":"","sig":""}],"signed":{"_type":"targets",'
    b'"expires":"2026-12-21T16:41:04Z","spec_version":"1.0.31","targets":{"p/'
)
_HEADER = re.compile(rb"([a-z]{1,20}) (\d{1,12}) (\d{1,7})\n")
_PLAIN, _AGAINST_KNOWN = b"\x00", b"\x01"


@dataclass(frozen=True)
class MetadataFile:
    """One signed file, byte for byte as it was published."""

    role: str
    version: int
    content: bytes


def version_path(number: int) -> str:
    """The target path of a released version."""
    return f"v/{number}"


def package_path(sha256: str) -> str:
    """The target path of an update package."""
    return f"p/{sha256}"


def known_bytes(held: Mapping[str, bytes]) -> bytes:
    """What an answer may be compressed against: the files a device holds, by role."""
    return b"".join(held[role] for role in ROLES if role in held)


def pack(files: Sequence[MetadataFile], known: bytes = b"") -> bytes:
    """One answer; `known`: `known_bytes` of exactly what the asker holds, empty if in doubt."""
    content = b"".join(
        b"%s %d %d\n%s" % (file.role.encode(), file.version, len(file.content), file.content)
        for file in files
    )
    # The checksum tells what was unpacked against other files than it was packed against.
    compressor = zstandard.ZstdCompressor(
        level=_LEVEL, dict_data=_dictionary(known), write_dict_id=False, write_checksum=True
    )
    return (_AGAINST_KNOWN if known else _PLAIN) + compressor.compress(content)


def unpack(answer: bytes, known: bytes = b"") -> list[MetadataFile]:
    """The files of an answer. Raises BadMetadata `malformed`; nothing is trusted yet."""
    flag, frame = answer[:1], answer[1:]
    if flag not in (_PLAIN, _AGAINST_KNOWN):
        raise BadMetadata("malformed", "the answer begins with neither 0 nor 1")
    try:
        size = zstandard.get_frame_parameters(frame).content_size
        if size > MAX_BYTES:
            raise BadMetadata("malformed", f"more than {MAX_BYTES} bytes are announced")
        dictionary = _dictionary(known if flag == _AGAINST_KNOWN else b"")
        content = zstandard.ZstdDecompressor(dict_data=dictionary).decompress(
            frame, max_output_size=MAX_BYTES, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise BadMetadata("malformed", f"the answer is no zstd frame: {error}") from error
    return list(_split(content))


def _split(content: bytes) -> Iterable[MetadataFile]:
    at = 0
    while at < len(content):
        header = _HEADER.match(content, at)
        if header is None or header[1].decode() not in ROLES:
            raise BadMetadata("malformed", f"no header of a file at byte {at}")
        begin, at = header.end(), header.end() + int(header[3])
        if at > len(content):
            raise BadMetadata("malformed", "a file is longer than the answer")
        yield MetadataFile(header[1].decode(), int(header[2]), content[begin:at])


def _dictionary(known: bytes) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(SKELETON + known, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
