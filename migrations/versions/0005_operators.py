"""API keys of operators, and who did what from where."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("secret_hash", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("models", sa.JSON(), nullable=True),
        sa.Column("groups", sa.JSON(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("created_by", sa.String(length=64), nullable=False),
        sa.Column("expires_at", MOMENT, nullable=True),
        sa.Column("revoked_at", MOMENT, nullable=True),
        sa.Column("last_used_at", MOMENT, nullable=True),
        sa.Column("last_used_from", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("name", name=op.f("uq_api_keys_name")),
    )
    op.create_table(
        "rollout_groups",
        sa.Column("rollout_id", sa.Integer(), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["rollout_id"], ["rollouts.id"], name=op.f("fk_rollout_groups_rollout_id")
        ),
        sa.ForeignKeyConstraint(
            ["group_id"], ["groups.id"], name=op.f("fk_rollout_groups_group_id")
        ),
        sa.PrimaryKeyConstraint("rollout_id", "group_id", name=op.f("pk_rollout_groups")),
    )
    op.create_table(
        "dataset_keys",
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_dataset_keys_dataset_id")
        ),
        sa.PrimaryKeyConstraint("dataset_id", "key", name=op.f("pk_dataset_keys")),
    )
    for column in _of_events():
        op.add_column("events", column)


def _of_events() -> tuple[sa.Column[str], ...]:
    return sa.Column("actor", sa.String(length=100)), sa.Column("address", sa.String(length=64))


def downgrade() -> None:
    for column in _of_events():
        op.execute(f'ALTER TABLE events DROP COLUMN "{column.name}"')
    for table in ("dataset_keys", "rollout_groups", "api_keys"):
        op.drop_table(table)
