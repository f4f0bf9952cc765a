"""What a device holds and does, read from its disk; the agent may be running meanwhile.

Nothing is written, and no lock is taken.
"""

from __future__ import annotations

import os
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edge_agent import __version__
from edge_agent.agent.live import Live, LiveModel, load_live
from edge_agent.config import Config, ModelConfig
from edge_agent.download import received
from edge_agent.errors import AgentError
from edge_agent.identity import load_identity
from edge_agent.journal import Journal, load_journal
from edge_agent.link import standing
from edge_agent.report import Outbox
from edge_agent.slots import Directory
from edge_agent.trust.store import Store, at_least

_LOCKS = Path("/proc/locks")


def status(config: Config, live: Live | None = None) -> dict[str, Any]:
    """Plain values for people and for JSON; `live`: where the caller is the agent itself.

    Raises AgentError where a file cannot be read.
    """
    _check_access(config.state_dir)
    identity = load_identity(config.state_dir / "identity.json")
    found = live or load_live(config)
    return {
        "agent": {
            "version": __version__,
            "running": live is not None or _is_locked(config.state_dir / "lock"),
            "started_at": _moment(found.started_at if found else None),
            "last_poll_at": _moment(found.polled_at if found else None),
            "last_answer_at": _moment(found.answered_at if found else None),
        },
        "server": config.server,
        "name": config.name,
        "device_id": identity.device_id if identity else None,
        "held": found.held if found else None,
        "pending_reports": Outbox(config.state_dir / "reports.json").pending,
        "link": standing(config),
        "models": {
            name: _of_model(
                settings,
                Directory(config.state_dir / "models" / name),
                Store.of(config.state_dir, name).expires_at(),
                (found.models.get(name) if found else None) or LiveModel(),
            )
            for name, settings in config.models.items()
        },
    }


def _of_model(
    settings: ModelConfig, slots: Directory, expires_at: float | None, live: LiveModel
) -> dict[str, Any]:
    journal = load_journal(slots.journal) or Journal()
    current = slots.current()
    held = journal.slots.get(current) if current else None
    target = journal.target
    packages = target.packages if target else []
    return {
        "state": journal.state,
        "version": held.version if held else None,
        "weights_digest": held.digest if held else None,
        "current": str(slots.link) if current else None,
        "slots": {name: slot.digest for name, slot in sorted(journal.slots.items())},
        "storage": settings.storage,
        "runtime": settings.runtime.kind,
        "target_version": target.version if target else None,
        "target_digest": target.weights_digest if target else None,
        "origin": target.origin if target else None,
        "package_bytes": sum(offer.size for offer in packages) if target else None,
        "received_bytes": (
            sum(received(slots.package(offer.sha256)) for offer in packages) if target else None
        ),
        "attempts": journal.attempts,
        "metadata_expire_at": _moment(expires_at),
        "metadata_expired": expires_at <= at_least(time.time()) if expires_at is not None else None,
        "held": live.held,
        "error": journal.error.model_dump() if journal.error else None,
        "last_update": _of_the_last(journal, slots.journal),
    }


def _of_the_last(journal: Journal, path: Path) -> dict[str, Any] | None:
    """Nothing is written to a journal at rest: the time of the file is that of the end."""
    if journal.last is None:
        return None
    at = path.stat().st_mtime if journal.state == "idle" else None
    return {**journal.last.model_dump(), "at": _moment(at)}


def _check_access(state_dir: Path) -> None:
    """Raise AgentError `not_permitted`: what may not be read must not be taken for not there."""
    for name in ("", "identity.json", "reports.json", "models", "trust"):
        place = state_dir / name
        if os.access(place, os.F_OK) and not os.access(place, os.R_OK):
            raise AgentError("not_permitted", f"{place} may not be read")


def _is_locked(path: Path) -> bool:
    """Whether a process holds the lock; to try for it might make an agent fail that starts."""
    try:
        found, table = path.stat(), _LOCKS.read_text("ascii")
    except OSError:
        return False
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    return any(line.split()[5:6] == [place] for line in table.splitlines())


def _moment(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    at = datetime.fromtimestamp(seconds, timezone.utc)
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
