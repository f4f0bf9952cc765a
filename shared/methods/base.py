"""What a method of update compression is.

A method says how one weight matrix `W` (o x i, the tensor as shape[0] x the rest) changes. It is a
module of this package that defines one subclass of `LossyMethod` and is listed once, in
`shared.methods.METHODS`. What it provides:

* `count`: learnable parameters, as the paper counts them;
* `prepare`: what stays frozen, for training (the server's half is `server/refine/reparam/`);
* `fit`: the method's parameters that bring `W` closest to given weights, without training;
* `code`: parameters -> integer symbols, steps and a few bytes (server);
* `chunks`: those -> the integer change `q`, piece by piece in row-major order (device and server).

`code` and `chunks` are the two ends of the wire. `chunks` may compute with real numbers only where
it snaps them (`FactorisingMethod`); it takes no discrete decision from a computed float. A change
in what `chunks` computes is a new `version`, and the old one stays decodable.

Parameters are float64 arrays by name; each method's docstring gives names and shapes. A parameter
that training rounded to a grid comes with `<name>.step` (see `code_parameter`).
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from shared import svd
from shared.coding import SymbolSource
from shared.errors import BadMethod, BadPackage
from shared.grid import (
    MAX_FACTOR_K,
    MAX_K,
    MIN_EXPONENT,
    Q_LIMIT,
    Guard,
    Step,
    product_step,
    quantise,
    snap,
    step_at_least,
)
from shared.svd import Lapack, Matrix
from shared.tensors import CHUNK_ELEMENTS

Parameters: TypeAlias = Mapping[str, Matrix]
Symbols: TypeAlias = NDArray[np.int64]

#: A snapped change is this much finer than the weights' spread: accuracy cannot feel it, and it is
#: far above what two float64 computations disagree by.
SNAP_FRACTION = 4096

_EXACT_PRODUCTS = 1 << 53


class Options(BaseModel):
    """Options of a method; those that a device needs travel in the package's header."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Those that only training needs.
    training: ClassVar[frozenset[str]] = frozenset()

    def sent(self) -> dict[str, Any]:
        """What the package's header holds of them."""
        return self.model_dump(exclude=set(self.training))


class LossyOptions(Options):
    """Options that every lossy method has."""

    training = frozenset({"grain"})

    bits: int = Field(default=8, ge=2, le=16, description="bits of a symbol before coding")
    grain: float | None = Field(
        default=None,
        gt=0,
        le=16,
        description="step over the spread of what is learnt; by default the least that bits allow",
    )


class RankOptions(LossyOptions):
    """Options of the methods with a rank."""

    rank: int = Field(ge=1, le=65535, description="rank of the learnable factors")


@dataclass(frozen=True)
class Code:
    """One matrix, coded: what the package holds of it."""

    symbols: list[Symbols]
    steps: tuple[Step, ...]
    params: bytes = b""


@dataclass(frozen=True)
class Tensor:
    """One matrix, as a decoder meets it."""

    name: str
    o: int
    i: int
    options: Any
    steps: tuple[Step, ...]
    weights: Callable[[], Matrix]
    params: bytes = b""
    guard: Guard = field(default_factory=Guard)


class Method(abc.ABC):
    """The root of all methods."""

    id: ClassVar[str]
    version: ClassVar[int] = 1
    summary: ClassVar[str]
    needs_base: ClassVar[bool] = True
    Options: ClassVar[type[Options]] = Options


class LossyMethod(Method):
    """A method that sends a change on a grid."""

    steps: ClassVar[int] = 1
    #: The change is added to zeros: the old weights play no part.
    from_zero: ClassVar[bool] = False
    #: Parameters of zero leave the weights as they are.
    keeps_base: ClassVar[bool] = True
    #: It learns each weight: what it saves is bits, not parameters.
    every_weight: ClassVar[bool] = False

    @abc.abstractmethod
    def count(self, o: int, i: int, options: Any) -> int:
        """Learnable parameters of one o x i matrix."""

    @abc.abstractmethod
    def prepare(self, W: Matrix, name: str, options: Any) -> dict[str, Any]:
        """What stays frozen while the parameters are trained; see the method."""

    @abc.abstractmethod
    def fit(self, W: Matrix, target: Matrix, name: str, options: Any) -> dict[str, Matrix]:
        """Parameters that bring `W` close to `target`, in the sense of least squares."""

    @abc.abstractmethod
    def effect(self, W: Matrix, parameters: Parameters, name: str, options: Any) -> Matrix:
        """New weights less old (o, i) in real arithmetic, which `code` and `chunks` approximate."""

    @abc.abstractmethod
    def code(
        self, W: Matrix, parameters: Parameters, name: str, options: Any, caution: float = 1.0
    ) -> Code:
        """Quantise the parameters.

        `caution` widens the clusters of equal singular values and coarsens the grid of a
        real-valued change, where the gate asks for it. Raises BadMethod `method.not_applicable`
        where this matrix cannot be sent so.
        """

    @abc.abstractmethod
    def chunks(self, tensor: Tensor, symbols: SymbolSource) -> Iterator[Symbols]:
        """The change `q` in consecutive flat pieces; the last step of the tensor is their unit."""


class FactorisingMethod(LossyMethod):
    """A method whose change is real-valued, because it uses a factorisation of `W`."""

    @abc.abstractmethod
    def layout(self, tensor: Tensor) -> list[tuple[int, int]]:
        """Shapes of the symbol arrays, in the order in which they are sent."""

    @abc.abstractmethod
    def change(
        self, W: Matrix, tensor: Tensor, symbols: list[Matrix], lapack: Lapack = svd.NUMPY
    ) -> Iterator[Matrix]:
        """The real-valued change (o, i) as consecutive blocks of rows."""

    def chunks(self, tensor: Tensor, symbols: SymbolSource) -> Iterator[Symbols]:
        """See LossyMethod: the change, snapped."""
        arrays = [
            read_array(symbols, rows * columns, tensor.options.bits)
            .reshape(rows, columns)
            .astype(np.float64)
            for rows, columns in self.layout(tensor)
        ]
        done = 0
        for block in self.change(tensor.weights(), tensor, arrays):
            yield snap(block.reshape(-1), tensor.steps[-1], tensor.guard, done)
            done += block.size


def read_array(symbols: SymbolSource, count: int, bits: int) -> Symbols:
    """All `count` symbols of the next array, each within its bits; raises BadPackage."""
    symbols.start()
    return read(symbols, count, bits)


def read(symbols: SymbolSource, count: int, bits: int) -> Symbols:
    """The next `count` symbols of the array begun, each within its bits; raises BadPackage."""
    values = symbols.read(count)
    top = (1 << (bits - 1)) - 1
    if values.size and max(-int(values.min()), int(values.max())) > top:
        raise BadPackage("malformed", f"a symbol does not fit into {bits} bits")
    return values


def product_rows(A: Matrix, B: Matrix) -> Iterator[Matrix]:
    """`A B` for integer-valued `A` (o, n) and `B` (n, i), exactly, as blocks of rows.

    Float64 sums of integer products are exact in any order below 2^53; raises BadPackage beyond.
    """
    bound = float(np.abs(A).max(initial=0.0) * np.abs(B).max(initial=0.0) * max(B.shape[0], 1))
    if bound >= _EXACT_PRODUCTS:
        raise BadPackage("malformed", "a product of factors is not exact")
    for rows in row_blocks(A.shape[0], B.shape[1]):
        yield A[rows] @ B


def code_product(
    parameters: Parameters, left: str, right: str, bits: int
) -> tuple[list[Symbols], tuple[Any, ...]]:
    """Symbols of both factors of a product `L R`, and its one step.

    Factors that were not rounded in training are balanced first, so that an error in either weighs
    the same in the product.
    """
    L, R = parameters[left], parameters[right]
    if f"{left}.step" in parameters:
        a, step_a = code_parameter(parameters, left, bits, MAX_FACTOR_K)
        b, step_b = code_parameter(parameters, right, bits, MAX_FACTOR_K)
    else:
        U, s, Vt = svd.NUMPY.svd(L @ R)
        root = np.sqrt(s[: L.shape[1]])
        a, step_a = quantise(U[:, : L.shape[1]] * root, bits, MAX_FACTOR_K)
        b, step_b = quantise(root[:, None] * Vt[: L.shape[1]], bits, MAX_FACTOR_K)
    factors = [a.reshape(-1), b.reshape(-1)]
    if not (a.any() and b.any()):  # no step of a product would do, and nothing is lost
        return [np.zeros_like(factor) for factor in factors], (step_at_least(0.0),)
    return factors, (product_step(step_a, step_b),)


def code_low_rank(parameters: Parameters, W: Matrix, name: str, bits: int) -> Code:
    """A product `L R` that is the whole change of `W`: what `low_rank_chunks` reads.

    Raises BadMethod where it leaves the grid.
    """
    (a, b), steps = code_product(parameters, "L", "R", bits)
    q = a.reshape(W.shape[0], -1).astype(np.float64) @ b.reshape(-1, W.shape[1])
    if np.abs(q).max(initial=0.0) >= Q_LIMIT:
        raise BadMethod("not_applicable", f"{name}: factors of so many bits leave the grid")
    return Code([a, b], steps)


def low_rank_chunks(tensor: Tensor, symbols: SymbolSource) -> Iterator[Symbols]:
    """The product of integers `L` (o, r) and `R` (r, i), r the option or what fits."""
    bits, r = tensor.options.bits, min(tensor.options.rank, tensor.o, tensor.i)
    L = read_array(symbols, tensor.o * r, bits).reshape(tensor.o, r).astype(np.float64)
    R = read_array(symbols, r * tensor.i, bits).reshape(r, tensor.i).astype(np.float64)
    for block in product_rows(L, R):
        yield block.reshape(-1).astype(np.int64)


def code_parameter(
    parameters: Parameters, name: str, bits: int, max_k: int = MAX_K
) -> tuple[Symbols, Step]:
    """Symbols of one parameter, in its shape: on the grid it was trained on, or the finest.

    A training that rounded `name` says so by `<name>.step`, an array of one number.
    """
    trained = parameters.get(f"{name}.step")
    if trained is None:
        return quantise(parameters[name], bits, max_k)
    step, top = step_at_least(float(trained[0]), max_k), (1 << (bits - 1)) - 1
    symbols = np.rint(parameters[name] / step.value)
    return np.clip(symbols, -top, top).astype(np.int64), step


def row_blocks(o: int, i: int) -> Iterator[slice]:
    """Rows in blocks of about CHUNK_ELEMENTS elements."""
    height = max(1, CHUNK_ELEMENTS // max(i, 1))
    for start in range(0, o, height):
        yield slice(start, min(start + height, o))


def snap_step(W: Matrix, change: Matrix, caution: float) -> Step:
    """The grid for a real-valued change: min(std(old), std(new)) / 4096, raised until q fits.

    `caution` makes it coarser, as the gate asks. Raises BadMethod where it is finer than any grid.
    """
    spread = min(float(W.std()), float((W + change).std()))
    largest = float(np.abs(change).max(initial=0.0))
    unit = max(caution * spread / SNAP_FRACTION, largest / (Q_LIMIT // 2))
    if unit < math.ldexp(1.0, MIN_EXPONENT):
        raise BadMethod("not_applicable", "these weights are too small for a grid")
    return step_at_least(unit)
