"""Encoded images -> one array, bounded: a small file can unpack to more than the memory holds."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from server.errors import BadDataset
from server.registry import bounds

#: What Pillow may take a file for. It knows others, some of which it hands to other programs.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TIFF")

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
        bounds.check_bytes(total, name)
        bounds.check_rows(len(decoded), name)
        if decoded[-1].shape[:2] != decoded[0].shape[:2]:
            sizes = f"{decoded[-1].shape[:2]}, others {decoded[0].shape[:2]}"
            raise BadDataset("bad_image", f"{name}: (height, width) is {sizes}")
    if not decoded:
        return np.zeros((0, 1, 1, 1), np.uint8)
    height, width = decoded[0].shape[:2]
    channels = 3 if any(image.ndim == 3 for image in decoded) else 1
    bounds.check_bytes(len(decoded) * height * width * channels, "all images")
    stacked = np.empty((len(decoded), channels, height, width), np.uint8)
    for place in stacked[::-1]:  # each is let go once it is copied
        image = decoded.pop()
        place[:] = image.transpose(2, 0, 1) if image.ndim == 3 else image
    return stacked


def decode(name: str, data: bytes) -> Pixels:
    """(H, W) of a grey image, else (H, W, 3). Raises BadDataset `bad_image`."""
    if len(data) > bounds.MAX_ENCODED_BYTES:
        raise BadDataset("bad_image", f"{name}: {len(data)} bytes are too many")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > bounds.MAX_PIXELS:
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
