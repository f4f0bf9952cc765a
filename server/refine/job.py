"""A refinement, step by step: from a base and data to what a package is made of.

job = Job(spec, folder)
refined = job.train(report)                     # parameters per matrix, other new values
coded = code_matrices(..., refined.parameters)  # packaging
settled = job.settle(refined, coded.decoded())  # BatchNorm on what devices will hold, folded
finish(coded, settled.others, ..., schema=refined.schema)
job.evaluate(decoded file)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from server import zoo
from server.errors import BadDataset
from server.refine import batchnorm
from server.refine.batches import Batches
from server.refine.checkpoint import Checkpoint
from server.refine.effective import Clone, Plan, clone_for
from server.refine.evaluate import Measure, Scores
from server.refine.labelled import open_labelled, sample
from server.refine.loop import Report, fit
from server.refine.outcome import Refined, Settled, collect
from server.refine.recipe import Recipe
from server.refine.reparam import REPARAMS
from server.refine.sensitivity import sensitivities
from server.refine.spec import JobSpec
from server.refine.start import Start, start_from
from server.refine.steps import steps_of
from server.refine.teacher import lesson, taught
from server.refine.weights import State, from_storage, load_into, load_state
from shared import methods
from shared.tensors import Array
from shared.weights import WeightsReader


def train(spec: JobSpec, folder: Path | None, report: Report) -> Refined:
    """As `Job(spec, folder).train(report)`, for callers that need nothing afterwards."""
    return Job(spec, folder).train(report)


class Job:
    """A refinement with its data in memory. `folder` takes the checkpoint; None: keeps none.

    Raises WeftError: BadDataset, BadWeights, BadModel, BadMethod.
    """

    def __init__(self, spec: JobSpec, folder: Path | None = None) -> None:
        recipe = spec.recipe
        if recipe.threads is not None:
            torch.set_num_threads(recipe.threads)
        self.spec, self._folder = spec, folder
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.plan = _plan(spec)
        self.base = load_state(spec.base)
        self.classes, everything = self._opened(spec.dataset)
        self.data, self.held_out = everything.split(recipe.held_out, recipe.seed)
        if not len(self.data):
            raise BadDataset("empty", f"{spec.dataset}: nothing is left to train on")
        self._lessons: dict[tuple[Recipe, float], Batches] = {}  # shared with all trials

    def trial(self, spec: JobSpec, folder: Path) -> Job:
        """Another training on the same data, which are not opened again.

        `spec` differs in method, options, and what of the recipe does not touch the data's split.
        """
        other = copy.copy(self)
        other.spec, other.plan, other._folder = spec, _plan(spec), folder
        return other

    def train(self, report: Report) -> Refined:
        """Train, from the checkpoint where there is one; `report` hears of the progress."""
        data = self._taught(report) if self.spec.recipe.distillation else self.data
        clone = self._clone()
        history = fit(
            clone, data, self.held_out, self.spec.recipe, report, self._checkpoint("checkpoint")
        )
        return collect(clone, self.base, self.plan, history)

    def _taught(self, report: Report) -> Batches:
        """The training data with a teacher's answers; it is trained here, once for all trials."""
        own = lesson(self.spec.recipe)
        key = own, self.spec.recipe.distillation
        if key not in self._lessons:
            self._lessons[key] = self._lesson(own, report)
        return self._lessons[key]

    def _lesson(self, own: Recipe, report: Report) -> Batches:
        direct = methods.get("direct")
        plan = Plan(direct, methods.options(direct, {}), own)
        teacher = clone_for(self._start(), plan, self.device)
        checkpoint = self._checkpoint("checkpoint-teacher")
        fit(teacher, self.data, self.held_out, own, report, checkpoint, stage="teach")
        with teacher.applied() as module:
            batchnorm.reestimate(module, self.data)
            return taught(self.data, module, self.spec.recipe)

    def _checkpoint(self, name: str) -> Checkpoint | None:
        return Checkpoint(self._folder, self._run(), name) if self._folder else None

    def _run(self) -> dict[str, Any]:
        """What makes a checkpoint this run's: the spec, with the base by its digest."""
        with WeightsReader(self.spec.base) as base:
            digest = base.digest().hex()
        return self.spec.model_dump(mode="json") | {"base": digest, "statistics": None}

    def settle(self, refined: Refined, decoded: Mapping[str, Array]) -> Settled:
        """Re-estimate BatchNorm on the weights that devices will hold, and fold it away.

        `decoded` are the coded tensors by name, in storage form; all others are taken from
        `refined`.
        """
        coded = {n: from_storage(a, refined.schema[n].dtype) for n, a in decoded.items()}
        module = self._placed(self._target(), refined.state | coded)
        norms = batchnorm.find_norms(module, sample(self.data))
        batchnorm.reestimate(module, self.data)
        new = {n: t.detach().cpu() for n, t in module.state_dict().items()}
        folded, statistics = batchnorm.fold(new, self.base, norms)
        travelling = {t: new[t] for n in norms for t in (n.mean, n.var) if t not in folded}
        others = {n: v for n, v in refined.others.items() if n not in decoded}
        others |= {n: t.double().numpy() for n, t in (travelling | folded).items()}
        load_into(module, {n: torch.from_numpy(v) for n, v in others.items()})
        steps = steps_of(module, self.base, others, self.data)
        return Settled(others, statistics, steps)

    def changed(self, refined: Refined) -> nn.Module:
        """The target with what was learnt, before any coding, on the training device."""
        return self._placed(self._target(), refined.state)

    def target(self) -> nn.Module:
        """A fresh network of the target's architecture, on the CPU."""
        return self._target()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input of the network."""
        height, width, channels = self.data.images.shape[1:]
        return channels, height, width

    def evaluate(self, weights: Path) -> Scores:
        """How the target does with the weights of a file, compared with the base."""
        return self.evaluate_state(load_state(weights))

    def evaluate_state(self, state: State) -> Scores:
        """As `evaluate`, for tensors by first names."""
        return self.measure.of(self._placed(self._target(), state))

    @cached_property
    def measure(self) -> Measure:
        """On the evaluation data, else the held-out share, else all; knows the base's answers."""
        data = self.held_out if len(self.held_out) else self.data
        if self.spec.evaluation_dataset is not None:
            data = self._opened(self.spec.evaluation_dataset)[1]
        base = self._placed(self._build(self.spec.arguments), self.base)
        return Measure(base, data, self.classes)

    def _build(self, arguments: Mapping[str, Any]) -> nn.Module:
        return zoo.get(self.spec.architecture, self.spec.model_modules).build(arguments)

    def _target(self) -> nn.Module:
        torch.manual_seed(self.spec.recipe.seed)  # for the start values of what the base lacks
        target = self.spec.target_arguments
        return self._build(self.spec.arguments if target is None else target)

    def _placed(self, module: nn.Module, state: State) -> nn.Module:
        """`module` in float32 on the training device, with `state` inside."""
        module.float()
        load_into(module, state)
        return module.to(self.device)

    def _clone(self) -> Clone:
        start = self._start()
        felt = None
        if REPARAMS[self.plan.method.id].needs_sensitivity:
            felt = sensitivities(start.module, self.data)
        return clone_for(start, self.plan, self.device, felt)

    def _start(self) -> Start:
        """The target with the base inside, BatchNorm unfolded, on the training device."""
        start = start_from(self.base, self._target())
        start.module.to(self.device)
        norms = batchnorm.find_norms(start.module, sample(self.data))
        kept = [n for n in norms if n.var not in start.reshaped]
        held = start.module.state_dict()
        load_into(start.module, batchnorm.unfold(held, self._statistics(start), kept))
        return start

    def _statistics(self, start: Start) -> State:
        """BatchNorm's statistics under the base: those kept with it, else observed."""
        if self.spec.statistics is None:
            return batchnorm.observe(start.module, self.data)
        return {n: t.to(self.device) for n, t in load_state(self.spec.statistics).items()}

    def _opened(self, uri: str) -> tuple[tuple[str, ...], Batches]:
        """Classes and data. Raises BadDataset, also where the target cannot serve them."""
        module = self._placed(self._target(), {})
        return open_labelled(uri, self.spec.fingerprints.get(uri), module, self.device)


def _plan(spec: JobSpec) -> Plan:
    method = methods.get(spec.method)
    return Plan(method, methods.options(method, spec.options), spec.recipe)
