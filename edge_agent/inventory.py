"""What the agent tells of its device: what it can decode, and attributes to show and filter by."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

from edge_agent import __version__, files
from edge_agent.heavy import About
from shared.wire import MAX_CHAIN, Capabilities

MIB = 1024**2


def capabilities(
    about: About, directory: Path, chain: int = MAX_CHAIN, in_place: Iterable[str] = ()
) -> Capabilities:
    """What this agent can decode and store, and how many packages an update may take."""
    return Capabilities(
        agent=__version__,
        formats=about.formats,
        methods=about.methods,
        coders=about.coders,
        dtypes=about.dtypes,
        free_bytes=files.free_bytes(directory),
        chain=chain,
        in_place=sorted(in_place),
    )


def attributes(configured: Mapping[str, str]) -> dict[str, str]:
    """What is found out about the machine, and what is configured, which wins."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MIB
    found = {
        "machine": platform.machine(),
        "host": socket.gethostname(),
        "cores": str(os.cpu_count() or 1),
        "memory_mb": str(memory),
    }
    return {name: value for name, value in found.items() if value} | dict(configured)


def told(attributes: Mapping[str, str], capabilities: Capabilities, models: Iterable[str]) -> str:
    """All of it as one text, by which a change is found; free space changes all the time."""
    decodes = capabilities.model_copy(update={"free_bytes": None})
    return f"{sorted(attributes.items())} {decodes.model_dump_json()} {sorted(models)}"
