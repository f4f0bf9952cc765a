"""Attacks by devices, by whoever has taken one apart, and by what only seems to be one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.devices import reports
from server.tables import Device, Package
from tests.attacks.attack import Act, attack, no, nothing, yes
from tests.attacks.plant import told
from tests.attacks.ranks import Ranks
from tests.device_keys import DeviceKey


@attack(
    "device",
    refused="device.bad_enrolment_token",
    told="is not this server's",
    defence="server.devices.tokens:same_secret",
    off=yes,
)
def an_enrolment_token_that_was_made_up(ranks: Ranks) -> Act:
    """Somebody enrols a device of theirs by a token that nobody gave them."""
    return lambda: told(ranks.try_to_enrol("a-token-of-my-own", DeviceKey()))


@attack(
    "device",
    refused="device.enrolment_token_used",
    told="has been used",
    defence="server.devices.tokens:Grant.use",
    off=nothing,
)
def a_one_time_token_once_more(ranks: Ranks) -> Act:
    """Somebody finds the token of a device that has enrolled, in its configuration."""
    token = ranks.token()
    ranks.enrol(token)
    return lambda: told(ranks.try_to_enrol(token, DeviceKey()))


@attack(
    "device",
    refused="device.enrolment_token_expired",
    told="has expired",
    defence="server.devices.enrolment:now",
    off=lambda: datetime(2000, 1, 1, tzinfo=UTC),
)
def a_token_of_last_year(ranks: Ranks) -> Act:
    """Somebody finds a token that no device ever used."""
    token = ranks.token(expires_in_seconds=3600)
    ranks.end_tokens()
    return lambda: told(ranks.try_to_enrol(token, DeviceKey()))


@attack(
    "device",
    refused="device.bad_signature",
    told="is not the device's",
    defence="server.devices.signatures:has_signed",
    off=yes,
)
def a_device_under_the_key_of_another(ranks: Ranks) -> Act:
    """Somebody who has seen the public key of a device enrols as that device, to get its token."""
    device = ranks.enrol(ranks.token(max_uses=None))
    token, thief = ranks.token(), DeviceKey()
    return lambda: told(ranks.try_to_enrol(token, device["key"], signer=thief))


@attack(
    "device",
    refused="device.bad_signature",
    told="is not the device's",
    defence="server.devices.signatures:has_signed",
    off=yes,
)
def a_report_by_whoever_has_the_token(ranks: Ranks) -> Act:
    """Somebody who has stolen a bearer token reports in a device's name."""
    device = ranks.enrol()
    return lambda: ranks.report(device, 1, signer=DeviceKey())


@attack(
    "device",
    refused="device.unsigned",
    told="carries no Weft-Signature",
    defence="server.devices.reports:check_signature",
    off=lambda *_: "none",
)
def a_report_without_a_signature(ranks: Ranks) -> Act:
    """Somebody who has stolen a bearer token leaves the signature out."""
    device = ranks.enrol()
    return lambda: ranks.report_unsigned(device, 1)


def _forgetful(session: Session, device_id: str, *rest: Any) -> Any:
    """Takes reports without regard to their counters."""
    session.get_one(Device, device_id).report_counter = 0
    return reports.take_report(session, device_id, *rest)


@attack(
    "device",
    refused="device.counter_reused",
    told="report 1 comes after 2",
    defence="server.devices.wire_routes:take_report",
    off=_forgetful,
)
def a_report_out_of_order(ranks: Ranks) -> Act:
    """Somebody keeps a report back, to deliver it when it is not true any more."""
    device = ranks.enrol()
    assert ranks.report(device, 2).code is None
    return lambda: ranks.report(device, 1, weights_digest="e" * 64)


@attack(
    "device",
    refused="device.counter_reused",
    told="report 2 comes after 2",
    defence="server.devices.wire_routes:take_report",
    off=_forgetful,
)
def a_device_on_a_copied_card(ranks: Ranks) -> Act:
    """Somebody copies the card of a device, key and all, and both go on (cloned device)."""
    device = ranks.enrol()
    assert ranks.report(device, 2).code is None
    return lambda: ranks.report(device, 2, weights_digest="e" * 64)


@attack(
    "device",
    refused=None,
    told="{}",
    defence="server.devices.reports:_was_taken",
    off=no,
    then="device.counter_reused",
)
def a_report_that_is_played_again(ranks: Ranks) -> Act:
    """Somebody sends what a device has sent once more: it gets the same answer and counts once."""
    device = ranks.enrol()
    assert ranks.report(device, 1).code is None
    return lambda: ranks.report(device, 1)


@attack(
    "device",
    refused="device.cloned",
    told="another device has the same key",
    defence="server.devices.identity:require_accepted",
    off=nothing,
)
def weights_for_a_cloned_device(ranks: Ranks) -> Act:
    """The copy of a device, once it is known that there are two, asks for weights."""
    device, package = ranks.enrol(), ranks.package()
    assert ranks.report(device, 1).code is None
    assert ranks.report(device, 1, weights_digest="e" * 64).code == "device.counter_reused"
    return lambda: ranks.download(device, package)


@attack(
    "device",
    refused="device.not_accepted",
    told="no operator has accepted the device yet",
    defence="server.devices.identity:require_accepted",
    off=nothing,
)
def weights_for_a_device_that_nobody_accepted(ranks: Ranks) -> Act:
    """Somebody enrols by a token that was found, and asks for weights before anybody has looked."""
    device = ranks.enrol(ranks.token(accept="by_hand"))
    package = ranks.package()
    return lambda: ranks.download(device, package)


@attack(
    "device",
    refused="device.decommissioned",
    told="the device was decommissioned",
    defence="server.devices.enrolment:require_in_service",
    off=nothing,
)
def a_device_that_was_scrapped(ranks: Ranks) -> Act:
    """Somebody takes a device from the scrap, and enrols it by a token that is good."""
    device, token = ranks.enrol(), ranks.token()
    ranks.plant.do("POST", f"/api/v1/devices/{device['device_id']}/decommission")
    return lambda: told(ranks.try_to_enrol(token, device["key"]))


def _any_package(session: Session, _: str, sha256: str) -> Package:
    return session.scalars(select(Package).where(Package.sha256 == sha256)).one()


@attack(
    "device",
    refused="device.package_not_found",
    told="for this device",
    defence="server.devices.wire_routes:_package_of",
    off=_any_package,
)
def weights_of_another_model(ranks: Ranks) -> Act:
    """A device asks for the package of a model that is not its own."""
    ranks.plant.model("other")
    ranks.plant.upload(ranks.plant.weights_file(1).read_bytes(), "other").raise_for_status()
    device, package = ranks.enrol(), ranks.package("other")
    return lambda: ranks.download(device, package)


@attack(
    "device",
    refused="device.model_not_allowed",
    told="was not let in for the model m",
    defence="server.devices.enrolment:require_allowed",
    off=nothing,
)
def another_model_claimed_at_enrolment(ranks: Ranks) -> Act:
    """Somebody who has the token of one model's devices enrols as a device of another."""
    token = ranks.token(models=["other"])
    return lambda: told(ranks.try_to_enrol(token, DeviceKey()))


@attack(
    "device",
    refused="device.model_not_allowed",
    told="was not let in for the model other",
    defence="server.devices.reports:require_allowed",
    off=nothing,
)
def another_model_claimed_in_a_report(ranks: Ranks) -> Act:
    """A device says that it runs a model which is not its own, to get its weights."""
    ranks.plant.model("other")
    device = ranks.enrol(ranks.token(models=["m"]))
    return lambda: ranks.report(device, 1, model="other")
