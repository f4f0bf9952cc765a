"""Receives a version: a stream of any size, to disk, checked, kept, numbered.

1. refuse what can be refused by the request's head: unknown model, type, declared size, no space
2. stream the body into an unfinished blob, never more than one piece in memory
3. read it as safetensors: schema, values, weights digest
4. keep the blob: from now on it survives a power cut
5. number the version, in one transaction with its event and the idempotency key

A failure before 4 leaves nothing behind; after 4 at most a blob that no row names.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from sqlalchemy import Engine
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from server.api.files import MEDIA_TYPE
from server.api.idempotency import Once
from server.db import reading, writing
from server.errors import BadRequest
from server.registry.models import find_model, learnable_of, schema_with
from server.registry.schemas import VersionOut
from server.registry.versions import add_version, check_schema, describe_version, find_version
from server.registry.weights import Checked, as_json, check
from server.storage.base import BlobStore, Incoming, Kept
from server.tables import Model
from shared.errors import BadWeights

PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Upload:
    """What a request wants to upload: to which model, and how it stands to other versions.

    `arguments` of the architecture, and `new_schema`, announce that the weights differ from the
    model's newest version: by those arguments; in dtypes, or in anything without an architecture.
    """

    model: str
    new_schema: bool = False
    arguments: dict[str, Any] | None = None
    parent: int | None = None
    max_bytes: int = 0
    modules: tuple[str, ...] = ()

    @property
    def announces(self) -> bool:
        """Whether the weights may differ from the model's schema."""
        return self.new_schema or self.arguments is not None


def parse_arguments(text: str | None) -> dict[str, Any] | None:
    """The query's JSON object. Raises BadRequest `invalid`."""
    if text is None:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest("invalid", f"arguments: {error}") from error
    if not isinstance(found, dict):
        raise BadRequest("invalid", "arguments: not a JSON object")
    return found


async def receive_version(
    request: Request, upload: Upload, engine: Engine, blobs: BlobStore, once: Once
) -> Response:
    """Run the steps above and answer with the version."""
    expected = _declared(request, upload.max_bytes)  # 1
    await run_in_threadpool(_look_up, engine, upload)
    with blobs.receive(expected) as incoming:
        await _stream(request, incoming, upload.max_bytes)  # 2
        return await run_in_threadpool(_store, engine, upload, incoming, once)


def _declared(request: Request, max_bytes: int) -> int:
    if request.headers.get("content-type", "").partition(";")[0].strip() != MEDIA_TYPE:
        raise BadRequest("wrong_type", f"weights come as {MEDIA_TYPE}")
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal():
        raise BadRequest("invalid", "Content-Length is not a number")
    if int(declared) > max_bytes:
        raise BadRequest("too_large", f"the weights have {declared} bytes, above {max_bytes}")
    return int(declared)


def _look_up(engine: Engine, upload: Upload) -> Model:
    with reading(engine) as session:
        model = find_model(session, upload.model)
        if upload.arguments is not None and model.architecture is None:
            raise BadRequest("invalid", f"arguments: {model.name} has no architecture")
        if upload.parent is not None:
            find_version(session, model, upload.parent)
        return model


async def _stream(request: Request, incoming: Incoming, max_bytes: int) -> None:
    piece = bytearray()
    try:
        async for data in request.stream():
            piece += data
            if incoming.size + len(piece) > max_bytes:
                raise BadRequest("too_large", f"the weights have more than {max_bytes} bytes")
            if len(piece) >= PIECE_BYTES:
                await run_in_threadpool(incoming.write, bytes(piece))
                piece.clear()
    except ClientDisconnect as error:
        raise BadRequest("incomplete", "the upload was cut off") from error
    await run_in_threadpool(incoming.write, bytes(piece))


def _store(engine: Engine, upload: Upload, incoming: Incoming, once: Once) -> Response:
    incoming.finish()
    model = _look_up(engine, upload)
    arguments = _arguments(model, upload)
    checked = _check(model, arguments, upload, incoming)  # 3
    kept = incoming.keep()  # 4
    once = once.with_body(kept.sha256)
    return _number(engine, upload, arguments, checked, kept, once)  # 5


def _arguments(model: Model, upload: Upload) -> dict[str, Any] | None:
    """Those of the architecture that the weights must fit."""
    return None if model.architecture is None else {**model.arguments, **(upload.arguments or {})}


def _check(
    model: Model, arguments: dict[str, Any] | None, upload: Upload, incoming: Incoming
) -> Checked:
    wanted = model.schema
    if upload.announces:
        schema = schema_with(model, arguments, upload.modules)
        wanted = None if schema is None else as_json(schema)
    learnable = learnable_of(model, arguments, upload.modules)
    checked = _read(incoming, learnable, model.buffers)
    check_schema(wanted, checked, any_dtype=upload.new_schema)
    return checked


def _read(
    incoming: Incoming, learnable: Collection[str] | None, buffers: Collection[str]
) -> Checked:
    try:
        return check(incoming.path, learnable, buffers)
    except BadWeights as error:  # whoever sent it knows no path of ours
        message = error.message.replace(str(incoming.path), "the upload")
        raise BadWeights(error.code.rpartition(".")[2], message) from error


def _number(
    engine: Engine,
    upload: Upload,
    arguments: dict[str, Any] | None,
    checked: Checked,
    kept: Kept,
    once: Once,
) -> Response:
    with writing(engine) as session:
        model = find_model(session, upload.model)

        def create() -> VersionOut:
            if not upload.announces:  # another upload may have set the model's schema meanwhile
                check_schema(model.schema, checked)
            parent = find_version(session, model, upload.parent) if upload.parent else None
            version = add_version(session, model, checked, kept, arguments, "uploaded", parent)
            return describe_version(session, version, model)

        return once.answer(session, create)
