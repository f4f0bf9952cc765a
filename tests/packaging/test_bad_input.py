"""What cannot become a package is refused by name, and nothing is left behind."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.packaging import assemble, encode
from server.packaging.encode import build_package, code_matrices, finish
from shared import methods
from shared.errors import BadMethod, BadResult, BadWeights, NoSpace, UserError
from shared.weights import WeightsReader, write_weights

LOSSY: dict[str, dict[str, Any]] = {
    "ka": {"rank": 1},
    "ml": {"rank": 2},
    "ml_delta": {"rank": 2},
    "lra": {"rank": 2},
    "lru": {"rank": 2},
    "lora": {"rank": 2},
    "rm": {"proportion": 0.5},
    "sparse": {},
    "direct": {},
}
Tensors = dict[str, tuple[str, Any]]


def tensors(**changes: Any) -> Tensors:
    rng = np.random.default_rng(changes.pop("seed", 0))
    made = {
        "w": rng.standard_normal((6, 10)),
        "b": rng.standard_normal(6),
        "bn.running_var": rng.uniform(0.5, 2, 6),
        "mask": np.where(np.eye(4) > 0, -np.inf, 0.0),
    }
    made.update(changes)
    return {n: ("F32", np.asarray(v, np.float32)) for n, v in made.items()}


class Room:
    """A folder with a base and a target, and what a build leaves in it."""

    def __init__(self, path: Path) -> None:
        self.path, self.base, self.target = path, path / "base", path / "target"
        self.output, self.decoded = path / "package", path / "decoded"
        write_weights(self.base, tensors())
        write_weights(self.target, tensors(seed=1))

    def build(self, method: str = "ka", options: dict[str, Any] | None = None) -> Any:
        given = LOSSY.get(method, {}) if options is None else options
        return build_package(
            self.base, self.target, method, given, self.output, "m", decoded=self.decoded
        )

    def left(self) -> set[str]:
        return {path.name for path in self.path.iterdir()}


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def refused(room: Room, code: str, *arguments: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        room.build(*arguments)
    assert caught.value.code == code
    assert caught.value.todo
    assert room.left() == {"base", "target"}
    return caught.value


@pytest.mark.parametrize("method", LOSSY)
@pytest.mark.parametrize("name", ["w", "b"])
def test_learnable_weights_that_are_not_numbers_are_refused(
    room: Room, method: str, name: str
) -> None:
    broken = tensors(seed=1)
    broken[name][1].reshape(-1)[3] = math.nan
    write_weights(room.target, broken)
    assert name in refused(room, "weights.not_finite", method).message
    broken[name][1].reshape(-1)[4] = -math.inf  # no mask either
    write_weights(room.target, broken)
    assert name in refused(room, "weights.not_finite", method).message


@pytest.mark.parametrize("method", [*LOSSY, "xor", "full"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_diverged_are_refused(room: Room, method: str, value: float) -> None:
    diverged = tensors(seed=1)
    diverged["w"][1][2, 3] = value
    write_weights(room.target, diverged)
    with pytest.raises(BadWeights, match=r"weights\.not_finite"):
        room.build(method)
    assert room.left() == {"base", "target"}


@pytest.mark.parametrize("method", ["xor", "full"])
def test_the_decode_loop_lets_no_nan_through(
    room: Room, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Not even from a server that did not look."""
    monkeypatch.setattr(encode, "_check_values", lambda base, new: None)
    write_weights(room.target, tensors(b=[math.nan] * 6))
    with pytest.raises(BadResult, match=r"result\.not_finite"):
        room.build(method)
    assert room.left() == {"base", "target"}


@pytest.mark.parametrize("method", LOSSY)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_base_can_be_repaired(room: Room, method: str, value: float) -> None:
    broken = tensors()
    for name in ("w", "b"):
        broken[name][1].reshape(-1)[3] = value
    write_weights(room.base, broken)
    report = room.build(method)
    assert report.tensors["w"].plan == report.tensors["b"].plan == "raw"
    with WeightsReader(room.decoded) as decoded, WeightsReader(room.target) as target:
        assert np.array_equal(decoded.read("w"), target.read("w"))
        assert np.array_equal(decoded.read("b"), target.read("b"))


@pytest.mark.parametrize("method", LOSSY)
def test_masks_of_minus_infinity_pass(room: Room, method: str) -> None:
    report = room.build(method)
    assert report.tensors["mask"].plan == "unchanged"
    write_weights(room.target, tensors(mask=np.full((4, 4), -np.inf)))
    assert room.build(method).tensors["mask"].plan == "raw"
    with WeightsReader(room.decoded) as decoded:
        assert np.isneginf(decoded.read("mask")).all()


@pytest.mark.parametrize("method", [*LOSSY, "xor", "full"])
@pytest.mark.parametrize("variance", [0.0, -1.0, math.nan])
def test_a_running_variance_that_is_not_positive_is_refused(
    room: Room, method: str, variance: float
) -> None:
    broken = tensors(seed=1)
    broken["bn.running_var"][1][2] = variance
    write_weights(room.target, broken)
    assert "bn.running_var" in refused(room, "weights.bad_variance", method).message


def test_missing_files_are_named(room: Room) -> None:
    room.base.rename(room.path / "elsewhere")
    with pytest.raises(BadWeights) as caught:
        room.build()
    assert caught.value.code == "weights.not_found"
    assert str(room.base) in caught.value.message
    assert room.left() == {"elsewhere", "target"}


@pytest.mark.parametrize("which", ["base", "target"])
def test_what_is_no_weights_file_is_refused(room: Room, which: str) -> None:
    (room.path / which).write_bytes(b"not a safetensors file at all")
    refused(room, "weights.malformed")


@pytest.mark.parametrize("method", [*LOSSY, "xor"])
def test_every_method_but_full_needs_a_base(room: Room, method: str) -> None:
    with pytest.raises(BadMethod) as caught:
        build_package(None, room.target, method, LOSSY.get(method, {}), room.output)
    assert caught.value.code == "method.not_applicable"
    assert not room.output.exists()
    assert build_package(None, room.target, "full", {}, room.output).base_digest is None


def test_an_unknown_method_is_refused_with_the_known_ones(room: Room) -> None:
    assert "ml_delta" in refused(room, "method.unknown", "kaa").message


@pytest.mark.parametrize(
    ("method", "options", "named"),
    [
        ("ka", {}, "rank"),
        ("ka", {"rank": 0}, "rank"),
        ("ka", {"rank": -1}, "rank"),
        ("ka", {"rank": 1 << 20}, "rank"),
        ("ka", {"rank": 1.5}, "rank"),
        ("ka", {"rank": "many"}, "rank"),
        ("ka", {"rank": 1, "bits": 1}, "bits"),
        ("ka", {"rank": 1, "bits": 17}, "bits"),
        ("ka", {"rank": 1, "colour": "red"}, "colour"),
        ("rm", {"proportion": 0.0}, "proportion"),
        ("rm", {"proportion": 1.1}, "proportion"),
        ("rm", {"proportion": math.nan}, "proportion"),
        ("lru", {"rank": 1, "seed": -1}, "seed"),
        ("xor", {"rank": 1}, "rank"),
        ("full", {"bits": 8}, "bits"),
    ],
)
def test_wrong_options_are_named(
    room: Room, method: str, options: dict[str, Any], named: str
) -> None:
    assert named in refused(room, "method.bad_option", method, options).message


@pytest.mark.parametrize("method", LOSSY)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_parameters_of_a_diverged_refinement_are_refused(
    room: Room, method: str, value: float
) -> None:
    chosen: Any = methods.get(method)
    options = methods.options(chosen, LOSSY[method])
    with WeightsReader(room.base) as base:
        W = base.read("w").astype(np.float64)
        parameters = {k: v.copy() for k, v in chosen.fit(W, W + 0.1, "w", options).items()}
        next(iter(parameters.values())).reshape(-1)[0] = value
        with pytest.raises(BadWeights) as caught:
            code_matrices(base, {"w": parameters}, chosen, options)
    assert caught.value.code == "weights.not_finite"
    assert "w" in caught.value.message


def test_other_tensors_of_a_diverged_refinement_are_refused(room: Room) -> None:
    chosen: Any = methods.get("ka")
    options = methods.options(chosen, {"rank": 1})
    with WeightsReader(room.base) as base:
        coded = code_matrices(base, {}, chosen, options)
        with pytest.raises(BadWeights, match="'b' holds NaN"):
            finish(coded, {"b": np.full(6, np.nan)}, room.output, "m")
    assert not room.output.exists()


@pytest.mark.parametrize("method", LOSSY)
@pytest.mark.parametrize("bits", [2, 16])
def test_no_number_of_bits_breaks_a_method(room: Room, method: str, bits: int) -> None:
    rng = np.random.default_rng(0)
    spiky = np.outer(rng.standard_normal(30), rng.standard_normal(40)) + 1e-3
    write_weights(room.base, {"w": ("F32", spiky * 0.1)})
    write_weights(room.target, {"w": ("F32", spiky)})
    options = {**LOSSY[method], "bits": bits}
    if "rank" in options:
        options["rank"] = 5
    with WeightsReader(room.target) as target:
        close = np.abs(target.read("w")).max() * (0.01 if bits == 16 else 1.0)
        room.build(method, options)
        with WeightsReader(room.decoded) as decoded:
            if method not in ("rm", "lru", "ml_delta"):
                assert np.abs(decoded.read("w") - target.read("w")).max() < close


@pytest.mark.parametrize("method", LOSSY)
@pytest.mark.parametrize(
    "scale", [2.0**-140, 2.0**-120, 2.0**110, 2.0**124], ids=["subnormal", "tiny", "huge", "edge"]
)
def test_weights_of_any_size_come_through(room: Room, method: str, scale: float) -> None:
    rng = np.random.default_rng(0)
    old = np.clip(rng.standard_normal((8, 12)), -3, 3)
    new = old + 0.1 * np.clip(rng.standard_normal(old.shape), -3, 3)
    write_weights(room.base, {"w": ("F32", old * scale)})
    write_weights(room.target, {"w": ("F32", new * scale)})
    room.build(method)
    with WeightsReader(room.decoded) as decoded:
        assert np.isfinite(decoded.read("w")).all()


@pytest.mark.parametrize("method", LOSSY)
def test_doubles_beyond_every_grid_come_through(room: Room, method: str) -> None:
    rng = np.random.default_rng(0)
    old = rng.standard_normal((8, 12)) * 1e200
    write_weights(room.base, {"w": ("F64", old)})
    write_weights(room.target, {"w": ("F64", old * 1.01)})
    room.build(method)
    with WeightsReader(room.decoded) as decoded:
        assert np.isfinite(decoded.read("w")).all()


def test_a_failure_at_the_end_leaves_an_older_package_as_it_was(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.output.write_bytes(b"older")
    room.decoded.write_bytes(b"older")

    def fail(*_: Any) -> bytes:
        raise BadResult("mismatch", "as if the decoding had come out differently")

    monkeypatch.setattr(assemble, "decode", fail)
    with pytest.raises(BadResult):
        room.build()
    assert room.output.read_bytes() == room.decoded.read_bytes() == b"older"
    assert room.left() == {"base", "target", "package", "decoded"}


def test_an_output_that_cannot_be_written_is_an_error_of_ours(room: Room) -> None:
    room.output = room.path / "no" / "such" / "folder"
    with pytest.raises(NoSpace, match=r"storage\.unusable"):
        room.build()
    assert room.left() == {"base", "target"}


def test_an_output_that_is_no_file_is_named_as_it_was_given(room: Room) -> None:
    for place, words in (
        (room.path, "is a folder"),
        (Path(), "is a folder"),
        (Path("/dev/null"), "no regular file"),
    ):
        room.output = place
        with pytest.raises(NoSpace, match=words) as caught:
            room.build()
        assert caught.value.code == "storage.unusable"
        assert caught.value.message.startswith(str(place))
    assert room.left() == {"base", "target"}


def test_the_same_files_give_the_same_package_twice(room: Room) -> None:
    for method in [*LOSSY, "xor", "full"]:
        first, raw = room.build(method), room.output.read_bytes()
        assert room.build(method) == first
        assert room.output.read_bytes() == raw
