"""Signed metadata, released and withdrawn versions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("versions", sa.Column("released_at", MOMENT))
    op.add_column("versions", sa.Column("withdrawn_at", MOMENT))
    op.create_table(
        "trust_roots",
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_trust_roots")),
    )
    op.create_table(
        "trust_metadata",
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("due_at", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_trust_metadata_model_id")
        ),
        sa.PrimaryKeyConstraint("model_id", "role", "version", name=op.f("pk_trust_metadata")),
    )
    op.create_index("ix_trust_metadata_due_at", "trust_metadata", ["due_at"])


def downgrade() -> None:
    op.drop_table("trust_metadata")
    op.drop_table("trust_roots")
    op.drop_column("versions", "withdrawn_at")
    op.drop_column("versions", "released_at")
