"""The token that each device polls with: given at enrolment, hashed at rest, renewed by its key.

The same renewal may come twice, as its answer may be lost: then it gets yet another token, as long
as the one before was not used. Once it was, nobody but a copy of the device asks like that again.
"""

from __future__ import annotations

import random
from datetime import timedelta

from sqlalchemy.orm import Session

from server.auth import new_token, token_hash
from server.devices.presence import Presence
from server.devices.signatures import check_signature
from server.devices.standing import flag_cloned, require_accepted, require_in_service
from server.errors import BadDevice
from server.history.events import record
from server.settings import Settings
from server.tables import Device, now
from shared.wire import Renewal, Renewed

#: Share of their time after which the first tokens end that were given together: a fleet that
#: was enrolled in an hour must not ask for new ones in another.
SHORTEST = 0.9


class Issuer:
    """Gives tokens to devices."""

    def __init__(self, settings: Settings) -> None:
        self._days = settings.device_token_days

    def issue(self, device: Device) -> str:
        """A new token; the one before is worth nothing from now on."""
        token = new_token()
        device.token_hash, device.token_issued_at = token_hash(token), now()
        days = self._days * random.uniform(SHORTEST, 1.0)  # noqa: S311 - no secret
        device.token_expires_at = device.token_issued_at + timedelta(days=days) if days else None
        return token


def renew(
    session: Session,
    issuer: Issuer,
    presence: Presence,
    renewal: Renewal,
    body: bytes,
    signature: str | None,
) -> Renewed | BadDevice:
    """Another token for the device whose key has signed the request.

    Returned, not raised: a refusal that is to be told once what was noted of it is stored. Raises
    BadDevice for all others.
    """
    device = session.get(Device, renewal.device_id, with_for_update=True)
    if device is None:
        raise BadDevice("unauthorized", "there is no such device")
    check_signature(device.public_key, "token", device.id, body, signature)
    require_in_service(device)
    if device.standing == "cloned":
        require_accepted(device.standing)
    if _is_stale(device, renewal.counter, presence):
        told = {"renewal": renewal.counter, "last_renewal": device.renewal_counter}
        flag_cloned(session, device, told)
        text = f"renewal {renewal.counter} comes after {device.renewal_counter}"
        return BadDevice("counter_reused", text)
    if renewal.counter > device.renewal_counter:
        record(session, "device.token_renewed", {"renewal": renewal.counter}, device_id=device.id)
    device.renewal_counter = renewal.counter
    return Renewed(token=issuer.issue(device))


def _is_stale(device: Device, counter: int, presence: Presence) -> bool:
    """Whether the device itself would not send this counter any more."""
    if counter != device.renewal_counter:
        return counter < device.renewal_counter
    return has_come(device, presence)


def has_come(device: Device, presence: Presence) -> bool:
    """Whether its token was used since it was given: the answer that brought it was not lost."""
    seen, given = presence.last_seen(device.id, device.last_seen_at), device.token_issued_at
    return seen is None or given is None or seen > given
