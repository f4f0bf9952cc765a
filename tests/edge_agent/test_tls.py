"""Whom the agent believes to be its server, and where it sends nothing."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from edge_agent import tls
from edge_agent.config import Config, load_config
from edge_agent.errors import ServerAway
from edge_agent.proxy import proxy_for
from shared.errors import BadConfig
from tests.certificates import DAY, Authority, authority, new_key, pin_of
from tests.edge_agent.plane import Plane, serving
from tests.signing import Roots

Serve = Callable[[ssl.SSLContext], Plane]


@pytest.fixture
def signer(tmp_path: Path) -> Authority:
    """A private authority, which nobody trusts without being told."""
    return authority(tmp_path)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves device planes over TLS, as one server would: with one root."""
    roots = Roots()
    with ExitStack() as stack:
        yield lambda context: stack.enter_context(serving(Plane(roots=roots), context))


def is_refused(bench: Any, plane: Plane, told: str) -> bool:
    """Whether the agent says so, and the server has heard nothing."""
    with pytest.raises(ServerAway, match=told) as raised:
        bench.round()
    return raised.value.code == "server.untrusted" and plane.requests == []


def test_a_private_authority_is_trusted_where_it_is_named(
    bench: Any, serve: Serve, signer: Authority
) -> None:
    plane = serve(signer.server())
    bench.settings["server"] = plane.url
    assert is_refused(bench, plane, "certificate verify failed")
    bench.settings["server_ca"] = str(signer.file)
    assert bench.round() == []


def test_where_an_authority_is_named_those_of_the_system_count_for_nothing(
    bench: Any, serve: Serve, signer: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(signer.file))
    (tmp_path / "other").mkdir()
    plane = serve(signer.server())
    bench.settings |= {
        "server": plane.url,
        "server_ca": str(authority(tmp_path / "other").file),
    }
    assert is_refused(bench, plane, "certificate verify failed")


@pytest.mark.parametrize(
    ("host", "ends", "told"),
    [("127.0.0.2", DAY, "mismatch"), ("127.0.0.1", -DAY, "expired")],
)
def test_a_certificate_for_another_host_or_of_yesterday(
    bench: Any, serve: Serve, signer: Authority, host: str, ends: Any, told: str
) -> None:
    plane = serve(signer.server(host, ends))
    bench.settings |= {"server": plane.url, "server_ca": str(signer.file)}
    assert is_refused(bench, plane, told)


def test_a_key_that_is_not_pinned_is_sent_nothing(
    bench: Any, serve: Serve, signer: Authority
) -> None:
    real, other = new_key(), new_key()
    plane = serve(signer.server(key=other))
    bench.settings |= {
        "server": plane.url,
        "server_ca": str(signer.file),
        "server_pins": [pin_of(real)],
    }
    assert is_refused(bench, plane, pin_of(other))


def test_a_change_of_keys_is_followed_where_both_are_pinned(
    bench: Any, serve: Serve, signer: Authority
) -> None:
    keys = [new_key(), new_key()]
    bench.settings |= {"server_ca": str(signer.file), "server_pins": [pin_of(k) for k in keys]}
    for key in keys:
        bench.settings["server"] = serve(signer.server(key=key)).url
        assert bench.round() == []


def test_a_pin_does_not_replace_an_authority(bench: Any, serve: Serve, signer: Authority) -> None:
    key = new_key()
    plane = serve(signer.server(key=key))
    bench.settings |= {"server": plane.url, "server_pins": [pin_of(key)]}
    assert is_refused(bench, plane, "certificate verify failed")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_the_documented_command_gives_the_pin(signer: Authority) -> None:
    command = "openssl pkey -pubin -outform der | openssl dgst -sha256"
    line = f"openssl x509 -in '{signer.file}' -noout -pubkey | {command}"
    told = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    assert told.stdout.split()[-1] == pin_of(signer.key)
    certificate = ssl.PEM_cert_to_DER_cert(signer.file.read_text())
    assert tls.key_digest(certificate) == pin_of(signer.key)


def test_what_is_demanded_of_every_server(signer: Authority) -> None:
    for context in (tls.trusting(None), tls.trusting(signer.file)):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.check_hostname
        assert context.verify_mode == ssl.CERT_REQUIRED


def configured(**settings: object) -> Config:
    return Config.model_validate({"server": "https://w.example", "models": {"m": {}}} | settings)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"server": "http://w.example"}, "use https"),
        ({"server": "http://127.0.0.1", "server_pins": ["0" * 64]}, "only an https server"),
        ({"server": "http://127.0.0.1", "server_ca": "/x"}, "only an https server"),
        ({"server": "http://127.0.0.1", "proxy": "gate:3128"}, "it would read"),
    ],
)
def test_settings_that_would_send_secrets_in_clear_text(
    settings: dict[str, object], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        configured(**settings)


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        ({"server": "http://127.0.0.1:8300"}, None),
        ({"server": "http://127.0.0.1:8300", "allow_http": True}, "http://gate:3128"),
    ],
)
def test_a_proxy_elsewhere_does_not_read_what_goes_to_this_machine(
    settings: dict[str, object], sent: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://gate:3128")
    found = proxy_for(configured(**settings))
    assert (found and found.url) == sent


@pytest.mark.parametrize("content", [None, "", "not a certificate"])
def test_a_file_of_authorities_that_is_none(
    bench: Any, content: str | None, tmp_path: Path
) -> None:
    file = tmp_path / "authority.pem"
    if content is not None:
        file.write_text(content)
    bench.settings |= {"server": "https://127.0.0.1:9", "server_ca": str(file)}
    with pytest.raises(BadConfig, match="server_ca"):
        bench.round()


def test_pins_are_checked_and_may_come_from_a_variable(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"server_pins\.0: must be 64 hex digits in lower case"):
        given(tmp_path, server_pins="8C1F")
    found = given(tmp_path, server_pins=f"{'0' * 64}, {'f' * 64}")
    assert found.server_pins == ["0" * 64, "f" * 64]


def given(folder: Path, **settings: str) -> Config:
    """The settings as they come from a file and from variables."""
    file = folder / "agent.toml"
    file.write_text('server = "https://w.example"\n[models.m]\n')
    return load_config(file, {f"WEFT_AGENT_{name.upper()}": v for name, v in settings.items()})
