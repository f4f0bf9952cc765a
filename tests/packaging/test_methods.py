"""Every method, end to end: what is built decodes to the promised digest, and to the right numbers.

The expected numbers come from torch in float64 (another LAPACK than the decoder's), computed from
the symbols and steps that the package really holds.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from server.packaging.encode import BuildReport, build_package
from server.zoo import get as architecture
from shared import methods
from shared.decode import decode
from shared.grid import round_to
from shared.methods.base import FactorisingMethod, LossyMethod
from shared.package import PackageReader
from shared.plans import Plan
from shared.tensors import FLOATS, STORAGE, to_float64
from shared.weights import WeightsReader, write_weights

Matrix = NDArray[np.float64]

SHAPES = [
    (1, 40),
    (40, 1),
    (12, 12),
    (6, 30),
    (30, 6),
    (16, 1, 3, 3),  # depthwise
    (8, 6, 5),
    (10, 8, 3, 3),
    (2, 2),
    (70, 90),
]
DTYPES = ["F32", "F64", "F16", "BF16"]
HALF_ULP = {"F32": 2.0**-24, "F64": 2.0**-53, "F16": 2.0**-11, "BF16": 2.0**-8}
SMALLEST = {"F32": 2.0**-150, "F64": 0.0, "F16": 2.0**-25, "BF16": 2.0**-134}
LOSSY = {
    "ka": {"rank": 1},
    "ml": {"rank": 4},
    "ml_delta": {"rank": 4},
    "lra": {"rank": 2},
    "lru": {"rank": 2, "seed": 3},
    "lora": {"rank": 2},
    "rm": {"proportion": 0.3, "seed": 5},
    "sparse": {"step": 0.05},
    "direct": {},
}


class Built:
    """A package between two one-tensor files, built, read and decoded."""

    def __init__(self, folder: str, dtype: str, method: str, options: dict[str, Any]) -> None:
        self.folder, self.dtype = Path(folder), dtype
        self.method: Any = methods.get(method)
        self.options = methods.options(self.method, options)

    def run(self, old: Matrix, new: Matrix) -> Matrix:
        """From `old` to `new` (any shapes); the decoded tensor."""
        for name, values in (("base", old), ("target", new)):
            stored = round_to(values, self.dtype)
            write_weights(self.folder / name, {"w": (self.dtype, stored)})
        options = self.options.model_dump()
        paths = (self.folder / n for n in ("base", "target"))
        self.report = build_package(*paths, self.method.id, options, self.folder / "package")
        with WeightsReader(self.folder / "base") as base:
            self.old = to_float64(base.read("w"), self.dtype)
            with (
                PackageReader(self.folder / "package") as package,
                (self.folder / "out").open("w+b") as out,
            ):
                self.plan = package.plans(1, getattr(self.method, "steps", 0))[0]
                self.symbols = self._symbols(package)
                digest = decode(base, package, out)
        with WeightsReader(self.folder / "out") as result:
            assert result.digest() == digest
            assert digest.hex() == self.report.result_digest
            return to_float64(result.read("w"), self.dtype)

    def _symbols(self, package: PackageReader) -> NDArray[np.int64]:
        found = [np.empty(0, np.int64)]
        if package.has_symbols:
            source = package.symbols()
            for size in self._sizes():
                source.start()
                found.append(source.read(size))
        return np.concatenate(found)

    def _sizes(self) -> list[int]:
        """Of the arrays that were coded."""
        total, (o, i) = self.report.tensors["w"].symbols, (len(self.old), self.old[0].size)
        if self.plan.plan is Plan.FACTORS and self.method.id == "ka":
            return [min(o, i), o * self.options.rank, self.options.rank * i]
        if self.plan.plan is Plan.FACTORS and self.method.id in ("lra", "lora"):
            return [o * total // (o + i), i * total // (o + i)]
        return [total]

    def expected(self) -> Matrix:
        """The new tensor by torch, in float64, before grid and rounding."""
        W = self.old.reshape(self.old.shape[0], -1)
        if self.plan.plan is Plan.UNCHANGED:
            return self.old
        assert self.plan.plan in (Plan.DIRECT, Plan.FACTORS)
        q, step = torch.from_numpy(self.symbols).double(), self.plan.steps[0].value
        if self.plan.plan is Plan.DIRECT:
            return (W.reshape(-1) + (q * step).numpy()).reshape(self.old.shape)
        made = getattr(self, f"_{self.method.id}")(torch.from_numpy(W), q, step)
        return np.asarray(made.numpy()).reshape(self.old.shape)

    def _ka(self, W: torch.Tensor, q: torch.Tensor, step: float) -> torch.Tensor:
        (o, i), n = W.shape, self.options.rank
        ds, A, B = q.split([min(o, i), o * n, n * i])
        U, _, Vt = torch.linalg.svd(W, full_matrices=False)
        spectral = (U * ds * self.plan.steps[1].value) @ Vt
        return W + spectral + (A.reshape(o, n) @ B.reshape(n, i)) * step

    def _ml(self, W: torch.Tensor, q: torch.Tensor, step: float) -> torch.Tensor:
        R = self.method.prepare(W.numpy(), "w", self.options)["R"]
        return (q * step).reshape(W.shape[0], -1) @ torch.from_numpy(R.copy())

    def _ml_delta(self, W: torch.Tensor, q: torch.Tensor, step: float) -> torch.Tensor:
        return W + self._ml(W, q, step)

    def _lra(self, W: torch.Tensor, q: torch.Tensor, step: float) -> torch.Tensor:
        (o, i), r = W.shape, q.numel() // sum(W.shape)
        L, R = q.split([o * r, r * i])
        return (L.reshape(o, r) @ R.reshape(r, i)) * step

    def _lora(self, W: torch.Tensor, q: torch.Tensor, step: float) -> torch.Tensor:
        return W + self._lra(W, q, step)

    def _lru(self, W: torch.Tensor, q: torch.Tensor, step: float) -> torch.Tensor:
        R = self.method.prepare(W.numpy(), "w", self.options)["R"]
        return W + (q * step).reshape(W.shape[0], -1) @ torch.from_numpy(R)

    def _sparse(self, W: torch.Tensor, q: torch.Tensor, step: float) -> torch.Tensor:
        return W + q.reshape(W.shape) * step

    def _rm(self, W: torch.Tensor, q: torch.Tensor, step: float) -> torch.Tensor:
        mask = torch.from_numpy(self.method.prepare(W.numpy(), "w", self.options)["mask"])
        return W.masked_scatter(mask, W[mask] + q * step)

    def tolerance(self, values: Matrix) -> Matrix:
        """Half a grid cell where the change is snapped, one rounding, and float64's own noise."""
        snapped = isinstance(self.method, FactorisingMethod) and self.plan.plan is Plan.FACTORS
        grid = 0.5 * self.plan.steps[-1].value if snapped else 0.0
        rounding = np.abs(values) * HALF_ULP[self.dtype] * (1 + 1e-3) + SMALLEST[self.dtype]
        return np.asarray(grid + rounding + 1e-12 * np.abs(values).max(initial=0.0))


def weights(seed: int, shape: tuple[int, ...], move: float = 0.2) -> tuple[Matrix, Matrix]:
    rng = np.random.default_rng(seed)
    old = rng.standard_normal(shape) * 0.1
    return old, old + rng.standard_normal(shape) * 0.1 * move


@pytest.mark.parametrize("method", LOSSY)
@settings(max_examples=12)
@given(
    shape=st.sampled_from(SHAPES),
    dtype=st.sampled_from(DTYPES),
    bits=st.sampled_from([2, 4, 8, 12]),
    seed=st.integers(0, 1000),
)
def test_the_decoded_weights_are_what_torch_computes_from_the_symbols(
    method: str, shape: tuple[int, ...], dtype: str, bits: int, seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        built = Built(folder, dtype, method, {**LOSSY[method], "bits": bits})
        decoded = built.run(*weights(seed, shape))
        expected = built.expected()
        assert (np.abs(decoded - expected) <= built.tolerance(expected)).all()


@pytest.mark.parametrize("method", LOSSY)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_method_sends_its_factors_and_says_how_many_parameters_were_learnt(
    method: str, dtype: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        built = Built(folder, dtype, method, LOSSY[method])
        decoded = built.run(*weights(1, (24, 40)))
        plan = Plan.DIRECT if method == "direct" else Plan.FACTORS
        assert built.plan.plan is plan
        assert built.report.learnable_count == built.method.count(24, 40, built.options)
        assert not np.array_equal(decoded, built.old)


def member(method: Any, W: Matrix, options: Any, rng: np.random.Generator) -> Matrix:
    """New weights that the method can express."""
    o, i = W.shape
    m, r = min(o, i), getattr(options, "rank", 0)
    shapes = {
        "ka": {"U": (o, r), "V": (i, r), "ds": (m,)},
        "ml": {"L": (o, r)},
        "ml_delta": {"L": (o, r)},
        "lra": {"L": (o, r), "R": (r, i)},
        "lru": {"L": (o, r)},
        "lora": {"L": (o, r), "R": (r, i)},
        "rm": {"values": (int(method.prepare(W, "w", options).get("mask", np.zeros(0)).sum()),)},
        "sparse": {"change": (o, i)},
        "direct": {"change": (o, i)},
    }[method.id]
    parameters = {name: rng.standard_normal(shape) * 0.1 for name, shape in shapes.items()}
    if method.id == "ka":
        parameters["U"][:] = 0.0
    if method.id == "sparse":
        step = method.prepare(W, "w", options)["step"].value
        parameters["change"] = np.rint(parameters["change"] / step) * step
    return W + method.effect(W, parameters, "w", options)


@pytest.mark.parametrize("method", LOSSY)
@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (14, 14)])
def test_weights_that_the_method_can_express_are_reached_to_quantisation_error(
    method: str, shape: tuple[int, int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        built = Built(folder, "F64", method, {**LOSSY[method], "bits": 14})
        W = np.random.default_rng(7).standard_normal(shape)
        target = member(built.method, W, built.options, np.random.default_rng(8))
        decoded = built.run(W, target)
        scale = np.abs(target - W).max()
        assert np.abs(decoded - target).max() < 3e-3 * scale


@pytest.mark.parametrize("method", LOSSY)
def test_fitting_comes_closer_to_the_target_than_the_base_was(method: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        built = Built(folder, "F32", method, {**LOSSY[method], "bits": 12})
        if built.method.keeps_base:
            old, new = weights(3, (24, 40))
            decoded = built.run(old, new)
            assert np.linalg.norm(decoded - new) < np.linalg.norm(built.old - new)


@pytest.mark.parametrize("method", LOSSY)
@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (1, 9), (9, 1), (5, 5)])
def test_the_effect_of_nothing_keeps_the_base_where_the_method_says_so(
    method: str, shape: tuple[int, int]
) -> None:
    chosen: Any = methods.get(method)
    options = methods.options(chosen, LOSSY[method])
    W = np.random.default_rng(0).standard_normal(shape)
    parameters = {k: np.zeros_like(v) for k, v in chosen.fit(W, 2 * W, "w", options).items()}
    effect = chosen.effect(W, parameters, "w", options)
    assert np.array_equal(effect, np.zeros_like(W) if chosen.keeps_base else -W)


@pytest.mark.parametrize(
    ("method", "options", "count"),
    [
        ("ka", {"rank": 3}, 3 * (20 + 50) + 20 + 3),
        ("ml", {"rank": 6}, 20 * 6),
        ("ml", {"rank": 99}, 20 * 20),
        ("ml_delta", {"rank": 6}, 20 * 6),
        ("lra", {"rank": 6}, 6 * (20 + 50)),
        ("lra", {"rank": 99}, 20 * (20 + 50)),
        ("lru", {"rank": 6}, 20 * 6),
        ("lora", {"rank": 6}, 6 * (20 + 50)),
        ("rm", {"proportion": 0.25}, 250),
        ("direct", {}, 1000),
    ],
)
def test_the_count_is_the_formula_of_the_paper(
    method: str, options: dict[str, Any], count: int
) -> None:
    chosen = methods.get(method)
    assert isinstance(chosen, LossyMethod)
    assert chosen.count(20, 50, methods.options(chosen, options)) == count


@pytest.mark.parametrize(
    ("name", "parameters", "ka"),
    [
        ("vgg_small", 136_266, 7_413),
        ("vgg_medium", 539_786, 14_672),
        ("mobilenet_v2", 2_296_922, 122_632),
        ("resnet18", 11_173_962, 122_973),
        ("resnet50", 23_520_842, 310_656),
    ],
)
def test_the_count_of_whole_models_is_that_of_the_paper(
    name: str, parameters: int, ka: int
) -> None:
    with torch.device("meta"):  # shapes alone
        module = architecture(name).build({"classes": 10})
    method = methods.get("ka")
    assert isinstance(method, LossyMethod)
    options = methods.options(method, {"rank": 3})
    tensors = list(module.parameters())
    counts = [
        method.count(t.shape[0], math.prod(t.shape[1:]), options) if t.ndim > 1 else t.numel()
        for t in tensors
    ]
    assert sum(t.numel() for t in tensors) == parameters
    assert sum(counts) == ka


@pytest.mark.parametrize("method", ["ka", "ml", "lra", "lru", "lora"])
def test_a_matrix_that_factors_would_not_shrink_is_sent_directly(method: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        built = Built(folder, "F32", method, {"rank": 9})
        old, new = weights(2, (16, 1, 3, 3))
        decoded = built.run(old, new)
        assert built.plan.plan is Plan.DIRECT
        assert np.abs(decoded - new).max() <= built.plan.steps[0].value


def test_three_updates_in_a_row_lead_where_each_was_promised() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, rng = Path(name), np.random.default_rng(5)
        values = rng.standard_normal((24, 40)) * 0.1
        write_weights(folder / "0", {"w": ("F32", values.astype(np.float32))})
        reports: list[BuildReport] = []
        for step, method in enumerate(("lra", "ka", "ka"), start=1):
            values = values + rng.standard_normal(values.shape) * 0.01
            write_weights(folder / "target", {"w": ("F32", values.astype(np.float32))})
            base, out, package = folder / str(step - 1), folder / str(step), folder / "package"
            reports.append(build_package(base, folder / "target", method, {"rank": 4}, package))
            with (
                WeightsReader(base) as held,
                PackageReader(package) as update,
                out.open("w+b") as file,
            ):
                decode(held, update, file)
            with WeightsReader(out) as result:
                assert result.digest().hex() == reports[-1].result_digest
        assert [r.base_digest for r in reports[1:]] == [r.result_digest for r in reports[:-1]]
        assert {r.tensors["w"].plan for r in reports} == {"factors"}


@pytest.mark.parametrize("method", ["xor", "full"])
@settings(max_examples=15)
@given(
    dtypes=st.lists(st.sampled_from(sorted(STORAGE)), min_size=1, max_size=5),
    shape=st.sampled_from([(), (0, 3), (1,), (7, 3), (2, 3, 4)]),
    seed=st.integers(0, 1000),
)
def test_lossless_methods_reach_the_target_to_the_bit(
    method: str, dtypes: list[str], shape: tuple[int, ...], seed: int
) -> None:
    rng = np.random.default_rng(seed)

    def tensors() -> dict[str, tuple[str, Any]]:
        made = {}
        for number, dtype in enumerate(dtypes):
            size = math.prod(shape) * STORAGE[dtype].itemsize
            bits = rng.integers(0, 256, size, np.uint8)
            values = bits.view(STORAGE[dtype]).reshape(shape).copy()
            if dtype in FLOATS:
                values[~np.isfinite(to_float64(values, dtype))] = 0
            made[f"t{number}"] = (dtype, values)
        return made

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_weights(folder / "base", tensors())
        write_weights(folder / "target", tensors())
        report = build_package(folder / "base", folder / "target", method, {}, folder / "package")
        with WeightsReader(folder / "target") as target:
            assert report.result_digest == target.digest().hex()
        assert (report.base_digest is None) is (method == "full")


def grown_head(rng: np.random.Generator, classes: int, extra: str) -> dict[str, tuple[str, Any]]:
    body = np.random.default_rng(0).standard_normal((20, 12)).astype(np.float32)
    return {
        "body": ("F32", body),
        "head.bias": ("F32", rng.standard_normal(classes).astype(np.float32)),
        "head.weight": ("F32", rng.standard_normal((classes, 20)).astype(np.float32)),
        extra: ("F32", rng.standard_normal(3).astype(np.float32)),
    }


@pytest.mark.parametrize("method", [*LOSSY, "xor", "full"])
@pytest.mark.parametrize(("before", "after"), [(5, 10), (10, 5)])
def test_a_head_may_grow_or_shrink_and_tensors_may_come_and_go(
    tmp_path: Path, method: str, before: int, after: int
) -> None:
    rng = np.random.default_rng(6)
    old, new = grown_head(rng, before, "dropped"), grown_head(rng, after, "added")
    write_weights(tmp_path / "base", old)
    write_weights(tmp_path / "target", new)
    options = LOSSY.get(method, {})
    report = build_package(
        *(tmp_path / n for n in ("base", "target")),
        method,
        options,
        tmp_path / "package",
        decoded=tmp_path / "out",
    )
    with WeightsReader(tmp_path / "out") as result:
        assert result.digest().hex() == report.result_digest
        assert {n: s.shape for n, s in result.schema.items()} == {
            n: a.shape for n, (_, a) in new.items()
        }
        for name, (_, array) in new.items():
            assert np.abs(result.read(name) - array).max() < 0.05 * (name != "body") + 1e-9 or (
                method in ("ml", "lra") and name == "body"
            )


def test_overlapping_indices_of_a_new_head_start_at_the_base(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    old = {"w": ("F32", rng.standard_normal((5, 20)).astype(np.float32) * 100)}
    grown = np.zeros((10, 20), np.float32)
    grown[:5] = old["w"][1]
    grown[5:] = 0.01 * rng.standard_normal((5, 20))
    write_weights(tmp_path / "base", old)
    write_weights(tmp_path / "target", {"w": ("F32", grown)})
    paths = (tmp_path / "base", tmp_path / "target")
    build_package(*paths, "direct", {}, tmp_path / "package", decoded=tmp_path / "out")
    with WeightsReader(tmp_path / "out") as result:
        decoded = result.read("w")
    assert np.array_equal(decoded[:5], old["w"][1])  # to the bit: their change is zero
    assert np.abs(decoded[5:] - grown[5:]).max() < 0.001  # a step of the small new part's size


def test_a_package_without_change_is_a_container_alone(tmp_path: Path) -> None:
    write_weights(tmp_path / "w", grown_head(np.random.default_rng(1), 5, "x"))
    for method, options in {**LOSSY, "xor": {}}.items():
        report = build_package(
            tmp_path / "w", tmp_path / "w", method, options, tmp_path / "package"
        )
        assert report.result_digest == report.base_digest
        assert report.size == report.container_bytes
        assert {t.plan for t in report.tensors.values()} == {"unchanged"}
