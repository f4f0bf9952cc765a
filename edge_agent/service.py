"""The agent as a service of systemd: the unit, written for the environment that it runs in.

`edge-agent.service` beside this file is the unit for an environment in /opt/weft and the default
settings. Lines of it are replaced by what is so here; nothing else is made on the machine.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_agent import files
from edge_agent.config import DEFAULT_PATH, PREFIX, Config, load_config
from edge_agent.errors import AgentError
from shared.errors import BadConfig

TEMPLATE = Path(__file__).with_name("edge-agent.service")
UNITS = Path("/etc/systemd/system")
UNIT = "edge-agent.service"
#: systemd makes and removes directories below these, for a service of its own.
_STATES, _RUNS = Path("/var/lib"), Path("/run")
#: What `ProtectHome=yes` hides, and `PrivateTmp=yes`.
_HOMES, _TEMPORARY = (
    (Path("/home"), Path("/root"), Path("/run/user")),
    (
        Path("/tmp"),  # noqa: S108 - not written to
        Path("/var/tmp"),  # noqa: S108
    ),
)


def install(config: Path | None, user: str, root: Path = Path("/")) -> dict[str, Any]:
    """Write the unit below `root`; says where, whether it changed, and what is to be done next.

    All paths are as the device sees them: `config` is read below `root`, if it is there already.
    Raises BadConfig, AgentError `no_systemd` and `not_permitted`, NoSpace.
    """
    path = _absolute(config or DEFAULT_PATH)
    target = _below(root, UNITS / UNIT)
    _check(target, root)
    settings = _settings(_below(root, path))
    text = unit(path, user, settings, _command())
    changed = not target.is_file() or target.read_text("utf-8") != text
    if changed:
        files.make_directory(target.parent)
        files.write(target, text.encode())
    steps = _next(path, user, settings, root)
    return {"unit": str(target), "changed": changed, "next": list(steps)}


def unit(path: Path, user: str, settings: Config | None, command: Sequence[Path | str]) -> str:
    """The text of the unit that runs `command` with the configuration at `path`. Pure."""
    if _lies_in(path, _TEMPORARY):
        raise BadConfig("invalid", f"{path}: a service does not see /tmp; put it below /etc, say")
    words = [*command, "run", "--config", path]
    lines = {
        "ExecStart": [" ".join(_quoted(str(word)) for word in words)],
        "User": [user],
    }
    if settings:
        lines |= _directories(settings)
    used = (path, *(Path(word) for word in command))
    if any(_lies_in(place, _HOMES) for place in used):
        lines["ProtectHome"] = ["read-only"]
    return _replaced(TEMPLATE.read_text("utf-8"), lines)


def _directories(settings: Config) -> dict[str, list[str]]:
    """What systemd makes for the agent, and what else it may write to."""
    others: list[Path] = []
    lines: dict[str, list[str]] = {}
    for key, place, home in (
        ("StateDirectory", settings.state_dir, _STATES),
        ("RuntimeDirectory", settings.run_dir, _RUNS),
    ):
        if not place.is_absolute():
            raise BadConfig("invalid", f"{place}: a service needs paths that begin with /")
        if place != home and place.is_relative_to(home):
            lines[key] = [str(place.relative_to(home))]
        else:
            lines[key] = []
            others.append(place)
    if settings.metrics_file and settings.metrics_file.parent != settings.run_dir:
        others.append(settings.metrics_file.parent)
    # With a dash: where it is missing, the agent itself says so.
    lines["ReadWritePaths"] = [_quoted(f"-{place}") for place in others]
    return lines


def _replaced(text: str, lines: Mapping[str, list[str]]) -> str:
    """The unit with those keys set to those values, in place of its own."""
    made: list[str] = []
    for line in text.splitlines():
        key = line.partition("=")[0]
        made += [f"{key}={value}" for value in lines[key]] if key in lines else [line]
        if key == "StateDirectory":
            made += [f"ReadWritePaths={value}" for value in lines.get("ReadWritePaths", [])]
    return "\n".join(made) + "\n"


def _settings(path: Path) -> Config | None:
    """What is configured; None where nothing is yet. Raises BadConfig."""
    # The service has an environment of its own.
    others = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    try:
        return load_config(path, others)
    except BadConfig as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def _command() -> list[Path | str]:
    """How the agent of this environment is started."""
    script = Path(sys.executable).with_name("edge-agent")
    return [script] if script.exists() else [Path(sys.executable), "-m", "edge_agent.cli"]


def _check(target: Path, root: Path) -> None:
    is_here = root == Path("/")
    if is_here and not target.parent.is_dir():
        raise AgentError("no_systemd", f"there is no {target.parent}")
    nearest = next(place for place in target.parents if os.path.exists(place))  # noqa: PTH110
    if not os.access(nearest, os.W_OK, effective_ids=True):
        raise AgentError("not_permitted", f"{nearest} may not be written to")


def _next(path: Path, user: str, settings: Config | None, root: Path) -> Iterator[str]:
    """The commands that are left to be done, in order."""
    is_here = root == Path("/")
    if not is_here or not _knows(user):
        there = "" if is_here else f"--root {root} "
        yield f"useradd {there}--system --home-dir /var/lib/weft-agent {user}"
    if settings is None:
        yield f"install -D -m 0640 -g {user} edge-agent.toml {path}"
        yield "edge-agent install-service  # once more: the configuration says what may be written"
    elif not settings.state_dir.is_relative_to(_STATES):
        yield f"install -d -o {user} -g {user} {settings.state_dir}"
    if is_here:
        yield "systemctl daemon-reload"
    yield f"systemctl {'' if is_here else f'--root {root} '}enable {'--now ' * is_here}edge-agent"


def _knows(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - links are kept as they are


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _lies_in(path: Path, places: Sequence[Path]) -> bool:
    return any(path.is_relative_to(place) for place in places)


def _quoted(word: str) -> str:
    """A word of a unit file, as in systemd.service(5)."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{word}"' if " " in word or "'" in word or '"' in word else word
