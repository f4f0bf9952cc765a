"""Routes of the device plane, /device/v1: see `shared/wire.py` for what is said on it.

That of polls stands alone, in `polls.py`.
"""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import APIRouter, Body, Depends, Path, Request, Response
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from server import logs
from server.api.context import BlobsDep, EngineDep, SettingsDep, TrustDep
from server.api.files import DOCUMENTED, blob_response
from server.api.problems import answers
from server.db import reading, writing
from server.devices.enrolment import enrol
from server.devices.examples import ENROLMENT, RENEWAL, REPORT
from server.devices.identity import AcceptedDeviceId, DeviceId
from server.devices.own_tokens import Issuer, renew
from server.devices.presence import Presence
from server.devices.reports import take_report
from server.devices.signatures import SignatureDep
from server.errors import BadDevice
from server.tables import DeviceModel, Model, Package, Version
from shared import wire

router = APIRouter(tags=["device plane"])


class Empty(BaseModel):
    """Nothing to say."""


async def _presence(request: Request) -> Presence:
    return cast("Presence", request.app.state.presence)


async def _raw_body(request: Request) -> bytes:
    return await request.body()


PresenceDep = Annotated[Presence, Depends(_presence)]
RawBody = Annotated[bytes, Depends(_raw_body)]


#: Why a signature is refused.
SIGNATURE_REFUSALS = ("device.unsigned", "device.bad_signature", "device.key_unknown")


@router.post(
    wire.ENROL_PATH,
    summary="Enrol a device",
    status_code=201,
    responses=answers(
        *("device.enrolment_closed", "device.bad_enrolment_token"),
        *(f"device.enrolment_token_{end}" for end in ("expired", "used", "revoked")),
        *SIGNATURE_REFUSALS,
        *("device.key_taken", "device.key_retired", "device.decommissioned"),
        *("device.model_not_allowed", "request.invalid"),
    ),
)
def post_enrol(
    body: Annotated[wire.Enrolment, Body(openapi_examples=ENROLMENT)],
    raw: RawBody,
    signature: SignatureDep,
    engine: EngineDep,
    settings: SettingsDep,
    trust: TrustDep,
    presence: PresenceDep,
) -> wire.Enrolled:
    """Make a device known by its key, which signs the body; its token is shown this once.

    A key that is known is the same device: it gets another token.
    """
    with writing(engine) as session:
        enrolled = enrol(session, settings, presence, body, raw, signature)
        roots = [content.decode() for content in trust.roots(session)]
    return enrolled.model_copy(update={"roots": roots})


@router.post(
    wire.TOKEN_PATH,
    summary="Renew a device's token",
    responses=answers(
        "device.unauthorized",
        *SIGNATURE_REFUSALS,
        *("device.counter_reused", "device.cloned", "device.decommissioned", "request.invalid"),
    ),
)
def post_token(
    body: Annotated[wire.Renewal, Body(openapi_examples=RENEWAL)],
    raw: RawBody,
    signature: SignatureDep,
    engine: EngineDep,
    settings: SettingsDep,
    presence: PresenceDep,
) -> wire.Renewed:
    """Give the device another token, by the signature of its key alone; the last one ends."""
    with writing(engine) as session:
        answer = renew(session, Issuer(settings), presence, body, raw, signature)
    if isinstance(answer, BadDevice):
        raise answer
    return answer


@router.get(
    f"{wire.PACKAGES_PATH}/{{sha256}}",
    summary="Download a package",
    response_class=Response,
    responses=DOCUMENTED
    | answers(
        "device.unauthorized",
        "device.not_accepted",
        "device.cloned",
        "device.package_not_found",
        "request.bad_range",
    ),
)
def get_package(
    sha256: Annotated[str, Path(description="SHA-256 of the package, in hex.")],
    device_id: AcceptedDeviceId,
    request: Request,
    engine: EngineDep,
    blobs: BlobsDep,
) -> Response:
    """The bytes of a published package of a model that the device runs."""
    with reading(engine) as session:
        package = _package_of(session, device_id, sha256)
    logs.sends_package(package.method)
    return blob_response(request, blobs, package.sha256, None)


def _package_of(session: Session, device_id: str, sha256: str) -> Package:
    query = (
        select(Package)
        .join(Model, Package.model_id == Model.id)
        .join(Version, Package.target_version_id == Version.id)
        .join(DeviceModel, DeviceModel.model_name == Model.name)
        .where(
            Package.sha256 == sha256,
            Package.state == "published",
            Version.withdrawn_at.is_(None),  # a device may have been told of it before
            DeviceModel.device_id == device_id,
        )
    )
    package = session.scalar(query)
    if package is None:
        raise BadDevice("package_not_found", f"no package {sha256[:64]!r} for this device")
    return package


@router.post(
    wire.REPORTS_PATH,
    summary="Report how an update ended",
    responses=answers(
        "device.unauthorized",
        *SIGNATURE_REFUSALS,
        "device.not_accepted",
        "device.cloned",
        "device.counter_reused",
        "device.model_not_allowed",
        "device.unknown_assignment",
        "request.invalid",
    ),
)
def post_report(
    body: Annotated[wire.Report, Body(openapi_examples=REPORT)],
    raw: RawBody,
    device_id: DeviceId,
    signature: SignatureDep,
    engine: EngineDep,
    presence: PresenceDep,
) -> Empty:
    """Take a report that the device's key has signed; the same one again gets the same answer."""
    presence.saw(device_id)
    with writing(engine) as session:
        refusal = take_report(session, device_id, raw, body, signature)
    if refusal is not None:
        raise refusal
    return Empty()
