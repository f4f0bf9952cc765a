"""What only PostgreSQL does: writers side by side, time zones, limits, and its ways to fail."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, make_url, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from server.db import check_current, migrate, open_current, open_engine, reading, writing
from server.errors import BadRequest, DatabaseError
from server.settings import load_settings
from server.tables import Device, Model
from shared.errors import BadConfig

postgres = pytest.mark.postgres("its ways to fail")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url, connections=4)
    yield engine
    engine.dispose()


def device(name: str) -> Device:
    return Device(id=name, name=name, token_hash=name)


def limited(url: str, **limits: str) -> Engine:
    """An engine with other limits than ours, as an operator's URL sets them."""
    options = " ".join(f"-c {name}={value}" for name, value in limits.items())
    return open_engine(
        make_url(url).update_query_dict({"options": options}).render_as_string(False)
    )


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
@postgres
def test_any_url_of_postgresql_is_understood(database_url: str, scheme: str) -> None:
    engine = open_engine(database_url.replace("postgresql+psycopg", scheme))
    check_current(engine)
    engine.dispose()


@pytest.mark.parametrize("url", ["mysql://root@db/weft", "no url", "oracle+x://db:port/weft"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(BadConfig, match="WEFT_DATABASE_URL"):
        open_engine(url)


def test_without_the_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(BadConfig, match=r"weft\[postgres\]"):
        open_engine("postgresql://weft@db/weft")


def test_a_password_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"postgresql://weft:hush@127.0.0.1:{closed.getsockname()[1]}/weft"
        with pytest.raises(DatabaseError) as caught:
            open_current(url, auto_migrate=True)
    assert caught.value.code == "database.unreachable"
    assert "refused" in caught.value.message
    assert "hush" not in str(caught.value)


@postgres
def test_a_database_that_is_not_there_is_told(database_url: str) -> None:
    with pytest.raises(DatabaseError, match="does not exist") as caught:
        open_current(f"{database_url}_", auto_migrate=False)
    assert caught.value.code == "database.unreachable"


@postgres
def test_a_reader_sees_one_snapshot_and_does_not_wait(engine: Engine) -> None:
    with reading(engine) as before:
        assert before.scalars(select(Device.id)).all() == []
        with writing(engine) as session:
            session.add(device("d"))
            session.flush()
            with reading(engine) as during:
                assert during.scalars(select(Device.id)).all() == []
        assert before.scalars(select(Device.id)).all() == []
    with reading(engine) as after:
        assert after.scalars(select(Device.id)).all() == ["d"]


@postgres
def test_a_reader_changes_nothing(engine: Engine) -> None:
    with pytest.raises(DatabaseError) as caught, reading(engine) as session:
        session.execute(text("DELETE FROM devices"))
    assert caught.value.code == "database.forbidden"


@postgres
def test_writers_that_need_not_be_alone_run_beside_each_other(engine: Engine) -> None:
    with writing(engine, alone=False) as one, writing(engine, alone=False) as other:
        one.add(device("a"))
        one.flush()
        other.add(device("b"))
        other.flush()
    with reading(engine) as session:
        assert session.scalars(select(Device.id).order_by(Device.id)).all() == ["a", "b"]


@postgres
@pytest.mark.parametrize("alone", [True, False])
def test_nobody_writes_beside_one_that_is_alone(database_url: str, alone: bool) -> None:
    impatient = limited(database_url, lock_timeout="50")
    with writing(impatient) as session:
        session.connection()
        with pytest.raises(DatabaseError) as caught, writing(impatient, alone=alone) as other:
            other.connection()
    assert caught.value.code == "database.busy"
    with writing(impatient, alone=alone) as session:
        session.connection()
    impatient.dispose()


@postgres
def test_a_statement_without_end_is_broken_off(database_url: str) -> None:
    engine = limited(database_url, statement_timeout="50")
    with pytest.raises(DatabaseError) as caught, reading(engine) as session:
        session.execute(text("SELECT pg_sleep(60)"))
    assert caught.value.code == "database.busy"
    engine.dispose()


@postgres
def test_a_process_that_stands_still_keeps_nobody_waiting(database_url: str) -> None:
    """Its connection is ended; the transaction of the next one begins then."""
    engine = limited(database_url, idle_in_transaction_session_timeout="100")

    def stand_still() -> None:
        with writing(engine) as standing:
            standing.add(device("half"))
            standing.flush()
            with writing(engine) as session:
                session.add(device("next"))

    with pytest.raises(DatabaseError) as caught:
        stand_still()
    assert caught.value.code == "database.busy"
    with reading(engine) as session:
        assert session.scalars(select(Device.id)).all() == ["next"]
    engine.dispose()


@postgres
def test_a_deadlock_is_to_be_tried_again(database_url: str) -> None:
    engine = limited(database_url, deadlock_timeout="20ms")
    with writing(engine) as session:
        session.add_all([device("a"), device("b")])
    met = threading.Barrier(2)

    def change(order: str) -> str | None:
        try:
            with writing(engine, alone=False) as session:
                for step, name in enumerate(order):
                    if step:
                        met.wait(timeout=30)
                    session.get(Device, name, with_for_update=True)
        except DatabaseError as error:
            return error.code
        return None

    with ThreadPoolExecutor(2) as pool:
        ends = set(pool.map(change, ["ab", "ba"]))
    assert ends == {None, "database.busy"}
    engine.dispose()


@postgres
def test_connections_that_were_cut_are_made_again(engine: Engine, database_url: str) -> None:
    """As after a restart of PostgreSQL: who was in the middle is told, the next one is served."""

    def ask(cut: bool) -> int | None:
        with reading(engine) as session:
            session.scalar(text("SELECT 1"))
            if cut:
                _cut(database_url)
            return session.scalar(text("SELECT 1"))

    with pytest.raises(DatabaseError) as caught:
        ask(cut=True)
    assert caught.value.code == "database.unreachable"
    assert ask(cut=False) == 1
    _cut(database_url)
    assert ask(cut=False) == 1


def _cut(url: str) -> None:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as other:
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        other.execute(
            f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {others}"
        )


@postgres
def test_no_connection_free_is_busy(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.engines.BUSY_TIMEOUT_MS", 50)
    engine = open_engine(database_url, connections=1)
    with reading(engine) as session:
        session.scalar(text("SELECT 1"))
        with pytest.raises(DatabaseError) as caught, reading(engine) as another:
            another.scalar(text("SELECT 1"))
    assert caught.value.code == "database.busy"
    engine.dispose()


def test_a_broken_constraint_is_left_to_the_caller(engine: Engine) -> None:
    for _ in range(2):
        caught: Any = None
        try:
            with writing(engine) as session:
                session.add(Model(name="m"))
        except IntegrityError as error:
            caught = error
    assert isinstance(caught, IntegrityError)


@postgres
@pytest.mark.parametrize("name", ["x" * 101, "a\0b"])
def test_a_value_that_does_not_fit_is_the_users_error(engine: Engine, name: str) -> None:
    with pytest.raises(BadRequest) as caught, writing(engine) as session:
        session.add(Model(name=name))
    assert caught.value.code == "request.invalid"


def test_moments_are_utc_whatever_the_zone_of_the_database(engine: Engine) -> None:
    moment = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
    with Session(engine) as session, session.begin():
        session.add(Model(name="m", created_at=moment))
    with reading(engine) as session:
        [found] = session.scalars(select(Model.created_at))
    assert (found.isoformat(), found.tzinfo) == ("2026-03-01T12:30:15.123456+00:00", UTC)


@postgres
def test_processes_that_start_together_migrate_in_turn(empty_database_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate, [empty_database_url] * 4))
    engine = open_engine(empty_database_url)
    check_current(engine)
    with reading(engine) as session:
        assert session.scalar(text("SELECT count(*) FROM installation")) == 1
    engine.dispose()


def test_settings_know_which_database_it_is() -> None:
    assert not load_settings(database_url="postgresql://weft@db/weft").is_sqlite
    assert load_settings().is_sqlite
