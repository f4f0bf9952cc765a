"""What a refinement gives to packaging."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from server.refine import recurrent
from server.refine.effective import Clone, Plan
from server.refine.reparam import Dense
from server.refine.weights import State, save_state
from server.zoo.architecture import dtype_name
from shared.methods.base import LossyMethod
from shared.tensors import Array, Schema, TensorSpec, schema_of


@dataclass(frozen=True)
class Refined:
    """What training gave. Names are first names; a tensor in neither mapping stays as it is.

    `parameters`: per matrix, the method's parameters as `shared.methods` names them, float64.
    `others`: new values (float64, in the target's shape) of all other tensors that changed; to be
    replaced by those of `Job.settle`. `dense` names the matrices among them: those that the method
    cannot serve, best coded before `settle`. `state` is the whole target before any coding.
    """

    parameters: dict[str, dict[str, NDArray[np.float64]]]
    others: dict[str, Array]
    dense: frozenset[str]
    schema: Schema
    learnable_count: int
    state: State
    history: list[dict[str, float | None]]


@dataclass(frozen=True)
class Settled:
    """`others` as in Refined, with BatchNorm folded; `statistics` to keep beside the version.

    What folding leaves as it is on the device stands in `others` with the base's values. `steps`:
    the grids on which the others lose the least for their bytes; not all of them have one.
    """

    others: dict[str, Array]
    statistics: State
    steps: dict[str, float]

    def save_statistics(self, path: Path) -> None:
        """Write the file that unfolds this version before its next refinement."""
        save_state(path, self.statistics)

    def applied(self, refined: Refined) -> State:
        """The whole target before coding: what a lossless method sends."""
        state = dict(refined.state)
        for name, values in self.others.items():
            state[name] = torch.from_numpy(values).to(state[name].dtype)
        return state


def collect(
    clone: Clone, base: State, plan: Plan, history: list[dict[str, float | None]]
) -> Refined:
    """Take the results of a training out of its clone."""
    state = {n: t if t.is_floating_point() else base.get(n, t) for n, t in clone.state().items()}
    state |= recurrent.merged(clone.module, state, base)
    served = {n for n in clone.matrices if _is_served(clone, base, plan, n)}
    others = {n: t.double().numpy() for n, t in state.items() if n not in served}
    stored = {n: t.to(clone.dtypes[n]) for n, t in state.items()}
    return Refined(
        parameters={n: clone.matrices[n].values() for n in sorted(served)},
        others=moved(others, base),
        dense=frozenset(clone.matrices) - served,
        schema=schema_of(
            TensorSpec(n, dtype_name(t.dtype), tuple(t.shape)) for n, t in stored.items()
        ),
        learnable_count=_count(clone, plan),
        state=stored,
        history=history,
    )


def moved(values: dict[str, Array], base: State) -> dict[str, Array]:
    """Those of `values` that the base does not hold already, to float32."""
    return {n: v for n, v in values.items() if not _is_held(v, base.get(n))}


def _is_held(values: Array, old: torch.Tensor | None) -> bool:
    if old is None or tuple(old.shape) != values.shape:
        return False
    return np.array_equal(old.float().numpy(), values.astype(np.float32))


def _is_served(clone: Clone, base: State, plan: Plan, name: str) -> bool:
    """Whether the method has parameters for a matrix (`direct` for any that kept its shape)."""
    if isinstance(clone.matrices[name], Dense):
        return plan.method.id == "direct" and clone.has_shape_of(name, base.get(name))
    return True


def _count(clone: Clone, plan: Plan) -> int:
    """The paper's: the method's parameters of each matrix, plus every other learnable tensor."""
    count = sum(p.numel() for p in clone.vectors.values())
    for matrix in clone.matrices.values():
        o, i = matrix.W.shape
        if isinstance(matrix, Dense) or not isinstance(plan.method, LossyMethod):
            count += o * i
        else:
            count += plan.method.count(o, i, plan.options)
    return count
