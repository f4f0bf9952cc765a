"""Enrolment tokens: made by operators, handed to devices, worth nothing once they have ended.

The token of the setting WEFT_ENROLMENT_TOKEN is one more: for any number of devices, until the
setting is another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.auth import new_token, same_secret, token_hash
from server.errors import BadDevice
from server.history.events import record
from server.settings import Settings
from server.tables import EnrolmentToken, now

#: What history calls the token of the setting.
DECLARED = "WEFT_ENROLMENT_TOKEN"


@dataclass(frozen=True)
class Grant:
    """What a device gets by a token. `token` None: that of the setting."""

    token: EnrolmentToken | None
    accepts: bool
    """Whether the device is accepted at once."""
    models: Sequence[str] | None
    """The models that a new device may claim; None: any."""

    @property
    def token_id(self) -> int | None:
        """Noted on the device that came by it."""
        return self.token.id if self.token else None

    @property
    def device_id(self) -> str | None:
        """The one device that it is for."""
        return self.token.device_id if self.token else None

    @property
    def tags(self) -> Sequence[str]:
        """For the device."""
        return self.token.tags if self.token else ()

    @property
    def name(self) -> str:
        """What history calls it."""
        return self.token.name if self.token else DECLARED

    def use(self, at: datetime) -> None:
        """Count one use. Raises BadDevice where the token has ended."""
        token = self.token
        if token is None:
            return
        if token.revoked_at is not None:
            raise BadDevice("enrolment_token_revoked", "the enrolment token was revoked")
        if token.expires_at is not None and token.expires_at <= at:
            raise BadDevice("enrolment_token_expired", "the enrolment token has expired")
        if token.max_uses is not None and token.uses >= token.max_uses:
            raise BadDevice("enrolment_token_used", "the enrolment token has been used")
        token.uses += 1
        token.last_used_at = at


def find_grant(session: Session, settings: Settings, secret: str) -> Grant:
    """What this secret is worth, if it has not ended; its row is locked until the end.

    Raises BadDevice `enrolment_closed`, `bad_enrolment_token`.
    """
    declared = settings.enrolment_token
    if declared is not None and same_secret(secret, declared.get_secret_value()):
        accepts = settings.enrolment_accept == "automatic"
        return Grant(None, accepts, settings.enrolment_models or None)
    query = select(EnrolmentToken).where(EnrolmentToken.secret_hash == token_hash(secret))
    token = session.scalar(query.with_for_update())
    if token is not None:
        return Grant(token, token.accept == "automatic", token.models)
    if declared is None and session.scalar(select(EnrolmentToken.id).limit(1)) is None:
        raise BadDevice("enrolment_closed", "this server has no enrolment token")
    raise BadDevice("bad_enrolment_token", "the enrolment token is not this server's")


def create_token(session: Session, token: EnrolmentToken) -> str:
    """Add a token; its secret, which nobody can read again."""
    secret = new_token()
    token.secret_hash = token_hash(secret)
    session.add(token)
    session.flush()
    told = {
        "token": token.id,
        "name": token.name,
        "accept": token.accept,
        "models": token.models,
        "max_uses": token.max_uses,
        "expires_at": token.expires_at.isoformat() if token.expires_at else None,
    }
    record(session, "token.created", told, device_id=token.device_id)
    return secret


def find_token(session: Session, token_id: int) -> EnrolmentToken:
    """The token of that id. Raises BadDevice `token_not_found`."""
    token = session.get(EnrolmentToken, token_id)
    if token is None:
        raise BadDevice("token_not_found", f"there is no enrolment token {token_id}")
    return token


def revoke_token(session: Session, token: EnrolmentToken) -> None:
    """Make it worth nothing; devices that came by it stay. Again: nothing happens."""
    if token.revoked_at is None:
        token.revoked_at = now()
        told = {"token": token.id, "name": token.name}
        record(session, "token.revoked", told, device_id=token.device_id)


def revoke_tokens_of(session: Session, device_id: str) -> None:
    """Revoke all tokens that were made for one device."""
    mine = (EnrolmentToken.device_id == device_id) & EnrolmentToken.revoked_at.is_(None)
    for token in session.scalars(select(EnrolmentToken).where(mine)):
        revoke_token(session, token)
