"""Which device sends a request: by its bearer token, of which the server knows the hash only."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from server.auth import Credentials, token_hash
from server.devices.roster import Entry, Roster
from server.devices.standing import require_accepted
from server.errors import BadDevice
from server.logs import acts

device_scheme = HTTPBearer(
    auto_error=False, scheme_name="device token", description="The token given at enrolment."
)


async def identify(request: Request, token: str | None) -> Entry:
    """The device whose token this is. Raises BadDevice `unauthorized`, DatabaseError."""
    if token:
        entry = await cast("Roster", request.app.state.roster).find(token_hash(token))
        if entry is not None:
            acts(entry.device_id)
            return entry
    raise BadDevice("unauthorized", "the token is missing or belongs to no device")


def bearer(request: Request) -> str | None:
    """The token in the request's Authorization header; None where there is none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


async def require_device(
    request: Request, credentials: Annotated[Credentials, Security(device_scheme)]
) -> str:
    """The id of the device that asks. Raises BadDevice `unauthorized`."""
    entry = await identify(request, credentials.credentials if credentials else None)
    return entry.device_id


async def require_accepted_device(
    request: Request, credentials: Annotated[Credentials, Security(device_scheme)]
) -> str:
    """As `require_device`, of those that are offered anything. Raises BadDevice."""
    entry = await identify(request, credentials.credentials if credentials else None)
    require_accepted(entry.standing)
    return entry.device_id


AcceptedDeviceId = Annotated[str, Depends(require_accepted_device)]
DeviceId = Annotated[str, Depends(require_device)]
