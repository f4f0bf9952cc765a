"""The app as a whole: starts, refuses, answers errors as problems, documents itself."""

from __future__ import annotations

import re
import subprocess
import sys

import httpx
import pytest

#: What trains, measures and opens data: a second and 200 MB that most servers never need.
HEAVY = {"torch", "fsspec", "pyarrow", "PIL", "boto3", "matplotlib", "sklearn"}


@pytest.mark.parametrize(
    ("module", "heavy"),
    [("server.app", HEAVY), ("server.cli.commands", HEAVY | {"fastapi", "sqlalchemy", "alembic"})],
)
def test_programs_start_without_what_few_of_them_need(module, heavy):
    loaded = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True
    )
    assert not heavy & set(done.stdout.split())


def test_it_lives(server):
    assert server.client.get("/healthz").json()["status"] == "ok"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "request.not_found"),
        ("PUT", "/healthz", 405, "request.method_not_allowed"),
        ("GET", "/api/v1/models/none", 404, "model.not_found"),
        ("GET", "/api/v1/models?limit=0", 422, "request.invalid"),
        ("GET", "/api/v1/models?cursor=nonsense", 400, "request.bad_cursor"),
        ("GET", "/api/v1/models?cursor=WyJhIl0", 400, "request.bad_cursor"),
        ("GET", "/device/v1/desired", 401, "device.unauthorized"),
    ],
)
def test_errors_are_problems(server, method, path, status, code):
    answer = server.client.request(method, path)
    body = answer.json()
    assert (answer.status_code, body["code"], body["status"]) == (status, code, status)
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["todo"]
    assert body["detail"]
    assert body["request_id"] == answer.headers["x-request-id"]


def test_a_request_id_may_be_chosen_if_it_is_harmless(server):
    get = server.client.get
    assert get("/healthz", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert get("/healthz", headers={"X-Request-Id": "a b"}).headers["x-request-id"] != "a b"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_json_body_is_refused(serve, chunked):
    server = serve(max_body_bytes=1000)
    body = b'{"name": "' + b"a" * 2000 + b'"}'
    content = iter([body[:900], body[900:]]) if chunked else body
    answer = server.client.post(
        "/api/v1/models", content=content, headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()["code"]) == (413, "request.too_large")


def test_an_unforeseen_error_is_a_problem_too(server, caplog):
    def broken() -> None:
        raise ZeroDivisionError

    server.app.add_api_route("/broken", broken)
    answer = server.client.get("/broken")
    assert (answer.status_code, answer.json()["code"]) == (500, "service.internal")
    (record,) = [r for r in caplog.records if r.name == "weft.http"]
    assert record.getMessage() == "GET /broken"
    assert record.exc_info[0] is ZeroDivisionError


def test_without_a_key_only_this_machine_is_let_in(server):
    get = server.client.get
    rebound = get("/api/v1/models", headers={"Host": "evil.example"})
    foreign = get("/api/v1/models", headers={"Origin": "http://evil.example"})
    broken = get("/api/v1/models", headers={"Origin": "http://["})
    codes = {answer.json()["code"] for answer in (rebound, foreign, broken)}
    assert codes == {"request.forbidden_origin"}
    own = get("/api/v1/models", headers={"Origin": server.url})
    assert own.status_code == 200


def test_with_a_key_it_is_required(serve):
    server = serve(admin_key="a-real-secret")
    get = server.client.get
    missing = get("/api/v1/models")
    assert (missing.status_code, missing.headers["www-authenticate"]) == (401, "Bearer")
    wrong = get("/api/v1/models", headers={"Authorization": "Bearer other"})
    assert wrong.json()["code"] == "request.unauthorized"
    right = get("/api/v1/models", headers={"Authorization": "Bearer a-real-secret"})
    assert right.status_code == 200


def test_every_management_route_asks_who_it_is(serve):
    server = serve(admin_key="a-real-secret")
    paths = server.client.get("/openapi.json").json()["paths"]
    for path, operations in paths.items():
        for method in operations:
            if path.startswith("/api/v1"):
                place = re.sub(r"{[^}]*}", "1", path)
                assert server.client.request(method, place).status_code == 401, (method, path)


def test_a_create_can_be_repeated_with_its_key(server):
    post = server.client.post
    key = {"Idempotency-Key": "k1"}
    first = post("/api/v1/models", json={"name": "a"}, headers=key)
    again = post("/api/v1/models", json={"name": "a"}, headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    other = post("/api/v1/models", json={"name": "b"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "request.key_reused")
    assert post("/api/v1/models", json={"name": "a"}).json()["code"] == "model.exists"
    empty = post("/api/v1/models", json={"name": "c"}, headers={"Idempotency-Key": "x" * 201})
    assert empty.json()["code"] == "request.key_invalid"


def test_pages_follow_each_other_without_gap_or_repeat(server):
    for number in range(7):
        server.client.post("/api/v1/models", json={"name": f"m{number}"})
    names, cursor = [], None
    while True:
        query = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = server.client.get("/api/v1/models", params=query).json()
        names += [item["name"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert names == [f"m{number}" for number in range(7)]


@pytest.mark.sqlite("PostgreSQL serves several processes")
def test_a_second_server_on_the_same_folder_is_refused(server, start_alone):
    ended = start_alone(server.settings.data_dir)
    assert "database.in_use" in ended.stderr
    assert ended.returncode != 0
    assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_a_foreign_schema_is_refused_where_migrating_is_off(tmp_path, start_alone):
    ended = start_alone(tmp_path / "new", auto_migrate=False)
    assert "database.not_migrated" in ended.stderr
