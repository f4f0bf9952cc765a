"""`weft history`, `weft lineage` and `weft webhooks` against a real server."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.history.receiver import Receiver


def test_history_is_filtered_listed_and_exported(ask: Any, weft: Any, server: str, tmp_path: Path):
    assert ask("models", "create", "of-history").status == 0
    page = ask("history", "--model", "of-history", "--filter", "kind==model.*").json
    [event] = page["items"]
    assert event["kind"] == "model.created"
    table = weft("history", "--model", "of-history", "--server", server)
    assert "model.created" in table.out
    assert "model=of-history" in table.out
    file = tmp_path / "history.csv"
    done = ask("history", "export", "--format", "csv", "--model", "of-history", "--output", file)
    assert done.json["size_bytes"] == file.stat().st_size
    with file.open(newline="") as lines:
        assert [row["kind"] for row in csv.DictReader(lines)] == ["model.created"]
    lines_file = tmp_path / "history.jsonl"
    assert ask("history", "export", "--kind", "model", "--output", lines_file).status == 0
    assert event in map(json.loads, lines_file.read_text().splitlines())


def test_an_export_into_a_pipe_leaves_the_pipe(ask: Any, tmp_path: Path) -> None:
    assert ask("models", "create", "of-pipe").status == 0
    pipe, file, link = tmp_path / "pipe", tmp_path / "file", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(file)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for target in (pipe, link):
        assert ask("history", "export", "--model", "of-pipe", "--output", target).status == 0
    assert os.read(reading, 1 << 20) == file.read_bytes() != b""
    os.close(reading)
    assert (pipe.is_fifo(), link.is_symlink()) == (True, True)


def test_what_is_wrong_is_told(ask: Any, tmp_path: Path) -> None:
    assert ask("history", "--filter", "nothing==1").code == "filter.unknown_field"
    assert ask("history", "--model", "typo").code == "model.not_found"
    assert ask("history", "--follow", "--model", "typo").code == "model.not_found"
    file = tmp_path / "none.csv"
    assert ask("history", "export", "--model", "typo", "--output", file).code == "model.not_found"
    assert not file.exists()
    assert ask("lineage", "devices", "--dataset", "typo").code == "dataset.not_found"
    assert ask("lineage", "devices").code == "request.invalid"
    created = ask("webhooks", "create", "https://example.org")
    assert (created.status, created.code) == (1, "webhook.host_not_allowed")


def test_lineage_is_shown(ask: Any, weft: Any, server: str, base: Path, target: Path) -> None:
    ask("models", "create", "of-lineage")
    ask("versions", "upload", "of-lineage", base)
    ask("versions", "upload", "of-lineage", target, "--parent", 1)
    found = ask("lineage", "version", "of-lineage", 2).json
    assert [link["number"] for link in found["ancestors"]] == [1]
    shown = weft("lineage", "version", "of-lineage", 1, "--server", server).out.splitlines()
    assert [line.split()[:2] for line in shown[1:]] == [["descendant", "2"], ["this", "1"]]
    assert ask("lineage", "devices", "--model", "of-lineage", "--version", 1).json["items"] == []


def test_a_webhook_from_its_making_to_its_end(weft: Any, start_server: Any, tmp_path: Path) -> None:
    receiver = Receiver()
    server = start_server(tmp_path / "data", WEFT_WEBHOOK_HOSTS="127.0.0.1").url

    def ask(*words: object) -> Any:
        done = weft("webhooks", *words, "--json", "--server", server)
        assert done.status == 0, done.err
        return done.json

    try:
        made = ask("create", receiver.url, "--filter", "kind==rollout.*")
        assert len(made["secret"]) >= 43
        tested = ask("test", 1)
        assert (tested["kind"], tested["status"]) == ("webhook.tested", 204)
        assert ask("pause", 1)["state"] == "paused"
        assert ask("resume", 1)["state"] == "active"
        assert ask("update", 1, "--no-filter")["filter"] is None
        assert ask("redeliver", 1, tested["id"])["state"] == "pending"
        assert receiver.next()[1] == receiver.next()[1]
        assert [d["id"] for d in ask("deliveries", 1)["items"]] == [tested["id"]]
        assert "secret" not in ask("show", 1)
        assert len(ask("list")["items"]) == 1
        ask("delete", 1)
        assert ask("list")["items"] == []
    finally:
        receiver.close()


def test_a_follower_outlives_the_server_and_ends_with_ctrl_c(
    weft: Any, start_server: Any, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    first = start_server(data)
    url = first.url
    command = [sys.executable, "-c", "from server.cli import main; raise SystemExit(main())"]
    words = ["history", "--follow", "--kind", "model", "--since", "2026-01-01T00:00:00Z"]
    follower = subprocess.Popen(
        [*command, *words, "--json", "--server", url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("WEFT_")},
    )
    assert follower.stdout is not None
    names = []
    for name in ("one", "two"):
        assert weft("models", "create", name, "--server", url).status == 0
        names.append(json.loads(follower.stdout.readline())["data"]["name"])
        if name == "one":
            first.stop(signal.SIGKILL)
            again = start_server(data, "--port", str(urlsplit(url).port))
            assert again.url == url
    follower.send_signal(signal.SIGINT)
    rest, err = follower.communicate(timeout=60)
    assert (names, rest, follower.returncode) == (["one", "two"], "", 0)
    assert "asking again" in err
    assert "Traceback" not in err
