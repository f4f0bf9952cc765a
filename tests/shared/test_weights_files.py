"""Weights files: the digest, safetensors both ways, and files that lie about themselves."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from shared.errors import BadWeights
from shared.tensors import TensorSpec, schema_digest, schema_of, to_float64
from shared.weights import MAX_TENSORS, WeightsReader, WeightsWriter, write_weights

RNG = np.random.default_rng(3)
MIXED: dict[str, tuple[str, Any]] = {
    "b.bool": ("BOOL", np.array([1, 0, 1], np.uint8)),
    "a.scalar": ("F32", np.array(0.5, np.float32)),
    "z.counter": ("I64", np.array(7)),
    "half": ("F16", RNG.standard_normal((3, 5)).astype(np.float16)),
    "brain": ("BF16", RNG.integers(0, 1 << 14, (5, 3)).astype(np.uint16)),
    "double": ("F64", RNG.standard_normal((2, 3, 4))),
    "empty": ("F32", np.zeros((0, 4), np.float32)),
    "odd": ("U8", np.arange(7, dtype=np.uint8)),
    "gewichte.ü": ("F32", RNG.standard_normal(9).astype(np.float32)),
}
TORCH = {"BF16": torch.bfloat16, "BOOL": torch.bool, "I64": torch.int64, "F16": torch.float16}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.safetensors"


def lie(path: Path, header: Any, data: bytes = b"\0" * 8) -> Path:
    """A file with a header that may say anything."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def beside(**changes: Any) -> dict[str, Any]:
    """A tensor whose offsets are right, beside two that fill the data."""
    halves = {n: entry(shape=[1], offsets=[at, at + 4]) for n, at in (("y", 0), ("z", 4))}
    if changes["offsets"] == [0, 4]:
        del halves["y"]
    return {"x": entry(**changes), **halves}


def test_the_digest_is_what_the_design_says(path: Path) -> None:
    write_weights(path, MIXED, {"note": "not part of it"})
    sha = hashlib.sha256()
    for name in sorted(MIXED, key=lambda n: n.encode()):
        dtype, array = MIXED[name]
        raw = array.tobytes()
        sha.update(len(name.encode()).to_bytes(4, "little") + name.encode())
        sha.update(bytes([len(dtype)]) + dtype.encode() + bytes([array.ndim]))
        sha.update(b"".join(d.to_bytes(8, "little") for d in array.shape))
        sha.update(len(raw).to_bytes(8, "little") + raw)
    with WeightsReader(path) as weights:
        assert weights.digest() == sha.digest()


def test_the_digest_does_not_depend_on_who_wrote_the_file(path: Path, tmp_path: Path) -> None:
    arrays = {"x": np.ones((3, 2), np.float32), "count": np.array(3)}
    foreign = tmp_path / "foreign"
    safetensors.numpy.save_file(arrays, foreign, metadata={"made": "elsewhere"})
    write_weights(path, {"x": ("F32", arrays["x"]), "count": ("I64", arrays["count"])})
    with WeightsReader(path) as ours, WeightsReader(foreign) as theirs:
        assert ours.digest() == theirs.digest()
        assert ours.tensor_digests() == theirs.tensor_digests()
        assert theirs.metadata == {"made": "elsewhere"}


@pytest.mark.parametrize("change", ["name", "dtype", "shape", "bit"])
def test_the_digest_notices_every_change(path: Path, tmp_path: Path, change: str) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    other = {
        "name": {"y": ("F32", x)},
        "dtype": {"x": ("I32", x.view(np.int32))},
        "shape": {"x": ("F32", x.reshape(3, 2))},
        "bit": {"x": ("F32", np.where(x == 0, np.float32(-0.0), x))},
    }[change]
    write_weights(path, {"x": ("F32", x)})
    write_weights(tmp_path / "other", other)
    with WeightsReader(path) as a, WeightsReader(tmp_path / "other") as b:
        assert a.digest() != b.digest()
        assert (schema_digest(a.schema) == schema_digest(b.schema)) is (change == "bit")


def test_torch_reads_what_is_written_here_bit_for_bit(path: Path) -> None:
    write_weights(path, MIXED, {"k": "v"})
    read = safetensors.torch.load_file(path)
    assert set(read) == set(MIXED)
    for name, (dtype, array) in MIXED.items():
        assert tuple(read[name].shape) == array.shape
        assert read[name].dtype == TORCH.get(dtype, read[name].dtype)
        assert read[name].reshape(-1).view(torch.uint8).numpy().tobytes() == array.tobytes()


def test_what_torch_writes_is_read_here_bit_for_bit(path: Path) -> None:
    tensors = {
        "brain": torch.randn(4, 3).to(torch.bfloat16),
        "half": torch.randn(5).to(torch.float16),
        "mask": torch.tensor([True, False, True]),
        "count": torch.tensor(5),
        "empty": torch.zeros(0, 3),
        "eight": torch.randn(4).to(torch.float8_e4m3fn),
    }
    safetensors.torch.save_file(tensors, path)
    with WeightsReader(path) as weights:
        for name, tensor in tensors.items():
            assert weights.schema[name].shape == tuple(tensor.shape)
            raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
            assert weights.read(name).tobytes() == raw
        brain = to_float64(weights.read("brain"), "BF16")
        assert np.array_equal(brain, tensors["brain"].double().numpy())


def test_every_tensor_is_aligned_whatever_the_mixture(path: Path) -> None:
    write_weights(path, MIXED)
    raw = path.read_bytes()
    (length,) = struct.unpack_from("<Q", raw)
    assert (8 + length) % 8 == 0
    for name, place in json.loads(raw[8 : 8 + length]).items():
        assert place["data_offsets"][0] % MIXED[name][1].itemsize == 0


def test_the_same_tensors_give_the_same_file(path: Path, tmp_path: Path) -> None:
    write_weights(path, MIXED, {"b": "2", "a": "1"})
    reverse = dict(reversed(MIXED.items()))
    write_weights(tmp_path / "again", reverse, {"a": "1", "b": "2"})
    assert path.read_bytes() == (tmp_path / "again").read_bytes()


def test_tensors_may_be_written_in_any_order_and_in_pieces(path: Path) -> None:
    a, b = np.arange(10, dtype=np.float32), np.arange(6, dtype=np.uint8)
    specs = schema_of([TensorSpec("b", "U8", (6,)), TensorSpec("a", "F32", (2, 5))])
    file = io.BytesIO()
    writer = WeightsWriter(file, specs)
    for name, piece in (("b", b[:4]), ("a", a[:3]), ("b", b[4:]), ("a", a[3:])):
        writer.write(name, piece)
    path.write_bytes(file.getvalue())
    with WeightsReader(path) as weights:
        assert np.array_equal(weights.read("a"), a.reshape(2, 5))
        assert np.array_equal(weights.read("b"), b)
        assert np.array_equal(weights.read("a", 2, 7), a[2:7])
        assert [c.size for c in weights.chunks("a", 4)] == [4, 4, 2]


def test_names_follow_the_byte_order_of_utf_8(path: Path) -> None:
    names = ["b", "a", "\U0001f600", "\uffee", "Z"]  # UTF-16 order would swap the last but one
    write_weights(path, {n: ("U8", np.zeros(1, np.uint8)) for n in names})
    with WeightsReader(path) as weights:
        assert list(weights.schema) == sorted(names, key=str.encode)


@pytest.mark.parametrize(
    ("shape", "matrix"),
    [((), (1, 1)), ((7,), (7, 1)), ((4, 3), (4, 3)), ((8, 1, 3, 3), (8, 9)), ((0, 4), (0, 4))],
)
def test_a_tensor_as_a_matrix_is_its_first_dimension_times_the_rest(
    shape: tuple[int, ...], matrix: tuple[int, int]
) -> None:
    assert TensorSpec("x", "F32", shape).matrix == matrix


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("not JSON", b"{nonsense"),
        ("UTF-16", json.dumps({"x": entry()}).encode("utf-16")),
        ("not UTF-8", b'{"\xff": 1}'),
        ("a list", [1, 2]),
        ("deeply nested", b"[" * 100_000),
        ("a number of a million digits", b'{"x": ' + b"9" * 1_000_000 + b"}"),
        ("no dtype", {"x": {"shape": [2], "data_offsets": [0, 8]}}),
        ("an entry that is a number", {"x": 3}),
        ("an unknown dtype", {"x": entry("F7")}),
        ("a dtype that is a list", {"x": entry(["F32"])}),
        ("a negative dimension", {"x": entry(shape=[-2])}),
        ("two negative dimensions", {"x": entry(shape=[-2, -1])}),
        ("a fractional dimension", {"x": entry(shape=[2.0])}),
        ("a dimension that is true", {"x": entry(shape=[2, True])}),
        ("a shape that is a text", beside(shape="", offsets=[0, 4])),
        ("a shape that is an object", beside(shape={}, offsets=[0, 4])),
        ("too many dimensions", {"x": entry(shape=[1] * 40 + [2])}),
        ("a huge dimension", {"x": entry(shape=[1 << 61])}),
        ("dimensions that overflow", {"x": entry(shape=[1 << 40, 1 << 40])}),
        ("zero times huge", beside(shape=[0, 1 << 61, 9], offsets=[4, 4])),
        ("offsets that miss the shape", {"x": entry(shape=[1])}),
        ("offsets backwards", {"x": entry(offsets=[8, 0])}),
        ("three offsets", {"x": entry(offsets=[0, 8, 8])}),
        ("a hole at the start", {"x": entry(shape=[1], offsets=[4, 8])}),
        ("a hole at the end", {"x": entry(shape=[1], offsets=[0, 4])}),
        ("an overlap", {"x": entry(), "y": entry()}),
        ("more than the file has", {"x": entry(shape=[4], offsets=[0, 16])}),
        ("a name that is no text", b'{"\\ud800": ' + json.dumps(entry()).encode() + b"}"),
        (
            "one name twice",
            b'{"x": %b, "x": %b}' % ((json.dumps(entry()).encode(),) * 2),
        ),
        ("metadata that is no object", {"__metadata__": 3, "x": entry()}),
        ("metadata that is no text", {"__metadata__": {"a": 3}, "x": entry()}),
    ],
)
def test_a_header_that_does_not_describe_the_data_is_refused(
    path: Path, name: str, header: Any
) -> None:
    with pytest.raises(BadWeights) as caught:
        WeightsReader(lie(path, header))
    assert caught.value.code == "weights.malformed"
    assert caught.value.exit_status == 1


@pytest.mark.parametrize("length", [0, 1 << 20, 1 << 40, (1 << 64) - 1])
def test_a_header_length_that_does_not_fit_is_refused_before_it_is_read(
    path: Path, length: int
) -> None:
    path.write_bytes(struct.pack("<Q", length) + b"{}")
    with pytest.raises(BadWeights, match=r"weights\.malformed"):
        WeightsReader(path)


def test_a_file_cut_anywhere_is_refused(path: Path) -> None:
    write_weights(path, {"x": ("F32", np.ones(3, np.float32)), "n": ("U8", np.zeros(2, np.uint8))})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(BadWeights, match=r"weights\.malformed"):
            WeightsReader(path)


def test_a_file_cut_while_it_is_read_is_an_error_of_ours(path: Path) -> None:
    write_weights(path, {"x": ("F32", np.ones(1000, np.float32))})
    with WeightsReader(path) as weights:
        with path.open("r+b") as file:
            file.truncate(2000)
        with pytest.raises(BadWeights, match="cut inside tensor 'x'"):
            weights.digest()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadWeights) as caught:
        WeightsReader(tmp_path / "missing")
    assert caught.value.code == "weights.not_found"
    with pytest.raises(BadWeights) as caught:
        WeightsReader(tmp_path)
    assert caught.value.code == "weights.malformed"


def test_a_file_without_tensors_has_a_digest(path: Path) -> None:
    write_weights(path, {})
    with WeightsReader(path) as weights:
        assert weights.schema == {}
        assert weights.digest() == hashlib.sha256().digest()


def test_a_large_file_is_read_where_it_is_asked_to_be(path: Path) -> None:
    size = 1 << 33  # a sparse file: nothing of this size is stored or read
    spec = {"x": entry("U8", [size], [0, size]), "y": entry("U8", [1], [size, size + 1])}
    lie(path, spec, b"")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + size)
        file.seek(0, 2)
        file.write(b"\7")
    with WeightsReader(path) as weights:
        assert weights.read("y").tolist() == [7]
        assert weights.read("x", size - 3, size).tolist() == [0, 0, 0]


def test_a_header_of_countless_tensors_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    header = b",".join(b'"%x":[]' % number for number in range(3 * MAX_TENSORS))
    path = tmp_path / "many.safetensors"
    path.write_bytes(struct.pack("<Q", len(header) + 2) + b"{" + header + b"}")
    with pytest.raises(BadWeights, match="more than 65536 tensors"):
        WeightsReader(path)
