"""Which addresses webhooks may have: those that the server's settings name, and no others.

A server that opened whatever address a request brings would be a way into its own network.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

import httpx

from server.errors import BadWebhook

MAX_URL = 2000


def check_target(url: str, hosts: Iterable[str]) -> None:
    """Raise BadWebhook `bad_url` or `host_not_allowed` where nothing may be sent to `url`.

    `hosts`: allowed ones, as `host` (any port) or `host:port`.
    """
    parts = _split(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if parts.scheme == "http" and not _is_loopback(host):
        raise BadWebhook("bad_url", "http is only for this machine's loopback; elsewhere https")
    allowed = {(parts.hostname, parts.port) for parts in map(_split_host, hosts)}
    if not {(host, None), (host, port)} & allowed:
        raise BadWebhook("host_not_allowed", f"{host}:{port} is not in WEFT_WEBHOOK_HOSTS")


def host_of(url: str) -> str:
    """The host alone: the rest of a URL may hold secrets of the receiver."""
    return urlsplit(url).hostname or ""


def _split(url: str) -> SplitResult:
    plain = url.isascii() and url.isprintable() and " " not in url and len(url) <= MAX_URL
    try:
        parts = urlsplit(url)
        sound = parts.hostname and parts.scheme in ("http", "https") and parts.port != 0
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        plain = sound = False
    if not (plain and sound):
        raise BadWebhook("bad_url", "the address is not an https:// URL")
    if "@" in parts.netloc or parts.fragment:
        raise BadWebhook("bad_url", "the address has a user, a password or a fragment")
    return parts


def _split_host(allowed: str) -> SplitResult:
    try:
        parts = urlsplit(f"//{allowed}")
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        return urlsplit("")
    return parts


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
