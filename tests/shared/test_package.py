"""The package file: canonical, open to any reader, and refused where anything does not add up."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch

from shared import coding
from shared.decode import decode, reconstitute
from shared.errors import BadPackage
from shared.golden import Golden
from shared.grid import Guard, Step
from shared.package import FORMAT, PackageHeader, PackageReader, PackageWriter
from shared.plans import Plan, TensorPlan
from shared.records import Cursor, section, varint
from shared.tensors import TensorSpec, schema_of
from shared.weights import WeightsReader, write_weights

HEADER = {
    "format": FORMAT,
    "model": "m",
    "method": "direct/1",
    "options": {"bits": 8},
    "coder": "zstd/1",
    "tool": "weft test",
}
SPECS = schema_of([TensorSpec("a", "F32", (2, 3)), TensorSpec("b", "F32", (3,))])
RESULT = bytes(range(32))
Open = Callable[[bytes], PackageReader]


@pytest.fixture
def read(tmp_path: Path) -> Open:
    def opened(data: bytes) -> PackageReader:
        (tmp_path / "package").write_bytes(data)
        return PackageReader(tmp_path / "package")

    return opened


def container(header: dict[str, Any], payload: bytes) -> bytes:
    """A canonical container around any payload and any header."""
    weft = json.dumps(header, sort_keys=True, separators=(",", ":"))
    place = {"dtype": "U8", "shape": [len(payload)], "data_offsets": [0, len(payload)]}
    outer = {"__metadata__": {"weft": weft}, "payload": place}
    text = json.dumps(outer, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + payload


def payload(control: bytes, symbols: bytes = b"", stream: bytes = b"") -> bytes:
    return section(control) + section(symbols) + section(stream)


def control(
    plans: bytes = b"", records: bytes = b"", flags: int = 0, schema: bytes | None = None
) -> bytes:
    if schema is not None:
        return bytes([flags | 2]) + RESULT + section(schema) + section(plans) + records
    return bytes([flags]) + RESULT + section(plans) + records


def package_of(control_bytes: bytes, symbols: bytes = b"", **header: Any) -> bytes:
    return container({**HEADER, **header}, payload(control_bytes, symbols))


def new_tensor(
    name: bytes = b"n", dtype: bytes = b"F32", shape: tuple[int, ...] = (2,), dropped: bytes = b"\0"
) -> bytes:
    dimensions = varint(len(shape)) + b"".join(varint(d) for d in shape)
    return dropped + b"\1" + section(name) + section(dtype) + dimensions


def written(guard: Guard | None = None, options: dict[str, Any] | None = None) -> bytes:
    """What the writer makes of two tensors of KA."""
    header = PackageHeader(**{**HEADER, "method": "ka/1", "options": options or {"rank": 1}})
    file, stream = io.BytesIO(), io.BytesIO()
    writer = PackageWriter(header, SPECS, SPECS, bytes(32), stream)
    steps = (Step(1, -3), Step(2, -4), Step(3, -20))
    symbols = [np.arange(7)]
    writer.add(TensorPlan(Plan.FACTORS, steps, b"par", guard or Guard()), symbols)
    writer.add(TensorPlan(Plan.UNCHANGED))
    writer.write(file, RESULT)
    return file.getvalue()


def test_the_same_content_gives_the_same_bytes() -> None:
    assert written() == written()
    a, b = {"rank": 1, "bits": 8}, {"bits": 8, "rank": 1}
    assert written(options=a) == written(options=b)


def test_what_was_written_is_read(read: Open) -> None:
    guard = Guard(np.array([0, 3, 500]), np.array([1, 0, 1]))
    with read(written(guard)) as package:
        assert package.header.method == "ka/1"
        assert (package.base_digest, package.result_digest) == (bytes(32), RESULT)
        assert package.has_symbols
        assert not package.has_bytes
        first, second = package.plans(1, 3)
        assert first.steps == (Step(1, -3), Step(2, -4), Step(3, -20))
        assert first.params == b"par"
        assert first.guard.indices.tolist() == [0, 3, 500]
        assert first.guard.up.tolist() == [1, 0, 1]
        assert second == TensorPlan(Plan.UNCHANGED, guard=second.guard)
        assert package.target_schema(SPECS) == SPECS
        symbols = package.symbols()
        assert symbols.read(7).tolist() == list(range(7))
        symbols.finish()


def test_any_safetensors_reader_opens_it(tmp_path: Path) -> None:
    path = tmp_path / "package"
    path.write_bytes(written())
    tensors = safetensors.numpy.load_file(path)
    assert list(tensors) == ["payload"]
    assert tensors["payload"].dtype == np.uint8
    assert safetensors.torch.load_file(path)["payload"].numel() == tensors["payload"].size
    with safetensors.safe_open(path, "numpy") as file:
        assert list(file.metadata()) == ["weft"]
        assert json.loads(file.metadata()["weft"])["method"] == "ka/1"


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({"format": 3}, "unknown_format"),
        ({"format": 0}, "unknown_format"),
        ({"format": "1"}, "unknown_format"),
        ({"format": True}, "malformed"),
        ({"format": 1.0}, "malformed"),
        ({"coder": "zstd/2"}, "unknown_coder"),
        ({"coder": "morse/1"}, "unknown_coder"),
        ({"method": "ka/2"}, "unknown_method"),
        ({"method": "ka"}, "unknown_method"),
        ({"method": "ka/1/1"}, "unknown_method"),
        ({"method": "magic/1"}, "unknown_method"),
        ({"options": {"bits": 99}}, "malformed"),
        ({"options": {"bits": 8, "unheard_of": 1}}, "malformed"),
        ({"options": {"bits": "many"}}, "malformed"),
        ({"options": [1]}, "malformed"),
        ({"surprise": 1}, "malformed"),
        ({"model": 3}, "malformed"),
    ],
)
def test_a_header_that_is_not_understood_is_refused(
    read: Open, header: dict[str, Any], code: str
) -> None:
    with (
        pytest.raises(BadPackage) as caught,
        read(package_of(control(), **header)) as package,
    ):
        reconstitute(None, package, io.BytesIO())
    assert caught.value.code == f"package.{code}"


GOLDEN = {"agree": 2, "classes": 5, "labels": "AQIA", "seed": 7, "shape": [3, 4]}


def test_golden_samples_are_read_back(read: Open) -> None:
    with read(package_of(control(), format=2, golden=GOLDEN)) as package:
        assert package.header.golden is not None
        assert package.header.golden.expected == [1, 2, 0]


def test_a_package_without_golden_samples_is_what_it_was() -> None:
    header = PackageHeader.model_validate(HEADER)
    assert header.fields() == HEADER
    assert header.with_golden(Golden.model_validate(GOLDEN)).fields() == HEADER | {
        "format": 2,
        "golden": GOLDEN,
    }


@pytest.mark.parametrize(
    "header",
    [
        {"format": 2},
        {"format": 2, "golden": None},
        {"format": 1, "golden": GOLDEN},
        {"format": 2, "golden": GOLDEN | {"samples": None}},  # not canonical
        {"format": 2, "golden": GOLDEN | {"agree": 4}},
        {"format": 2, "golden": GOLDEN | {"surprise": 1}},
        {"format": 2, "golden": GOLDEN | {"shape": [1 << 16] * 3}},
        {"format": 2, "golden": GOLDEN | {"labels": "AA" * 90}},
        {"format": 2, "golden": "lamp"},
    ],
)
def test_golden_samples_that_make_no_sense_are_refused(read: Open, header: dict[str, Any]) -> None:
    with pytest.raises(BadPackage, match=r"package\.malformed"):
        read(package_of(control(), **header))


@pytest.mark.parametrize("missing", sorted(HEADER))
def test_a_header_with_a_part_missing_is_refused(read: Open, missing: str) -> None:
    header = {k: v for k, v in HEADER.items() if k != missing}
    with pytest.raises(BadPackage, match=r"package\.malformed"):
        read(container(header, payload(control())))


def test_a_header_that_is_not_canonical_is_refused(read: Open) -> None:
    good = package_of(control())
    read(good).close()
    (length,) = struct.unpack_from("<Q", good)
    text, rest = good[8 : 8 + length], good[8 + length :]
    spaced = text.rstrip() + b" " * 8
    turned = json.loads(text)
    turned = {"payload": turned["payload"], "__metadata__": turned["__metadata__"]}
    reordered = json.dumps(turned, separators=(",", ":")).encode().ljust(length)
    more = text.replace(b'"__metadata__":{', b'"__metadata__":{"x":"y",')
    for other in (spaced, text + b" " * 8, reordered, more, text.decode().encode("utf-16")):
        with pytest.raises(BadPackage, match=r"package\.malformed"):
            read(struct.pack("<Q", len(other)) + other + rest)


def test_a_header_length_that_does_not_fit_is_refused(read: Open) -> None:
    for length in (0, 1, 4097, 1 << 40, (1 << 64) - 1):
        with pytest.raises(BadPackage, match=r"package\.malformed"):
            read(struct.pack("<Q", length) + b" " * 5000)


def test_a_package_cut_anywhere_is_refused(read: Open) -> None:
    whole = written(Guard(np.array([3]), np.array([1])))
    for size in range(len(whole)):
        with pytest.raises(BadPackage, match=r"package\.malformed"):
            read(whole[:size])


def test_bytes_after_the_end_are_refused(read: Open) -> None:
    with pytest.raises(BadPackage, match=r"package\.malformed"):
        read(written() + b"\0")
    inside = container(HEADER, payload(control()) + b"\0")
    with pytest.raises(BadPackage, match="1 bytes too many"):
        read(inside)


@pytest.mark.parametrize("flags", [4, 8, 128, 255])
def test_unknown_flags_are_refused(read: Open, flags: int) -> None:
    with pytest.raises(BadPackage, match="unknown flags"):
        read(package_of(control(flags=flags)))


@pytest.mark.parametrize("plan", [2, 6, 255])
def test_an_unknown_plan_is_refused(read: Open, plan: int) -> None:
    with (
        read(package_of(control(bytes([plan])))) as package,
        pytest.raises(BadPackage, match=r"package\.unknown_format"),
    ):
        package.plans(1, 3)


def test_records_that_are_too_short_or_too_long_are_refused(read: Open) -> None:
    step = Step(1, 0).pack()
    for plans, records in (
        (bytes([Plan.DIRECT]), b"\1"),
        (bytes([Plan.DIRECT]), step + b"\0"),
        (bytes([Plan.UNCHANGED]), b"\0"),
        (bytes([Plan.FACTORS]), step + b"\5ab" + b"\0"),
        (bytes([Plan.FACTORS]), step + b"\0" + b"\2\0"),
        (bytes([Plan.FACTORS]), step + b"\0" + varint(1 << 40)),
        (bytes([Plan.DIRECT]), b"\0\0"),
    ):
        with (
            read(package_of(control(plans, records))) as package,
            pytest.raises(BadPackage, match=r"package\.malformed"),
        ):
            package.plans(1, 1)


@pytest.mark.parametrize("gaps", [[4, 0], [4, 1, 8], [(1 << 63) - 1] * 3])
def test_guarded_elements_out_of_order_are_refused(read: Open, gaps: list[int]) -> None:
    records = Step(1, 0).pack() + b"\0" + varint(len(gaps)) + b"".join(varint(g) for g in gaps)
    with (
        read(package_of(control(bytes([Plan.FACTORS]), records))) as package,
        pytest.raises(BadPackage, match="out of order"),
    ):
        package.plans(1, 1)


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, (1 << 63) - 1])
def test_a_varint_survives(value: int) -> None:
    cursor = Cursor(varint(value))
    assert cursor.varint() == value
    cursor.finish()


@pytest.mark.parametrize(
    "data", [b"\x80\0", b"\xff\x80\0", b"\x80", b"", b"\xff" * 9 + b"\1", b"\x80" * 30]
)
def test_a_varint_that_is_longer_than_needed_too_large_or_cut_is_refused(data: bytes) -> None:
    with pytest.raises(BadPackage, match=r"package\.malformed"):
        Cursor(data).varint()


def test_lengths_may_not_be_longer_than_needed(read: Open) -> None:
    bare = control()
    long = bytes([len(bare) | 0x80, 0]) + bare + b"\0\0"
    with pytest.raises(BadPackage, match="longer than needed"):
        read(container(HEADER, long))


@pytest.mark.parametrize("length", [100, 1 << 30, (1 << 63) - 1])
def test_a_part_longer_than_the_file_is_refused_before_it_is_read(read: Open, length: int) -> None:
    for data in (varint(length), section(control()) + varint(length)):
        with pytest.raises(BadPackage, match=r"package\.malformed"):
            read(container(HEADER, data))


def test_a_package_over_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "package"
    path.write_bytes(written())
    with pytest.raises(BadPackage) as caught:
        PackageReader(path, max_bytes=path.stat().st_size - 1)
    assert caught.value.code == "package.too_large"
    PackageReader(path, max_bytes=path.stat().st_size).close()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path, code in ((tmp_path / "none", "not_found"), (tmp_path, "malformed")):
        with pytest.raises(BadPackage) as caught:
            PackageReader(path)
        assert caught.value.code == f"package.{code}"


@pytest.mark.parametrize(
    ("schema", "code"),
    [
        (new_tensor(shape=(1 << 50,)), "too_large"),
        (new_tensor(shape=(1 << 30, 1 << 30)), "malformed"),
        (new_tensor(shape=(0, 1 << 61, 1 << 61)), "malformed"),
        (new_tensor(shape=(1,) * 17), "malformed"),
        (new_tensor(dtype=b"F7"), "unknown_format"),
        (new_tensor(name=b"\xff"), "malformed"),
        (new_tensor(name=b"__metadata__"), "malformed"),
        (new_tensor() + b"\0", "malformed"),
        (new_tensor()[:-1], "malformed"),
        (new_tensor(dropped=b"\1\1q"), "wrong_schema"),
        (b"\0" + varint(1 << 50), "malformed"),
        (b"", "malformed"),
    ],
)
def test_a_schema_that_cannot_be_is_refused(read: Open, schema: bytes, code: str) -> None:
    with (
        read(package_of(control(bytes([Plan.RAW]), schema=schema))) as package,
        pytest.raises(BadPackage) as caught,
    ):
        package.target_schema(None)
    assert caught.value.code == f"package.{code}"


def test_there_is_a_plan_for_each_tensor(read: Open) -> None:
    for plans in (b"", bytes(2)):
        with (
            read(package_of(control(plans, schema=new_tensor()))) as package,
            pytest.raises(BadPackage, match=r"package\.wrong_schema"),
        ):
            package.target_schema(None)


@pytest.mark.parametrize(
    ("plan", "dtype", "code"),
    [
        (Plan.UNCHANGED, b"F32", "wrong_schema"),
        (Plan.XOR, b"F32", "wrong_schema"),
        (Plan.FACTORS, b"F32", "wrong_schema"),
        (Plan.RAW, b"F32", "malformed"),  # no coded bytes
        (Plan.DIRECT, b"F32", "malformed"),  # no coded symbols
        (Plan.DIRECT, b"I32", "malformed"),
    ],
)
def test_a_plan_that_does_not_suit_its_tensor_is_refused(
    read: Open, plan: Plan, dtype: bytes, code: str
) -> None:
    step = Step(1, 0).pack()
    records = {Plan.DIRECT: step, Plan.FACTORS: step + b"\0\0"}.get(plan, b"")
    data = package_of(control(bytes([plan]), records, schema=new_tensor(dtype=dtype)))
    with read(data) as package, pytest.raises(BadPackage) as caught:
        reconstitute(None, package, io.BytesIO())
    assert caught.value.code == f"package.{code}"


def direct(symbols: list[int], shape: tuple[int, ...], **header: Any) -> bytes:
    """A package that makes one new tensor by `direct`."""
    coded = coding.coder("zstd/1").encode([np.array(symbols)])
    step = Step(1, 0).pack()
    plans = control(bytes([Plan.DIRECT]), step, schema=new_tensor(shape=shape))
    return package_of(plans, coded, **header)


def test_symbols_beyond_their_bits_are_refused(read: Open) -> None:
    with read(direct([1, 127], (2,))) as package:
        reconstitute(None, package, io.BytesIO())
    for symbols in ([1, 128], [-128, 1], [1 << 30, 0]):
        with (
            read(direct(symbols, (2,))) as package,
            pytest.raises(BadPackage, match="does not fit into 8 bits"),
        ):
            reconstitute(None, package, io.BytesIO())


@pytest.mark.parametrize("method", ["xor/1", "full/1"])
def test_a_lossless_method_has_no_symbols(read: Open, method: str) -> None:
    with (
        read(direct([1, 2], (2,), method=method, options={})) as package,
        pytest.raises(BadPackage, match=r"package\.malformed"),
    ):
        reconstitute(None, package, io.BytesIO())


def test_symbols_left_over_are_refused(read: Open) -> None:
    with (
        read(direct([1, 2, 3], (2,))) as package,
        pytest.raises(BadPackage, match="go on after their end"),
    ):
        reconstitute(None, package, io.BytesIO())


def test_a_promised_tensor_far_beyond_memory_allocates_nothing(read: Open, tmp_path: Path) -> None:
    with (
        read(direct([1, 2], (1 << 33,))) as package,
        (tmp_path / "out").open("w+b") as file,
        pytest.raises(BadPackage, match="end too early"),
    ):
        reconstitute(None, package, file)


def test_the_wrong_base_is_refused_before_anything_is_written(read: Open, tmp_path: Path) -> None:
    write_weights(tmp_path / "base", {n: ("F32", np.zeros(s.shape)) for n, s in SPECS.items()})
    out = io.BytesIO()
    with read(written()) as package, WeightsReader(tmp_path / "base") as base:
        for held in (base, None):
            with pytest.raises(BadPackage, match=r"package\.wrong_base"):
                decode(held, package, out)
    assert out.getvalue() == b""
