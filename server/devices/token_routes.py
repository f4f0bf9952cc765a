"""Routes of enrolment tokens under /api/v1/enrolment_tokens."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path
from sqlalchemy import select

from server.api.context import EngineDep, TrustDep
from server.api.paging import Page, SliceDep, page_of
from server.api.problems import answers
from server.auth import Operator
from server.db import reading, writing
from server.devices.token_schemas import TokenIn, TokenMadeOut, TokenOut, bounds_of
from server.devices.tokens import create_token, find_token, revoke_token
from server.tables import EnrolmentToken, now
from shared.wire import pinned

router = APIRouter(prefix="/api/v1/enrolment_tokens", tags=["enrolment"], dependencies=[Operator])

TokenPath = Annotated[int, Path(ge=1, lt=1 << 31, description="Id of the token.")]


@router.post("", summary="Make an enrolment token", status_code=201)
def post_token(body: TokenIn, engine: EngineDep, trust: TrustDep) -> TokenMadeOut:
    """Make a token by which devices enrol; this answer alone shows it.

    No `Idempotency-Key` is taken, as no answer with a secret is kept. A token whose answer was lost
    is known to nobody.
    """
    seconds = body.expires_in_seconds
    token = EnrolmentToken(
        name=body.name,
        accept=body.accept,
        tags=sorted(body.tags),
        models=bounds_of(body.models),
        max_uses=body.max_uses,
        expires_at=now() + timedelta(seconds=seconds) if seconds else None,
    )
    with writing(engine) as session:
        secret = create_token(session, token)
        shown = pinned(secret, trust.root_sha256(session))
        return TokenMadeOut(**TokenOut.model_validate(token).model_dump(), token=shown)


@router.get("", summary="List enrolment tokens", responses=answers("request.bad_cursor"))
def get_tokens(engine: EngineDep, part: SliceDep) -> Page[TokenOut]:
    """All tokens that were made, the newest first; that of WEFT_ENROLMENT_TOKEN is none of them."""
    with reading(engine) as session:
        query = select(EnrolmentToken)
        rows, after = page_of(session, query, EnrolmentToken.id, part, descending=True)
        return Page(items=[TokenOut.model_validate(row) for row in rows], next=after)


@router.get(
    "/{token_id}", summary="Show an enrolment token", responses=answers("device.token_not_found")
)
def get_token(token_id: TokenPath, engine: EngineDep) -> TokenOut:
    """One token: how often it was used, and until when it is good."""
    with reading(engine) as session:
        return TokenOut.model_validate(find_token(session, token_id))


@router.post(
    "/{token_id}/revoke",
    summary="Revoke an enrolment token",
    responses=answers("device.token_not_found"),
)
def post_revoke(token_id: TokenPath, engine: EngineDep) -> TokenOut:
    """Let no more devices enrol by it; those that have stay."""
    with writing(engine) as session:
        token = find_token(session, token_id)
        revoke_token(session, token)
        session.flush()
        return TokenOut.model_validate(token)
