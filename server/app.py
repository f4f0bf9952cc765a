"""The app: opens what it stands on, starts what runs beside it, and puts the routes together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta
from functools import cache
from importlib.metadata import version
from typing import Protocol, TypeVar

from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine
from starlette.concurrency import run_in_threadpool

from server.api import describe, problems
from server.api.gate import Gate
from server.api.middleware import Surroundings
from server.auth.first_key import first_key
from server.auth.routes import router as access
from server.auth.uses import KeyUses
from server.db import open_current
from server.devices.expected_routes import router as expected
from server.devices.group_routes import router as groups
from server.devices.metadata_routes import router as metadata
from server.devices.policy import settling
from server.devices.polls import add_poll_route, read_epoch
from server.devices.presence import Presence
from server.devices.roster import open_roster
from server.devices.routes import router as devices
from server.devices.standing_routes import router as standing
from server.devices.token_routes import router as tokens
from server.devices.wire_routes import router as device_plane
from server.duties import Duty, release_all
from server.history.courier import LOOK_SECONDS as WEBHOOK_SECONDS
from server.history.courier import Courier
from server.history.order import adopt_restored
from server.history.routes import router as history
from server.jobs.supervisor import Supervisor
from server.lock import only_process
from server.planner.offers import Planning, Published
from server.planner.routes import router as bundles
from server.publish.housekeeping import INTERVAL as RETENTION_SECONDS
from server.publish.housekeeping import keep_house
from server.publish.on_demand import lossless_package
from server.publish.orphans import remove_orphans
from server.publish.refinement import RefinementWork
from server.publish.routes import router as publish
from server.registry.routes import router as registry
from server.rollouts import penalty
from server.rollouts.building import Building, order_missing
from server.rollouts.evaluation import duty as rollouts_duty
from server.rollouts.evaluation import evaluate_due
from server.rollouts.releases import release_what_was_deployed
from server.rollouts.routes import router as rollouts
from server.rollouts.withdrawal import end_what_leads_to
from server.service.fleet import Fleet
from server.service.process import Process
from server.service.readiness import Readiness
from server.service.routes import router as service
from server.settings import Settings
from server.storage import open_store
from server.storage.base import BlobStore
from server.tables import now
from server.trust.opening import open_trust
from shared.errors import WeftError

#: How often missing packages are looked for, beside after each upload.
LOOK_SECONDS = 60.0

#: How often it is looked whether signed metadata are to be renewed.
TRUST_SECONDS = 3600.0

#: Files that nobody has written to for this long are left over, whoever wrote them.
UNFINISHED = timedelta(days=7)

TAGS = [
    {"name": "models", "description": "Named architectures with a tensor schema."},
    {"name": "versions", "description": "Immutable sets of weights of a model."},
    {"name": "datasets", "description": "Labelled images to refine and to measure on."},
    {"name": "refinements", "description": "Compact-refine jobs: a base becomes a target."},
    {"name": "packages", "description": "Update packages, from a base to a target."},
    {"name": "trust", "description": "Who signs what devices may install, and what is signed."},
    {"name": "rollouts", "description": "The movement of devices to a version."},
    {"name": "devices", "description": "Enrolled devices and what they hold."},
    {"name": "enrolment", "description": "Tokens by which devices become known."},
    {"name": "groups", "description": "Saved filters over devices, and what holds for those."},
    {"name": "history", "description": "What happened."},
    {"name": "webhooks", "description": "Who hears of it."},
    {"name": "access", "description": "Keys of operators, and what each may do."},
    {"name": "device plane", "description": "What agents say and hear."},
    {"name": "service", "description": "The server itself."},
]


def create_app(settings: Settings) -> FastAPI:
    """The server's app. Its start raises WeftError where something it stands on cannot be used."""
    app = FastAPI(
        title="Weft",
        version=version("weft"),
        summary="Small, exact updates for neural networks that are already deployed",
        description="Errors are `application/problem+json` with a stable `code`; lists are "
        '`{"items": [...], "next": cursor}`; creates accept an `Idempotency-Key`.',
        openapi_tags=TAGS,
        responses=problems.answers(*describe.ANYWHERE),
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.gate = Gate(settings)
    app.add_middleware(Surroundings, gate=app.state.gate, max_body_bytes=settings.max_body_bytes)
    problems.install(app)
    describe.install(app)
    add_poll_route(app)
    app.router.routes.extend(_routes().routes)
    return app


@cache
def _routes() -> APIRouter:
    """All routes but the polls', which several apps in one process share.

    Of an app that includes them itself, FastAPI works them all out anew at its first request.
    """
    shared = APIRouter(responses=problems.answers(*describe.ANYWHERE), redirect_slashes=False)
    rooms = (registry, publish, bundles, rollouts, devices, standing, groups, history, access)
    enrolment = (tokens, expected)
    for router in (*rooms, *enrolment, device_plane, metadata, service):
        shared.include_router(router)
    return shared


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    try:
        stack = await run_in_threadpool(_start, app)
    except WeftError as error:
        app.state.start_error = error  # for the command line: the HTTP server shows a traceback
        raise
    app.state.roster = open_roster(app.state.engine)  # of this event loop
    try:
        yield
    finally:
        await app.state.roster.close()
        await run_in_threadpool(stack.close)


def _start(app: FastAPI) -> ExitStack:
    """Open and start everything; the stack closes it in the opposite order."""
    settings: Settings = app.state.settings
    with ExitStack() as stack:
        if settings.is_sqlite:
            stack.enter_context(only_process(settings.data_dir))
        engine = open_current(settings.url, settings.auto_migrate, settings.database_connections)
        stack.callback(engine.dispose)
        blobs = open_store(settings)
        # Where other processes may run, what is still being written must be left alone.
        blobs.sweep(now() if settings.is_sqlite else now() - UNFINISHED)
        if settings.is_sqlite:
            release_all(engine)
            remove_orphans(engine, blobs)
        adopt_restored(engine)
        penalty.set_up(engine, settings.penalty_after)
        evaluate_due(engine)
        app.state.first_key = first_key(engine, settings)
        app.state.engine, app.state.blobs = engine, blobs
        app.state.trust = open_trust(settings, engine)
        if settings.auto_release:
            release_what_was_deployed(engine, app.state.trust)
        app.state.readiness = Readiness(engine, blobs)
        app.state.registry = CollectorRegistry()
        app.state.registry.register(Process(engine, app.state.gate))
        app.state.registry.register(Fleet(engine))
        _start_workers(app, stack, engine, blobs)
        return stack.pop_all()


def _start_workers(app: FastAPI, stack: ExitStack, engine: Engine, blobs: BlobStore) -> None:
    settings: Settings = app.state.settings
    state = app.state
    state.epoch = read_epoch(engine)
    state.presence = _begin(stack, Presence(engine))
    state.key_uses = _begin(stack, KeyUses(engine))
    _begin(stack, settling(engine))
    _begin(stack, rollouts_duty(engine))
    building = Building(lambda w: lossless_package(engine, blobs, w.version_id, w.base_id))
    stack.callback(building.close)
    uploads = Duty(engine, "packages", LOOK_SECONDS, lambda: order_missing(engine, building))
    state.uploaded = _begin(stack, uploads).ring
    state.withdrawn = end_what_leads_to
    state.building = building
    state.planning = Planning(Published(), settings.update_budget, building.unbuildable)
    courier = Courier(engine, settings.webhook_hosts)
    stack.callback(courier.stop)
    state.webhooks = _begin(stack, Duty(engine, "webhooks", WEBHOOK_SECONDS, courier.turn))
    house = Duty(
        engine, "retention", RETENTION_SECONDS, lambda: keep_house(engine, blobs, settings)
    )
    _begin(stack, house)
    _begin(stack, Duty(engine, "trust", TRUST_SECONDS, state.trust.renew))
    work = RefinementWork(settings, engine, blobs)
    state.supervisor = _begin(stack, Supervisor(settings, engine, work))


class _Worker(Protocol):
    def start(self) -> None: ...
    def stop(self) -> None: ...


_Any = TypeVar("_Any", bound=_Worker)


def _begin(stack: ExitStack, worker: _Any) -> _Any:
    """Start a worker, and have it stopped with the others."""
    worker.start()
    stack.callback(worker.stop)
    return worker
