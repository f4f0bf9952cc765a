"""Commands that talk to a server: a real one, over loopback."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from shared.weights import WeightsReader, write_weights
from tests.certificates import authority


def digest_of(path: Path) -> str:
    with WeightsReader(path) as reader:
        return reader.digest().hex()


@pytest.mark.parametrize(
    "address", ["weft.example:8300", "ftp://weft.example", "http://", "http://weft.example:port"]
)
def test_an_address_that_is_none_is_the_user_s_to_mend(weft: Any, address: str) -> None:
    done = weft("models", "list", "--json", "--server", address)
    error = json.loads(done.err)["error"]
    assert (done.status, error["code"]) == (1, "command.invalid")
    assert repr(address) in error["message"]


def test_models_and_versions_are_listed_and_shown(
    ask: Any, model: str, base: Path, target: Path
) -> None:
    assert model in [item["name"] for item in ask("models", "list").json["items"]]
    assert ask("models", "show", model).json["schema"].keys() == {"fc.bias", "fc.weight"}
    numbers = [item["number"] for item in ask("versions", "list", model).json["items"]]
    assert numbers == [2, 1]
    assert ask("versions", "show", model, 1).json["weights_digest"] == digest_of(base)


def test_lists_go_on_from_a_cursor(ask: Any, model: str) -> None:
    first = ask("versions", "list", model, "--limit", 1).json
    second = ask("versions", "list", model, "--limit", 1, "--cursor", first["next"]).json
    assert [page["items"][0]["number"] for page in (first, second)] == [2, 1]
    assert second["next"] is None


def test_text_is_for_people(weft: Any, server: str, model: str) -> None:
    done = weft("versions", "list", model, "--limit", 1, "--server", server)
    assert done.out.split()[:3] == ["number", "source", "parent"]
    assert done.err.startswith("more: --cursor ")


def test_weights_come_back_as_they_went(ask: Any, model: str, target: Path, tmp_path: Path) -> None:
    output = tmp_path / "downloaded"
    assert ask("versions", "download", model, 2, "--output", output).status == 0
    assert output.read_bytes() == target.read_bytes()


@pytest.mark.parametrize("method", ["xor", "full"])
def test_lossless_package_leads_to_the_target(
    ask: Any, model: str, tmp_path: Path, method: str
) -> None:
    base = [] if method == "full" else ["--base", 1]
    built = ask("packages", "build", model, "--target", 2, "--method", method, *base).json
    assert (built["base"], built["target"]) == (1 if base else None, 2)
    output = tmp_path / "update"
    assert ask("packages", "download", built["id"], "--output", output).status == 0
    assert hashlib.sha256(output.read_bytes()).hexdigest() == built["sha256"]
    assert ask("packages", "show", built["id"]).json == built
    assert [p["id"] for p in ask("packages", "list", "--model", model).json["items"]] == [
        built["id"]
    ]
    again = ask("packages", "build", model, "--target", 2, "--method", method, *base).json
    assert again["id"] == built["id"]


def test_lossy_package_leads_to_a_version_of_its_own(ask: Any, model: str) -> None:
    words = ["--base", 1, "--target", 2, "--method", "ka", "--rank", 2]
    built = ask("packages", "build", model, *words).json
    made = ask("versions", "show", model, built["target"]).json
    assert (made["number"], made["source"]) == (3, "encoded")
    assert (made["parent"], made["approximates"]) == (1, 2)


def test_upload_with_a_parent_brings_its_lossless_package(
    ask: Any, model: str, base: Path, tmp_path: Path
) -> None:
    with WeightsReader(base) as reader:
        arrays = {n: (s.dtype, reader.read(n) + 1) for n, s in reader.schema.items()}
    write_weights(tmp_path / "child", arrays)
    made = ask("versions", "upload", model, tmp_path / "child", "--parent", 1).json
    assert (made["number"], made["parent"]) == (3, 1)
    end = time.monotonic() + 30
    while not (listed := ask("packages", "list", "--model", model).json["items"]):
        assert time.monotonic() < end
    assert [(p["base"], p["target"], p["method"]) for p in listed] == [(1, 3, "xor")]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["models", "show", "nobody"], "model.not_found"),
        (["models", "create", "a b"], "request.invalid"),
        (["versions", "upload", "nobody", "BASE"], "model.not_found"),
        (["versions", "upload", "nobody", "missing"], "weights.not_found"),
        (["versions", "show", "MODEL", "9"], "version.not_found"),
        (["versions", "upload", "MODEL", "BASE"], "version.exists"),
        (["datasets", "add", "d", "/etc"], "dataset.not_allowed"),
        (["packages", "show", "99999"], "update.not_found"),
        (
            ["packages", "build", "MODEL", "--target", "2", "--method", "xor"],
            "method.not_applicable",
        ),
        (
            [
                "packages",
                "build",
                "MODEL",
                "--base",
                "1",
                "--target",
                "2",
                "--method",
                "direct",
                "--dataset",
                "none",
            ],
            "dataset.not_found",
        ),
        (
            [
                "packages",
                "build",
                "MODEL",
                "--base",
                "1",
                "--target",
                "2",
                "--method",
                "direct",
                "--min-accuracy",
                "9",
            ],
            "request.invalid",
        ),
        (["refinements", "show", "99999"], "refinement.not_found"),
        (["refinements", "cancel", "99999"], "refinement.not_found"),
        (["refinements", "follow", "99999"], "refinement.not_found"),
        (["refine", "MODEL", "--dataset", "d", "--method", "xor"], "refinement.no_architecture"),
        (["rollouts", "show", "99999"], "rollout.not_found"),
        (["devices", "show", "nobody"], "device.not_found"),
    ],
)
def test_refusals_carry_the_servers_code(
    ask: Any, model: str, base: Path, words: list[str], code: str
) -> None:
    done = ask(*({"MODEL": model, "BASE": base}.get(word, word) for word in words))
    assert (done.status, done.out, done.code) == (1, "", code)


def test_history_tells_of_uploads(ask: Any, model: str) -> None:
    kinds = [e["kind"] for e in ask("history", "--model", model, "--oldest-first").json["items"]]
    assert kinds == ["model.created", "version.uploaded", "version.uploaded"]


def test_rollout_without_devices(ask: Any, model: str) -> None:
    rollout = ask("rollouts", "start", model, 2).json
    assert (rollout["version"], rollout["assignments"]) == (2, {})
    assert ask("rollouts", "devices", rollout["id"]).json["items"] == []
    assert rollout["id"] in [r["id"] for r in ask("rollouts", "list").json["items"]]


def test_server_that_is_away_is_ours(weft: Any) -> None:
    done = weft("models", "list", "--json", "--server", "http://127.0.0.1:1")
    assert (done.status, done.code) == (2, "server.unreachable")


class Stranger(BaseHTTPRequestHandler):
    """A web server that knows nothing of Weft, and cuts downloads short."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stranger() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Stranger)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_download_that_breaks_off_leaves_nothing(weft: Any, stranger: str, tmp_path: Path) -> None:
    words = ["packages", "download", 1, "--output", tmp_path / "out", "--server", stranger]
    done = weft(*words, "--json")
    assert (done.status, done.code) == (2, "server.unreachable")
    assert list(tmp_path.iterdir()) == []


def test_stranger_is_told_from_a_weft_server(weft: Any, stranger: str) -> None:
    done = weft("models", "create", "m", "--json", "--server", stranger)
    assert (done.status, done.code) == (2, "server.bad_answer")


def test_a_rollout_is_steered(ask: Any, weft: Any, server: str, model: str) -> None:
    careful = ["--filter", "attr.gpu==orin", "--phase", "10:1h", "--phase", "100", "--max-open", 5]
    careful += ["--success", 95, "--abort-if", "failed:20:5", "--deadline", "2d", "--rollback"]
    window = ["--window", "0 2 * * *:4h@Europe/Berlin", "--hold"]
    rollout = ask("rollouts", "start", model, 1, *careful, *window).json
    assert (rollout["state"], rollout["deadline_seconds"]) == ("ready", 172_800)
    assert rollout["phases"][0] == {"percent": 10, "soak_seconds": 3600}
    assert rollout["window"]["duration_seconds"] == 14_400
    for order, state in (("start", "active"), ("pause", "paused"), ("resume", "active")):
        assert ask("rollouts", order, rollout["id"]).json["state"] == state
    shown = weft("rollouts", "show", rollout["id"], "--server", server).out
    assert "no device matches yet [no_devices]" in shown
    assert "10%" in shown
    assert ask("rollouts", "retry", rollout["id"]).code == "rollout.nothing_to_retry"
    refused = ask("rollouts", "roll-back", rollout["id"], "--version", 1)
    assert refused.code == "rollout.wrong_version"
    assert ask("rollouts", "abort", rollout["id"]).json["state"] == "aborted"
    listed = ask("rollouts", "list", "--filter", "state==aborted;rollback==true").json["items"]
    assert rollout["id"] in [r["id"] for r in listed]


@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
def test_tls_is_verified_however_the_address_is_written(
    scheme: str, weft: Any, tmp_path: Path
) -> None:
    """A server with a certificate that nobody vouches for is not talked to."""
    context = authority(tmp_path).server()
    listener = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    listener.socket = context.wrap_socket(listener.socket, server_side=True)
    thread = Thread(target=listener.serve_forever)
    thread.start()
    address = f"{scheme}://127.0.0.1:{listener.server_port}"
    done = weft("models", "list", "--json", "--server", address)
    listener.shutdown()
    thread.join()
    listener.server_close()
    assert done.code == "server.unreachable"
    assert "certificate" in done.err
