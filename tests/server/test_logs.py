"""What the server writes to its log: one line a request, its id in every line, and no secret."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from server import logs
from tests.device_keys import DeviceKey

KEY, TOKEN = "a-real-secret", "enrol-me-please"


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[str, str], Callable[[], list]]]:
    """Sets the log up as `weft serve` does; gives what reads the lines written since."""
    root = logging.getLogger()
    named = [logging.getLogger(n) for n in ("weft", "server")]
    before = root.handlers[:], root.level, [logger.level for logger in named]

    def start(form: Any, level: Any) -> Callable[[], list]:
        logs.set_up(form, level)
        read = (lambda text: json.loads(text)) if form == "json" else (lambda text: text)
        return lambda: [read(line) for line in capsys.readouterr().err.splitlines()]

    yield start
    root.handlers[:], root.level = before[0], before[1]
    for logger, level in zip(named, before[2], strict=True):
        logger.setLevel(level)


def test_one_line_a_request(serve, lines):
    server = serve(admin_key=KEY)
    written = lines("json", "info")
    headers = {"Authorization": f"Bearer {KEY}", "X-Request-Id": "chosen-1"}
    server.client.get("/api/v1/models/none?limit=3", headers=headers)
    server.client.get("/nowhere/at/all")
    server.client.get("/healthz")
    first, second = [line for line in written() if line["logger"] == "weft.access"]
    seconds = first.pop("ms")
    assert 0 < seconds < 60_000
    assert first.pop("at").endswith("Z")
    assert first.pop("bytes") > 100
    assert first == {
        "level": "info",
        "logger": "weft.access",
        "message": "GET /api/v1/models/{model} 404",
        "request_id": "chosen-1",
        "method": "GET",
        "route": "/api/v1/models/{model}",
        "status": 404,
        "actor": "admin",
    }
    assert (second["route"], second["actor"]) == ("none", "nobody")


def test_text_tells_each_fact_once(server, lines):
    written = lines("text", "info")
    server.client.get("/api/v1/models/none", headers={"X-Request-Id": "id-9"})
    (line,) = written()
    _, _, told = line.partition(" INFO weft.access: ")
    assert re.fullmatch(
        r"GET /api/v1/models/\{model\} 404 request_id=id-9 ms=[\d.]+ bytes=\d+ actor=local", told
    )


def test_every_route_is_told_by_its_whole_path(server, lines):
    documented = server.client.get("/openapi.json").json()["paths"]
    paths = [path for path, methods in documented.items() if "get" in methods]
    written = lines("json", "debug")
    for path in paths:
        server.client.get(re.sub(r"\{\w+\}", "1", path), params={"limit": "none"})
    told = [line["route"] for line in written() if line["logger"] == "weft.access"]
    assert told == paths


def test_polls_are_told_only_at_debug_and_name_the_device(server, lines):
    body = {"name": "cam", "token": TOKEN, "models": {}}
    device = server.client.post("/device/v1/enrol", **DeviceKey().enrolment(body)).json()
    for level, expected in (("info", 0), ("debug", 1)):
        written = lines("json", level)
        headers = {"Authorization": f"Bearer {device['token']}"}
        assert server.client.get("/device/v1/desired", headers=headers).status_code == 200
        polls = [x for x in written() if x.get("route") == "/device/v1/desired"]
        assert [x["actor"] for x in polls] == [device["device_id"]] * expected


def test_the_id_is_in_every_line_of_the_request_also_from_threads(server, lines):
    def in_a_thread() -> None:
        logging.getLogger("weft.somewhere").warning("deep inside, in %s", "a thread")
        assert threading.current_thread() is not threading.main_thread()

    server.app.add_api_route("/deep", in_a_thread)
    written = lines("json", "info")
    server.client.get("/deep", headers={"X-Request-Id": "id-7"})
    told = [x for x in written() if x["logger"] in ("weft.somewhere", "weft.access")]
    assert [x["request_id"] for x in told] == ["id-7", "id-7"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_exception_comes_with_its_traceback(server, lines, form):
    def broken() -> None:
        raise ZeroDivisionError("by nothing")

    server.app.add_api_route("/broken", broken)
    written = lines(form, "info")
    server.client.get("/broken", headers={"X-Request-Id": "id-8"})
    found = written()
    if form == "json":
        (line,) = [x for x in found if x["logger"] == "weft.http"]
        assert (line["level"], line["request_id"]) == ("error", "id-8")
        assert line["traceback"].endswith("ZeroDivisionError: by nothing")
    else:
        assert found[0].endswith("ERROR weft.http: GET /broken request_id=id-8")
        assert "ZeroDivisionError: by nothing" in found


def test_no_secret_is_logged(serve, lines):
    """At the most talkative level, in requests that succeed, fail and are malformed."""
    server = serve(admin_key=KEY, enrolment_token=TOKEN)
    written = lines("text", "debug")
    key = {"Authorization": f"Bearer {KEY}"}
    post, get = server.client.post, server.client.get
    body = {"name": "a", "token": TOKEN, "models": {}}
    device = post("/device/v1/enrol", **DeviceKey().enrolment(body)).json()
    post("/device/v1/enrol", json={"name": 7, "token": TOKEN})
    post("/device/v1/enrol", content=f'{{"token": "{TOKEN}"'.encode())
    token = {"Authorization": f"Bearer {device['token']}"}
    get("/device/v1/desired", headers=token)
    post("/device/v1/reports", headers=token, json={"counter": "x"})
    get("/api/v1/devices", headers=key)
    get(f"/api/v1/devices?key={KEY}", headers=token)
    get(f"/{KEY}", headers=key)
    text = "\n".join(written())
    assert "weft.access" in text
    assert not [secret for secret in (KEY, TOKEN, device["token"]) if secret in text]


def test_what_clients_send_makes_up_no_lines(lines):
    written = lines("text", "info")
    logging.getLogger("weft.x").warning("name %s", "a\n2026 ERROR weft: made up\x1b[31m")
    (line,) = written()
    assert line.endswith(r"WARNING weft.x: name a\n2026 ERROR weft: made up\x1b[31m")


def test_other_libraries_are_heard_from_warnings_up(lines):
    written = lines("text", "debug")
    logging.getLogger("uvicorn.error").info("started")
    logging.getLogger("uvicorn.error").warning("odd")
    logging.getLogger("sqlalchemy.engine").debug("SELECT secret")
    (line,) = written()
    assert line.endswith("WARNING uvicorn.error: odd")
    assert sys.stderr
