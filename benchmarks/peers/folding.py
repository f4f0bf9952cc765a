"""BatchNorm re-estimated on decoded weights, and folded: what our packages do is given to peers.

Without it a decoded model loses for the wrong reason: its statistics are those of other weights.
Statistics that travelled would cost a peer 8 bytes a channel; folded into gamma and beta they cost
none, and the biases that BatchNorm absorbs none either.
"""

from __future__ import annotations

from functools import cached_property

import torch

from server.refine import batchnorm
from server.refine.batches import Batches
from server.refine.job import Job
from server.refine.labelled import sample
from server.refine.weights import State, load_into


class Folding:
    """For the models of a job. `rows`: so many training rows re-estimate; None: all."""

    def __init__(self, job: Job, rows: int | None = None) -> None:
        self._job = job
        count = len(job.data) if rows is None else min(rows, len(job.data))
        self._data: Batches = job.data.rows(torch.arange(count))

    @cached_property
    def _norms(self) -> list[batchnorm.Norm]:
        module = self._job.target().float()
        load_into(module, self._job.base)
        return batchnorm.find_norms(module, sample(self._data))

    def __call__(self, state: State) -> State:
        """All tensors of `state`, with what the base already holds left at the base's values."""
        module = self._job.target().float()
        load_into(module, state)
        batchnorm.reestimate(module, self._data)
        new = {n: t.detach() for n, t in module.state_dict().items()}
        folded, _ = batchnorm.fold(new, self._job.base, self._norms)
        return {n: folded.get(n, t).to(self._job.base[n].dtype) for n, t in new.items()}


def matrices(state: State) -> State:
    """The tensors that methods learn: those with rows and columns."""
    return {n: t for n, t in state.items() if t.dim() > 1}


def change(new: State, base: State) -> State:
    """What has to be sent, float32: differences of those tensors that differ."""
    moved = {n: t for n, t in new.items() if t.is_floating_point() and not torch.equal(t, base[n])}
    return {n: t.float() - base[n].float() for n, t in moved.items()}


def changed(base: State, change: State) -> State:
    """The tensors that a device gets by adding it up."""
    return base | {n: (base[n].float() + t).to(base[n].dtype) for n, t in change.items()}
