"""Runs the revisions against the URL that `server.db.migrate` gives."""

from __future__ import annotations

from alembic import context

from server.db import open_engine
from server.tables import Base


def run() -> None:
    url = context.config.attributes["url"]
    engine = open_engine(url).execution_options(writes=True)
    try:
        with engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql("SET statement_timeout = 0")  # large tables take long
                connection.commit()
            context.configure(
                connection=connection,
                target_metadata=Base.metadata,
                render_as_batch=True,
                transactional_ddl=True,
                transaction_per_migration=True,
            )
            with context.begin_transaction():
                context.run_migrations()
    finally:
        engine.dispose()


run()
