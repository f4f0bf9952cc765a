"""Attacks by whoever sits between a device and its server, or carries bundles."""

from __future__ import annotations

import io
import ssl
from collections.abc import Callable
from typing import Any

from edge_agent.connection import HEAD_BYTES
from shared import metadata
from shared.bundle import Bundle, BundleReader, Way, written
from shared.errors import WeftError
from shared.wire import DESIRED_PATH, PACKAGES_PATH, Desired
from tests.attacks.attack import Act, Seen, attack, nothing
from tests.attacks.device import Device
from tests.edge_agent.plane import Plane

Serve = Callable[[ssl.SSLContext], Plane]


def instead(path: str, answer: Callable[[Any], None]) -> Callable[[Any], bool]:
    """Somebody else answers requests for this path."""

    def fault(handler: Any) -> bool:
        if not handler.path.startswith(path):
            return False
        answer(handler)
        return True

    return fault


def etag_of(handler: Any) -> str:
    return f'"{handler.path.rpartition("/")[2]}"'


@attack(
    "network",
    refused="trust.wrong_hash",
    told="has SHA-256",
    defence="edge_agent.trust.gate:_check_bytes",
    off=nothing,
    then="package.malformed",
)
def a_package_with_other_bytes(device: Device) -> Act:
    """Somebody on the way changes bytes of a package."""

    def changed(handler: Any) -> None:
        data = device.plane.files[handler.path.rpartition("/")[2]]
        handler.package(data[:-9] + bytes(9))

    device.offer(2, "full-2")
    device.plane.faults.append(instead(PACKAGES_PATH, changed))
    return device.round


@attack(
    "network",
    refused="download.too_long",
    told="more bytes came than were offered",
    defence="edge_agent.download:_bounded",
    off=lambda pieces, *_: pieces,
    then="trust.wrong_length",
)
def a_package_without_end(device: Device) -> Act:
    """Somebody on the way sends more than was offered, to fill the disk (endless data)."""

    def endless(handler: Any) -> None:
        data = device.plane.files[handler.path.rpartition("/")[2]]
        handler.send_response(200)
        handler.send_header("ETag", etag_of(handler))
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(data + bytes(1 << 15))

    device.offer(2, "full-2")
    device.plane.faults.append(instead(PACKAGES_PATH, endless))
    return device.round


@attack(
    "network",
    refused="server.unreachable",
    told="longer than any that is expected",
    defence="edge_agent.connection:HEAD_BYTES",
    off=1 << 40,
    then="server.bad_answer",
)
def an_answer_whose_head_does_not_end(device: Device) -> Act:
    """Somebody on the way sends headers without end, to fill the memory."""

    def endless(handler: Any) -> None:
        handler.send_response(200)
        for _ in range(HEAD_BYTES // 1000):
            handler.send_header("X-More", "x" * 2000)
        handler.send_header("Connection", "close")
        handler.end_headers()

    device.plane.faults.append(instead(DESIRED_PATH, endless))
    return device.round


@attack(
    "network",
    refused="server.bad_answer",
    told="an answer of more than 1048576 bytes",
    defence="edge_agent.api:MAX_ANSWER_BYTES",
    off=1 << 40,
)
def an_answer_without_end(device: Device) -> Act:
    """Somebody in the place of the server answers a poll with more than fits into memory."""
    body = b'{"models": []' + b" " * (1 << 20) + b"}"
    answer = instead(DESIRED_PATH, lambda handler: handler.answer(200, body))
    device.plane.faults.append(answer)
    return device.round


@attack(
    "network",
    refused="server.bad_answer",
    told="the server answers 302",
    defence="edge_agent.api:_check_status",
    off=nothing,
)
def a_redirect(device: Device) -> Act:
    """Somebody sends a device elsewhere, with its token."""
    body = Desired(report=True).model_dump_json().encode()
    away = instead(DESIRED_PATH, lambda h: h.answer(302, body, Location="http://evil.example/"))
    device.plane.faults.append(away)
    return device.round


@attack(
    "network",
    refused="metadata.malformed",
    told="more than 1048576 bytes are announced",
    defence="shared.metadata:MAX_BYTES",
    off=1 << 40,
)
def metadata_that_unpack_without_end(device: Device) -> Act:
    """Somebody in the place of the server answers with a few bytes that unpack to gigabytes."""
    file = metadata.MetadataFile("timestamp", 1, b" " * 9_000_000)
    bomb = metadata.pack([file])
    assert len(bomb) < 2000

    def act() -> Seen:
        try:
            return Seen(None, str(len(metadata.unpack(bomb))))
        except WeftError as error:
            return Seen(error.code, str(error))

    return act


@attack(
    "network",
    refused="bundle.malformed",
    told="has other bytes",
    defence="shared.bundle:BundleReader.check",
    off=nothing,
)
def a_stick_that_was_changed(device: Device) -> Act:
    """Somebody who carries a bundle to a device changes the package inside."""
    wanted = device.shelf.wanted(2, "full-2")
    bundle = Bundle(
        model=wanted.model,
        version=2,
        weights_digest=wanted.weights_digest,
        metadata_bytes=6,
        ways=[Way(packages=wanted.packages)],
    )
    package = device.shelf.packages["full-2"].path.read_bytes()
    whole = b"".join(written(bundle, b"signed", lambda _: iter([package[:-1] + b"x"])))

    def act() -> Seen:
        reader = BundleReader(io.BytesIO(whole), "stick")
        try:
            for offer in reader.bundle.offers:
                reader.check(offer)
        except WeftError as error:
            return Seen(error.code, str(error))
        return Seen(None)

    return act
