"""`make bench-wire`: bytes on the wire of an idle poll, of enrolment, and of whole updates.

A real server (`weft serve`), real agents (`edge-agent run`), between them a line that counts each
exchange (`benchmarks/counting_line.py`): HTTP as it is, heads and bodies, both directions, without
TLS. Everything is on as it is by default: signed metadata, signed reports, tokens.

A device that enrols with version 1 is brought to versions 2 to 8, one at a time, so it holds the
metadata of the update before. A second one enrols with version 7, and is fresh when 8 versions are
released and 4 packages listed.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np

from benchmarks.counting_line import Exchange, Line, line
from benchmarks.measure import machine
from benchmarks.wire_page import page
from demo import processes
from server.cli.client import Client
from shared.errors import WeftError
from shared.metadata import PACKAGES, TARGETS, unpack
from shared.weights import write_weights
from shared.wire import DESIRED_PATH, ENROL_PATH, METADATA_PATH, PACKAGES_PATH, REPORTS_PATH

RESULTS = Path(__file__).parent / "results" / "wire.json"
PAGE = Path(__file__).resolve().parent.parent / "docs" / "results" / "wire.md"
MODEL, VERSIONS = "field", 8
#: What an update may take beside its package, in so many exchanges; and the answer to an idle poll.
MOST_BYTES, MOST_EXCHANGES, MOST_IDLE_BYTES = 3500, 4, 300
NAMES = {
    ENROL_PATH: "enrolment",
    DESIRED_PATH: "poll",
    METADATA_PATH: "metadata",
    PACKAGES_PATH: "package",
    REPORTS_PATH: "report",
}
WAIT_SECONDS = 60.0
OK, NOT_MODIFIED = 200, 304


def measure(folder: Path) -> dict[str, Any]:
    """All figures, on a server and two agents of their own."""
    updates: list[dict[str, Any]] = []
    with ExitStack() as stack:
        server = stack.enter_context(processes.server(folder, str(folder)))
        client = stack.enter_context(Client(server.url, server.key))
        parts = urlsplit(server.url)
        counted = stack.enter_context(line((str(parts.hostname), int(parts.port or 80))))
        _publish(client, folder)
        first = _run(stack, folder, "first", 1, counted.url, server.token)
        enrolled = _enrolled(counted)
        client.post("/rollouts", {"model": MODEL, "version": 1})
        for version in range(2, VERSIONS + 1):
            before = len(counted.exchanges)
            client.post("/rollouts", {"model": MODEL, "version": version})
            found = _watch(client, counted, version, before)
            known = "known" if updates else "fresh"
            updates.append({"device": known, **_listed(server.url, first), **found})
        idle = _idle(counted)
        before = len(counted.exchanges)
        _run(stack, folder, "late", VERSIONS - 1, counted.url, server.token)
        found = _watch(client, counted, VERSIONS, before)
        updates.append({"device": "fresh", **_listed(server.url, first), **found})
    return {"idle": idle, "enrolment": enrolled, "updates": updates}


def _publish(client: Client, folder: Path) -> None:
    """The model, its versions, and a lossless package from each to the next."""
    client.post("/models", {"name": MODEL})
    draw = np.random.default_rng(0)
    weights = {"body.weight": draw.standard_normal((64, 128), np.float32)}
    for number in range(1, VERSIONS + 1):
        path = folder / f"{number}.safetensors"
        write_weights(path, {name: ("F32", values) for name, values in weights.items()})
        parent = {"parent": number - 1} if number > 1 else {}
        client.upload(f"/models/{MODEL}/versions", path, lambda _: None, **parent)
        if number > 1:
            order = {"model": MODEL, "base": number - 1, "target": number}
            client.post("/packages", order | {"method": {"id": "xor"}})
        weights["body.weight"][:8] += draw.standard_normal((8, 128), np.float32) * np.float32(1e-3)


def _run(stack: ExitStack, folder: Path, name: str, version: int, url: str, token: str) -> Path:
    """An agent that was delivered with a version, until the stack ends; its state directory."""
    initial = f'initial = "{folder / f"{version}.safetensors"}"'
    stack.enter_context(processes.agent(folder, name, url, token, MODEL, 0.2, [initial]))
    return folder / name


def _enrolled(counted: Line) -> dict[str, int]:
    """What enrolment took."""

    def look() -> Exchange | None:
        found = [e for e in counted.exchanges if e.path == DESIRED_PATH and e.status]
        return next(e for e in counted.exchanges if e.path == ENROL_PATH) if found else None

    return _bytes(processes.wait_for("enrolment", look, WAIT_SECONDS))


def _watch(client: Client, counted: Line, version: int, before: int) -> dict[str, Any]:
    """The exchanges of the update to a version, among those from index `before` on."""

    def look() -> list[Exchange] | None:
        new = list(counted.exchanges[before:])
        ended = [n for n, e in enumerate(new) if e.path == REPORTS_PATH and e.status]
        return [e for e in new[: ended[0] + 1] if _is_of_update(e)] if ended else None

    found = processes.wait_for(f"version {version}", look, WAIT_SECONDS)
    while found[1].path == DESIRED_PATH:  # it asked before the rollout had let it in
        found = found[1:]
    packages = client.get("/packages", model=MODEL)["items"]
    (package,) = [p for p in packages if p["target"] == version]
    beside = sum(e.total for e in found) - package["size_bytes"]
    return {
        "version": version,
        "package_bytes": package["size_bytes"],
        "exchanges": [{"what": _name(e), **_bytes(e)} for e in found],
        "beside_package": beside,
        "met": beside <= MOST_BYTES and len(found) <= MOST_EXCHANGES,
    }


def _is_of_update(exchange: Exchange) -> bool:
    return exchange.status != NOT_MODIFIED and exchange.path != ENROL_PATH


def _listed(url: str, state: Path) -> dict[str, int]:
    """How many versions and packages the metadata list that a device is given now."""
    token = json.loads((state / "identity.json").read_text())["token"]
    headers = {"Authorization": f"Bearer {token}"}
    answer = httpx.get(f"{url}{METADATA_PATH}/{MODEL}", headers=headers).raise_for_status()
    found = {f.role: json.loads(f.content)["signed"] for f in unpack(answer.content)}
    return {
        "released": len(found[TARGETS]["targets"]),
        "listed": len(found[PACKAGES]["targets"]),
        "metadata_bytes": len(answer.content),
    }


def _idle(counted: Line) -> dict[str, Any]:
    """A poll to which there is nothing to say."""
    before = len(counted.exchanges)

    def look() -> Exchange | None:
        new = counted.exchanges[before:-1]
        return next((e for e in new if e.status == NOT_MODIFIED), None)

    found = _bytes(processes.wait_for("an idle poll", look, WAIT_SECONDS))
    return found | {"met": found["down"] <= MOST_IDLE_BYTES}


def _name(exchange: Exchange) -> str:
    return next(name for path, name in NAMES.items() if exchange.path.startswith(path))


def _bytes(exchange: Exchange) -> dict[str, int]:
    return {"up": exchange.up, "down": exchange.down}


def main() -> int:
    """Measure, and write the result and its page; 0 where all limits are met."""
    folder = Path(tempfile.mkdtemp(prefix="wire-"))
    record = {
        "command": "make bench-wire",
        "limits": {"bytes": MOST_BYTES, "exchanges": MOST_EXCHANGES, "idle": MOST_IDLE_BYTES},
        **measure(folder),
        "machine": machine(),
    }
    shutil.rmtree(folder)
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    PAGE.write_text(page(record))
    return 0 if all(each["met"] for each in (record["idle"], *record["updates"])) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except WeftError as error:
        sys.exit(f"{error}")
