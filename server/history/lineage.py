"""Where weights come from, what has been made of them, and where they ran.

A version descends from its parent and from the version that it approximates. What it learnt it
learnt from the datasets of the refinements that led to it: so weights derive from a dataset where
one of their ancestors, or they themselves, came out of a refinement on it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from sqlalchemy import CTE, ColumnElement, Select, or_, select
from sqlalchemy.orm import Session, aliased

from server.errors import BadDataset, BadModel, BadVersion
from server.history.lineage_schemas import LineageOut, LinkOut, MadeOut, SentOut
from server.tables import Dataset, Model, Package, Refinement, Run, Version

Ids = Select[Any]


def ancestors(first: Ids) -> CTE:
    """The ids of `first` and of all that they come from."""
    found = first.cte("ancestors", recursive=True)
    child = aliased(Version)
    parents = select(Version.id).join(
        child, or_(Version.id == child.parent_id, Version.id == child.approximates_id)
    )
    return found.union(parents.join(found, child.id == found.c.id))


def descendants(first: Ids, name: str = "descendants") -> CTE:
    """The ids of `first` and of all that has been made of them; `name` is the query's own."""
    found = first.cte(name, recursive=True)
    made = or_(Version.parent_id == found.c.id, Version.approximates_id == found.c.id)
    return found.union(select(Version.id).join(found, made))


def learnt_from(dataset: Dataset) -> Ids:
    """The versions that refinements on this dataset led to."""
    return select(Refinement.target_version_id.label("id")).where(
        Refinement.dataset_id == dataset.id, Refinement.target_version_id.is_not(None)
    )


def runs_of(derived: Iterable[CTE]) -> Select[Run]:
    """The runs of weights that are in all of these sets of versions."""
    mine = (Version.model_id == Model.id) & (Version.weights_digest == Run.weights_digest)
    query = select(Run).join(Model, Model.name == Run.model_name).join(Version, mine)
    return query.where(*(Version.id.in_(select(versions.c.id)) for versions in derived))


def find_dataset(session: Session, name: str) -> Dataset:
    """The dataset. Raises BadDataset `not_found`."""
    found = session.scalar(select(Dataset).where(Dataset.name == name))
    if found is None:
        raise BadDataset("not_found", f"there is no dataset {name[:100]!r}")
    return found


def find_version(session: Session, model_name: str, number: int) -> tuple[Model, Version]:
    """The version of that number. Raises BadModel, BadVersion `not_found`."""
    model = session.scalar(select(Model).where(Model.name == model_name))
    if model is None:
        raise BadModel("not_found", f"there is no model {model_name[:100]!r}")
    wanted = (Version.model_id == model.id) & (Version.number == number)
    version = session.scalar(select(Version).where(wanted))
    if version is None:
        raise BadVersion("not_found", f"{model.name} has no version {number}")
    return model, version


def version_lineage(session: Session, model: Model, version: Version) -> LineageOut:
    """All that a version comes from, newest first, and all that has been made of it."""
    first = select(Version.id).where(Version.id == version.id)
    links = {link.number: link for link in _links(session, model, ancestors(first))}
    later = _links(session, model, descendants(first))
    mine = links.pop(version.number)
    learnt = {made.dataset for link in (mine, *links.values()) for made in link.refinements}
    return LineageOut(
        model=model.name,
        version=mine,
        datasets=sorted(learnt),
        ancestors=[links[number] for number in sorted(links, reverse=True)],
        descendants=[link for link in later if link.number != version.number],
    )


def _links(session: Session, model: Model, family: CTE) -> list[LinkOut]:
    """The versions of a family, each with how it was made and how it is sent."""
    ids = select(family.c.id)
    versions = session.scalars(
        select(Version).where(Version.id.in_(ids)).order_by(Version.number)
    ).all()
    numbers: dict[int | None, int] = dict(
        session.execute(
            select(Version.id, Version.number).where(Version.model_id == model.id)
        ).all()
    )
    made = _made(session, Refinement.target_version_id.in_(ids))
    sent = _sent(session, Package.target_version_id.in_(ids), numbers)
    same = LinkOut.model_fields.keys() - {"parent", "approximates", "refinements", "packages"}
    return [
        LinkOut(
            **{name: getattr(version, name) for name in same},
            parent=numbers.get(version.parent_id),
            approximates=numbers.get(version.approximates_id),
            refinements=made[version.id],
            packages=sent[version.id],
        )
        for version in versions
    ]


def _made(session: Session, wanted: ColumnElement[bool]) -> dict[int, list[MadeOut]]:
    found: dict[int, list[MadeOut]] = defaultdict(list)
    for row in session.scalars(select(Refinement).where(wanted).order_by(Refinement.id)):
        evaluation = row.evaluation_dataset
        assert row.target_version_id is not None
        found[row.target_version_id].append(
            MadeOut(
                id=row.id,
                method=row.method["id"],
                dataset=row.dataset.name,
                evaluation_dataset=evaluation.name if evaluation is not None else None,
            )
        )
    return found


def _sent(
    session: Session, wanted: ColumnElement[bool], numbers: dict[int | None, int]
) -> dict[int, list[SentOut]]:
    found: dict[int, list[SentOut]] = defaultdict(list)
    for row in session.scalars(select(Package).where(wanted).order_by(Package.id)):
        base = numbers.get(row.base_version_id)
        same = {name: getattr(row, name) for name in ("id", "method", "size_bytes", "state")}
        found[row.target_version_id].append(SentOut(base=base, **same))
    return found
