"""What no well-behaved client sends gets a problem, and never a fault of the server."""

from __future__ import annotations

import http.client
import json
from typing import Any

JSON = {"Content_Type": "application/json"}
MODEL = b'{"name": "odd"}'
BIG = b"9" * 5000


def ask(server: Any, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, str]:
    """Status and code. By http.client, which sends what it is given."""
    place = server.url.removeprefix("http://")
    connection = http.client.HTTPConnection(place, timeout=30)
    try:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body or None, names)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status < 500, text
        if answer.status < 400 or method == "HEAD":
            return answer.status, ""
        assert answer.headers["content-type"] == "application/problem+json", text
        return answer.status, json.loads(text)["code"]
    finally:
        connection.close()


ADDRESSES = [
    ("HEAD", "/api/v1/models", (405, "")),
    ("OPTIONS", "/api/v1/models", (405, "request.method_not_allowed")),
    ("PATCH", "/api/v1/models", (405, "request.method_not_allowed")),
    ("GET", "/api/v1/models/", (404, "request.not_found")),
    ("GET", "//api/v1/models", (404, "request.not_found")),
    ("GET", "/api/v1/models/%00", (422, "request.invalid")),
    ("GET", "/api/v1/models/%FF%FE", (404, "model.not_found")),
    ("GET", "/api/v1/models/a%2Fb", (404, "request.not_found")),
    ("GET", "/api/v1/models/..%2F..%2Fetc", (404, "request.not_found")),
    ("GET", "/api/v1/models?cursor=%00", (422, "request.invalid")),
    ("GET", "/api/v1/models?limit=1&limit=2", (200, "")),
    ("GET", "/api/v1/models?limit=%FF", (422, "request.invalid")),
    ("GET", "/api/v1/models?limit=" + "9" * 5000, (422, "request.invalid")),
    ("GET", "/api/v1/models?nobody=knows", (200, "")),
    ("GET", "/api/v1/packages?model=%00", (422, "request.invalid")),
    ("GET", "/api/v1/rollouts/99999999999999999999", (422, "request.invalid")),
    ("GET", "/api/v1/rollouts/-1", (422, "request.invalid")),
    ("GET", "/api/v1/devices/%00", (422, "request.invalid")),
    ("GET", "/device/v1/packages/%00", (422, "request.invalid")),
]


def test_odd_addresses(server: Any) -> None:
    found = [(method, path, ask(server, method, path)) for method, path, _ in ADDRESSES]
    assert found == ADDRESSES


BODIES = [
    (b"", "application/json"),
    (b"{", "application/json"),
    (b"\xff\xfe", "application/json"),
    (b'{"name": "\xff"}', "application/json"),
    (b'{"name": "a\\u0000b"}', "application/json"),
    (b'{"name": "\\ud800"}', "application/json"),
    (b'{"name": "a", "arguments": {"x": NaN}}', "application/json"),
    (b'{"name": "a", "arguments": {"x": ' + BIG + b"}}", "application/json"),
    (b'{"name": ' + BIG + b"}", "application/json"),
    (b"[" * 100_000, "application/json"),
    (b'{"name": "a"} x', "application/json"),
    (b'["name"]', "application/json"),
    (b"null", "application/json"),
    (MODEL, "text/plain"),
    (MODEL, "application/x-www-form-urlencoded"),
    (b"--x", "multipart/form-data; boundary=x"),
    (MODEL, "application/json; charset=utf-16"),
]


def test_odd_bodies(server: Any) -> None:
    fine = {(201, ""), (422, "request.invalid"), (415, "request.wrong_type")}
    found = [ask(server, "POST", "/api/v1/models", b, Content_Type=k) for b, k in BODIES]
    assert [(body, got) for body, got in zip(BODIES, found, strict=True) if got not in fine] == []


HEADERS = [
    {"Idempotency_Key": "ä"},
    {"Content_Type": "application/octet-stream"},
    {"Range": "bytes=5-1"},
    {"If_None_Match": "W/*,,\\"},
    {"Authorization": "Bearer ä"},
    {"Authorization": "Basic " + "=" * 2000},
    {"X_Request_Id": "a b"},
    {"Accept": "nothing/at-all"},
    {"Accept_Encoding": "gzip, br"},
]


def test_odd_headers(server: Any) -> None:
    for headers in HEADERS:
        assert ask(server, "POST", "/api/v1/models", MODEL, **JSON | headers)
        assert ask(server, "GET", "/device/v1/desired", **headers)


def test_every_create_can_be_repeated(server: Any) -> None:
    """Whatever makes something takes an Idempotency-Key, unless its answer holds a secret."""
    document = server.client.get("/openapi.json").json()
    without = [
        path
        for path, operations in document["paths"].items()
        if "201" in operations.get("post", {}).get("responses", {})
        and not any(
            p["name"] == "Idempotency-Key" for p in operations["post"].get("parameters", [])
        )
    ]
    assert set(without) == {
        "/api/v1/access/keys",
        "/api/v1/devices/{device_id}/reenrol",
        "/api/v1/enrolment_tokens",
        "/device/v1/enrol",
    }
