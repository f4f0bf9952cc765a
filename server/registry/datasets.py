"""Datasets: known by a fingerprint of what they hold."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import select
from sqlalchemy.orm import Session

from server import logs
from server.errors import BadDataset
from server.history.events import record
from server.registry.schemas import DatasetIn, DatasetOut
from server.tables import Dataset

#: Schemes of stores that datasets may lie in, beside files.
STORES = frozenset({"s3", "gs", "gcs", "az", "abfs", "abfss", "hdfs", "memory"})


def find_dataset(session: Session, name: str) -> Dataset:
    """The dataset of that name. Raises BadDataset `not_found`."""
    dataset = session.scalar(select(Dataset).where(Dataset.name == name))
    if dataset is None:
        raise BadDataset("not_found", f"no dataset is named {name!r}")
    return dataset


def resolve_uri(uri: str, roots: Iterable[str]) -> str:
    """`uri` in its plain form, if it lies under one of `roots`: requests may name nothing else.

    Raises BadDataset `not_allowed`.
    """
    place, hash_sign, share = uri.partition("#")  # the share of the rows is no part of a path
    plain = _plain(place)
    for root in roots:
        top = _plain(root).rstrip("/")
        if plain == top or plain.startswith(f"{top}/"):
            return plain + hash_sign + share
    raise BadDataset("not_allowed", f"{uri!r} is not under an allowed root")


def address_of(dataset: Dataset, roots: Iterable[str]) -> str:
    """Where to open it, if it is still allowed: roots may have changed, or a link come between.

    Raises BadDataset `not_allowed`.
    """
    if resolve_uri(dataset.uri, roots) != dataset.uri:
        raise BadDataset("not_allowed", f"{dataset.uri!r} leads elsewhere now")
    return dataset.uri


def _plain(place: str) -> str:
    """Without `..`, links and relative parts, which could lead out of a root."""
    parts = urlsplit(place)
    if parts.scheme in ("", "file"):
        return str(Path(parts.path if parts.scheme else place).resolve())
    # http is not among the stores: where its redirects lead, nobody has allowed.
    if parts.scheme not in STORES or "%" in place or "::" in place or parts.query:
        raise BadDataset("not_allowed", f"{place!r} is not a plain address")
    path = posixpath.normpath(parts.path or "/")
    return f"{parts.scheme}://{parts.netloc}{path}"


def look_at(wanted: DatasetIn, roots: Iterable[str]) -> Dataset:
    """Open and fingerprint the data (which may take long). Raises BadDataset."""
    # Imports what reads files of data: half the server's start, for what few requests do.
    from server.registry.opening import fingerprint, open_dataset

    uri = resolve_uri(wanted.uri, roots)
    images = open_dataset(uri)
    return Dataset(
        name=wanted.name,
        uri=uri,
        fingerprint=fingerprint(uri),
        rows=len(images),
        classes=list(images.classes),
    )


def add_dataset(session: Session, dataset: Dataset) -> Dataset:
    """Store a dataset that was looked at. Raises BadDataset `exists`."""
    with logs.beyond_scope():  # also by a name that this key does not see
        known = session.scalar(select(Dataset.id).where(Dataset.name == dataset.name))
    if known is not None:
        raise BadDataset("exists", f"a dataset is named {dataset.name!r} already")
    session.add(dataset)
    session.flush()
    told = {"dataset_id": dataset.id, "name": dataset.name, "fingerprint": dataset.fingerprint}
    record(session, "dataset.created", told)
    return dataset


def describe_dataset(dataset: Dataset) -> DatasetOut:
    """The dataset as the API shows it."""
    return DatasetOut.model_validate(dataset)
