"""What is cut off before there is a request: heads that do not end."""

from __future__ import annotations

import socket
from http.client import HTTPResponse
from urllib.parse import urlsplit

import pytest

from server.api.protocol import MOST_HEAD_BYTES

START = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
def connection(server):
    place = urlsplit(server.url)
    with socket.create_connection((place.hostname, place.port), timeout=10) as connection:
        yield connection


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("piece", [b"x" * 1024, b"X-More: 1\r\n" * 100], ids=["one", "many"])
def test_a_head_without_end_is_cut_off(connection, piece):
    connection.sendall(START + b"X-Long: ")
    with pytest.raises(ConnectionError):
        connection.sendall(piece * (100 * MOST_HEAD_BYTES // len(piece)))


def test_what_follows_a_head_is_not_counted(server, connection):
    body = b'{"name": "%s"}' % (b"x" * 3 * MOST_HEAD_BYTES)
    head = b"POST /api/v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    lengths = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    connection.sendall(head + lengths + body)
    assert read_all(connection).startswith(b"HTTP/1.1 422 ")


def test_requests_on_one_connection_are_counted_one_by_one(connection):
    for _ in range(80):
        connection.sendall(START + b"X-Long: " + b"x" * 1000 + b"\r\n\r\n")
        with HTTPResponse(connection) as response:  # head and body may come in two pieces
            response.begin()
            assert response.status == 200
            response.read()
