"""What an operator can set, by environment variables with the prefix `WEFT_`.

`WEFT_DATA_DIR=/srv/weft WEFT_PORT=9000 weft serve`. Lists are separated by commas.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from server.logs import LogFormat, LogLevel
from shared.errors import BadConfig
from shared.wire import check_token

MIB, GIB = 1024**2, 1024**3

#: Secrets that stand in examples; refused where other machines can reach the server.
PLACEHOLDERS = frozenset(
    {
        *("admin", "default", "demo", "example", "placeholder", "postgres", "secret", "test"),
        *("token", "weft", "changeme", "change-me", "change-this", "replace-me", "password"),
        *("password1", "minioadmin", "your-key-here", "your-secret-here", "12345678", "123456789"),
    }
)

#: Fields that are secrets.
SECRETS = ("admin_key", "enrolment_token")

Names = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """The server's settings; every field is the environment variable `WEFT_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="WEFT_", extra="ignore", frozen=True)

    data_dir: Path = Field(Path("var/server"), description="Database, blobs and jobs lie here.")
    database_url: str = Field("", description="SQLAlchemy URL; empty: SQLite in the data folder.")
    database_connections: int = Field(
        20, ge=2, le=500, description="Most connections of one process to PostgreSQL."
    )
    auto_migrate: bool = Field(True, description="Bring the schema up to date at the start.")
    blobs: str = Field(
        "", description="Where weights and packages lie: `s3://bucket/prefix`; empty: data folder."
    )
    blobs_endpoint: str = Field("", description="URL of an S3-compatible service; empty: AWS.")
    blobs_region: str = Field("", description="Region of the bucket; empty: as the SDK finds it.")
    blobs_create: bool = Field(False, description="Create the bucket where there is none.")
    blobs_cache_bytes: int = Field(
        4 * GIB, ge=0, description="Most bytes of far blobs that are kept in the data folder."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8300, ge=0, le=65535, description="Port to listen on; 0 chooses a free one.")
    require_keys: bool = Field(
        True,
        description="Whether /api/v1 asks for keys; false only where the address is loopback.",
    )
    admin_key: SecretStr | None = Field(
        None,
        description="An admin key beside those of `weft access`; with it no first one is made.",
    )
    admin_key_file: Path | None = Field(
        None, description="A file that holds the admin key, as containers are given secrets."
    )
    trusted_proxies: Names = Field(
        (),
        description="Addresses or networks of proxies whose `X-Forwarded-For` and `-Proto` count; "
        "empty: none.",
    )
    keys_dir: Path | None = Field(
        None,
        description="Where the keys that sign metadata lie; empty: `keys` in the data folder, "
        "where the first start makes them.",
    )
    auto_release: bool = Field(
        True,
        description="Release a version when it is deployed, where the release key lies here.",
    )
    enrolment_token: SecretStr | None = Field(
        None,
        description="A token by which any number of devices enrol, 8 to 512 visible ASCII "
        "characters; more are made by `weft tokens create`.",
    )
    enrolment_accept: Literal["automatic", "by_hand"] = Field(
        "automatic",
        description="Whether devices that come by that token wait for `weft devices accept`.",
    )
    enrolment_models: Names = Field(
        (),
        description="The models that devices may claim which come by that token; empty: any.",
    )
    device_token_days: float = Field(
        90.0,
        ge=0,
        le=36500,
        description="Days, or up to a tenth less, until a device renews its own token, by its key; "
        "0: never.",
    )
    poll_interval: float = Field(
        60.0, gt=0, le=86400, description="Seconds between two polls of a device."
    )
    poll_jitter: float = Field(
        0.1, ge=0, le=0.5, description="Share of the interval by which it varies at random."
    )
    update_budget: int = Field(
        16 * MIB,
        ge=0,
        description="Most bytes of one update, all its packages together; 0: no limit. Groups may "
        "set their own. What costs more is held, never sent.",
    )
    penalty_after: int = Field(
        0,
        ge=0,
        description="Updates that failed in a row until rollouts leave a device out; 0: never.",
    )
    model_modules: Names = Field(
        (), description="Modules whose factories may serve as architectures (`module:factory`)."
    )
    dataset_roots: Names = Field(
        (), description="Path or URL prefixes under which datasets may lie; empty: none."
    )
    webhook_hosts: Names = Field(
        (), description="Hosts to which webhooks may send, as `host` or `host:port`; empty: none."
    )
    keep_progress_days: int = Field(
        90,
        ge=0,
        description="Days that events of progress are kept, results for ever; 0: for ever.",
    )
    keep_packages_days: int = Field(
        0,
        ge=0,
        description="Days that packages and weights which nobody needs are kept; 0: for ever.",
    )
    keep_versions: int = Field(
        10,
        ge=1,
        description="Newest versions of each model whose weights and packages always stay.",
    )
    max_upload_bytes: int = Field(
        8 * GIB, gt=0, description="Largest weights file that an upload may hold, in bytes."
    )
    max_body_bytes: int = Field(
        4 * 1024**2, gt=0, description="Largest JSON body of a request, in bytes."
    )
    max_in_work: int = Field(
        256, ge=0, description="Requests in work above which polls are sent away; 0: no limit."
    )
    rate_devices: float = Field(
        50.0, ge=0, description="Requests a second of one device; 0: no limit, as below."
    )
    rate_enrolments: float = Field(
        20.0, ge=0, description="Requests a second of one address that enrols, or has no token."
    )
    rate_others: float = Field(
        200.0, ge=0, description="Requests a second of one address on the management plane."
    )
    rate_burst: float = Field(
        10.0, ge=0, le=3600, description="Seconds' worth of requests that may come at once."
    )
    log_format: LogFormat = Field("text", description="Lines of the log: `text` or `json`.")
    log_level: LogLevel = Field(
        "info", description="`debug` (with polls), `info`, `warning` or `error`."
    )

    @field_validator(
        *("model_modules", "dataset_roots", "webhook_hosts", "trusted_proxies"),
        "enrolment_models",
        mode="before",
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @model_validator(mode="before")
    @classmethod
    def _read_secrets(cls, given: Any) -> Any:
        """The admin key out of its file; an empty secret is none, and only local use has none."""
        path = given.get("admin_key_file")
        if path:
            if given.get("admin_key"):
                raise ValueError("set WEFT_ADMIN_KEY or WEFT_ADMIN_KEY_FILE, not both")
            given = given | {"admin_key": _secret_of(Path(path))}
        if not is_local(str(given.get("host", "127.0.0.1"))):
            for name in SECRETS:
                if given.get(name) == "":
                    raise ValueError(f"WEFT_{name.upper()} is empty; choose a secret, or unset it")
        return given

    @field_validator("admin_key", "admin_key_file", "enrolment_token", "keys_dir", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            ipaddress.ip_network(name, strict=False)  # its ValueError names what is wrong
        return value

    @field_validator("enrolment_token")
    @classmethod
    def _devices_can_send_it(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_token(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _guard_public_address(self) -> Settings:
        if not self.require_keys and self.admin_key is not None:
            raise ValueError("WEFT_REQUIRE_KEYS=false leaves WEFT_ADMIN_KEY without a meaning")
        if self.is_loopback:
            return self
        if not self.require_keys:
            raise ValueError(f"WEFT_REQUIRE_KEYS=false is not allowed on {self.host}")
        for name, secret in self._secrets():
            if is_placeholder(secret):
                raise ValueError(f"{name} is a placeholder; choose a real secret")
        return self

    def _secrets(self) -> Iterator[tuple[str, str]]:
        """What opens something, by the name of its variable."""
        for name in SECRETS:
            if (secret := getattr(self, name)) is not None:
                yield f"WEFT_{name.upper()}", secret.get_secret_value()
        if self.database_url and (password := urlsplit(self.database_url).password) is not None:
            yield "the password in WEFT_DATABASE_URL", password

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_local(self.host)

    @property
    def url(self) -> str:
        """The database URL in use."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'weft.db'}"

    @property
    def is_sqlite(self) -> bool:
        """Whether the embedded database is in use: then one server process at a time."""
        return self.url.startswith("sqlite")

    @property
    def blobs_dir(self) -> Path:
        """Where the local store keeps weights and packages."""
        return self.data_dir / "blobs"

    @property
    def keys_folder(self) -> Path:
        """Where the keys that sign metadata lie."""
        return self.keys_dir or self.data_dir / "keys"

    @property
    def jobs_dir(self) -> Path:
        """Where each refinement has its folder."""
        return self.data_dir / "jobs"


def is_placeholder(secret: str) -> bool:
    """Whether a secret is none: empty, out of an example, or guessed by the first who tries."""
    plain = secret.strip().lower()
    return plain in PLACEHOLDERS or len(set(plain)) < 4


def is_local(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _secret_of(path: Path) -> str:
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ValueError(f"WEFT_ADMIN_KEY_FILE: {path}: {error}") from error
    if not secret:
        raise ValueError(f"WEFT_ADMIN_KEY_FILE: {path} is empty")
    return secret


def load_settings(**overrides: Any) -> Settings:
    """The settings of the environment, with `overrides` on top.

    Raises BadConfig `invalid`, naming each variable that is wrong.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise BadConfig("invalid", "; ".join(map(_explain, error.errors()))) from error


def _explain(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    text = str(problem["msg"]).removeprefix("Value error, ")
    return f"WEFT_{where.upper()}: {text}" if where else text
