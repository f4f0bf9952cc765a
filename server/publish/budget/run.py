"""Runs the trials of `auto`, each in a folder of its own, and takes over what was chosen.

trial-1/        as the folder of any refinement: checkpoint, package, decoded weights, result
trial-1-fitted/ the same training in a package that fits
curve.json      Curve, written anew after each trial

What to do next follows from the results that are there, so an interrupted search goes on where it
stood: a trial that has its result is not run again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from server.errors import BadRefinement
from server.packaging.coded import Coded
from server.packaging.encode import finish
from server.publish import spec, update
from server.publish.budget.curve import CURVE, Curve, Point, Shortfall
from server.publish.budget.fitting import fit
from server.publish.budget.goal import Goal, read_goal
from server.publish.budget.search import Fit, Train, choose, next_step, trial_of
from server.publish.budget.tiers import GAINS, Facts, Trial
from server.publish.spec import Result, Task, write_durably
from server.refine.job import Job
from server.refine.reparam import REPARAMS
from server.zoo.architecture import learnable
from shared import methods
from shared.weights import WeightsReader

Report = Callable[[dict[str, Any]], None]


class Missed(Exception):
    """No package is what was asked for; the curve in the folder says why."""


def refine_within(task: Task, folder: Path, report: Report) -> Result:
    """A refinement by `auto`: its results in `folder`, as `make_update` leaves them.

    Raises Missed where the goal cannot be reached, WeftError as any refinement does.
    """
    return _Search(task, folder, report).run()


class _Search:
    """One search: the trials so far are the points of the curve."""

    def __init__(self, task: Task, folder: Path, report: Report) -> None:
        self._task, self._folder, self._report = task, folder, report
        self._goal = read_goal(task.job.options)
        first = _task_for(GAINS, task)
        self._job = Job(first.job, folder)  # opens the data, once for all trials
        self._facts = _facts(first, self._job, folder)
        self._curve = Curve(goal=self._goal, least_bytes=self._facts.least)

    def run(self) -> Result:
        """Trial after trial, then the choice."""
        least = self._facts.least
        if not self._goal.allows(least):
            told = f"a package that changes nothing takes {least} bytes already"
            raise self._missed(BadRefinement("too_few_bytes", told))
        try:
            while (step := next_step(self._goal, self._facts, self._curve.points)) is not None:
                self._add(step)
        except BadRefinement as error:
            if error.code != "refinement.too_few_bytes":
                raise
            raise self._missed(error) from error
        return self._take(choose(self._goal, self._curve.points))

    def _add(self, step: Train | Fit) -> None:
        """Run a step, or read what it has led to before, and add its point to the curve."""
        if isinstance(step, Train):
            number = 1 + sum(not point.fitted for point in self._curve.points)
            trial, folder = step.trial, self._place(number, fitted=False)
        else:
            number = step.trial
            trial, folder = trial_of(self._trained(number)), self._place(number, fitted=True)
        task = _task_for(trial, self._task)
        result = _read(folder, task)
        if result is None:
            folder.mkdir(exist_ok=True)
            (folder / spec.RESULT).unlink(missing_ok=True)
            write_durably(folder / spec.SPEC, task.model_dump_json())
            result = self._run(step, task, number, folder)
        point = self._point(trial, number, isinstance(step, Fit), result)
        self._curve.points.append(point)
        self._drop_checkpoint(point)
        self._count(result)
        self._tell({"stage": "compare", "curve": self._curve.model_dump(mode="json")}, number)

    def _run(self, step: Train | Fit, task: Task, number: int, folder: Path) -> Result:
        job = self._job.trial(task.job, self._place(number, fitted=False))

        def report(line: dict[str, Any]) -> None:
            self._tell(line, number)

        report({"stage": "refine"})
        if isinstance(step, Train):
            return update.make_update(task, job, folder, report)
        assert self._goal.max_bytes is not None
        return fit(task, job, folder, self._trained(number).bytes, self._goal.max_bytes, report)

    def _tell(self, line: dict[str, Any], number: int) -> None:
        self._report({**line, "trial": number, "trials": self._goal.trials})

    def _place(self, number: int, fitted: bool) -> Path:
        return self._folder / f"trial-{number}{'-fitted' if fitted else ''}"

    def _trained(self, number: int) -> Point:
        return next(p for p in self._curve.points if p.trial == number and not p.fitted)

    def _point(self, trial: Trial, number: int, fitted: bool, result: Result) -> Point:
        return Point(
            trial=number,
            method=trial.method,
            options=trial.options,
            matrices=trial.matrices,
            rate=trial.rate,
            fitted=fitted,
            bytes=result.package_bytes,
            accuracy_before=result.metrics["accuracy_before"],
            accuracy_after=result.metrics["accuracy_after"],
            epochs=0 if fitted else self._task.job.recipe.epochs,
            seconds=round(result.metrics["seconds"], 2),
        )

    def _drop_checkpoint(self, point: Point) -> None:
        """A training whose package fits is not looked at again."""
        if point.fitted or self._goal.allows(point.bytes):
            for path in self._place(point.trial, fitted=False).glob("checkpoint*"):
                path.unlink()

    def _count(self, result: Result) -> None:
        curve = self._curve
        curve.images = result.metrics["images"]
        curve.epochs = sum(point.epochs for point in curve.points)
        curve.refinements = curve.epochs / self._task.job.recipe.epochs
        curve.seconds = round(sum(point.seconds for point in curve.points), 2)
        self._write()

    def _write(self) -> None:
        write_durably(self._folder / CURVE, self._curve.model_dump_json(indent=1))

    def _take(self, chosen: Point | None) -> Result:
        """Make the chosen trial's results those of the refinement."""
        if chosen is None:
            raise self._missed(_not_reached(self._goal, self._curve.points))
        place = self._place(chosen.trial, chosen.fitted)
        self._curve.points = [
            point.model_copy(update={"chosen": point == chosen}) for point in self._curve.points
        ]
        for name in (spec.PACKAGE, spec.DECODED, spec.UNFOLDED):
            if (place / name).exists():
                (self._folder / name).unlink(missing_ok=True)
                os.link(place / name, self._folder / name)
        self._write()
        result = Result.model_validate_json((place / spec.RESULT).read_bytes())
        write_durably(self._folder / spec.RESULT, result.model_dump_json(indent=1))
        return result

    def _missed(self, error: BadRefinement) -> Missed:
        """Keep why nothing is published beside what was measured."""
        told = {"code": error.code, "message": error.message, "todo": error.todo}
        self._curve.failure = Shortfall.model_validate(told)
        self._write()
        return Missed(error.message)


def _not_reached(goal: Goal, points: list[Point]) -> BadRefinement:
    """The accuracy was missed; says how near the trials came."""
    within = [point for point in points if goal.allows(point.bytes)]
    best = max(within, key=lambda p: (p.accuracy_after, -p.bytes))
    where = "" if goal.max_bytes is None else f" within {goal.max_bytes} bytes"
    found = f"{best.accuracy_after:.2%} with {best.bytes} bytes is the best{where} of "
    asked = f"{len(points)} packages; asked for are {goal.min_accuracy:g}%"
    return BadRefinement("accuracy_not_reached", found + asked)


def _task_for(trial: Trial, task: Task) -> Task:
    """The task of one trial."""
    recipe = task.job.recipe
    changes: dict[str, Any] = {"matrices": trial.matrices}
    if trial.rate != 1.0:
        usual = recipe.learning_rate or REPARAMS[trial.method].rate
        changes["learning_rate"] = trial.rate * usual
    given = {
        "method": trial.method,
        "options": trial.options,
        "recipe": recipe.model_copy(update=changes),
    }
    return task.model_copy(update={"job": task.job.model_copy(update=given)})


def _facts(task: Task, job: Job, folder: Path) -> Facts:
    """What is known before any training: the least package is made, and measured."""
    weights, vectors = _counts(job)
    method = methods.get(task.job.method)
    assert isinstance(method, methods.LossyMethod)
    nothing = folder / "nothing.weft"
    with WeightsReader(task.job.base) as base:
        coded = Coded(base, method, methods.options(method, task.job.options))
        samples = update.golden(job) if task.job.target_arguments is None else None
        least = finish(coded, {}, nothing, task.model, golden=samples).size
    nothing.unlink()
    return Facts(least, weights, vectors)


def _counts(job: Job) -> tuple[int, int]:
    """Elements of matrices, and of what is sent in any case; a new head's count twice there.

    For they are sent whole, at twice the bytes of biases.
    """
    target, weights, vectors = job.target(), 0, 0
    state = target.state_dict()
    for name in learnable(target):
        tensor = state[name]
        kept = name in job.base and job.base[name].shape == tensor.shape
        if kept and tensor.dim() > 1:
            weights += tensor.numel()
        else:
            vectors += tensor.numel() * (1 if kept else 2)
    return weights, vectors


def _read(folder: Path, task: Task) -> Result | None:
    """What the very same trial has led to before: a newer Weft may decide otherwise."""
    path, told = folder / spec.RESULT, folder / spec.SPEC
    if not (path.exists() and told.exists() and told.read_text() == task.model_dump_json()):
        return None
    return Result.model_validate_json(path.read_bytes())
