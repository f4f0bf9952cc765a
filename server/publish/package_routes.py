"""/packages: build between two versions, list, show, download."""

from __future__ import annotations

from typing import Annotated, cast

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from server import logs
from server.api.context import BlobsDep, EngineDep, SettingsDep
from server.api.files import DOCUMENTED, blob_response
from server.api.idempotency import Once, OnceDep
from server.api.paging import Page, SliceDep, page_of
from server.api.problems import answers
from server.db import reading, writing
from server.errors import BadUpdate
from server.publish.accuracy import Gate, Samples
from server.publish.on_demand import Order, build, one_build, publish
from server.publish.schemas import PackageIn, PackageOut, describe_package
from server.registry.datasets import address_of, find_dataset
from server.registry.models import find_model
from server.registry.versions import find_version
from server.storage.base import BlobStore
from server.tables import Package
from shared import methods
from shared.errors import BadMethod
from shared.methods.lossless import Lossless

router = APIRouter(prefix="/api/v1/packages", tags=["packages"])

IdPath = Annotated[int, Path(ge=1, lt=1 << 31, description="Id of the package.")]


async def _builder(request: Request) -> CapacityLimiter:
    """One thread for all builds: those that wait must not hold the threads that others need."""
    state = request.app.state
    if not hasattr(state, "package_builder"):
        state.package_builder = CapacityLimiter(1)
    return cast("CapacityLimiter", state.package_builder)


BuilderDep = Annotated[CapacityLimiter, Depends(_builder)]


@router.post(
    "",
    summary="Build a package",
    status_code=201,
    response_model=PackageOut,
    responses=answers(
        "model.not_found",
        "version.not_found",
        "method.unknown",
        "method.bad_option",
        "method.not_applicable",
        "weights.not_finite",
        "dataset.not_found",
        "dataset.not_allowed",
        "dataset.changed",
        "dataset.bad_image",
        "dataset.bad_label",
        "update.below_accuracy",
        "update.not_measurable",
        "update.no_golden",
        "version.removed",
        "request.key_reused",
    ),
)
async def post_package(
    body: PackageIn,
    engine: EngineDep,
    blobs: BlobsDep,
    settings: SettingsDep,
    once: OnceDep,
    builder: BuilderDep,
) -> Response:
    """Fit a method to the change between two versions, without training.

    A lossless method leads to the target itself. A lossy one leads to a new version, whose weights
    are what devices decode, and which `approximates` the target. With a `dataset`, the decoded
    weights are measured on it beside the target's; where they fall short of what is asked for,
    nothing is published and nothing kept. With `golden`, the package carries labels that the
    decoded weights give, and only devices that read format 2 are offered it.

    The answer comes when the package is built and decoded again, one build after another: seconds
    for a small network, minutes for one of many millions of weights, or where others wait before.
    Give your client a read time-out of half an hour and an Idempotency-Key: after a lost answer the
    same request waits for the same build.
    """
    work = (body, engine, blobs, settings.dataset_roots, once)
    # At a stop of the server the thread is left alone: all it could leave is a blob without a row.
    return await to_thread.run_sync(_build, *work, abandon_on_cancel=True, limiter=builder)


def _build(
    body: PackageIn, engine: Engine, blobs: BlobStore, roots: tuple[str, ...], once: Once
) -> Response:
    with reading(engine) as session:
        order = _order(session, body)
        gate, golden = _gate(session, body, roots), _samples(session, body, roots)
    with one_build:
        with reading(engine) as session:
            known = once.known(session)
        if known is not None:
            return known
        built = build(engine, blobs, order, gate, golden)
        with writing(engine) as session:
            return once.answer(session, lambda: describe_package(publish(session, built)))


def _order(session: Session, body: PackageIn) -> Order:
    model = find_model(session, body.model)
    method = methods.get(body.method.id)
    options = methods.options(method, body.method.options).model_dump()
    if method.needs_base and body.base is None:
        raise BadMethod("not_applicable", f"{method.id} needs a base to start from")
    base = find_version(session, model, body.base) if method.needs_base and body.base else None
    target = find_version(session, model, body.target)
    return Order(target.id, base.id if base else None, method.id, options)


def _gate(session: Session, body: PackageIn, roots: tuple[str, ...]) -> Gate | None:
    if body.dataset is None:
        return None
    if isinstance(methods.get(body.method.id), Lossless):
        told = f"{body.method.id} leads to the target itself: there is nothing to measure"
        raise BadMethod("not_applicable", told)
    found = find_dataset(session, body.dataset)
    asked = body.max_accuracy_drop, body.min_accuracy
    return Gate(found.name, address_of(found, roots), found.fingerprint, *asked)


def _samples(session: Session, body: PackageIn, roots: tuple[str, ...]) -> Samples | None:
    if body.golden is None:
        return None
    if body.golden.dataset is None:
        return Samples(body.golden.count, tuple(body.golden.shape or ()))
    found = find_dataset(session, body.golden.dataset)
    address = address_of(found, roots)
    return Samples(body.golden.count, uri=address, fingerprint=found.fingerprint)


@router.get("", summary="List packages", responses=answers("model.not_found"))
def get_packages(
    engine: EngineDep,
    part: SliceDep,
    model: Annotated[str | None, Query(description="Only those of this model.")] = None,
) -> Page[PackageOut]:
    """Packages, newest first."""
    query = select(Package)
    with reading(engine) as session:
        if model is not None:
            query = query.where(Package.model_id == find_model(session, model).id)
        rows, after = page_of(session, query, Package.id, part, descending=True)
        return Page(items=[describe_package(row) for row in rows], next=after)


@router.get("/{id}", summary="Show a package", responses=answers("update.not_found"))
def get_package(id: IdPath, engine: EngineDep) -> PackageOut:  # noqa: A002 - the API's word
    """One package, with how it was measured."""
    with reading(engine) as session:
        return describe_package(_find(session, id))


@router.get(
    "/{id}/content",
    summary="Download a package",
    response_class=Response,
    responses=DOCUMENTED
    | answers("update.not_found", "update.removed", "request.bad_range", "blob.missing"),
)
def get_content(
    id: IdPath,  # noqa: A002 - the API's word
    request: Request,
    engine: EngineDep,
    blobs: BlobsDep,
) -> Response:
    """The file that devices get; with Range and If-Range."""
    with reading(engine) as session:
        row = _find(session, id)
        if row.state == "removed":
            raise BadUpdate("removed", f"package {id} was not needed any more, and is removed")
        name = f"{row.model.name}-{row.target_version.number}-{row.method}.weft"
    logs.sends_package(row.method)
    return blob_response(request, blobs, row.sha256, name)


def _find(session: Session, package_id: int) -> Package:
    row = session.get(Package, package_id)
    if row is None:
        raise BadUpdate("not_found", f"there is no package {package_id}")
    return row
