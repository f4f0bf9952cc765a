"""The gate: what another machine might decode otherwise is found here, and goes another way."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from server.packaging import gate
from server.packaging.encode import Coded, build_package, code_matrices, finish
from shared import methods, svd
from shared.errors import BadMethod, NotReproducible
from shared.grid import quantise
from shared.methods.base import Code, FactorisingMethod, RankOptions, Tensor, snap_step
from shared.methods.ka import KnowledgeAugmentation
from shared.package import PackageReader
from shared.plans import Plan
from shared.svd import NUMPY, Lapack, Matrix
from shared.weights import WeightsReader, write_weights

GOLDEN = Path(__file__).parent.parent / "golden"
FACTORISING = {"ka": {"rank": 2}, "ml": {"rank": 6}, "ml_delta": {"rank": 6}}


def orthogonal(size: int, seed: int) -> Matrix:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0]


def tied(o: int = 12, i: int = 20) -> Matrix:
    """Three equal singular values among others that stand apart."""
    s = np.array([4.0, 3.0, 3.0, 3.0, *np.linspace(2.0, 0.5, min(o, i) - 4)])
    return (orthogonal(o, 1)[:, : s.size] * s) @ orthogonal(i, 2)[:, : s.size].T


class Turned:
    """A LAPACK that differs as far as it may: other signs, and turned within equal values."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def triangle(self, a: Matrix) -> Matrix:
        r = NUMPY.triangle(a)
        return np.random.default_rng(self._seed).choice([-1.0, 1.0], (r.shape[0], 1)) * r

    def svd(self, a: Matrix) -> tuple[Matrix, NDArray[np.float64], Matrix]:
        u, s, vt = NUMPY.svd(a)
        turn = np.zeros((s.size, s.size))
        for number, (start, size) in enumerate(svd.ties(s, 1e-12)):
            block = slice(start, start + size)
            turn[block, block] = -orthogonal(size, self._seed + number)
        return u @ turn, s, turn.T @ vt


class Careless(KnowledgeAugmentation):
    """KA as a server would send it that forgets that equal singular values share directions."""

    def code(
        self, W: Matrix, parameters: Any, name: str, options: Any, caution: float = 1.0
    ) -> Code:
        code = super().code(W, parameters, name, options, caution)
        ds, step = quantise(parameters["ds"], options.bits)
        steps = (code.steps[0], step, snap_step(W, self.effect(W, parameters, name, options), 1.0))
        return Code([ds, *code.symbols[1:]], steps)


class Hasty(Careless):
    """Careless at first, cautious when told to be."""

    def code(
        self, W: Matrix, parameters: Any, name: str, options: Any, caution: float = 1.0
    ) -> Code:
        made = KnowledgeAugmentation if caution > 1 else Careless
        return made.code(self, W, parameters, name, options, caution)


class SignSeeker(FactorisingMethod):
    """A method that forgets that singular vectors have no sign of their own."""

    id = "ka"
    summary = "wrong"
    Options = RankOptions

    def count(self, o: int, i: int, options: Any) -> int:
        return o

    def prepare(self, W: Matrix, name: str, options: Any) -> dict[str, Any]:
        return {}

    def fit(self, W: Matrix, target: Matrix, name: str, options: Any) -> dict[str, Matrix]:
        return {"x": np.ones((1, 1))}

    def effect(self, W: Matrix, parameters: Any, name: str, options: Any) -> Matrix:
        return W

    def code(self, *arguments: Any, **more: Any) -> Code:
        raise NotImplementedError

    def layout(self, tensor: Tensor) -> list[tuple[int, int]]:
        return [(1, 1)]

    def change(
        self, W: Matrix, tensor: Tensor, symbols: list[Matrix], lapack: Lapack = NUMPY
    ) -> Iterator[Matrix]:
        yield np.tile(svd.right_vectors(W, 1, lapack)[0].T, (W.shape[0], 1))


def coded(
    method: Any, W: Matrix, parameters: Any, options: dict[str, Any], name: str = "w"
) -> tuple[Tensor, list[Matrix]]:
    """A tensor as the gate and a decoder meet it, with its symbols."""
    parsed = methods.options(method, options)
    code = method.code(W, parameters, name, parsed)
    tensor = Tensor(name, *W.shape, parsed, code.steps, lambda: W, code.params)
    shapes = method.layout(tensor)
    arrays = [
        s.reshape(shape).astype(np.float64) for s, shape in zip(code.symbols, shapes, strict=True)
    ]
    return tensor, arrays


class Replay:
    """Symbols read back in order."""

    def __init__(self, arrays: list[Matrix]) -> None:
        self._left = np.concatenate([a.reshape(-1) for a in arrays]).astype(np.int64)

    def start(self) -> None:
        """The arrays follow one another."""

    def read(self, count: int) -> NDArray[np.int64]:
        taken, self._left = self._left[:count], self._left[count:]
        return taken

    def finish(self) -> None:
        assert not self._left.size


def snapped(method: Any, tensor: Tensor, arrays: list[Matrix]) -> NDArray[np.int64]:
    return np.concatenate(list(method.chunks(tensor, Replay(arrays))))


def spectral(W: Matrix, seed: int = 3) -> dict[str, Matrix]:
    """KA's parameters with a different `ds` for every singular value."""
    rng, (o, i) = np.random.default_rng(seed), W.shape
    return {
        "U": rng.standard_normal((o, 1)) * 0.1,
        "V": rng.standard_normal((i, 1)) * 0.1,
        "ds": rng.standard_normal(min(o, i)) * 0.1,
    }


def golden_matrices() -> Iterator[tuple[str, Matrix]]:
    with WeightsReader(GOLDEN / "shapes.base.safetensors") as weights:
        for name, spec in weights.schema.items():
            W = weights.read(name).astype(np.float64)
            if spec.dtype in ("F32", "F64") and len(spec.shape) > 1 and np.isfinite(W).all():
                yield name, W.reshape(spec.matrix)


@pytest.mark.parametrize("method", FACTORISING)
@pytest.mark.parametrize(
    ("name", "W"), list(golden_matrices()), ids=lambda v: v if type(v) is str else ""
)
def test_signs_and_turns_of_the_factors_do_not_reach_the_grid(
    method: str, name: str, W: Matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: Any = methods.get(method)
    target = W + np.random.default_rng(4).standard_normal(W.shape) * (np.abs(W).mean() * 0.1)
    try:
        options = FACTORISING[method]
        parameters = chosen.fit(W, target, name, methods.options(chosen, options))
        tensor, arrays = coded(chosen, W, parameters, options, name)
        verdict = gate.judge(chosen, W, tensor, arrays)
    except (BadMethod, NotReproducible):
        return  # sent by direct: the device factors nothing
    tensor = dataclasses.replace(tensor, guard=verdict.guard)
    reference = snapped(chosen, tensor, arrays)
    change = chosen.change
    for seed in range(3):
        monkeypatch.setattr(chosen, "change", lambda *a, s=seed: change(*a, Turned(s)))
        assert np.array_equal(snapped(chosen, tensor, arrays), reference)
    assert reference.any()


@pytest.mark.parametrize("method", FACTORISING)
def test_most_of_the_difficult_matrices_are_sent_as_factors_all_the_same(method: str) -> None:
    chosen: Any = methods.get(method)
    with PackageReader(GOLDEN / f"shapes.{method}.weft") as package:
        plans = [plan.plan for plan in package.plans(1, chosen.steps)]
    assert plans.count(Plan.FACTORS) >= 10


def test_the_turned_lapack_is_a_lapack_and_differs() -> None:
    W = tied()
    u, s, vt = Turned(1).svd(W)
    assert np.allclose((u * s) @ vt, W)
    assert np.abs(vt - NUMPY.svd(W)[2]).max() > 0.1


def test_a_sound_tensor_passes_with_its_disagreement() -> None:
    method = KnowledgeAugmentation()
    verdict = gate.judge(method, W := tied(), *coded(method, W, spectral(W), {"rank": 1}))
    assert 0 < verdict.disagreement <= gate.MAX_DISAGREEMENT


@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (12, 12)])
def test_unequal_changes_of_equal_singular_values_are_found(shape: tuple[int, int]) -> None:
    W, method = tied(*shape), Careless()
    with pytest.raises(NotReproducible) as caught:
        gate.judge(method, W, *coded(method, W, spectral(W), {"rank": 1}))
    assert caught.value.code == "gate.unstable"
    assert "w" in caught.value.message


def test_a_change_that_follows_a_sign_is_found() -> None:
    W, method = tied(), SignSeeker()
    tensor = Tensor("w", *W.shape, None, (snap_step(W, 0.1 * W, 1.0),), lambda: W)
    with pytest.raises(NotReproducible):
        gate.judge(method, W, tensor, [np.ones((1, 1))])


def test_a_value_that_is_not_a_number_is_found() -> None:
    W, method = tied(), KnowledgeAugmentation()
    tensor, arrays = coded(method, W, spectral(W), {"rank": 1})
    arrays[0][0, 0] = np.nan
    with np.errstate(invalid="ignore"), pytest.raises(NotReproducible):
        gate.judge(method, W, tensor, arrays)


@pytest.fixture
def base(tmp_path: Path) -> Iterator[WeightsReader]:
    write_weights(tmp_path / "base", {"w": ("F64", tied())})
    with WeightsReader(tmp_path / "base") as reader:
        yield reader


def code_one(base: WeightsReader, method: Any) -> Coded:
    options = methods.options(method, {"rank": 1})
    return code_matrices(base, {"w": spectral(base.read("w"))}, method, options)


@pytest.mark.parametrize(
    ("method", "plan"),
    [(Careless(), "direct"), (Hasty(), "factors"), (methods.get("ka"), "factors")],
)
def test_what_stays_unstable_is_sent_by_direct(
    base: WeightsReader, tmp_path: Path, method: Any, plan: str
) -> None:
    report = finish(code_one(base, method), {}, tmp_path / "package", "m", decoded=tmp_path / "out")
    sent = report.tensors["w"]
    assert sent.plan == plan
    assert (sent.disagreement is None) is (plan == "direct")
    assert report.learnable_count == (240 if plan == "direct" else 1 * (12 + 20) + 12 + 1)
    if plan == "direct":  # as far as the quantised change reaches, nothing of it is lost
        W = base.read("w")
        wanted = W + method.effect(W, spectral(W), "w", methods.options(method, {"rank": 1}))
        with WeightsReader(tmp_path / "out") as result:
            assert np.abs(result.read("w") - wanted).max() < 0.01 * np.abs(wanted - W).max()


def test_a_second_lapack_that_disagrees_stops_the_factors(
    base: WeightsReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = gate.TorchLapack.svd

    def noisy(self: Any, a: Matrix) -> Any:
        u, s, vt = sound(self, a)
        return u, s * (1 + 1e-9), vt

    monkeypatch.setattr(gate.TorchLapack, "svd", noisy)
    sent = code_one(base, methods.get("ka")).sent["w"]
    assert sent.plan.plan.name == "DIRECT"


def test_the_report_tells_the_disagreement(tmp_path: Path) -> None:
    W = tied()
    write_weights(tmp_path / "base", {"w": ("F32", W)})
    write_weights(tmp_path / "target", {"w": ("F32", W * 1.01)})
    paths = (tmp_path / "base", tmp_path / "target")
    for method, options in {"ka": {"rank": 1}, "lra": {"rank": 1}, "direct": {}}.items():
        report = build_package(*paths, method, options, tmp_path / "package")
        found = report.tensors["w"].disagreement
        assert (found is not None and 0 <= found <= 1e-8) if method == "ka" else found is None


def guarded(W: Matrix, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, list[Matrix]]:
    monkeypatch.setattr(gate, "MIN_GUARD", 0.1)
    method = KnowledgeAugmentation()
    tensor, arrays = coded(method, W, spectral(W), {"rank": 1})
    guard = gate.judge(method, W, tensor, arrays).guard
    return dataclasses.replace(tensor, guard=guard), arrays


def test_the_guard_lists_the_elements_near_a_boundary_and_changes_nothing_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    W, method = tied(), KnowledgeAugmentation()
    tensor, arrays = guarded(W, monkeypatch)
    x = np.concatenate(list(method.change(W, tensor, arrays))).reshape(-1) / tensor.steps[-1].value
    near = np.flatnonzero(np.abs(x - np.floor(x) - 0.5) < 0.1)
    assert tensor.guard.indices.tolist() == near.tolist()
    assert near.size > 10
    assert np.array_equal(snapped(method, tensor, arrays), np.rint(x).astype(np.int64))


def test_each_bit_of_the_guard_steers_one_element(monkeypatch: pytest.MonkeyPatch) -> None:
    W, method = tied(), KnowledgeAugmentation()
    tensor, arrays = guarded(W, monkeypatch)
    before = snapped(method, tensor, arrays)
    for place in (0, tensor.guard.indices.size - 1):
        up = tensor.guard.up.copy()
        up[place] ^= 1
        flipped = dataclasses.replace(tensor, guard=dataclasses.replace(tensor.guard, up=up))
        difference = snapped(method, flipped, arrays) - before
        index = tensor.guard.indices[place]
        assert np.flatnonzero(difference).tolist() == [index]
        assert difference[index] == (1 if up[place] else -1)


def test_a_machine_a_hair_off_follows_the_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    W, method = tied(), KnowledgeAugmentation()
    tensor, arrays = guarded(W, monkeypatch)
    expected, change, step = snapped(method, tensor, arrays), method.change, tensor.steps[-1].value
    for push in (-0.09, 0.09):  # of a step: far more than any machine is off
        monkeypatch.setattr(method, "change", lambda *a, p=push: (b + p * step for b in change(*a)))
        assert np.array_equal(snapped(method, tensor, arrays), expected)


def test_the_variants_really_differ_and_really_factor() -> None:
    W = tied()
    for lapack in gate.variants():
        assert np.allclose(lapack.triangle(W.T).T @ lapack.triangle(W.T), W @ W.T)
        u, s, vt = lapack.svd(W)
        assert np.allclose((u * s) @ vt, W)
        assert (np.diff(s) <= 1e-12).all()
    raw = {lapack.svd(W)[2].tobytes() for lapack in gate.variants()}
    assert len(raw) >= 8
