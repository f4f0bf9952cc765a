"""The configuration file of `weft`: what need not be typed at each command.

    server = "https://weft.example"      # for the commands that talk to a server
    key = "..."

    [serve]                              # for those that are one: serve, worker, migrate...
    port = 9000
    dataset_roots = ["/srv/data"]
    jobs_at_once = 2

It is `--config FILE`, else $WEFT_CONFIG (empty: none), else `weft/config.toml` in the user's
configuration folder, if that exists. Its values become the environment variables that they stand
for, unless those are set: so the environment wins, and child processes hear of them too.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from server.jobs.settings import JobSettings
from server.settings import Settings
from shared.errors import BadConfig

#: Commands that are a server, or work on what belongs to one: they hear of [serve] alone.
SERVING = frozenset({"serve", "migrate", "worker", "backup", "restore", "doctor", "recover-key"})
#: Commands that ask a server, and on its machine work on its keys folder.
BOTH = frozenset({"keys"})

CLIENT = {"server": "WEFT_SERVER", "key": "WEFT_KEY"}

#: Settings that are secrets: a file with one is for nobody else to read.
SECRETS = frozenset({"WEFT_KEY", "WEFT_ADMIN_KEY", "WEFT_ENROLMENT_TOKEN"})

#: All classes of settings that a server reads.
SETTINGS = (Settings, JobSettings)


#: Mode bits of whoever is not of the group either, as which a server may run.
OTHERS = 0o007


def apply_config(command: str | None, given: Path | None) -> None:
    """Make the environment complete by the file, for `command`.

    Raises BadConfig `missing` for a file that was named and is not there, `invalid` for one that
    cannot be read or holds what nobody knows.
    """
    path = given or _path()
    if path is None:
        return
    serving, client = read_config(path)
    if "WEFT_ADMIN_KEY" in os.environ:
        client.pop("WEFT_KEY", None)  # the environment wins, by whichever name
    chosen = serving if command in SERVING else client
    for name, value in (serving | client if command in BOTH else chosen).items():
        os.environ.setdefault(name, value)


def read_config(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The environment variables that a file stands for: a server's, and a client's."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadConfig("missing", f"there is no configuration file {path}") from error
    except (OSError, ValueError) as error:
        raise BadConfig("invalid", f"{path}: {error}") from error
    serve = content.pop("serve", {})
    if not isinstance(serve, dict):
        raise BadConfig("invalid", f"{path}: serve must be a table")
    known = {
        variable.removeprefix("WEFT_").lower(): variable
        for settings in SETTINGS
        for variable in _variables(settings)
    }
    serving, client = _chosen(path, "serve.", serve, known), _chosen(path, "", content, CLIENT)
    if serving.keys() & SECRETS:
        require_private(path, OTHERS)
    if client.keys() & SECRETS:
        require_private(path)
    return serving, client


def require_private(path: Path, others: int = 0o077) -> None:
    """Raise BadConfig where users whose mode bits are `others` may read a file with secrets."""
    if path.stat().st_mode & others:
        todo = f"chmod {0o640 & ~others:o} {path}"
        raise BadConfig("invalid", f"{path} holds a secret, and others may read it: {todo}")


def _variables(settings: type[Settings] | type[JobSettings]) -> list[str]:
    prefix = settings.model_config["env_prefix"]
    return [f"{prefix}{name.upper()}" for name in settings.model_fields]


def _chosen(
    path: Path, table: str, content: Mapping[str, Any], known: Mapping[str, str]
) -> dict[str, str]:
    found = {}
    for name, value in content.items():
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
            raise BadConfig("invalid", f"{path}: nobody knows {table}{name}{hint}")
        found[known[name]] = _as_variable(path, f"{table}{name}", value)
    return found


def _as_variable(path: Path, name: str, value: Any) -> str:
    """The value as it would stand in the environment."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, int, float)):
        return str(value)
    if isinstance(value, list) and all(isinstance(part, str) and "," not in part for part in value):
        return ",".join(value)
    raise BadConfig("invalid", f"{path}: {name} must be a text, a number or a list of texts")


def _path() -> Path | None:
    """The file to read, if any: one that $WEFT_CONFIG names must be there."""
    if (named := os.environ.get("WEFT_CONFIG")) is not None:
        return Path(named) if named else None
    path = config_folder() / "config.toml"
    return path if path.is_file() else None


def config_folder() -> Path:
    """Where a user's own configuration of `weft` lies."""
    folder = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(folder).expanduser() / "weft"
