"""Images in a Parquet file: a page is decoded at a time, and nothing is believed of its size.

A small file can stand for a huge table: runs of one label, or one large image that a dictionary
repeats for a million rows. So rows are counted before any are read, images are taken out of their
dictionary one at a time, and of all columns only two are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from server.registry.bounds import check_rows
from server.registry.images import Pixels, stack

_IMAGE, _LABEL = "image.bytes", "label"


def read_parquet(
    files: Any, path: str, share: slice | None
) -> tuple[Pixels, NDArray[np.int64], tuple[str, ...]]:
    """Images (N, C, H, W), labels (N,) and the names of the classes, none if the file has none.

    Only the rows of the share are decoded, which is what takes time. Raises BadDataset, and what
    pyarrow raises.
    """
    with files.open(path, "rb") as file, pq.ParquetFile(file) as table:
        check_rows(_rows(table.metadata), path)
        labels = table.read(columns=[_LABEL]).column(_LABEL).to_numpy().astype(np.int64)
        rows = range(len(labels))[share] if share else range(len(labels))
        images = stack(_encoded(table, path, rows))
        return images, labels[rows.start : rows.stop], class_names(table.schema_arrow)


def _rows(metadata: pq.FileMetaData) -> int:
    """As many as the file says anywhere that it has."""
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    return max(metadata.num_rows, sum(group.num_rows for group in groups))


def _encoded(table: pq.ParquetFile, path: str, rows: range) -> Iterator[tuple[str, bytes]]:
    """The encoded images of `rows`, each with its place for messages.

    In batches of one row, which takes 25 us a row: less than decoding the smallest image does.
    """
    for row, batch in enumerate(table.iter_batches(batch_size=1, columns=[_IMAGE])):
        if row >= rows.stop:
            return
        if row >= rows.start:
            (data,) = pc.struct_field(batch.column("image"), "bytes")
            yield f"{path} row {row}", data.as_py() or b""


def class_names(schema: pa.Schema) -> tuple[str, ...]:
    """From `class_names` in the metadata (commas between), or the hub's `huggingface` features."""
    metadata = schema.metadata or {}
    if listed := metadata.get(b"class_names"):
        return tuple(name.strip() for name in listed.decode().split(","))
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    return tuple(str(name) for name in features.get("label", {}).get("names", ()))
