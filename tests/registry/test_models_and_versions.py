"""Models and versions over HTTP: what is accepted, what is refused, and that nothing is left."""

from __future__ import annotations

import socket
from collections import namedtuple

import numpy as np
import pytest

from server.registry.upload import PIECE_BYTES
from server.storage import spool
from server.storage.local import LocalIncoming
from shared.weights import WeightsReader

BINARY = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def upload(server):
    server.client.post("/api/v1/models", json={"name": "m"}).raise_for_status()

    def send(content, query="", headers=BINARY):
        url = f"/api/v1/models/m/versions{query}"
        data = content if isinstance(content, bytes) else content.read_bytes()
        return server.client.post(url, content=data, headers=headers)

    return send


def blobs_of(server):
    return [p for p in server.settings.blobs_dir.rglob("*") if p.is_file()]


def test_a_version_comes_back_as_it_went(server, upload, weights_file):
    path = weights_file()
    answer = upload(path)
    assert answer.status_code == 201
    version = answer.json()
    with WeightsReader(path) as reader:
        assert version["weights_digest"] == reader.digest().hex()
    assert (version["number"], version["source"], version["model"]) == (1, "uploaded", "m")
    assert version["created_at"].endswith("Z")
    got = server.client.get("/api/v1/models/m/versions/1/weights")
    assert got.content == path.read_bytes()
    assert server.client.get("/api/v1/models/m/versions/1").json() == version
    model = server.client.get("/api/v1/models/m").json()
    assert model["schema"]["conv.weight"] == {"dtype": "F32", "shape": [4, 3, 3, 3]}
    assert model["schema_digest"] == version["schema_digest"]


def test_versions_are_numbered_and_listed_newest_first(server, upload, weights_file):
    for seed in range(3):
        upload(weights_file(seed), "?parent=1" if seed else "").raise_for_status()
    listed = server.client.get("/api/v1/models/m/versions").json()["items"]
    assert [(v["number"], v["parent"]) for v in listed] == [(3, 1), (2, 1), (1, None)]


def test_the_same_weights_are_one_version(upload, weights_file):
    path = weights_file()
    upload(path)
    again = upload(path)
    assert (again.status_code, again.json()["code"]) == (409, "version.exists")


def test_an_upload_can_be_repeated_with_its_key(upload, weights_file):
    path, key = weights_file(), BINARY | {"Idempotency-Key": "once"}
    first = upload(path, headers=key)
    assert upload(path, headers=key).json() == first.json()
    other = upload(weights_file(1), headers=key)
    assert other.json()["code"] == "request.key_reused"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"conv__weight": np.full((4, 3, 3, 3), np.nan, np.float32)}, "weights.not_finite"),
        ({"norm__weight": np.array([1, 1, -np.inf, 1], np.float32)}, "weights.not_finite"),
        ({"norm__running_var": np.array([1, 0, 1, 1], np.float32)}, "weights.bad_variance"),
        ({"norm__running_var": np.array([1, np.nan, 1, 1], np.float32)}, "weights.bad_variance"),
    ],
)
def test_unsound_weights_are_refused_and_leave_nothing(server, upload, weights_file, changes, code):
    answer = upload(weights_file(**changes))
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert blobs_of(server) == []
    assert server.client.get("/api/v1/models/m/versions").json()["items"] == []
    assert server.client.get("/api/v1/models/m").json()["schema"] is None


def test_a_mask_may_hold_infinities(upload, weights_file):
    mask = np.array([0, -np.inf], np.float32)
    assert upload(weights_file(attention__mask=mask)).status_code == 201


def test_buffers_can_be_declared(server, weights_file):
    body = {"name": "own", "buffers": ["bias_table", "running_var"]}
    server.client.post("/api/v1/models", json=body).raise_for_status()
    url, table = "/api/v1/models/own/versions", np.array([-np.inf], np.float32)
    accepted = weights_file(bias_table=table).read_bytes()
    assert server.client.post(url, content=accepted, headers=BINARY).status_code == 201


def test_another_schema_must_be_announced(server, upload, weights_file):
    upload(weights_file())
    wider = weights_file(head__weight=np.ones((10, 4), np.float32))
    refused = upload(wider)
    assert (refused.status_code, refused.json()["code"]) == (422, "weights.schema_mismatch")
    assert "head.weight" in refused.json()["detail"]
    assert upload(wider, "?new_schema=true").status_code == 201
    assert "head.weight" in server.client.get("/api/v1/models/m").json()["schema"]


@pytest.mark.parametrize(
    "content", [b"", b"junk", b"\xff" * 100, b"\x02\x00\x00\x00\x00\x00\x00\x00{}trailing"]
)
def test_what_is_no_safetensors_file_is_refused(server, upload, content):
    answer = upload(content)
    assert (answer.status_code, answer.json()["code"]) == (422, "weights.malformed")
    assert str(server.settings.data_dir) not in answer.text
    assert blobs_of(server) == []


def test_a_form_is_no_upload(upload, weights_file):
    answer = upload(weights_file(), headers={"Content-Type": "text/plain"})
    assert (answer.status_code, answer.json()["code"]) == (415, "request.wrong_type")


@pytest.mark.parametrize("chunked", [False, True])
def test_the_size_is_limited(serve, weights_file, chunked):
    server = serve(max_upload_bytes=500)
    server.client.post("/api/v1/models", json={"name": "m"})
    data = weights_file().read_bytes()
    content = iter([data]) if chunked else data
    answer = server.client.post("/api/v1/models/m/versions", content=content, headers=BINARY)
    assert (answer.status_code, answer.json()["code"]) == (413, "request.too_large")
    assert blobs_of(server) == []


def test_an_unknown_model_has_no_versions(server, weights_file):
    post = server.client.post
    answer = post("/api/v1/models/x/versions", content=b"", headers=BINARY)
    assert (answer.status_code, answer.json()["code"]) == (404, "model.not_found")


def test_a_zoo_model_has_its_schema_from_the_start(server, weights_file):
    body = {"name": "z", "architecture": "vgg_tiny", "arguments": {"classes": 3}}
    model = server.client.post("/api/v1/models", json=body).json()
    assert len(model["schema"]) > 4
    refused = server.client.post(
        "/api/v1/models/z/versions", content=weights_file().read_bytes(), headers=BINARY
    )
    assert refused.json()["code"] == "weights.schema_mismatch"


@pytest.mark.parametrize("architecture", ["nonsense", "os:system", "json:loads"])
def test_code_never_comes_from_a_request(server, architecture):
    body = {"name": "m", "architecture": architecture}
    answer = server.client.post("/api/v1/models", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "model.unknown_architecture")


@pytest.mark.parametrize("name", ["", "../x", "a b", "x" * 65])
def test_names_are_narrow(server, name):
    assert server.client.post("/api/v1/models", json={"name": name}).status_code == 422


@pytest.mark.parametrize(
    ("header", "status", "part"),
    [
        ("bytes=0-9", 206, slice(0, 10)),
        ("bytes=10-", 206, slice(10, None)),
        ("bytes=-5", 206, slice(-5, None)),
        ("bytes=0-999999999", 206, slice(0, None)),
        ("bytes=5-2", 200, slice(0, None)),
        ("bytes=0-1,4-5", 200, slice(0, None)),
        ("lines=1-2", 200, slice(0, None)),
    ],
)
def test_ranges(server, upload, weights_file, header, status, part):
    path = weights_file()
    upload(path)
    url = "/api/v1/models/m/versions/1/weights"
    answer = server.client.get(url, headers={"Range": header})
    assert (answer.status_code, answer.content) == (status, path.read_bytes()[part])
    assert int(answer.headers["content-length"]) == len(answer.content)


def test_a_range_behind_the_end_and_conditions(server, upload, weights_file):
    path = weights_file()
    upload(path)
    url, size = "/api/v1/models/m/versions/1/weights", path.stat().st_size
    behind = server.client.get(url, headers={"Range": f"bytes={size}-"})
    assert (behind.status_code, behind.json()["code"]) == (416, "request.bad_range")
    assert behind.headers["content-range"] == f"bytes */{size}"
    etag = server.client.get(url).headers["etag"]
    same = server.client.get(url, headers={"Range": "bytes=1-", "If-Range": etag})
    other = server.client.get(url, headers={"Range": "bytes=1-", "If-Range": '"other"'})
    known = server.client.get(url, headers={"If-None-Match": etag})
    assert [same.status_code, other.status_code, known.status_code] == [206, 200, 304]


def test_an_upload_is_written_piece_by_piece(upload, weights_file, monkeypatch):
    pieces, write = [], LocalIncoming.write

    def watched(self: LocalIncoming, data: bytes) -> None:
        pieces.append(len(data))
        write(self, data)

    monkeypatch.setattr(LocalIncoming, "write", watched)
    path = weights_file(large__weight=np.ones((1200, 1024), np.float32))
    assert upload(path).status_code == 201
    assert sum(pieces) == path.stat().st_size
    assert max(pieces) < 2 * PIECE_BYTES


def test_no_space_is_told_before_anything_is_written(server, upload, weights_file, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(spool.shutil, "disk_usage", lambda _: usage(spool.RESERVE_BYTES + 10))
    answer = upload(weights_file())
    assert (answer.status_code, answer.json()["code"]) == (507, "storage.no_space")
    assert blobs_of(server) == []


def test_an_upload_that_grows_leaves_others_their_room(server, upload, weights_file, monkeypatch):
    """Without a length nobody knows beforehand, and others may have filled the disk meanwhile."""
    left = iter([2 * PIECE_BYTES, 2 * PIECE_BYTES, PIECE_BYTES])
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(
        spool.shutil, "disk_usage", lambda _: usage(spool.RESERVE_BYTES + next(left, 0))
    )
    content = weights_file(large__weight=np.ones((1200, 1024), np.float32)).read_bytes()
    pieces = (content[at : at + PIECE_BYTES] for at in range(0, len(content), PIECE_BYTES))
    url = "/api/v1/models/m/versions"
    answer = server.client.post(url, content=pieces, headers=BINARY)
    assert (answer.status_code, answer.json()["code"]) == (507, "storage.no_space")
    assert blobs_of(server) == []


def test_an_upload_that_is_cut_off_leaves_nothing(server, upload, weights_file):
    upload(weights_file()).raise_for_status()
    head = (
        f"POST /api/v1/models/m/versions HTTP/1.1\r\nHost: {server.url[7:]}\r\n"
        "Content-Type: application/octet-stream\r\nContent-Length: 1000\r\n\r\n"
    )
    address = server.url[7:].split(":")
    with socket.create_connection((address[0], int(address[1]))) as connection:
        connection.sendall(head.encode() + b"x" * 500)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)  # until the server has given up
    server.stop()
    assert len(blobs_of(server)) == 1
