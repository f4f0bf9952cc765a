"""The agent's settings: a TOML file, overridden by environment variables `WEFT_AGENT_*`.

Every setting is documented in `docs/edge-agent.md`, which a test holds against `Config`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from edge_agent.errors import AgentError
from edge_agent.proxy import LOOPBACK, parsed
from edge_agent.wrong_settings import explained
from shared.errors import BadConfig
from shared.wire import AttributeName, Digest, ModelName, OneLine, check_token

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_PATH = Path("/etc/weft/edge-agent.toml")
PREFIX = "WEFT_AGENT_"
#: Names the file itself, hence not a setting.
PATH_VARIABLE = PREFIX + "CONFIG"
#: Settings that are tables.
TABLES = frozenset({"models", "attributes", "links"})
#: Where the weights of a model lie: in two slots, or in one file that is changed in place.
StorageMode: TypeAlias = Literal["ab", "inplace"]
#: unix(7), less the zero at the end.
MAX_SOCKET_BYTES = 107


class FileRuntime(BaseModel):
    """A program that opens `current`: `kind = "file"`. At most one way to tell it of a change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["file"] = Field(
        default="file", description="`file`: the program opens the weights itself."
    )
    notify_pidfile: Path | None = Field(
        default=None, description="The file with the process id of the program to signal."
    )
    notify_signal: str = Field(
        default="HUP", pattern=r"^[A-Z0-9+]+$", description="The signal, such as `HUP` or `USR1`."
    )
    notify_command: list[str] | None = Field(
        default=None, min_length=1, description="Program and arguments that tell it."
    )
    notify_url: str | None = Field(
        default=None, description="Where to POST to, on this machine: `http://127.0.0.1:...`."
    )
    notify_timeout_seconds: float = Field(
        default=10, gt=0, le=60, description="After this time it could not be told."
    )
    holds_copy: bool = Field(
        default=False,
        description="The program reads the whole file when it is told, and never maps it.",
    )

    @field_validator("notify_signal")
    @classmethod
    def _known_signal(cls, value: str) -> str:
        if f"SIG{value}" not in signal.Signals.__members__:
            raise ValueError("there is no such signal")
        return value

    @field_validator("notify_url")
    @classmethod
    def _on_this_machine(cls, value: str | None) -> str | None:
        parts = urlsplit(value or "http://localhost")
        if parts.scheme != "http" or parts.hostname not in LOOPBACK or parts.username:
            raise ValueError("must be http:// on this machine: 127.0.0.1, ::1 or localhost")
        return value

    @model_validator(mode="after")
    def _one_way(self) -> FileRuntime:
        ways = (self.notify_pidfile, self.notify_command, self.notify_url)
        if sum(way is not None for way in ways) > 1:
            raise ValueError("give one of notify_pidfile, notify_command and notify_url")
        if "notify_signal" in self.model_fields_set and self.notify_pidfile is None:
            raise ValueError("notify_signal needs notify_pidfile")
        return self


class ProgramRuntime(BaseModel):
    """A program that takes new weights while it runs, over its Unix socket: `kind = "program"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["program"] = Field(description="`program`: it is given them over its socket.")
    socket: Path = Field(description="Where the program listens.")
    timeout_seconds: float = Field(
        default=60, gt=0, le=3600, description="After this time the program does not answer."
    )

    @field_validator("socket")
    @classmethod
    def _fits_an_address(cls, value: Path) -> Path:
        if len(os.fsencode(value)) > MAX_SOCKET_BYTES:
            raise ValueError(f"a socket's path has at most {MAX_SOCKET_BYTES} bytes")
        return value


RuntimeConfig: TypeAlias = Annotated[FileRuntime | ProgramRuntime, Field(discriminator="kind")]


class ModelConfig(BaseModel):
    """One model of the device: `[models.<name>]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    initial: Path | None = Field(
        default=None, description="Weights that the device was delivered with; copied once."
    )
    health_command: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Program and arguments that judge new weights; exit status 0 accepts them.",
    )
    health_timeout_seconds: float = Field(
        default=60, gt=0, le=3600, description="After this time the health check has failed."
    )
    runtime: RuntimeConfig = Field(
        default_factory=FileRuntime, description="How the program comes to use new weights."
    )
    storage: StorageMode = Field(
        default="ab", description="`ab`: two slots; `inplace`: one file, changed in place."
    )
    install_window: str | None = Field(
        default=None,
        pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$",
        description="Hours in which new weights may come into use, such as `22:00-05:30`.",
    )

    @field_validator("runtime", mode="before")
    @classmethod
    def _is_a_file_unless_said(cls, given: Any) -> Any:
        return {"kind": "file", **given} if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _weights_may_change_in_place(self) -> ModelConfig:
        maps = isinstance(self.runtime, FileRuntime) and not self.runtime.holds_copy
        if self.storage == "inplace" and maps:
            raise ValueError('storage = "inplace" needs a runtime that holds a copy of the weights')
        return self

    @model_validator(mode="after")
    def _window_is_some_time(self) -> ModelConfig:
        opens, _, closes = (self.install_window or "0-1").partition("-")
        if opens == closes:
            raise ValueError("install_window: begins when it ends")
        return self


class LinkConfig(BaseModel):
    """A link that the device may be connected by: `[links.<name>]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    interfaces: list[str] = Field(
        min_length=1, description="Network interfaces that it consists of, such as `wwan*`."
    )
    action: Literal["allow", "cap", "defer"] = Field(
        default="allow",
        description="`cap`: download no faster than `max_bytes_per_second`; "
        "`defer`: wait for another link.",
    )
    max_bytes_per_second: int | None = Field(
        default=None, ge=64, description="The speed of downloads by this link, for `cap`."
    )
    budget_bytes: int | None = Field(
        default=None,
        ge=1 << 14,
        description="Bytes that may go by this link in each period, polls included.",
    )
    budget_seconds: float = Field(
        default=86400, ge=60, le=31622400, description="Length of a period."
    )

    @model_validator(mode="after")
    def _speed_belongs_to_cap(self) -> LinkConfig:
        if (self.action == "cap") != (self.max_bytes_per_second is not None):
            raise ValueError('`max_bytes_per_second` and `action = "cap"` belong together')
        return self


class Config(BaseModel):
    """All settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    server: str = Field(description="Address of the server, such as `https://weft.example`.")
    allow_http: bool = Field(
        default=False, description="Accept plain http to another machine; for closed networks."
    )
    server_ca: Path | None = Field(
        default=None,
        description="PEM file of the authorities that may vouch for the server, in place of the "
        "system's: for a private one.",
    )
    server_pins: list[Digest] = Field(
        default_factory=list,
        max_length=8,
        description="SHA-256 of public keys, 64 hex digits each: the server's must be one of them.",
    )
    name: OneLine = Field(
        default_factory=lambda: socket.gethostname(),
        validate_default=True,
        description="What the server shows for this device, from its enrolment on. "
        "Default: the host name.",
    )
    enrolment_token: SecretStr | None = Field(
        default=None,
        description="8 to 512 visible ASCII characters; needed until the device has its own token.",
    )
    root: Path | None = Field(
        default=None,
        description="File of the root metadata to believe first, where `enrolment_token` does not "
        "carry their SHA-256.",
    )
    state_dir: Path = Field(
        default=Path("/var/lib/weft-agent"), description="Journals, slots and identity."
    )
    run_dir: Path = Field(
        default=Path("/run/weft-agent"),
        description="In memory: what is true only while the agent runs, for `status`. "
        "Nothing is written where it does not exist.",
    )
    metrics_file: Path | None = Field(
        default=None,
        description="Figures for node_exporter's textfile collector; the name ends in `.prom`.",
    )
    models: dict[ModelName, ModelConfig] = Field(
        min_length=1, description="The models that this device runs; others are left alone."
    )
    attributes: dict[AttributeName, OneLine] = Field(
        default_factory=dict,
        max_length=60,
        description="What the server shows of this device and filters by: names and short texts.",
    )
    poll_seconds: float = Field(
        default=60, ge=0.05, le=86400, description="Time between polls, until the server says."
    )
    timeout_seconds: float = Field(
        default=30, gt=0, le=600, description="Silence on a connection that ends it."
    )
    max_attempts: int = Field(
        default=5, ge=1, le=100, description="Starts of one update without any progress."
    )
    max_package_bytes: int = Field(
        default=1 << 30, ge=1, description="Larger packages, or chains, are refused unseen."
    )
    max_bytes_per_second: int | None = Field(
        default=None, ge=64, description="The speed of downloads, by whatever link."
    )
    proxy: SecretStr | None = Field(
        default=None,
        description="`http://[user:password@]host[:port]`, or empty for none. "
        "Default: what the environment says.",
    )
    links: dict[str, LinkConfig] = Field(
        default_factory=dict, description="What may be done by which link; the first one counts."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="What is written to standard error."
    )

    @field_validator("server")
    @classmethod
    def _plain_address(cls, value: str) -> str:
        """Scheme, host and port only."""
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be http://host[:port] or https://host[:port]")
        if parts.path.strip("/") or parts.query or parts.fragment or parts.username:
            raise ValueError("must have no path, query, fragment or user")
        return f"{parts.scheme}://{parts.netloc}"

    @field_validator("server_pins", mode="before")
    @classmethod
    def _from_a_variable(cls, value: object) -> object:
        """A variable holds them with commas between."""
        return [pin.strip() for pin in value.split(",")] if isinstance(value, str) else value

    @field_validator("metrics_file", "server_ca", "root", mode="before")
    @classmethod
    def _may_be_taken_back(cls, value: object) -> object:
        """Empty is none: a variable can then override what the file says."""
        return None if value == "" else value

    @field_validator("metrics_file")
    @classmethod
    def _is_collected(cls, value: Path | None) -> Path | None:
        if value and value.suffix != ".prom":
            raise ValueError("node_exporter reads only files whose names end in .prom")
        return value

    @field_validator("proxy")
    @classmethod
    def _is_a_proxy(cls, value: SecretStr | None) -> SecretStr | None:
        if value and value.get_secret_value():
            parsed(value.get_secret_value(), "proxy")
        return value

    @field_validator("enrolment_token")
    @classmethod
    def _token_can_travel(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value():
            return None
        check_token(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _tokens_travel_encrypted(self) -> Config:
        parts = urlsplit(self.server)
        is_plain = parts.scheme == "http"
        if is_plain and parts.hostname not in LOOPBACK and not self.allow_http:
            raise ValueError("server: use https, or set allow_http = true in a closed network")
        proxy = self.proxy and self.proxy.get_secret_value()
        if is_plain and not self.allow_http and proxy and not parsed(proxy, "proxy").is_here:
            raise ValueError("proxy: it would read what goes to an http server; use https")
        if is_plain and (self.server_ca or self.server_pins):
            raise ValueError("server_ca and server_pins: only an https server has a certificate")
        return self


def load_config(path: Path | None = None, environment: Mapping[str, str] | None = None) -> Config:
    """The settings from the file at `path` and from the environment, which wins.

    Without `path`, the file is the one that WEFT_AGENT_CONFIG names, or DEFAULT_PATH if it exists.
    Raises BadConfig, AgentError `not_permitted`.
    """
    variables = os.environ if environment is None else environment
    named = path or (Path(variables[PATH_VARIABLE]) if PATH_VARIABLE in variables else None)
    source = named or DEFAULT_PATH
    is_there = named is not None or os.path.exists(source)  # noqa: PTH110 - what may not be seen is not
    settings = _load_file(source) if is_there else {}
    settings.update(_overrides(variables))
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        where = f"in {source}" if is_there else f"and there is no {DEFAULT_PATH}"
        raise explained(error, where) from error


def _load_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError as error:
        raise BadConfig("missing", f"{path}: there is no such configuration file") from error
    except PermissionError as error:
        raise AgentError("not_permitted", f"{path} may not be read") from error
    except OSError as error:
        raise BadConfig("invalid", f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise BadConfig("invalid", f"{path} is not TOML: {error}") from error


def _overrides(variables: Mapping[str, str]) -> dict[str, Any]:
    """WEFT_AGENT_<SETTING>; tables as JSON, all else as it stands."""
    found: dict[str, Any] = {}
    for variable, value in variables.items():
        if not variable.startswith(PREFIX) or variable == PATH_VARIABLE:
            continue
        name = variable[len(PREFIX) :].lower()
        if name not in Config.model_fields:
            raise BadConfig("invalid", f"{variable}: there is no such setting")
        found[name] = _json(variable, value) if name in TABLES else value
    return found


def _json(variable: str, value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError as error:
        raise BadConfig("invalid", f"{variable} is not JSON: {error}") from error
