"""Routes of orders to a rollout: start, pause, resume, abort, retry, roll back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fastapi import APIRouter, Response
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from server.api.context import EngineDep
from server.api.idempotency import OnceDep
from server.api.problems import answers
from server.auth import Operator
from server.db import writing
from server.publish.release import ReleaseDep
from server.rollouts import deploy, once_more
from server.rollouts.answers import RolloutOut
from server.rollouts.paths import RolloutPath
from server.rollouts.schemas import RetryIn, RollBackIn
from server.rollouts.showing import describe_rollout
from server.tables import Rollout

router = APIRouter(prefix="/api/v1/rollouts", tags=["rollouts"], dependencies=[Operator])

ALL, BEFORE = RetryIn(), RollBackIn()
REFUSED = answers("rollout.not_found", "rollout.not_active", "rollout.wrong_state")


def _order(
    engine: Engine, rollout_id: int, what: Callable[[Session, Rollout], object]
) -> RolloutOut:
    with writing(engine) as session:
        rollout = deploy.find_rollout(session, rollout_id)
        what(session, rollout)
        return describe_rollout(session, rollout)


@router.post(
    "/{rollout_id}/start",
    summary="Start a rollout",
    responses=REFUSED
    | answers("version.not_released", "version.withdrawn", "rollout.needs_rollback"),
)
def post_start(rollout_id: RolloutPath, engine: EngineDep, release: ReleaseDep) -> RolloutOut:
    """Begin a rollout that is `ready`."""
    return _order(engine, rollout_id, partial(deploy.start_rollout, release=release))


@router.post("/{rollout_id}/pause", summary="Pause a rollout", responses=REFUSED)
def post_pause(rollout_id: RolloutPath, engine: EngineDep) -> RolloutOut:
    """Admit no more devices and make no more offers; what was offered goes on."""
    return _order(engine, rollout_id, deploy.pause_rollout)


@router.post("/{rollout_id}/resume", summary="Resume a rollout", responses=REFUSED)
def post_resume(rollout_id: RolloutPath, engine: EngineDep) -> RolloutOut:
    """Go on with a rollout that was paused."""
    return _order(engine, rollout_id, deploy.resume_rollout)


@router.post(
    "/{rollout_id}/abort",
    summary="Abort a rollout",
    responses=answers("rollout.not_found", "rollout.not_active"),
)
def post_abort(rollout_id: RolloutPath, engine: EngineDep) -> RolloutOut:
    """Take back what has not ended, for good; devices that have committed keep the new weights."""
    return _order(engine, rollout_id, deploy.abort_rollout)


@router.post(
    "/{rollout_id}/retry",
    summary="Try devices once more",
    responses=REFUSED | answers(
        "rollout.not_active", "rollout.wrong_state", "rollout.nothing_to_retry"
    ),
)  # fmt: skip
def post_retry(rollout_id: RolloutPath, engine: EngineDep, body: RetryIn = ALL) -> RolloutOut:
    """Reopen devices that failed, rolled back or timed out; they wait for their turn."""
    return _order(engine, rollout_id, partial(once_more.retry, device_id=body.device_id))


@router.post(
    "/{rollout_id}/roll_back",
    summary="Take a rollout's devices back",
    status_code=201,
    response_model=RolloutOut,
    responses=answers(
        "rollout.not_found",
        "version.not_found",
        "version.not_released",
        "version.withdrawn",
        "rollout.wrong_state",
        "rollout.no_previous_version",
        "rollout.wrong_version",
        "request.key_reused",
    ),
)
def post_roll_back(
    rollout_id: RolloutPath,
    engine: EngineDep,
    once: OnceDep,
    release: ReleaseDep,
    body: RollBackIn = BEFORE,
) -> Response:
    """Abort the rollout, also a finished one, and start one that leads its devices back.

    It is for the devices that hold the version, or may be on the way to it; all at once, without
    abort rules. The answer is the new rollout.
    """
    with writing(engine) as session:

        def create() -> RolloutOut:
            rollout = deploy.find_rollout(session, rollout_id)
            back = once_more.roll_back(session, rollout, body.version, release)
            return describe_rollout(session, back)

        return once.answer(session, create)
