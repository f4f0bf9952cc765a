"""The size-accuracy curve of refinements by `auto`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("refinements", sa.Column("curve", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.execute("ALTER TABLE refinements DROP COLUMN curve")
