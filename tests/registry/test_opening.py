from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from server.errors import BadDataset
from server.registry import bounds
from server.registry.opening import fingerprint, open_dataset


def _png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def _pixels(count: int, channels: int = 3, size: int = 6) -> np.ndarray:
    shape = (count, size, size, channels) if channels > 1 else (count, size, size)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _parquet(path: Path, encoded: list[bytes], labels: list[int], names: str = "a,b,c") -> Path:
    column = pa.array(
        [{"bytes": data, "path": None} for data in encoded],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    table = pa.table({"image": column, "label": pa.array(labels, pa.int64())})
    pq.write_table(table.replace_schema_metadata({"class_names": names}), path)
    return path


def _code(path: Path | str) -> str:
    with pytest.raises(BadDataset) as caught:
        open_dataset(str(path))
    return caught.value.code


def test_folder_of_images_by_class(tmp_path: Path) -> None:
    pixels = _pixels(4)
    for index, name in enumerate(["dog/1.png", "cat/2.png", "cat/1.png", "dog/x/3.PNG"]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(_png(pixels[index]))
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    dataset = open_dataset(str(tmp_path))
    assert dataset.classes == ("cat", "dog")
    assert dataset.labels.tolist() == [0, 0, 1, 1]
    assert dataset.labels.dtype == np.int64
    np.testing.assert_array_equal(dataset.images, pixels[[2, 1, 0, 3]].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("shape", [(5, 6, 7), (5, 6, 7, 3), (5, 3, 6, 7), (5, 1, 6, 7)])
def test_npz_in_any_layout(tmp_path: Path, shape: tuple[int, ...]) -> None:
    given = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    labels = np.array([0, 2, 1, 0, 1], np.uint8)
    np.savez(tmp_path / "x.npz", images=given, labels=labels)
    dataset = open_dataset(str(tmp_path / "x.npz"))
    assert dataset.images.shape[0] == 5
    assert dataset.images.shape[2:] == (6, 7)
    assert dataset.classes == ("0", "1", "2")
    assert dataset.images[1, 0, 2, 3] == given.reshape(dataset.images.shape)[1, 0, 2, 3] or (
        shape[-1] == 3
    )
    np.savez(tmp_path / "y.npz", images=given, labels=labels, classes=["p", "q", "r", "s"])
    assert open_dataset(str(tmp_path / "y.npz")).classes == ("p", "q", "r", "s")


def test_parquet_as_on_the_hub(tmp_path: Path) -> None:
    pixels = _pixels(3)
    path = _parquet(tmp_path / "x.parquet", [_png(p) for p in pixels], [2, 0, 1])
    dataset = open_dataset(f"file://{path}")
    assert dataset.classes == ("a", "b", "c")
    assert dataset.labels.tolist() == [2, 0, 1]
    np.testing.assert_array_equal(dataset.images, pixels.transpose(0, 3, 1, 2))


def test_grey_images_have_one_channel_unless_some_have_colour(tmp_path: Path) -> None:
    grey, colour = _pixels(2, channels=1), _pixels(1)
    path = _parquet(tmp_path / "g.parquet", [_png(p) for p in grey], [0, 1])
    np.testing.assert_array_equal(open_dataset(str(path)).images, grey[:, None])
    path = _parquet(tmp_path / "m.parquet", [_png(grey[0]), _png(colour[0])], [0, 1])
    mixed = open_dataset(str(path)).images
    assert mixed.shape == (2, 3, 6, 6)
    np.testing.assert_array_equal(mixed[0, 2], grey[0])


def test_a_share_of_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, images=_pixels(10, 1), labels=np.arange(10))
    whole, part = open_dataset(str(path)), open_dataset(f"{path}#rows=2:5")
    np.testing.assert_array_equal(part.images, whole.images[2:5])
    assert part.labels.tolist() == [2, 3, 4]
    assert part.classes == whole.classes
    assert len({fingerprint(f"{path}{end}") for end in ("", "#rows=2:5", "#rows=2:6")}) == 3
    assert _code(f"{path}#rows=50:60") == "dataset.empty"
    assert _code(f"{path}#half") == "dataset.unreadable"


def test_fingerprint_follows_content_and_names(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "1.png").write_bytes(b"one")
    before = fingerprint(str(folder))
    os.utime(folder / "a" / "1.png", (0, 0))
    assert fingerprint(str(folder)) == before
    assert fingerprint(str(folder.rename(tmp_path / "moved"))) == before
    (tmp_path / "moved" / "a" / "1.png").rename(tmp_path / "moved" / "a" / "2.png")
    assert fingerprint(str(tmp_path / "moved")) != before


def test_what_is_not_there_or_not_a_dataset(tmp_path: Path) -> None:
    assert _code(tmp_path / "none.npz") == "dataset.not_found"
    assert _code(tmp_path / "none") == "dataset.not_found"
    with pytest.raises(BadDataset, match="no such file"):
        fingerprint(str(tmp_path / "none.npz"))
    for name in ("x.npz", "x.parquet", "x.csv"):
        (tmp_path / name).write_bytes(b"neither zip nor parquet")
        assert _code(tmp_path / name) == "dataset.unreadable"
    assert _code("nowhere://x/y.npz") == "dataset.unreadable"
    assert _code("zip::file:///x/y.npz") == "dataset.unreadable"
    (tmp_path / "empty").mkdir()
    assert _code(tmp_path / "empty") == "dataset.empty"


def test_damaged_truncated_and_odd_images(tmp_path: Path) -> None:
    good = _png(_pixels(1)[0])
    cut = _parquet(tmp_path / "cut.parquet", [good, good[:-30]], [0, 1])
    assert _code(cut) == "dataset.bad_image"
    assert _code(_parquet(tmp_path / "null.parquet", [b""], [0])) == "dataset.bad_image"
    other = _parquet(tmp_path / "size.parquet", [good, _png(_pixels(1, size=7)[0])], [0, 1])
    assert _code(other) == "dataset.bad_image"
    np.savez(tmp_path / "f.npz", images=np.zeros((2, 4, 4), np.float32), labels=np.zeros(2, int))
    assert _code(tmp_path / "f.npz") == "dataset.bad_image"


def test_labels_out_of_range(tmp_path: Path) -> None:
    encoded = [_png(p) for p in _pixels(2)]
    assert _code(_parquet(tmp_path / "high.parquet", encoded, [0, 3])) == "dataset.bad_label"
    assert _code(_parquet(tmp_path / "low.parquet", encoded, [0, -1])) == "dataset.bad_label"
    np.savez(tmp_path / "f.npz", images=_pixels(2), labels=np.array([0.5, 1.0]))
    assert _code(tmp_path / "f.npz") == "dataset.bad_label"
    np.savez(tmp_path / "n.npz", images=_pixels(2), labels=np.array([0]))
    assert _code(tmp_path / "n.npz") == "dataset.unreadable"


def test_objects_in_an_npz_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=_pixels(1), labels=np.array([{}], dtype=object))
    assert _code(tmp_path / "x.npz") == "dataset.unreadable"


def test_decompression_bombs_are_refused_before_they_unpack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        sum_ = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + sum_

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    assert _code(_parquet(tmp_path / "bomb.parquet", [bomb], [0])) == "dataset.bad_image"
    monkeypatch.setattr(bounds, "MAX_BYTES", 1000)
    np.savez_compressed(tmp_path / "x.npz", images=np.zeros((9, 40, 40), np.uint8), labels=[0] * 9)
    assert (tmp_path / "x.npz").stat().st_size < 1000
    assert _code(tmp_path / "x.npz") == "dataset.unreadable"
    many = _parquet(tmp_path / "many.parquet", [_png(p) for p in _pixels(20)], [0] * 20)
    assert _code(many) == "dataset.unreadable"


def test_a_share_of_a_parquet_file_decodes_no_other_row(tmp_path: Path) -> None:
    pixels = _pixels(3000, channels=1, size=2)
    encoded = [_png(p) for p in pixels]
    encoded[5] = b"damaged"
    encoded[2500] = b"damaged"
    path = _parquet(tmp_path / "x.parquet", encoded, [n % 3 for n in range(3000)], names="")
    part = open_dataset(f"{path}#rows=1000:2100")
    np.testing.assert_array_equal(part.images[:, 0], pixels[1000:2100])
    assert part.labels[:3].tolist() == [1, 2, 0]
    assert part.classes == ("0", "1", "2")
    assert _code(f"{path}#rows=2400:9000") == "dataset.bad_image"
    assert _code(f"{path}#rows=4000:5000") == "dataset.empty"
