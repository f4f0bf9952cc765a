"""Models: find them, create them, and know what in them is learnable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from server import zoo
from server.errors import BadModel
from server.history.events import record
from server.registry.schemas import ModelIn, ModelOut
from server.registry.weights import as_json
from server.tables import Model
from shared.tensors import Schema, schema_digest


def find_model(session: Session, name: str) -> Model:
    """The model of that name. Raises BadModel `not_found`."""
    model = session.scalar(select(Model).where(Model.name == name))
    if model is None:
        raise BadModel("not_found", f"no model is named {name!r}")
    return model


def schema_known(wanted: ModelIn, modules: Iterable[str]) -> Schema | None:
    """The schema that the architecture gives; None without one: the first version defines it.

    Builds the architecture once, which checks its arguments. Raises BadModel
    `unknown_architecture`.
    """
    if wanted.architecture is None:
        return None
    return zoo.get(wanted.architecture, modules).schema(wanted.arguments)


def create_model(session: Session, wanted: ModelIn, schema: Schema | None) -> Model:
    """Add a model. Raises BadModel `exists`."""
    if session.scalar(select(Model.id).where(Model.name == wanted.name)) is not None:
        raise BadModel("exists", f"a model is named {wanted.name!r} already")
    model = Model(**wanted.model_dump())
    if schema is not None:
        model.schema, model.schema_digest = as_json(schema), schema_digest(schema).hex()
    session.add(model)
    session.flush()
    record(session, "model.created", {"name": model.name}, model_id=model.id)
    return model


def schema_with(
    model: Model, arguments: Mapping[str, Any] | None, modules: Iterable[str]
) -> Schema | None:
    """The schema of the model's architecture with these arguments; None without architecture.

    Raises BadModel `unknown_architecture` where it does not take them.
    """
    if model.architecture is None or arguments is None:
        return None
    return zoo.get(model.architecture, modules).schema(arguments)


def learnable_of(
    model: Model, arguments: Mapping[str, Any] | None, modules: Iterable[str] | None = None
) -> frozenset[str] | None:
    """Names of the parameters with these arguments; None where the architecture is not known.

    `modules` are those that own architectures may come from, by default the settings'.
    """
    if model.architecture is None or arguments is None:
        return None
    return frozenset(zoo.get(model.architecture, modules).learnable(arguments))


def describe_model(model: Model) -> ModelOut:
    """The model as the API shows it."""
    return ModelOut.model_validate(model)
