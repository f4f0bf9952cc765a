"""Routes of operators' keys: make, list, show, revoke; and who it is that asks."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from sqlalchemy import select

from server.api.context import EngineDep
from server.api.paging import Page, SliceDep, page_of
from server.api.problems import answers
from server.auth.guard import Operator
from server.auth.keys import Wanted, create_key, find_named, revoke_key
from server.auth.roles import Principal
from server.auth.schemas import KeyIn, KeyMadeOut, KeyOut, MeOut, describe_key, describe_me
from server.db import reading, writing
from server.tables import ApiKey

router = APIRouter(prefix="/api/v1/access", tags=["access"], dependencies=[Operator])

KeyPath = Annotated[str, Path(max_length=64, description="Name of the key.")]
Asking = Annotated[Principal, Operator]


@router.get("/me", summary="Show who asks")
def get_me(engine: EngineDep, me: Asking) -> MeOut:
    """Name, role and bounds of the key that this request came with."""
    with reading(engine) as session:
        return describe_me(session, me)


@router.post(
    "/keys",
    summary="Create a key",
    status_code=201,
    responses=answers(
        "access.exists", "access.reserved", "access.not_held", "access.past", "group.not_found"
    ),
)
def post_key(body: KeyIn, engine: EngineDep, me: Asking) -> KeyMadeOut:
    """Make a key for somebody; its text is in this answer, and nowhere else.

    There is no `Idempotency-Key` here, since answers that may come again are kept.
    """
    with writing(engine) as session:
        row, text = create_key(session, Wanted(**body.model_dump()), me.name)
        return KeyMadeOut(**describe_key(session, row).model_dump(), key=text)


@router.get("/keys", summary="List keys", responses=answers("request.bad_cursor"))
def get_keys(engine: EngineDep, part: SliceDep) -> Page[KeyOut]:
    """All keys by name, also those that are revoked: history names them."""
    with reading(engine) as session:
        rows, after = page_of(session, select(ApiKey), ApiKey.name, part)
        return Page(items=[describe_key(session, row) for row in rows], next=after)


@router.get("/keys/{name}", summary="Show a key", responses=answers("access.not_found"))
def get_key(name: KeyPath, engine: EngineDep) -> KeyOut:
    """One key."""
    with reading(engine) as session:
        return describe_key(session, find_named(session, name))


@router.post("/keys/{name}/revoke", summary="Revoke a key", responses=answers("access.not_found"))
def post_revoke(name: KeyPath, engine: EngineDep) -> KeyOut:
    """Have it open nothing from the next request on; it is not asked for anything already begun."""
    with writing(engine) as session:
        return describe_key(session, revoke_key(session, name))
