"""Models: find them, create them, and know what in them is learnable."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from server import zoo
from server.errors import BadModel
from server.history.events import record
from server.registry.schemas import ModelIn, ModelOut
from server.tables import Model


def find_model(session: Session, name: str) -> Model:
    """The model of that name. Raises BadModel `not_found`."""
    model = session.scalar(select(Model).where(Model.name == name))
    if model is None:
        raise BadModel("not_found", f"no model is named {name!r}")
    return model


def create_model(session: Session, wanted: ModelIn) -> Model:
    """Add a model. Raises BadModel `exists`, `unknown_architecture`."""
    if session.scalar(select(Model.id).where(Model.name == wanted.name)) is not None:
        raise BadModel("exists", f"a model is named {wanted.name!r} already")
    model = Model(**wanted.model_dump())
    session.add(model)
    session.flush()
    record(session, "model.created", {"name": model.name}, model_id=model.id)
    return model


def learnable_of(model: Model) -> frozenset[str] | None:
    """Names of the model's parameters; None where its architecture is not known."""
    if model.architecture is None:
        return None
    return frozenset(zoo.get(model.architecture).learnable(model.arguments))


def describe_model(model: Model) -> ModelOut:
    """The model as the API shows it."""
    return ModelOut.model_validate(model)
