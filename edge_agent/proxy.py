"""The proxy on the way to the server: the setting `proxy`, or else what the environment says.

`http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` mean what they mean to most programs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from shared.errors import BadConfig

#: Hosts that are this machine: what is sent to them in clear text nobody else can read.
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Settings(Protocol):
    """Those of the agent that are needed here."""

    @property
    def server(self) -> str:
        """Address of the server."""

    @property
    def allow_http(self) -> bool:
        """Whether plain http may go to other machines."""

    @property
    def proxy(self) -> SecretStr | None:
        """The proxy; empty: none; None: what the environment says."""


@dataclass(frozen=True)
class Proxy:
    """An http proxy. The login is a secret, and in no message."""

    url: str
    login: tuple[bytes, bytes] | None = field(default=None, repr=False)

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine."""
        return urlsplit(self.url).hostname in LOOPBACK


def proxy_for(config: Settings) -> Proxy | None:
    """The proxy to use for the server, if any. Raises BadConfig."""
    if config.proxy is not None:
        told = config.proxy.get_secret_value()
        return parsed(told, "proxy") if told else None
    found = _from_environment(config.server)
    # A server on this machine is not behind a proxy elsewhere, which would read all tokens.
    goes_out_plain = config.server.startswith("http:") and not config.allow_http
    return None if found and goes_out_plain and not found.is_here else found


def _from_environment(server: str) -> Proxy | None:
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass  # costs memory, and is seldom needed

    parts = urlsplit(server)
    if proxy_bypass(parts.netloc):
        return None
    proxies = getproxies()
    told = proxies.get(parts.scheme) or proxies.get("all")
    return parsed(told, f"{parts.scheme}_proxy in the environment") if told else None


def parsed(told: str, where: str) -> Proxy:
    """The proxy at an address that came from `where`. Raises BadConfig, without the login."""
    parts = urlsplit(told if "://" in told else f"http://{told}")
    try:
        port = parts.port or 80
    except ValueError:
        port = 0
    if parts.scheme != "http" or not parts.hostname or not port:
        raise BadConfig("invalid", f"{where}: must be http://[user:password@]host[:port]")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    login = None
    if parts.username is not None:
        login = unquote(parts.username).encode(), unquote(parts.password or "").encode()
    return Proxy(f"http://{host}:{port}", login)
