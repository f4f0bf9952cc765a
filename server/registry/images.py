"""Encoded images -> one array, bounded: a small file can unpack to more than the memory holds."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from server.errors import BadDataset

#: Bytes of all images of one dataset, decoded.
MAX_BYTES = 8 * 1024**3
#: Pixels of one image, known before it is decoded.
MAX_PIXELS = 64 * 1024**2

_GREY = frozenset({"1", "L"})

Pixels = NDArray[np.uint8]


def stack(encoded: Iterable[tuple[str, bytes]]) -> Pixels:
    """Decode images of one size, given as (name for messages, bytes), into (N, C, H, W).

    C is 1 where all are grey, else 3. Raises BadDataset `bad_image`, `unreadable`.
    """
    decoded: list[Pixels] = []
    total = 0
    for name, data in encoded:
        decoded.append(decode(name, data))
        total += decoded[-1].nbytes
        check_bytes(total, name)
        if decoded[-1].shape[:2] != decoded[0].shape[:2]:
            sizes = f"{decoded[-1].shape[:2]}, others {decoded[0].shape[:2]}"
            raise BadDataset("bad_image", f"{name}: (height, width) is {sizes}")
    if not decoded:
        return np.zeros((0, 1, 1, 1), np.uint8)
    if any(image.ndim == 3 for image in decoded):
        decoded = [i if i.ndim == 3 else np.repeat(i[..., None], 3, 2) for i in decoded]
        return np.ascontiguousarray(np.stack(decoded).transpose(0, 3, 1, 2))
    return np.stack(decoded)[:, None]


def decode(name: str, data: bytes) -> Pixels:
    """(H, W) of a grey image, else (H, W, 3). Raises BadDataset `bad_image`."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise BadDataset("bad_image", f"{name}: {width} x {height} pixels are too many")
            return np.asarray(image if image.mode == "L" else image.convert(_mode(image)), np.uint8)
    # Pillow's decoders raise whatever they like on damaged data (also a warning made an error).
    except BadDataset:
        raise
    except UnidentifiedImageError as error:
        raise BadDataset("bad_image", f"{name}: not an image") from error
    except Exception as error:
        raise BadDataset("bad_image", f"{name}: {error}") from error


def _mode(image: Image.Image) -> str:
    return "L" if image.mode in _GREY else "RGB"


def check_bytes(total: int, name: str) -> None:
    """Raise BadDataset where decoded images would need more memory than allowed."""
    if total > MAX_BYTES:
        raise BadDataset("unreadable", f"{name}: more than {MAX_BYTES} bytes of images")
