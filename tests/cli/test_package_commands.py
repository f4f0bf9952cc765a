"""`weft package`: two files become a package, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from server import zoo
from server.refine.weights import save_state, state_of
from shared.decode import decode
from shared.methods import METHODS
from shared.package import PackageReader
from shared.weights import WeightsReader, write_weights

OPTIONS = {
    "ka": ["--rank", 2],
    "ml": ["--rank", 4],
    "ml_delta": ["--rank", 4],
    "lra": ["--rank", 4, "--bits", 6],
    "lru": ["--rank", 2, "--seed", 3],
    "lora": ["--rank", 2],
    "rm": ["--proportion", 0.2],
    "sparse": ["--option", "step=0.1"],
}


@pytest.mark.parametrize("method", METHODS)
def test_built_package_decodes_to_what_it_promises(
    weft: Any, base: Path, target: Path, tmp_path: Path, method: str
) -> None:
    output = tmp_path / "update.weft"
    words = ["--base", base, "--target", target, "--method", method, *OPTIONS.get(method, [])]
    built = weft("package", "build", *words, "--output", output, "--json")
    assert built.status == 0, built.err
    shown = weft("package", "show", output, "--json").json
    assert shown["result_digest"] == built.json["result_digest"]
    assert shown["size_bytes"] == built.json["size"] == output.stat().st_size
    with (
        WeightsReader(base) as old,
        PackageReader(output) as package,
        (tmp_path / "new").open("w+b") as file,
    ):
        assert decode(old, package, file).hex() == shown["result_digest"]
    if method in ("xor", "full"):
        with WeightsReader(target) as new:
            assert new.digest().hex() == shown["result_digest"]


def test_full_needs_no_base(weft: Any, target: Path, tmp_path: Path) -> None:
    output = tmp_path / "full.weft"
    words = ["--target", target, "--method", "full", "--output", output]
    assert weft("package", "build", *words).status == 0
    assert weft("package", "show", output, "--json").json["base_digest"] is None


def test_result_is_the_same_bytes_again(
    weft: Any, base: Path, target: Path, tmp_path: Path
) -> None:
    words = ["--base", base, "--target", target, "--method", "ka", "--rank", 2]
    for name in ("a", "b"):
        weft("package", "build", *words, "--output", tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--method", "xor"], "config.missing"),
        (["--method", "magic"], "method.unknown"),
        (["--method", "ka", "--base", "BASE"], "method.bad_option"),
        (["--method", "xor", "--base", "nowhere"], "weights.not_found"),
        (["--method", "xor", "--base", "GARBAGE"], "weights.malformed"),
        (["--method", "ka", "--rank", "2", "--base", "NAN"], "weights.not_finite"),
    ],
)
def test_bad_input_leaves_nothing_behind(
    weft: Any, base: Path, target: Path, tmp_path: Path, words: list[str], code: str
) -> None:
    garbage, nan = tmp_path / "garbage", tmp_path / "nan.safetensors"
    garbage.write_bytes(b"no weights at all")
    with WeightsReader(target) as reader:
        bias = reader.read("fc.bias") * float("nan")
        write_weights(
            nan, {"fc.weight": ("F32", reader.read("fc.weight")), "fc.bias": ("F32", bias)}
        )
    places = {"BASE": base, "GARBAGE": garbage, "NAN": base}
    chosen = nan if "NAN" in words else target
    before = sorted(tmp_path.iterdir())
    words = [str(places.get(word, word)) for word in words]
    output = tmp_path / "update.weft"
    done = weft("package", "build", *words, "--target", chosen, "--output", output, "--json")
    assert (done.status, done.out, done.code) == (1, "", code)
    assert sorted(tmp_path.iterdir()) == before


def test_show_refuses_what_is_no_package(weft: Any, base: Path, tmp_path: Path) -> None:
    assert weft("package", "show", base, "--json").code == "package.malformed"
    assert weft("package", "show", tmp_path / "none", "--json").code == "package.not_found"


def test_place_that_cannot_be_written_is_told(weft: Any, target: Path, tmp_path: Path) -> None:
    words = ["--target", target, "--method", "full", "--output", tmp_path / "no" / "where"]
    done = weft("package", "build", *words, "--json")
    assert (done.status, done.out, done.code) == (2, "", "storage.unusable")


@pytest.fixture
def networks(tmp_path: Path) -> tuple[Path, Path]:
    """Weights of two networks of the zoo."""
    torch.manual_seed(0)
    paths = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    for path in paths:
        save_state(path, state_of(zoo.get("vgg_tiny").build({"in_channels": 1})))
    return paths


def test_golden_samples_of_a_shape_or_a_file(
    weft: Any, networks: tuple[Path, Path], tmp_path: Path
) -> None:
    old, new = networks
    images = np.random.default_rng(0).integers(0, 255, (30, 28, 28), np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(30) % 10)
    file, output = tmp_path / "samples.safetensors", tmp_path / "update.weft"
    words = ["--data", tmp_path / "data.npz", "--count", 20, "--output", file, "--json"]
    written = weft("package", "samples", *words)
    assert (written.json["count"], written.json["shape"]) == (20, [1, 28, 28])
    words = ["--base", old, "--target", new, "--method", "direct", "--output", output]
    words += ["--golden", 20, "--architecture", "vgg_tiny", "--argument", "in_channels=1"]
    for source, key in (
        (["--golden-samples", file], "samples"),
        (["--golden-shape", "1,28,28"], "seed"),
    ):
        assert weft("package", "build", *words, *source).status == 0
        shown = weft("package", "show", output, "--json").json
        assert (shown["format"], key in shown["golden"]) == (2, True)
        if key == "samples":
            assert shown["golden"]["samples"] == written.json["samples"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--golden-shape", "1,28,28"], "config.missing"),
        (["--architecture", "vgg_tiny"], "config.missing"),
        (["--architecture", "vgg_tiny", "--golden-shape", "big"], "config.invalid"),
        (["--architecture", "vgg_tiny", "--golden-shape", "3,28,28"], "update.no_golden"),
        (["--architecture", "lamp", "--golden-shape", "1,28,28"], "model.unknown_architecture"),
    ],
)
def test_golden_samples_that_cannot_be_had(
    weft: Any, networks: tuple[Path, Path], tmp_path: Path, words: list[str], code: str
) -> None:
    output = tmp_path / "update.weft"
    given = ["--base", networks[0], "--target", networks[1], "--method", "direct"]
    given += ["--output", output, "--golden", 8, "--argument", "in_channels=1"]
    refused = weft("package", "build", *given, *words)
    assert refused.status == 1
    assert code in refused.err
    assert not output.exists()
