"""Datasets of labelled images, opened from wherever fsspec can read.

    folder of images      one subfolder per class, named after it
    x.npz                 `images` uint8 (N, H, W), (N, H, W, C) or (N, C, H, W); `labels` integers;
                          `classes`, names, if wanted
    x.parquet             `image` = struct of `bytes` (an encoded image) and `path`, `label` =
                          integer, as on the Hugging Face hub; the names of the classes stand in
                          the schema's metadata

A URI may end in `#rows=0:10000`, which takes that share of the rows: the paper first trains on a
part of the data, then on all. Everything is held in memory, as bytes, and all of it is bounded
(`bounds`): by what a file says of itself before it is read, and again while it is read. Links in
a folder are refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
from numpy.typing import NDArray

from server.errors import BadDataset
from server.registry.bounds import (
    MAX_CLASSES,
    MAX_ENCODED_BYTES,
    check_bytes,
    check_classes,
    check_rows,
)
from server.registry.folders import files_in, folders_in
from server.registry.images import Pixels, stack
from server.registry.parquet import read_parquet

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tiff"})

_CHUNK = 1 << 20
#: Of an npz; others in it are not read.
_ARRAYS = frozenset({"images", "labels", "classes"})
_SHARE = re.compile(r"rows=(\d+):(\d+)")

Storage = Mapping[str, Any]


@dataclass(frozen=True)
class ImageDataset:
    """`images` uint8 (N, C, H, W), `labels` int64 (N,), and the names of the classes."""

    images: Pixels
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


def open_dataset(uri: str, storage_options: Storage | None = None) -> ImageDataset:
    """Read a whole dataset.

    Raises BadDataset: `not_found`, `unreadable`, `bad_image`, `bad_label`, `empty`.
    """
    place, share = _split(uri)
    with _Seam(place):
        files, path = fsspec.core.url_to_fs(place, **(storage_options or {}))
        if files.isdir(path):
            dataset = _open_folder(files, path)
        elif not files.exists(path):
            raise BadDataset("not_found", f"{place}: no such file or folder")
        elif path.endswith(".npz") and files.isfile(path):
            dataset = _open_npz(files, path)
        elif path.endswith(".parquet") and files.isfile(path):
            images, labels, names = read_parquet(files, path, share)
            return _checked(ImageDataset(images, labels, names or _numbered(labels)), uri)
        else:
            raise BadDataset("unreadable", f"{place}: not a folder, .npz or .parquet")
    return _checked(_take(dataset, share), uri)


def fingerprint(uri: str, storage_options: Storage | None = None) -> str:
    """SHA-256 (hex) of the content: of a file's bytes, or of the names and bytes in a folder.

    A share of the rows has a fingerprint of its own. Raises BadDataset `not_found`, `unreadable`.
    """
    place, share = _split(uri)
    with _Seam(place):
        files, path = fsspec.core.url_to_fs(place, **(storage_options or {}))
        if files.isfile(path):
            total = _digest(files, path)
        elif not files.isdir(path):
            known = "unreadable" if files.exists(path) else "not_found"
            raise BadDataset(known, f"{place}: no such file or folder")
        else:
            sha = hashlib.sha256()
            for name in files_in(files, path):
                relative = name.removeprefix(path).lstrip("/")
                sha.update(json.dumps([relative, _digest(files, name)]).encode())
            total = sha.hexdigest()
    if share is None:
        return total
    return hashlib.sha256(f"{total}#rows={share.start}:{share.stop}".encode()).hexdigest()


class _Seam:
    """Errors of file systems and decoders end here, as BadDataset."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise BadDataset("not_found", f"{self._place}: no such file or folder") from error
        # What the decoders raise on damaged data has no common root below Exception.
        if isinstance(error, Exception) and not isinstance(error, BadDataset):
            raise BadDataset("unreadable", f"{self._place}: {error}") from error


def _split(uri: str) -> tuple[str, slice | None]:
    """The place, and the share of rows that the fragment asks for."""
    place, hash_sign, fragment = uri.partition("#")
    if "::" in place:
        raise BadDataset("unreadable", f"{uri!r}: chained addresses are not opened")
    if not hash_sign:
        return place, None
    match = _SHARE.fullmatch(fragment)
    if match is None:
        raise BadDataset("unreadable", f"{uri!r}: the part behind # must be like rows=0:10000")
    return place, slice(int(match[1]), int(match[2]))


def _take(dataset: ImageDataset, share: slice | None) -> ImageDataset:
    if share is None:
        return dataset
    return ImageDataset(dataset.images[share], dataset.labels[share], dataset.classes)


def _digest(files: Any, path: str) -> str:
    sha = hashlib.sha256()
    with files.open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            sha.update(chunk)
    return sha.hexdigest()


def _open_folder(files: Any, path: str) -> ImageDataset:
    """Subfolders in the order of their names are the classes 0, 1, 2..."""
    folders = folders_in(files, path)
    check_classes(len(folders), path)
    names = tuple(folder.rstrip("/").rpartition("/")[2] for folder in folders)
    found = [
        (name, size, label)
        for label, folder in enumerate(folders)
        for name, size in files_in(files, folder).items()
        if "." + name.rpartition(".")[2].lower() in SUFFIXES
    ]
    check_rows(len(found), path)
    images = stack((name, _file(files, name, size)) for name, size, _ in found)
    return ImageDataset(images, np.array([label for *_, label in found], np.int64), names)


def _file(files: Any, name: str, size: int) -> bytes:
    """A whole file, which may have grown since its size was known."""
    if size <= MAX_ENCODED_BYTES:
        with files.open(name, "rb") as file:
            data: bytes = file.read(MAX_ENCODED_BYTES + 1)
        if len(data) <= MAX_ENCODED_BYTES:
            return data
    raise BadDataset("bad_image", f"{name}: above {MAX_ENCODED_BYTES} bytes")


def _open_npz(files: Any, path: str) -> ImageDataset:
    with files.open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        wanted = [e for e in archive.infolist() if e.filename.removesuffix(".npy") in _ARRAYS]
        check_bytes(sum(entry.file_size for entry in wanted), path)
        arrays = {e.filename.removesuffix(".npy"): _read_npy(archive, e) for e in wanted}
    for name in ("images", "labels"):
        if name not in arrays:
            raise BadDataset("unreadable", f"{path}: no array {name!r}")
    labels, named = arrays["labels"], arrays.get("classes", np.array([]))
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise BadDataset(
            "bad_label", f"{path}: labels are {labels.dtype} {labels.shape}, not integers (N,)"
        )
    check_rows(len(labels), path)
    check_classes(named.size, path)
    names = tuple(str(name) for name in named.reshape(-1))
    labels = labels.astype(np.int64)
    return ImageDataset(_arranged(arrays["images"], path), labels, names or _numbered(labels))


def _read_npy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(entry) as file:
        # Without a number, all that it unpacks to would be in memory at once, whatever it says.
        data = file.read(entry.file_size)
    array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    return array


def _arranged(images: NDArray[Any], path: str) -> Pixels:
    """(N, H, W), (N, H, W, C) or (N, C, H, W) with C of 1, 3 or 4 -> (N, C, H, W)."""
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        wanted = "not uint8 (N, H, W), (N, H, W, C) or (N, C, H, W)"
        raise BadDataset("bad_image", f"{path}: images are {images.dtype} {images.shape}, {wanted}")
    if images.ndim == 3:
        return images[:, None]
    if images.shape[1] not in (1, 3, 4) and images.shape[3] in (1, 3, 4):
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return images


def _numbered(labels: NDArray[np.int64]) -> tuple[str, ...]:
    """Names for classes that nobody named: "0", "1"..."""
    top = int(labels.max(initial=-1))
    return tuple(str(label) for label in range(min(top + 1, MAX_CLASSES)))


def _checked(dataset: ImageDataset, uri: str) -> ImageDataset:
    """The dataset, once labels and images are known to fit each other."""
    labels = dataset.labels
    if len(labels) != len(dataset.images):
        found = f"{len(dataset.images)} images and {len(labels)} labels"
        raise BadDataset("unreadable", f"{uri}: {found}")
    if not len(labels) or not dataset.images.size:
        raise BadDataset("empty", f"{uri}: no images")
    count = len(dataset.classes)
    check_classes(count, uri)
    wrong = np.flatnonzero((labels < 0) | (labels >= count))
    if wrong.size:
        found = f"row {wrong[0]} has label {labels[wrong[0]]}, and there are {count} classes"
        raise BadDataset("bad_label", f"{uri}: {found}")
    return dataset
