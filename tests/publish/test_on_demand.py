"""Packages between versions that exist, as the planner asks for them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from server.db import open_engine, reading, writing
from server.errors import BadUpdate
from server.publish.on_demand import Order, build, lossless_package, publish
from server.registry.models import create_model, find_model
from server.registry.schemas import ModelIn
from server.registry.versions import add_version
from server.registry.weights import check
from server.storage.local import LocalStore
from server.tables import Event, Package, Version, now
from shared.package import PackageReader


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def blobs(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "blobs")


@pytest.fixture
def versions(engine: Engine, blobs: LocalStore, weights_file: Any) -> list[int]:
    """Ids of two versions of model `a` and one of model `b`."""
    ids = []
    for number, name in enumerate(["a", "a", "b"]):
        path = weights_file(number)
        with writing(engine) as session:
            if number != 1:
                create_model(session, ModelIn(name=name), None)
            model = find_model(session, name)
            checked = check(path, None, model.buffers)
            ids.append(add_version(session, model, checked, blobs.put(path), None, "uploaded").id)
    return ids


def packages(engine: Engine) -> int:
    with reading(engine) as session:
        return session.scalar(select(func.count(Package.id))) or 0


@pytest.mark.parametrize("from_base", [True, False])
def test_lossless_package_is_built_once(
    engine: Engine, blobs: LocalStore, versions: list[int], from_base: bool
) -> None:
    base = versions[0] if from_base else None
    ids = {lossless_package(engine, blobs, versions[1], base) for _ in range(2)}
    assert len(ids) == packages(engine) == 1
    with reading(engine) as session:
        row = session.get_one(Package, ids.pop())
        target = session.get_one(Version, versions[1])
        kinds = list(session.scalars(select(Event.kind).where(Event.package_id == row.id)))
    assert (row.base_version_id, row.target_version_id) == (base, target.id)
    assert (row.method, row.state) == ("xor" if from_base else "full", "published")
    assert kinds == ["package.published"]
    with blobs.local(row.sha256) as path, PackageReader(path) as reader:
        assert reader.result_digest.hex() == target.weights_digest
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row.sha256


def test_versions_of_two_models_have_no_package(
    engine: Engine, blobs: LocalStore, versions: list[int]
) -> None:
    with pytest.raises(BadUpdate) as refused:
        lossless_package(engine, blobs, versions[1], versions[2])
    assert refused.value.code == "update.other_model"
    assert packages(engine) == 0


def test_crash_before_the_transaction_leaves_no_row_and_can_be_repeated(
    engine: Engine, blobs: LocalStore, versions: list[int]
) -> None:
    order = Order(versions[1], versions[0], "direct", {"bits": 8})
    build(engine, blobs, order)  # and the process dies here
    assert packages(engine) == 0
    built = build(engine, blobs, order)
    ids = set()
    for _ in range(2):
        with writing(engine) as session:
            ids.add(publish(session, built).id)
    assert len(ids) == packages(engine) == 1


def test_lossy_package_leads_to_a_version_that_stands_for_the_target(
    engine: Engine, blobs: LocalStore, versions: list[int]
) -> None:
    built = build(engine, blobs, Order(versions[1], versions[0], "ka", {"rank": 1}))
    with writing(engine) as session:
        made = session.get_one(Version, publish(session, built).target_version_id)
    assert (made.source, made.number) == ("encoded", 3)
    assert (made.parent_id, made.approximates_id) == (versions[0], versions[1])
    assert made.weights_digest == built.report.result_digest


def test_a_package_that_retention_removed_is_published_again(
    engine: Engine, blobs: LocalStore, versions: list[int]
) -> None:
    made = lossless_package(engine, blobs, versions[1], versions[0])
    with writing(engine) as session:
        row = session.get_one(Package, made)
        row.state, row.removed_at = "removed", now()
        blobs.delete(row.sha256)
    assert lossless_package(engine, blobs, versions[1], versions[0]) == made
    with reading(engine) as session:
        row = session.get_one(Package, made)
        assert (row.state, row.removed_at) == ("published", None)
    with blobs.local(row.sha256) as path:
        assert path.stat().st_size == row.size_bytes


def test_a_package_notes_what_a_device_must_know(
    engine: Engine, blobs: LocalStore, versions: list[int]
) -> None:
    built = build(engine, blobs, Order(versions[1], versions[0], "direct", {"bits": 8}))
    lossless = lossless_package(engine, blobs, versions[1])
    with writing(engine) as session:
        lossy = publish(session, built).needs
        plain = session.get_one(Package, lossless).needs
    with blobs.local(built.report.sha256) as path, PackageReader(path) as package:
        coder = package.header.coder
    assert coder.startswith("range/")
    assert lossy == {"version": 1, "format": 1, "coder": coder, "dtypes": ["F32"]}
    assert plain == {"version": 1, "format": 1, "coder": "zstd/1", "dtypes": []}


def test_two_processes_that_build_the_same_end_with_one_package(
    engine: Engine, database_url: str, blobs: LocalStore, versions: list[int]
) -> None:
    order = Order(versions[1], versions[0], "xor", {})
    both_are_built = threading.Barrier(2, timeout=30)
    engines = [engine, open_engine(database_url)]

    def process(mine: Engine) -> int:
        built = build(mine, blobs, order)
        both_are_built.wait()
        with writing(mine) as session:
            return publish(session, built).id

    with ThreadPoolExecutor(2) as pool:
        ids = set(pool.map(process, engines))
    engines[1].dispose()
    assert len(ids) == packages(engine) == 1
