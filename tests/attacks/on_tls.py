"""Attacks by whoever takes the place of the server, or listens."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from typing import Any

from edge_agent.config import load_config
from shared.errors import WeftError
from tests.attacks.attack import Act, Seen, anybody, attack, yes
from tests.attacks.device import Device
from tests.certificates import Authority, new_key, pin_of
from tests.edge_agent.plane import Plane

Serve = Callable[[ssl.SSLContext], Plane]


@attack(
    "network",
    refused="server.untrusted",
    told="certificate verify failed",
    defence="edge_agent.tls:trusting",
    off=anybody,
)
def a_server_with_a_certificate_of_its_own(device: Device, signer: Authority, tls: Serve) -> Act:
    """Somebody takes the place of the server, with a certificate that nobody vouches for."""
    return _at(device, tls(signer.server()))


def _at(device: Device, plane: Plane, **settings: Any) -> Act:
    """The device asks a server there, by other settings."""
    identity = device.bench.config.state_dir / "identity.json"
    known = json.loads(identity.read_text())
    identity.write_text(json.dumps(known | {"server": plane.url}))
    plane.token, plane.generation = known["token"], 9
    plane.keys = device.plane.keys
    device.settings.update(server=plane.url, **settings)
    return device.round


def _any_host(authorities: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authorities))
    context.check_hostname = False
    return context


@attack(
    "network",
    refused="server.untrusted",
    told="not valid for '127.0.0.1'",
    defence="edge_agent.tls:trusting",
    off=_any_host,
)
def a_server_with_the_certificate_of_another(device: Device, signer: Authority, tls: Serve) -> Act:
    """Somebody takes the place of the server, with a good certificate for another name."""
    return _at(device, tls(signer.server("127.0.0.2")), server_ca=str(signer.file))


@attack(
    "network",
    refused="server.untrusted",
    told="and not pinned",
    defence="edge_agent.tls:is_pinned",
    off=yes,
)
def a_certificate_by_an_authority_that_was_forced(
    device: Device, signer: Authority, tls: Serve
) -> Act:
    """An authority that devices trust makes a certificate for somebody in between."""
    pins = [pin_of(new_key())]
    server = tls(signer.server())
    return _at(device, server, server_ca=str(signer.file), server_pins=pins)


@attack(
    "network",
    refused="config.invalid",
    told="use https",
    defence="edge_agent.config:LOOPBACK",
    off=frozenset({"weft.example"}),
)
def a_token_in_clear_text(device: Device) -> Act:
    """Somebody listens where a device was configured to speak plain http to another machine."""
    clear = {
        name: json.dumps(value) if isinstance(value, dict) else value
        for name, value in (device.settings | {"server": "http://weft.example"}).items()
    }

    def act() -> Seen:
        try:
            load_config(None, {f"WEFT_AGENT_{name.upper()}": v for name, v in clear.items()})
        except WeftError as error:
            return Seen(error.code, str(error))
        return Seen(None)

    return act
