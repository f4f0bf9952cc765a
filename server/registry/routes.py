"""Routes of models, versions and datasets under /api/v1."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from sqlalchemy import select

from server.api.context import BlobsDep, EngineDep, SettingsDep, UploadedDep
from server.api.files import DOCUMENTED, MEDIA_TYPE, blob_response
from server.api.idempotency import OnceDep, StreamedOnceDep
from server.api.paging import Page, SliceDep, page_of
from server.api.problems import answers
from server.auth import Operator
from server.db import reading, writing
from server.registry.datasets import add_dataset, describe_dataset, find_dataset, look_at
from server.registry.models import create_model, describe_model, find_model, schema_known
from server.registry.schemas import DatasetIn, DatasetOut, ModelIn, ModelOut, VersionOut
from server.registry.upload import Upload, parse_arguments, receive_version
from server.registry.versions import describe_version, find_version, require_weights
from server.tables import Dataset, Model, Version

router = APIRouter(prefix="/api/v1", dependencies=[Operator])

ModelPath = Annotated[str, Path(description="Name of the model.", examples=["digits"])]
NumberPath = Annotated[int, Path(ge=1, lt=1 << 31, description="Number of the version.")]

WEIGHTS_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A safetensors file.",
        "content": {
            MEDIA_TYPE: {
                "schema": {"type": "string", "format": "binary"},
                "example": "the bytes of model.safetensors",
            }
        },
    }
}


@router.post(
    "/models",
    tags=["models"],
    summary="Create a model",
    status_code=201,
    response_model=ModelOut,
    responses=answers("model.exists", "model.unknown_architecture", "request.key_reused"),
)
def post_model(body: ModelIn, engine: EngineDep, settings: SettingsDep, once: OnceDep) -> Response:
    """Create a model. Without an architecture its first version defines the schema."""
    schema = schema_known(body, settings.model_modules)
    with writing(engine) as session:
        return once.answer(session, lambda: describe_model(create_model(session, body, schema)))


@router.get(
    "/models", tags=["models"], summary="List models", responses=answers("request.bad_cursor")
)
def get_models(engine: EngineDep, part: SliceDep) -> Page[ModelOut]:
    """All models, oldest first."""
    with reading(engine) as session:
        rows, after = page_of(session, select(Model), Model.id, part)
        return Page(items=[describe_model(row) for row in rows], next=after)


@router.get(
    "/models/{model}",
    tags=["models"],
    summary="Show a model",
    responses=answers("model.not_found"),
)
def get_model(model: ModelPath, engine: EngineDep) -> ModelOut:
    """One model, with its schema."""
    with reading(engine) as session:
        return describe_model(find_model(session, model))


@router.post(
    "/models/{model}/versions",
    tags=["versions"],
    summary="Upload a version",
    status_code=201,
    response_model=VersionOut,
    openapi_extra=WEIGHTS_BODY,
    responses=answers(
        "model.not_found",
        "model.unknown_architecture",
        "version.exists",
        "version.not_found",
        "weights.malformed",
        "weights.not_finite",
        "weights.bad_variance",
        "weights.schema_mismatch",
        "request.too_large",
        "request.wrong_type",
        "request.incomplete",
        "request.key_reused",
        "storage.no_space",
    ),
)
async def post_version(
    model: ModelPath,
    request: Request,
    engine: EngineDep,
    blobs: BlobsDep,
    settings: SettingsDep,
    once: StreamedOnceDep,
    uploaded: UploadedDep,
    new_schema: Annotated[
        bool,
        Query(
            description="Accept tensors that differ from the model's schema; with an architecture "
            "only in their dtypes."
        ),
    ] = False,
    arguments: Annotated[
        str | None,
        Query(
            description="Where the weights have other arguments of the architecture than the "
            "model's newest version, those that differ, as a JSON object.",
            examples=['{"classes": 10}'],
        ),
    ] = None,
    parent: Annotated[
        int | None, Query(ge=1, lt=1 << 31, description="Number of the version it was made from.")
    ] = None,
) -> Response:
    """Upload weights as a safetensors file, streamed; checked before they count.

    A version with a parent gets a lossless package from it, made in the background.
    """
    limits = settings.max_upload_bytes, settings.model_modules
    upload = Upload(model, new_schema, parse_arguments(arguments), parent, *limits)
    answer = await receive_version(request, upload, engine, blobs, once)
    uploaded()
    return answer


@router.get(
    "/models/{model}/versions",
    tags=["versions"],
    summary="List versions",
    responses=answers("model.not_found", "request.bad_cursor"),
)
def get_versions(model: ModelPath, engine: EngineDep, part: SliceDep) -> Page[VersionOut]:
    """All versions of a model, newest first."""
    with reading(engine) as session:
        row = find_model(session, model)
        query = select(Version).where(Version.model_id == row.id)
        rows, after = page_of(session, query, Version.number, part, descending=True)
        return Page(items=[describe_version(session, v, row) for v in rows], next=after)


@router.get(
    "/models/{model}/versions/{number}",
    tags=["versions"],
    summary="Show a version",
    responses=answers("model.not_found", "version.not_found"),
)
def get_version(model: ModelPath, number: NumberPath, engine: EngineDep) -> VersionOut:
    """One version of a model."""
    with reading(engine) as session:
        row = find_model(session, model)
        return describe_version(session, find_version(session, row, number), row)


@router.get(
    "/models/{model}/versions/{number}/weights",
    tags=["versions"],
    summary="Download a version's weights",
    response_class=Response,
    responses=DOCUMENTED
    | answers("model.not_found", "version.not_found", "version.removed", "request.bad_range"),
)
def get_weights(
    model: ModelPath, number: NumberPath, request: Request, engine: EngineDep, blobs: BlobsDep
) -> Response:
    """The weights as a safetensors file; Range and If-Range work."""
    with reading(engine) as session:
        version = find_version(session, find_model(session, model), number)
        require_weights(version)
    return blob_response(request, blobs, version.blob, f"{model}-{number}.safetensors")


@router.post(
    "/datasets",
    tags=["datasets"],
    summary="Register a dataset",
    status_code=201,
    response_model=DatasetOut,
    responses=answers(
        "dataset.exists",
        "dataset.not_allowed",
        "dataset.not_found",
        "dataset.unreadable",
        "dataset.bad_label",
        "dataset.empty",
        "request.key_reused",
    ),
)
def post_dataset(
    body: DatasetIn, engine: EngineDep, settings: SettingsDep, once: OnceDep
) -> Response:
    """Open the data, count and fingerprint them, and register them under a name."""
    found = look_at(body, settings.dataset_roots)
    with writing(engine) as session:
        return once.answer(session, lambda: describe_dataset(add_dataset(session, found)))


@router.get(
    "/datasets", tags=["datasets"], summary="List datasets", responses=answers("request.bad_cursor")
)
def get_datasets(engine: EngineDep, part: SliceDep) -> Page[DatasetOut]:
    """All datasets, oldest first."""
    with reading(engine) as session:
        rows, after = page_of(session, select(Dataset), Dataset.id, part)
        return Page(items=[describe_dataset(row) for row in rows], next=after)


@router.get(
    "/datasets/{dataset}",
    tags=["datasets"],
    summary="Show a dataset",
    responses=answers("dataset.not_found"),
)
def get_dataset(
    dataset: Annotated[str, Path(description="Name of the dataset.")], engine: EngineDep
) -> DatasetOut:
    """One dataset."""
    with reading(engine) as session:
        return describe_dataset(find_dataset(session, dataset))
