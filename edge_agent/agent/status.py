"""What a device holds and does, read from its disk; the agent may be running meanwhile."""

from __future__ import annotations

from typing import Any

from edge_agent.api import load_identity
from edge_agent.config import Config
from edge_agent.journal import Journal, load_journal
from edge_agent.report import Outbox
from edge_agent.slots import Directory


def status(config: Config) -> dict[str, Any]:
    """Plain values for people and for JSON. Raises AgentError where a file cannot be read."""
    identity = load_identity(config.state_dir / "identity.json")
    return {
        "server": config.server,
        "name": config.name,
        "device_id": identity.device_id if identity else None,
        "pending_reports": Outbox(config.state_dir / "reports.json").pending,
        "models": {
            name: _of_model(Directory(config.state_dir / "models" / name)) for name in config.models
        },
    }


def _of_model(slots: Directory) -> dict[str, Any]:
    journal = load_journal(slots.journal) or Journal()
    current = slots.current()
    held = journal.slots.get(current) if current else None
    target = journal.target
    return {
        "state": journal.state,
        "version": held.version if held else None,
        "weights_digest": held.digest if held else None,
        "current": str(slots.link) if current else None,
        "slots": {name: slot.digest for name, slot in sorted(journal.slots.items())},
        "target_version": target.version if target else None,
        "attempts": journal.attempts,
        "error": journal.error.model_dump() if journal.error else None,
    }
