"""Matrices -> symbols: quantised and passed through the gate, or sent directly."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from server.packaging import gate
from server.packaging.assemble import decode_draft, header
from server.packaging.sent import UNCHANGED, Sent, send_elements
from shared import methods
from shared.errors import BadMethod, BadResult, BadWeights, NotReproducible
from shared.methods.base import FactorisingMethod, LossyMethod, Options, Parameters, Tensor
from shared.plans import Plan, TensorPlan
from shared.svd import Matrix
from shared.tensors import Array, TensorSpec, to_float64
from shared.weights import WeightsReader

#: By how much clusters and grid are widened where the gate asks for it.
_CAUTION = 4.0


class Coded:
    """Tensors of a base, coded so far; the rest stays as it is."""

    def __init__(self, base: WeightsReader, method: LossyMethod, options: Any) -> None:
        self.base, self.method, self.options = base, method, options
        self.sent: dict[str, Sent] = {}

    def weights(self, name: str) -> Matrix:
        """The base's tensor as the paper's matrix (o, i)."""
        spec = self.base.schema[name]
        return to_float64(self.base.read(name), spec.dtype).reshape(spec.matrix)

    def fit(self, spec: TensorSpec, values: Array) -> Parameters:
        """The parameters that lead to `values`; raises BadMethod where only `direct` can."""
        if self.base.schema.get(spec.name) != spec or len(spec.shape) < 2:
            raise BadMethod("not_applicable", f"{spec.name!r} has no matrix in the base")
        W, goal = self.weights(spec.name), values.reshape(spec.matrix)
        try:
            return self.method.fit(W, goal, spec.name, self.options)
        except (BadResult, np.linalg.LinAlgError) as error:
            raise BadMethod("not_applicable", f"{spec.name!r} cannot be factorised") from error

    def add(self, name: str, parameters: Parameters) -> None:
        """Code one matrix by its parameters, or directly where the method has nothing to offer.

        Raises BadWeights where a parameter is not finite, as after a refinement that diverged.
        """
        if not all(np.isfinite(values).all() for values in parameters.values()):
            raise BadWeights("not_finite", f"the update of {name!r} holds NaN or infinite values")
        spec, W = self.base.schema[name], self.weights(name)
        self.sent[name] = self._factors(spec, W, parameters) or self._directly(spec, W, parameters)

    def _directly(self, spec: TensorSpec, W: Matrix, parameters: Parameters) -> Sent:
        new = W + self.method.effect(W, parameters, spec.name, self.options)
        return send_elements(self.base, spec, new.reshape(spec.shape), self.options.bits)

    def _factors(self, spec: TensorSpec, W: Matrix, parameters: Parameters) -> Sent | None:
        """None where `direct` is as small, or the only way that every device decodes alike."""
        count = self.method.count(*spec.matrix, self.options)
        larger = count >= spec.size and not self.method.every_weight
        if larger or isinstance(self.method, methods.Direct):
            return None
        try:
            return self._judged(spec, W, parameters, count, caution=1.0)
        except NotReproducible:
            with contextlib.suppress(NotReproducible, BadMethod, BadResult):
                return self._judged(spec, W, parameters, count, _CAUTION)
        except (BadMethod, BadResult):
            pass
        return None

    def _judged(
        self, spec: TensorSpec, W: Matrix, parameters: Parameters, count: int, caution: float
    ) -> Sent:
        code = self.method.code(W, parameters, spec.name, self.options, caution)
        if self.method.keeps_base and not any(s.any() for s in code.symbols):
            return UNCHANGED
        plan = TensorPlan(Plan.FACTORS, code.steps, code.params)
        if not isinstance(self.method, FactorisingMethod):
            return Sent(plan, code.symbols, count=count)
        o, i = spec.matrix
        tensor = Tensor(spec.name, o, i, self.options, code.steps, lambda: W, code.params)
        shapes = self.method.layout(tensor)
        arrays = [
            s.reshape(shape).astype(np.float64)
            for s, shape in zip(code.symbols, shapes, strict=True)
        ]
        verdict = gate.judge(self.method, W, tensor, arrays)
        plan = TensorPlan(Plan.FACTORS, code.steps, code.params, verdict.guard)
        return Sent(plan, code.symbols, count=count, disagreement=verdict.disagreement)

    def decoded(self) -> dict[str, Array]:
        """The coded tensors as a device would hold them, by name, in storage form."""
        return decode_draft(header(self.method, self.options, ""), self.base, self.sent)


def code_matrices(
    base: WeightsReader,
    parameters: Mapping[str, Parameters],
    method: LossyMethod,
    options: Options,
) -> Coded:
    """Code the matrices for which `parameters` (by tensor name) are given."""
    coded = Coded(base, method, options)
    for name, values in parameters.items():
        coded.add(name, values)
    return coded
