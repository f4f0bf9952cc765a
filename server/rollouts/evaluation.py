"""Evaluates rollouts: look, decide, carry out, again and again until there is nothing to do.

One process at a time does it, by the duty "rollouts"; it looks at the rollouts that are due, which
are those that somebody marked, and those for which a time has come. Everything stays right when
two evaluate at once, and each transaction leaves a state to go on from: a rollout that a crash
interrupted is still due.

In a small fleet whoever marks a rollout evaluates it at once, in the same transaction: an operator
who starts a rollout sees its devices in the answer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import Engine, Select, func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from server import logs
from server.db import BATCH_ROWS, reading, writing
from server.duties import Duty
from server.rollouts import windows
from server.rollouts.admission import choose, choose_again
from server.rollouts.giving_back import to_give_back
from server.rollouts.overdue import find_overdue
from server.rollouts.steps import (
    AnyStep,
    Chosen,
    Close,
    GiveBack,
    MarkOverdue,
    Outrun,
    Reopen,
    carry_out,
    mark_due,
)
from server.rollouts.strategies import STRATEGIES
from server.rollouts.strategies.base import Abort, Admit, AdmitAgain, Reason, Wait
from server.rollouts.strategies.rules import broken_rule
from server.rollouts.view import View, look, plan_of
from server.tables import Assignment, DeviceModel, Model, Rollout, now

log = logging.getLogger("weft.rollouts")

#: How often the duty looks for rollouts that are due: one query by an index.
INTERVAL_SECONDS = 1.0
#: How long one rollout is worked on before others have their turn, and the lease is renewed.
ROUND_SECONDS = 3.0
#: Between two transactions of one evaluator: polls and reports come in between.
PAUSE_SECONDS = 0.01
#: Most devices of a model for which its rollouts are evaluated by whoever marks them.
SMALL_FLEET = 200
#: Most devices that one look at a rollout leads to the admission of, a batch at a time. The more,
#: the closer neighbours a batch holds, which are written together.
ADMITTED_AT_ONCE = 100 * BATCH_ROWS
MOST_STEPS = 1_000
#: After this long a rollout is tried again that could not be evaluated.
AGAIN_SECONDS = 60.0


def duty(engine: Engine) -> Duty:
    """The duty of evaluating all rollouts that are due."""
    return Duty(engine, "rollouts", INTERVAL_SECONDS, lambda: evaluate_due(engine))


def evaluate_due(engine: Engine, at: datetime | None = None) -> None:
    """Evaluate what is due, each rollout for a while; what is left over stays due."""
    due = Rollout.due_at <= (at or now())
    with reading(engine) as session:
        ids = list(session.scalars(select(Rollout.id).where(due).order_by(Rollout.due_at)))
    for rollout_id in ids:
        _evaluate_or_log(engine, rollout_id, at)


def evaluate(
    engine: Engine, rollout_id: int, at: datetime | None = None, seconds: float = ROUND_SECONDS
) -> None:
    """Evaluate one rollout until it waits for something, or for about so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        moment = at or now()
        with reading(engine) as session:
            rollout = session.get_one(Rollout, rollout_id)
            view = look(session, rollout, moment)
            step = decide(session, view, moment)
            chosen = _choose(session, view, step, moment, ADMITTED_AT_ONCE)
        for batch in _batches(chosen):
            is_done = _try(engine, view, step, batch, moment)
            if isinstance(step, Wait):
                return
            if not is_done or time.monotonic() > end:
                break
            time.sleep(PAUSE_SECONDS)


@logs.by_itself()
def settle(session: Session, rollouts: Collection[int], at: datetime | None = None) -> None:
    """Mark the rollouts as due; in a small fleet evaluate them here and now.

    What goes wrong there is left to the duty: it must not undo what the caller has done.
    """
    moment = at or now()
    session.flush()
    mark_due(session, set(rollouts), moment)
    models = select(Rollout.model_id).where(Rollout.id.in_(rollouts)).distinct()
    for model_id in list(session.scalars(models)):
        if not _is_small(session, model_id):
            continue
        try:
            with session.begin_nested():
                _settle_model(session, model_id, moment)
        except Exception:
            log.exception("rollouts of model %d; they are tried again", model_id)


def decide(session: Session, view: View, at: datetime) -> AnyStep:
    """What comes next for a rollout in whatever state."""
    rollout = view.rollout
    if rollout.state == "ready":
        return Wait()
    if rollout.state == "aborted":
        if session.scalar(select(_open(rollout).exists())):
            return Close()
        has_taken = select(to_give_back(session, rollout).exists())
        return GiveBack() if session.scalar(has_taken) else _wait(view, None)
    if find_overdue(session, rollout, at):
        return MarkOverdue()
    if rollout.state == "paused":
        return _wait(view, view.next_deadline)
    if view.bad_filter is not None:  # an operator must see to it; the rules hold meanwhile
        broken = broken_rule(plan_of(rollout), view.snapshot)
        if broken is not None and rollout.state == "active":
            return Abort(broken)
        reason = Reason(view.bad_filter.code, view.bad_filter.message)
        return Wait(reason, at + timedelta(seconds=AGAIN_SECONDS))
    if rollout.state == "finished":
        more = view.snapshot.waiting or view.snapshot.again
        return Reopen() if more else _wait(view, view.next_deadline)
    step = STRATEGIES[rollout.strategy].decide(plan_of(rollout), view.snapshot, at)
    return _with_times(view, step, at) if isinstance(step, Wait) else step


def _evaluate_or_log(engine: Engine, rollout_id: int, at: datetime | None) -> None:
    """One rollout that cannot be evaluated must not keep the others from it, nor fill the log."""
    try:
        evaluate(engine, rollout_id, at)
    except OperationalError:  # the database is away or busy: it is due still
        log.exception("rollout %d; it is tried again", rollout_id)
    except Exception:
        log.exception("rollout %d; it is tried again in %d s", rollout_id, AGAIN_SECONDS)
        again = (at or now()) + timedelta(seconds=AGAIN_SECONDS)
        with writing(engine) as session:
            mark_due(session, {rollout_id}, again)


def _wait(view: View, until: datetime | None) -> Wait:
    """Wait on; the reason stays as it is."""
    known = view.rollout.reason
    return Wait(None if known is None else Reason(known["code"], known["message"]), until)


def _with_times(view: View, step: Wait, at: datetime) -> Wait:
    """Add what time alone changes: deadlines, and the window."""
    reason, moments = step.reason, [step.until, view.next_deadline]
    window = view.rollout.window
    if window is not None and not windows.is_open(window, at) and view.snapshot.updating:
        opening = windows.next_opening(window, at)
        text = f"the next window opens at {opening:%Y-%m-%d %H:%M} UTC" if opening else "none comes"
        reason = Reason("outside_window", text)
        moments.append(opening)
    return Wait(reason, min((m for m in moments if m is not None), default=None))


def _choose(session: Session, view: View, step: AnyStep, at: datetime, most: int) -> Chosen:
    """For whom the step is."""
    rollout = view.rollout
    if isinstance(step, Admit):
        return choose(session, rollout, min(step.count, most))
    if isinstance(step, AdmitAgain):
        return choose_again(session, rollout, min(step.count, most))
    if isinstance(step, MarkOverdue):
        return find_overdue(session, rollout, at)
    if isinstance(step, Close):
        return list(session.scalars(_open(rollout).limit(most)))
    if isinstance(step, GiveBack):
        return list(session.scalars(to_give_back(session, rollout).limit(most)))
    return []


def _open(rollout: Rollout) -> Select[int]:
    return select(Assignment.id).where(
        Assignment.rollout_id == rollout.id, Assignment.finished_at.is_(None)
    )


def _batches(chosen: Chosen) -> list[Chosen]:
    parts = [chosen[i : i + BATCH_ROWS] for i in range(0, len(chosen), BATCH_ROWS)]
    return parts or [[]]


def _try(engine: Engine, view: View, step: AnyStep, batch: Chosen, at: datetime) -> bool:
    """Carry the step out for one batch; False where another evaluator was first."""
    try:
        with writing(engine) as session:
            carry_out(session, view, step, batch, at)
    except Outrun:
        return False
    return True


def _settle_model(session: Session, model_id: int, at: datetime) -> None:
    """Evaluate the model's rollouts that are due, newest first: it may make older ones due."""
    mine = (Rollout.model_id == model_id) & (Rollout.due_at <= at)
    query = select(Rollout).where(mine).order_by(Rollout.id.desc()).limit(1)
    for _ in range(MOST_STEPS):
        rollout = session.scalar(query.execution_options(populate_existing=True))
        if rollout is None:
            return
        view = look(session, rollout, at)
        step = decide(session, view, at)
        chosen = _choose(session, view, step, at, BATCH_ROWS)
        carry_out(session, view, step, chosen, at)
        session.flush()
        session.refresh(rollout)


def _is_small(session: Session, model_id: int) -> bool:
    name = select(Model.name).where(Model.id == model_id).scalar_subquery()
    some = select(DeviceModel.device_id).where(DeviceModel.model_name == name)
    counted = select(func.count()).select_from(some.limit(SMALL_FLEET + 1).subquery())
    return (session.scalar(counted) or 0) <= SMALL_FLEET
