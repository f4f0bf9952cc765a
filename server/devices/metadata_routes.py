"""Signed metadata, as devices ask for them: see `shared.metadata`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from server.api.context import EngineDep, TrustDep
from server.api.problems import answers
from server.db import reading
from server.devices.identity import AcceptedDeviceId
from server.errors import BadDevice
from server.tables import DeviceModel, Model
from shared import wire
from shared.metadata import CONTENT_TYPE, PACKAGES, ROOT, SNAPSHOT, TARGETS, TIMESTAMP

router = APIRouter(tags=["device plane"])

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {CONTENT_TYPE: {}}, "description": "What is lacking, packed."},
    204: {"description": "Nothing is lacking."},
}
#: Without an upper end: what a thief of keys once signed may have any version, and the device that
#: took it must still be told of the root that ends it.
_Held = Annotated[int | None, Query(ge=1, description="Version held; none: left out.")]


@router.get(
    f"{wire.METADATA_PATH}/{{model}}",
    summary="Fetch signed metadata",
    response_class=Response,
    responses=_ANSWERS
    | answers(
        "device.unauthorized", "device.not_accepted", "device.cloned", "device.model_not_found"
    ),
)
def get_metadata(
    model: Annotated[str, Path(description="Name of a model that the device runs.")],
    device_id: AcceptedDeviceId,
    engine: EngineDep,
    trust: TrustDep,
    root: _Held = None,
    timestamp: _Held = None,
    snapshot: _Held = None,
    targets: _Held = None,
    packages: _Held = None,
) -> Response:
    """The metadata of a model that the device lacks, compressed against those that it holds."""
    told = {
        ROOT: root,
        TIMESTAMP: timestamp,
        SNAPSHOT: snapshot,
        TARGETS: targets,
        PACKAGES: packages,
    }
    held = {role: version for role, version in told.items() if version is not None}
    with reading(engine) as session:
        content = trust.answer(session, _model_of(session, device_id, model), held)
    if content is None:
        return Response(status_code=204)
    return Response(content, media_type=CONTENT_TYPE)


def _model_of(session: Session, device_id: str, name: str) -> Model:
    query = (
        select(Model)
        .join(DeviceModel, DeviceModel.model_name == Model.name)
        .where(Model.name == name, DeviceModel.device_id == device_id)
    )
    model = session.scalar(query)
    if model is None:
        raise BadDevice("model_not_found", f"this device runs no model {name[:64]!r}")
    return model
