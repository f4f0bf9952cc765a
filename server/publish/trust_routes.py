"""/trust and what is released of each model: what ceremonies ask for, and what they publish."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from server.api.context import EngineDep, TrustDep, WithdrawnDep
from server.api.paging import Page
from server.api.problems import answers
from server.db import reading, writing
from server.publish.trust_schemas import (
    DocumentOut,
    PublicationIn,
    RootOut,
    SigningKeyOut,
    TargetsOut,
    TrustOut,
)
from server.registry.models import find_model
from server.registry.routes import ModelPath, NumberPath
from server.registry.schemas import VersionOut
from server.registry.versions import describe_version, find_version, require_not_withdrawn
from server.trust.expiry import Expiry, expiries
from server.trust.repository import Trust
from server.trust.standing import signing_keys, targets_of

router = APIRouter(prefix="/api/v1", tags=["trust"])

REFUSALS = (
    "repository.malformed",
    "repository.outdated",
    "repository.bad_signature",
    "repository.other_model",
    "repository.expired",
    "repository.unknown_version",
    "repository.bad_delegation",
    "repository.targets_missing",
    "repository.key_missing",
    "repository.signing_failed",
    "version.not_found",
)


@router.get("/trust", summary="Show who signs what")
def get_trust(engine: EngineDep, trust: TrustDep) -> TrustOut:
    """The keys of each role, where they lie, and until when each signed document holds."""
    with reading(engine) as session:
        return _describe(session, trust)


@router.get("/trust/roots", summary="List the roots")
def get_roots(engine: EngineDep, trust: TrustDep) -> Page[RootOut]:
    """All root metadata from version 1 on: whoever trusts one verifies those that follow."""
    with reading(engine) as session:
        contents = enumerate(trust.roots(session), start=1)
        return Page(items=[RootOut(version=n, content=c.decode()) for n, c in contents], next=None)


@router.post(
    "/trust/publications",
    summary="Publish what was signed elsewhere",
    responses=answers(*REFUSALS, "model.not_found"),
)
def post_publication(body: PublicationIn, engine: EngineDep, trust: TrustDep) -> TrustOut:
    """Take a root and lists of released versions, all of them or none.

    They must follow those in use, and be signed by as many keys as the roots ask for. What names
    them is signed anew by the server's own keys.
    """
    with writing(engine) as session:
        targets = {name: content.encode() for name, content in body.targets.items()}
        if body.root is not None:
            trust.accept_root(session, body.root.encode(), targets)
        else:
            for name, content in targets.items():
                trust.accept_targets(session, find_model(session, name), content)
        return _describe(session, trust)


@router.get(
    "/models/{model}/targets",
    summary="Show what is released",
    responses=answers(
        "model.not_found", "version.not_found", "version.withdrawn", "repository.key_missing"
    ),
)
def get_targets(
    model: ModelPath,
    engine: EngineDep,
    trust: TrustDep,
    add: Annotated[
        int | None, Query(ge=1, lt=1 << 31, description="Draft the next one with this version.")
    ] = None,
) -> TargetsOut:
    """The signed list of the model's released versions, and with `add` a draft of the next one."""
    with reading(engine) as session:
        row = find_model(session, model)
        content, draft = targets_of(session, row), None
        if add is not None:
            version = find_version(session, row, add)
            require_not_withdrawn(version)
            draft = trust.draft_targets(session, row, [version])
        return TargetsOut(content=_text(content), draft=_text(draft))


@router.post(
    "/models/{model}/versions/{number}/release",
    summary="Release a version",
    responses=answers(
        "model.not_found",
        "version.not_found",
        "version.withdrawn",
        "repository.release_key_offline",
        "repository.key_missing",
        "repository.signing_failed",
    ),
)
def post_release(
    model: ModelPath, number: NumberPath, engine: EngineDep, trust: TrustDep
) -> VersionOut:
    """Sign a version, where the release key lies on the server; devices may install it then."""
    with writing(engine) as session:
        row = find_model(session, model)
        version = find_version(session, row, number)
        trust.release(session, version)
        session.flush()
        return describe_version(session, version, row)


@router.post(
    "/models/{model}/versions/{number}/withdraw",
    summary="Withdraw a version",
    responses=answers(
        "model.not_found",
        "version.not_found",
        "repository.release_key_offline",
        "repository.key_missing",
        "repository.signing_failed",
    ),
)
def post_withdrawal(
    model: ModelPath,
    number: NumberPath,
    engine: EngineDep,
    trust: TrustDep,
    withdrawn: WithdrawnDep,
) -> VersionOut:
    """Take a version back for ever: it is not offered any more. Devices that run it go on.

    Rollouts to it are aborted, and so is what they have under way.

    Where the release key lies elsewhere, the list of released versions must be signed without it
    too: until then devices that hold the weights in a slot could switch to them.
    """
    with writing(engine) as session:
        row = find_model(session, model)
        version = find_version(session, row, number)
        trust.withdraw(session, version)
        withdrawn(session, version)
        session.flush()
        return describe_version(session, version, row)


def _describe(session: Session, trust: Trust) -> TrustOut:
    root = trust.root(session)
    return TrustOut(
        root_version=root.version,
        root_sha256=trust.root_sha256(session),
        can_release=trust.can_release(session),
        keys=[SigningKeyOut(**asdict(k)) for k in signing_keys(session, trust)],
        documents=[_document(d) for d in expiries(session)],
    )


def _document(expiry: Expiry) -> DocumentOut:
    return DocumentOut(
        model=expiry.model, role=expiry.role, version=expiry.version, expires_at=expiry.expires_at
    )


def _text(content: bytes | None) -> str | None:
    return None if content is None else content.decode()
