"""Who the device is to its server: given at enrolment, kept in `<state_dir>/identity.json`."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from edge_agent import files
from edge_agent.errors import AgentError


class Identity(BaseModel):
    """The token is a secret, so the file is the owner's alone."""

    model_config = ConfigDict(frozen=True)
    server: str
    device_id: str
    token: str
    renewals: int = 0
    """How often another token was asked for: persisted before each time."""


def load_identity(path: Path) -> Identity | None:
    """The identity at `path`, None where there is none; raises AgentError."""
    try:
        return Identity.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise AgentError("state_damaged", f"{path} cannot be read") from error


def persist_identity(path: Path, identity: Identity) -> None:
    """Write the identity, readable by its owner only."""
    files.write(path, identity.model_dump_json().encode(), files.PRIVATE)
