"""The keys that `weft login` keeps: one line a server, in a file that only its owner can read.

    https://weft.example weft_0c5e1d9a7b32_...

It is $WEFT_KEY_FILE, else `weft/keys` in the user's configuration folder. A key goes to the server
that it was kept for, and to no other.
"""

from __future__ import annotations

import os
from pathlib import Path

from server.cli.config import config_folder, require_private
from shared.errors import BadConfig


def path_of_keys() -> Path:
    """Where the keys are kept."""
    named = os.environ.get("WEFT_KEY_FILE")
    return Path(named) if named else config_folder() / "keys"


def load_key(server: str) -> str | None:
    """The key for this server, if one is kept. Raises BadConfig where others may read the file."""
    return _load(path_of_keys()).get(server)


def persist_key(server: str, key: str) -> Path:
    """Keep a key for a server; the file that it is in. Raises BadConfig, OSError."""
    path = path_of_keys()
    kept = _load(path) | {server: key}
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.writelines(f"{name} {text}\n" for name, text in kept.items())
    beside.replace(path)
    return path


def _load(path: Path) -> dict[str, str]:
    try:
        require_private(path)
        lines = path.read_text(encoding="utf-8").split("\n")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise BadConfig("invalid", f"{path}: {error}") from error
    pairs = (line.split() for line in lines if line.strip())
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
