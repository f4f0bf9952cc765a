"""Fleets: groups, phased rollouts, chains, runs, webhooks, leases.

Columns come and go by plain ALTER TABLE: copying a table, as batch mode does on SQLite, would break
the rows that refer to it.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)

ONE_PHASE = '[{"percent": 100, "soak_seconds": 0}]'

#: The history of each of these is read in the order of events.
EVENTS_BY = ("kind", "model_id", "version_id", "refinement_id", "device_id", "rollout_id")

INDEXES = (
    ("rollouts", ["state", "due_at"]),
    ("assignments", ["rollout_id", "state"]),
    ("events", ["transaction", "id"]),
    *(("events", [name, "transaction", "id"]) for name in EVENTS_BY),
    ("devices", ["name"]),
    ("devices", ["created_at"]),
)


def _columns() -> dict[str, tuple[sa.Column[Any], ...]]:
    """Table -> its new columns."""
    return {
        "versions": (sa.Column("removed_at", MOMENT),),
        "packages": (sa.Column("removed_at", MOMENT), sa.Column("needs", sa.JSON())),
        "refinements": (
            sa.Column("worker", sa.String(length=100)),
            sa.Column("heartbeat_at", MOMENT),
        ),
        "devices": (
            sa.Column("attributes", sa.JSON(), nullable=False, server_default="{}"),
            sa.Column("lot", sa.BigInteger(), nullable=False, server_default="0"),
            sa.Column("poll_interval", sa.Double()),
            sa.Column("update_budget", sa.BigInteger()),
            sa.Column("failures", sa.Integer(), nullable=False, server_default="0"),
        ),
        "rollouts": (
            sa.Column("filter", sa.Text()),
            sa.Column("strategy", sa.String(length=40), nullable=False, server_default="staged"),
            sa.Column("phases", sa.JSON(), nullable=False, server_default=ONE_PHASE),
            sa.Column("max_open", sa.Integer()),
            sa.Column("success_percent", sa.Double(), nullable=False, server_default="100"),
            sa.Column("abort_rules", sa.JSON(), nullable=False, server_default="[]"),
            sa.Column("deadline_seconds", sa.Integer(), nullable=False, server_default="86400"),
            sa.Column("window", sa.JSON()),
            sa.Column("rollback", sa.Boolean(), nullable=False, server_default=sa.false()),
            sa.Column("rolls_back_id", sa.Integer()),
            sa.Column("phase", sa.Integer(), nullable=False, server_default="0"),
            sa.Column("phase_done_at", MOMENT),
            sa.Column("due_at", MOMENT),
            sa.Column("revision", sa.Integer(), nullable=False, server_default="0"),
            sa.Column("reason", sa.JSON()),
            sa.Column("started_at", MOMENT),
        ),
        "assignments": (
            sa.Column("phase", sa.Integer(), nullable=False, server_default="0"),
            sa.Column("held_detail", sa.JSON()),
            sa.Column("chain", sa.JSON()),
            sa.Column("size_bytes", sa.BigInteger()),
            sa.Column("from_digest", sa.String(length=64)),
            sa.Column("attempts", sa.Integer(), nullable=False, server_default="1"),
            sa.Column("admitted_at", MOMENT),
            sa.Column("reached_at", MOMENT),
        ),
        "events": (sa.Column("transaction", sa.BigInteger(), nullable=False, server_default="0"),),
    }


def upgrade() -> None:
    for table, columns in _columns().items():
        for column in columns:
            op.add_column(table, column)
    for table, names in INDEXES:
        op.create_index(f"ix_{table}_{'_'.join(names)}", table, names)
    for name in EVENTS_BY:
        op.drop_index(f"ix_events_{name}", "events")
    op.execute("UPDATE rollouts SET started_at = created_at")
    op.execute("UPDATE assignments SET admitted_at = created_at")
    _create_tables()
    _fill()


def _create_tables() -> None:
    op.create_table(
        "device_tags",
        sa.Column("device_id", sa.String(length=36), nullable=False),
        sa.Column("tag", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.id"], name=op.f("fk_device_tags_device_id")
        ),
        sa.PrimaryKeyConstraint("device_id", "tag", name=op.f("pk_device_tags")),
    )
    op.create_index("ix_device_tags_tag", "device_tags", ["tag"])
    op.create_table(
        "groups",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("filter", sa.Text(), nullable=False),
        sa.Column("poll_interval", sa.Double(), nullable=True),
        sa.Column("update_budget", sa.BigInteger(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_groups")),
        sa.UniqueConstraint("name", name=op.f("uq_groups_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("device_id", sa.String(length=36), nullable=False),
        sa.Column("model_name", sa.String(length=100), nullable=False),
        sa.Column("weights_digest", sa.String(length=64), nullable=False),
        sa.Column("since", MOMENT, nullable=False),
        sa.Column("until", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"], name=op.f("fk_runs_device_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_runs_device_id_model_name", "runs", ["device_id", "model_name"])
    op.create_index("ix_runs_weights_digest", "runs", ["weights_digest"])
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.String(length=200), nullable=False),
        sa.Column("filter", sa.Text(), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("after_transaction", sa.BigInteger(), nullable=False),
        sa.Column("after_event", sa.BigInteger(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("webhook_id", sa.Integer(), nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", MOMENT, nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("error", sa.String(length=500), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["webhook_id"],
            ["webhooks.id"],
            name=op.f("fk_deliveries_webhook_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint(
            "webhook_id", "event_id", name=op.f("uq_deliveries_webhook_id_event_id")
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_deliveries_state_due_at", "deliveries", ["state", "due_at"])
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=60), nullable=False),
        sa.Column("holder", sa.String(length=100), nullable=False),
        sa.Column("until", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "installation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_installation")),
    )


def _fill() -> None:
    """What the new code expects of old rows: each device's lot and run, and the epoch."""
    connection = op.get_bind()
    devices = connection.execute(sa.text("SELECT id FROM devices")).scalars().all()
    for device in devices:
        lot = int.from_bytes(hashlib.sha256(device.encode()).digest()[:4], "big") >> 1
        connection.execute(
            sa.text("UPDATE devices SET lot = :lot WHERE id = :id"), {"lot": lot, "id": device}
        )
    op.execute(
        "INSERT INTO runs (device_id, model_name, weights_digest, since) "
        "SELECT m.device_id, m.model_name, m.weights_digest, d.created_at "
        "FROM device_models m JOIN devices d ON d.id = m.device_id "
        "WHERE m.weights_digest IS NOT NULL"
    )
    connection.execute(
        sa.text("INSERT INTO installation (id, epoch) VALUES (1, :epoch)"),
        {"epoch": secrets.token_hex(4)},
    )


def downgrade() -> None:
    for table in (
        "installation", "leases", "deliveries", "webhooks", "runs", "groups", "device_tags",
    ):  # fmt: skip
        op.drop_table(table)
    for table, names in INDEXES:
        op.drop_index(f"ix_{table}_{'_'.join(names)}", table)
    for name in EVENTS_BY:
        op.create_index(f"ix_events_{name}", "events", [name])
    for table, columns in _columns().items():
        for column in columns:
            op.execute(f'ALTER TABLE {table} DROP COLUMN "{column.name}"')
