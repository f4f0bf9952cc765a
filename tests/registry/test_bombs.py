"""Files that are small and stand for more than a machine has: refused before they unpack.

Memory is measured, in a process of its own for what numpy and pyarrow take besides Python.
"""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from server.errors import BadDataset
from server.registry import bounds
from server.registry.opening import fingerprint, open_dataset

MIB = 1024**2


def code_of(path: Path) -> str:
    with pytest.raises(BadDataset) as raised:
        open_dataset(str(path))
    return raised.value.code


def peak_of(path: Path) -> int:
    """Bytes of memory that opening the dataset takes at most, beyond what importing it takes."""
    program = (
        "import resource, sys\n"
        "from server.registry.opening import open_dataset\n"
        "import pyarrow.dataset\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "before = peak()\n"
        "try:\n    open_dataset(sys.argv[1])\n"
        "except Exception as error:\n    print(error, file=sys.stderr)\n"
        "print(peak() - before)\n"
    )
    command = [sys.executable, "-c", program, str(path)]
    return int(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)


def npy(descr: str, shape: tuple[int, ...], data: bytes = b"") -> bytes:
    file = io.BytesIO()
    about = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, about)
    return file.getvalue() + data


def npz(path: Path, **arrays: bytes) -> Path:
    whole = {
        "images": npy("|u1", (2, 2, 2), bytes(8)),
        "labels": npy("|u1", (2,), bytes(2)),
    } | arrays
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in whole.items():
            archive.writestr(f"{name}.npy", data)
    return path


def test_names_without_letters_and_without_end(tmp_path: Path) -> None:
    path = npz(tmp_path / "x.npz", classes=npy("|S0", (10**12,)))
    assert code_of(path) == "dataset.bad_label"


def test_labels_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_ROWS", 1000)
    path = npz(tmp_path / "x.npz", labels=npy("|u1", (2000,), bytes(2000)))
    assert code_of(path) == "dataset.unreadable"


def test_a_shape_that_the_data_do_not_have(tmp_path: Path) -> None:
    path = npz(tmp_path / "x.npz", images=npy("|u1", (1 << 40, 8, 8), bytes(64)))
    assert code_of(path) == "dataset.unreadable"


def test_other_arrays_of_an_npz_are_not_read(tmp_path: Path) -> None:
    path = npz(tmp_path / "x.npz", junk=b"PK no array")
    assert len(open_dataset(str(path))) == 2


def test_an_entry_that_unpacks_to_more_than_it_says(tmp_path: Path) -> None:
    path = npz(tmp_path / "x.npz", images=npy("|u1", (1, 200 * MIB, 1), bytes(200 * MIB)))
    size = struct.pack("<I", 200 * MIB + 128)
    assert path.read_bytes().count(size) >= 2
    path.write_bytes(path.read_bytes().replace(size, struct.pack("<I", 300)))
    assert peak_of(path) < 50 * MIB
    assert code_of(path) == "dataset.unreadable"


def parquet(path: Path, image: bytes, rows: int, label: int = 0) -> Path:
    """One image, `rows` times: a few bytes a thousand rows."""
    times = pa.array(np.zeros(rows, np.int64))
    names = [pa.array([value], kind).take(times) for value, kind in ((image, pa.binary()),)]
    pictures = pa.StructArray.from_arrays([*names], names=["bytes"])
    table = pa.table({"image": pictures, "label": pa.array(np.full(rows, label))})
    pq.write_table(table, path, dictionary_pagesize_limit=1 << 30, compression="zstd")
    return path


def test_one_large_image_a_thousand_times(tmp_path: Path) -> None:
    path = parquet(tmp_path / "x.parquet", os.urandom(MIB), 500)
    assert path.stat().st_size < 2 * MIB
    assert peak_of(path) < 100 * MIB
    assert code_of(path) == "dataset.bad_image"


def test_more_rows_than_there_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_ROWS", 1000)
    path = parquet(tmp_path / "x.parquet", b"", 100_000)
    assert path.stat().st_size < 10_000
    assert code_of(path) == "dataset.unreadable"


def test_an_image_of_too_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_ENCODED_BYTES", 50)
    shown = io.BytesIO()
    Image.new("L", (9, 9)).save(shown, "png")
    assert code_of(parquet(tmp_path / "x.parquet", shown.getvalue(), 1)) == "dataset.bad_image"


def test_pictures_are_taken_for_no_programs(tmp_path: Path) -> None:
    """Pillow hands PostScript to Ghostscript."""
    folder = tmp_path / "x" / "cat"
    folder.mkdir(parents=True)
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run\n"
    (folder / "a.png").write_bytes(program)
    with pytest.raises(BadDataset, match="not an image") as raised:
        open_dataset(str(tmp_path / "x"))
    assert raised.value.code == "dataset.bad_image"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of one image."""
    (tmp_path / "x" / "cat").mkdir(parents=True)
    Image.new("L", (9, 9)).save(tmp_path / "x" / "cat" / "a.png")
    return tmp_path / "x"


@pytest.mark.parametrize("place", ["dog", "cat/b.png", "cat/deeper"])
def test_links_in_a_folder_are_not_followed(folder: Path, place: str) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (folder / place).symlink_to(outside)
    assert code_of(folder) == "dataset.unreadable"
    with pytest.raises(BadDataset, match="links are not followed"):
        fingerprint(str(folder))


def test_a_file_of_a_folder_that_is_too_large(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.registry.opening.MAX_ENCODED_BYTES", 10)
    assert code_of(folder) == "dataset.bad_image"


def test_folders_have_an_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "cat" / Path(*"a" * 30)).mkdir(parents=True)
    assert code_of(folder) == "dataset.unreadable"
    with pytest.raises(BadDataset, match="folders deep"):
        fingerprint(str(folder))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("x.npz", "x.parquet"):
        os.mkfifo(tmp_path / name)
        assert code_of(tmp_path / name) == "dataset.unreadable"
        with pytest.raises(BadDataset):
            fingerprint(str(tmp_path / name))
