"""Enrolment tokens, devices' keys and admission, signed reports."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def _columns() -> dict[str, tuple[sa.Column[Any], ...]]:
    """Table -> its new columns. A device of before has no key, and is known by its token alone."""
    return {
        "devices": (
            sa.Column("standing", sa.String(length=20), nullable=False, server_default="accepted"),
            sa.Column("public_key", sa.String(length=64)),
            sa.Column("allowed_models", sa.JSON()),
            sa.Column("enrolment_token_id", sa.Integer()),
            sa.Column("token_issued_at", MOMENT),
            sa.Column("token_expires_at", MOMENT),
            sa.Column("renewal_counter", sa.BigInteger(), nullable=False, server_default="0"),
        ),
        "runs": (sa.Column("report_id", sa.BigInteger()),),
    }


def upgrade() -> None:
    for table, columns in _columns().items():
        for column in columns:
            op.add_column(table, column)
    op.create_index("ix_devices_public_key", "devices", ["public_key"], unique=True)
    op.create_index("ix_runs_report_id", "runs", ["report_id"])
    _create_tables()


def _create_tables() -> None:
    op.create_table(
        "enrolment_tokens",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("secret_hash", sa.String(length=64), nullable=False),
        sa.Column("accept", sa.String(length=20), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("models", sa.JSON(), nullable=True),
        sa.Column("max_uses", sa.Integer(), nullable=True),
        sa.Column("uses", sa.Integer(), nullable=False),
        sa.Column("device_id", sa.String(length=36), nullable=True),
        sa.Column("expires_at", MOMENT, nullable=True),
        sa.Column("revoked_at", MOMENT, nullable=True),
        sa.Column("last_used_at", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        _to_device("enrolment_tokens"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_enrolment_tokens")),
        sa.UniqueConstraint("secret_hash", name=op.f("uq_enrolment_tokens_secret_hash")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "preauthorisations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=True),
        sa.Column("public_key", sa.String(length=64), nullable=True),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("models", sa.JSON(), nullable=True),
        sa.Column("device_id", sa.String(length=36), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        _to_device("preauthorisations"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_preauthorisations")),
        sqlite_autoincrement=True,
    )
    for name in ("name", "public_key"):
        op.create_index(f"ix_preauthorisations_{name}", "preauthorisations", [name])
    op.create_table(
        "retired_keys",
        sa.Column("public_key", sa.String(length=64), nullable=False),
        sa.Column("device_id", sa.String(length=36), nullable=False),
        sa.Column("retired_at", MOMENT, nullable=False),
        _to_device("retired_keys"),
        sa.PrimaryKeyConstraint("public_key", name=op.f("pk_retired_keys")),
    )
    op.create_table(
        "signed_reports",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("device_id", sa.String(length=36), nullable=False),
        sa.Column("model_name", sa.String(length=100), nullable=False),
        sa.Column("counter", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("weights_digest", sa.String(length=64), nullable=True),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("signature", sa.String(length=88), nullable=False),
        sa.Column("public_key", sa.String(length=64), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        _to_device("signed_reports"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signed_reports")),
        sqlite_autoincrement=True,
    )
    columns = ["device_id", "digest"]
    op.create_index("ix_signed_reports_device_id_digest", "signed_reports", columns)
    op.create_index("ix_signed_reports_at", "signed_reports", ["at"])


def _to_device(table: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_device_id")
    return sa.ForeignKeyConstraint(["device_id"], ["devices.id"], name=name)


def downgrade() -> None:
    for table in ("signed_reports", "retired_keys", "preauthorisations", "enrolment_tokens"):
        op.drop_table(table)
    op.drop_index("ix_devices_public_key", "devices")
    op.drop_index("ix_runs_report_id", "runs")
    for table, columns in _columns().items():
        for column in columns:
            op.execute(f'ALTER TABLE {table} DROP COLUMN "{column.name}"')
