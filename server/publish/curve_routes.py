"""/refinements/{id}/curve: what `auto` has measured, as data and as a picture."""

from __future__ import annotations

from fastapi import APIRouter, Response

from server.api.context import EngineDep
from server.api.problems import answers
from server.db import reading
from server.errors import BadRefinement
from server.publish.budget.curve import Curve
from server.publish.budget.plot import draw
from server.publish.refinement_routes import IdPath, find_refinement

router = APIRouter(prefix="/api/v1/refinements", tags=["refinements"])

SVG = "image/svg+xml"
REFUSALS = answers("refinement.not_found", "refinement.no_curve")


@router.get("/{id}/curve", summary="Show the curve of a refinement by auto", responses=REFUSALS)
def get_curve(id: IdPath, engine: EngineDep) -> Curve:  # noqa: A002 - the API's word
    """Each package that was tried, with its bytes and accuracy; while it runs, those so far."""
    return _curve(engine, id)[0]


@router.get(
    "/{id}/curve.svg",
    summary="Plot the curve of a refinement by auto",
    response_class=Response,
    responses={200: {"content": {SVG: {}}, "description": "The plot."}, **REFUSALS},
)
def get_curve_plot(id: IdPath, engine: EngineDep) -> Response:  # noqa: A002 - the API's word
    """Accuracy against bytes, with what was asked for and what was chosen."""
    return Response(draw(*_curve(engine, id)), media_type=SVG)


def _curve(engine: EngineDep, refinement_id: int) -> tuple[Curve, str]:
    """The curve and its title."""
    with reading(engine) as session:
        row = find_refinement(session, refinement_id)
        if row.curve is None:
            raise BadRefinement("no_curve", f"refinement {refinement_id} has no curve")
        title = f"{row.model.name}, refinement {row.id}: accuracy against bytes"
        return Curve.model_validate(row.curve), title
