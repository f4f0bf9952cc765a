"""How much of a dataset is taken into memory: small files can unpack to more than a machine has."""

from __future__ import annotations

from server.errors import BadDataset

#: Bytes of all images of one dataset, decoded; reading it takes about twice as much.
MAX_BYTES = 8 * 1024**3
MAX_ROWS = 1 << 24
MAX_CLASSES = 65536
#: Pixels of one image, known before it is decoded.
MAX_PIXELS = 64 * 1024**2
#: Of one image as it lies there.
MAX_ENCODED_BYTES = 64 * 1024**2
#: Folders within folders.
MAX_DEPTH = 16


def check_bytes(total: int, name: str) -> None:
    """Raise BadDataset `unreadable` where decoded images would need more memory than allowed."""
    if total > MAX_BYTES:
        raise BadDataset("unreadable", f"{name}: more than {MAX_BYTES} bytes of images")


def check_rows(count: int, name: str) -> None:
    """Raise BadDataset `unreadable` where there are too many rows."""
    if count > MAX_ROWS:
        raise BadDataset("unreadable", f"{name}: {count} rows, above {MAX_ROWS}")


def check_classes(count: int, name: str) -> None:
    """Raise BadDataset `bad_label` where there are too many classes."""
    if count > MAX_CLASSES:
        raise BadDataset("bad_label", f"{name}: {count} classes are too many")
