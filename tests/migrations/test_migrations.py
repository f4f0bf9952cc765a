"""The migrations lead to the tables that the code declares, one step at a time and back."""

from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from server.db import check_current, downgrade, migrate, migrations_dir, open_engine
from server.errors import DatabaseError
from server.tables import Base


@pytest.fixture
def url(empty_database_url: str) -> str:
    return empty_database_url


def _scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(migrations_dir()))
    return ScriptDirectory.from_config(config)


def test_migrated_schema_is_the_declared_one(url: str) -> None:
    migrate(url)
    engine = open_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    check_current(engine)
    engine.dispose()


def test_history_is_one_line() -> None:
    scripts = _scripts()
    assert len(scripts.get_heads()) == 1
    assert len(scripts.get_bases()) == 1


def test_every_step_can_be_taken_back(url: str) -> None:
    revisions = [script.revision for script in _scripts().walk_revisions()][::-1]
    for revision in revisions:
        migrate(url, revision)
        downgrade(url, "-1")
        migrate(url, revision)
    downgrade(url, "base")
    engine = open_engine(url)
    assert inspect(engine).get_table_names() == ["alembic_version"]
    engine.dispose()


def test_an_old_schema_is_named_as_such(url: str) -> None:
    engine = open_engine(url)
    with pytest.raises(DatabaseError) as caught:
        check_current(engine)
    assert caught.value.code == "database.not_migrated"
    engine.dispose()
