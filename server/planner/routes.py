"""Route of bundles under /api/v1."""

from __future__ import annotations

from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from server.api.context import BlobsDep, EngineDep, TrustDep
from server.api.files import MEDIA_TYPE
from server.api.problems import answers
from server.auth import Operator
from server.planner.bundles import Order, make_bundle
from server.publish.package_routes import BuilderDep
from server.publish.release import ReleaseDep
from shared.bundle import MAX_WAYS, VALID_DAYS, size_of, written
from shared.wire import MAX_CHAIN, ModelName

router = APIRouter(prefix="/api/v1", dependencies=[Operator])

Number = Annotated[int, Field(ge=1, lt=1 << 31)]

DOCUMENTED: dict[int | str, dict[str, Any]] = {
    200: {"description": "The bundle, a tar file.", "content": {MEDIA_TYPE: {}}}
}


class BundleIn(BaseModel):
    """A bundle to make. Without `bases` it has a way from nothing, as with `full`."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"model": "digits", "version": 3, "bases": [1, 2]}]},
    )

    model: ModelName
    version: Number = Field(description="Number of the version to lead to.")
    bases: list[Number] = Field(
        default_factory=list,
        max_length=MAX_WAYS - 1,
        description="Numbers of the versions that devices may hold.",
    )
    full: bool = Field(False, description="Also a way for devices that hold none of these.")
    chain: int = Field(MAX_CHAIN, ge=1, le=MAX_CHAIN, description="Most packages of one way.")
    valid_days: int = Field(
        VALID_DAYS, ge=1, le=3650, description="Days for which devices accept it."
    )


@router.post(
    "/bundles",
    tags=["packages"],
    summary="Export a bundle",
    response_class=Response,
    responses=DOCUMENTED
    | answers(
        "model.not_found",
        "version.not_found",
        "version.removed",
        "version.not_released",
        "version.withdrawn",
        "update.no_way",
        "repository.ends_sooner",
        "blob.missing",
    ),
)
async def post_bundle(
    body: BundleIn,
    engine: EngineDep,
    blobs: BlobsDep,
    builder: BuilderDep,
    trust: TrustDep,
    release: ReleaseDep,
) -> Response:
    """One file with what leads to a version, for `edge-agent apply-bundle`.

    The cheapest published packages from each base; where there are none, a lossless one is built
    first, which may take minutes. The signed metadata in it are made anew each time. The version
    must be released; where the release key lies on the server, it is released by this.
    """
    order = Order(
        body.model,
        body.version,
        body.bases,
        body.full or not body.bases,
        body.chain,
        body.valid_days,
    )
    made = await to_thread.run_sync(
        make_bundle, engine, blobs, order, trust, release, abandon_on_cancel=True, limiter=builder
    )
    bundle = made.bundle
    for offer in bundle.offers:
        blobs.size(offer.sha256)  # raises before the answer has begun
    name = f"{bundle.model}-{bundle.version}.weft-bundle"
    return StreamingResponse(
        written(bundle, made.metadata, lambda offer: blobs.chunks(offer.sha256, 0, offer.size)),
        headers={
            "Content-Length": str(size_of(bundle)),
            "Content-Disposition": f'attachment; filename="{name}"',
        },
        media_type=MEDIA_TYPE,
    )
