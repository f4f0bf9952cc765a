"""The story of a bad version, told by the server's own history: `python -m demo.fleet [FOLDER]`.

40 simulated devices and two real agents run version 1. Version 2 is bad: it is stopped in the first
phase, and the devices that could not judge it are rolled back. Version 3 goes through. At last
somebody else has the server, all but its release key: no device takes what they send.
"""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from demo import processes
from demo.fleet.devices import LINES
from demo.fleet.history import show_history
from demo.fleet.weights import MODEL, write_version
from demo.processes import wait_for
from server.cli.client import Client
from shared.errors import WeftError

SIMULATED = 40
AGENTS = ("line1-agent", "line2-agent")
PATIENCE = 120.0
PLAN = {
    "phases": [
        {"percent": 30, "soak_seconds": 1},
        {"percent": 60, "soak_seconds": 1},
        {"percent": 100, "soak_seconds": 0},
    ],
    "max_open": 12,
    "success_percent": 90,
    "abort_rules": [{"kind": "failed", "percent": 20, "min_count": 3}],
}
console = Console(stderr=True, highlight=False)


def main() -> int:
    """Run the story; 0 when it ended as it should."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("var/fleet")
    try:
        facts = tell(folder)
    except WeftError as error:
        console.print(f"{error.message} ({error.code}). {error.todo}", style="red")
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    (folder / "facts.json").write_text(json.dumps(facts, indent=2) + "\n")
    return 0 if facts["versions_at_the_end"] == {"3": SIMULATED + len(AGENTS)} else 2


def tell(folder: Path) -> dict[str, Any]:
    """The whole story; returns what it came to."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        started = processes.server(folder, str(folder), WEFT_POLL_INTERVAL="0.3")
        server = stack.enter_context(started)
        client = stack.enter_context(Client(server.url, server.key))
        _register(client, folder)
        stack.enter_context(_simulated(folder, server.url, server.token))
        for name in AGENTS:
            stack.enter_context(_agent(folder, name, server.url, server.token))
        return _act(client, folder)


def _act(client: Client, folder: Path) -> dict[str, Any]:
    wait_for("the devices", lambda: _fleet(client) == SIMULATED + len(AGENTS) or None, PATIENCE)
    console.rule("version 1 for the two agents, which came without weights")
    _finish(client, _start(client, 1))
    console.rule("version 2, which is bad")
    _upload(client, folder, 2)
    bad = wait_for_end(client, _start(client, 2, **PLAN))
    console.print(f"rollout {bad['id']} is {bad['state']}: {bad['reason']['message']}")
    ran_bad = _versions(client).get("2", 0)
    console.rule(f"rolled back: {ran_bad} devices had nothing to judge it with")
    back = _finish(client, client.post(f"/rollouts/{bad['id']}/roll_back", {}))
    after_rollback = _versions(client)
    console.rule("version 3, the same change done right")
    _upload(client, folder, 3)
    good = _finish(client, _start(client, 3, **PLAN))
    _tell_who_signed(client)
    console.rule("an attack: the server is in other hands, but the release key is not")
    attack = _attack(client, folder)
    show_history(client)
    return {
        "bad": bad,
        "ran_bad": ran_bad,
        "back": back,
        "back_assignments": client.get(f"/rollouts/{back['id']}/assignments", limit=500)["items"],
        "versions_after_rollback": after_rollback,
        "good": good,
        **attack,
        "versions_at_the_end": _versions(client),
    }


def _tell_who_signed(client: Client) -> None:
    trust = client.get("/trust")
    keys = [key["keyid"] for key in trust["keys"] if key["role"] == "release"]
    console.print(
        f"signed by the release key {' '.join(keys)}, verified by each device under the root "
        f"{trust['root_sha256'][:8]}, which its enrolment token pins"
    )


def _attack(client: Client, folder: Path) -> dict[str, Any]:
    """Send weights of one's own, signed by all keys of the server but the release key.

    The attacker has an operator's key, and the database: there the version is called released. So
    the server offers it and signs its package, as it would any other.
    """
    _upload(client, folder, 4)
    with sqlite3.connect(folder / "server" / "weft.db", timeout=30) as database:
        lie = "UPDATE versions SET released_at = created_at WHERE number = 4"
        database.execute(lie)
    database.close()
    ended = wait_for_end(client, _start(client, 4, **PLAN))
    rows = client.get(f"/rollouts/{ended['id']}/assignments", limit=500)["items"]
    refused = Counter(row["error"]["code"] for row in rows if row["error"])
    told = next(row["error"]["message"] for row in rows if row["error"])
    console.print(
        f"rollout {ended['id']} is {ended['state']}: {sum(refused.values())} devices refused it "
        f"before they downloaded a byte ({', '.join(refused)}: {told})"
    )
    return {"attack": ended, "refused": dict(refused)}


def _register(client: Client, folder: Path) -> None:
    client.post("/models", {"name": MODEL})
    _upload(client, folder, 1)
    client.post("/groups", {"name": "blind", "filter": f"attr.line=={LINES}"})


def _upload(client: Client, folder: Path, number: int) -> None:
    path = write_version(number, folder / f"version-{number}.safetensors")
    parent = {"parent": 1} if number > 1 else {}
    client.upload(f"/models/{MODEL}/versions", path, lambda _: None, **parent)


@contextmanager
def _simulated(folder: Path, address: str, token: str) -> Iterator[None]:
    command = [sys.executable, "-m", "demo.fleet.devices", address, token, str(SIMULATED)]
    devices = folder / "devices"
    devices.mkdir()
    with (folder / "devices.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, str(devices)], stdin=subprocess.PIPE, stdout=log, stderr=log
        )
    try:
        yield
    finally:
        process.communicate()  # closes its standard input, at which it ends


@contextmanager
def _agent(folder: Path, name: str, address: str, token: str) -> Iterator[None]:
    check = json.dumps([sys.executable, "-m", "demo.fleet.weights"])
    more = [f"health_command = {check}", "[attributes]", f'line = "{name[4]}"']
    with processes.agent(folder, name, address, token, MODEL, poll_seconds=0.3, more=more):
        yield


def _start(client: Client, version: int, **plan: Any) -> dict[str, Any]:
    rollout: dict[str, Any] = client.post("/rollouts", {"model": MODEL, "version": version, **plan})
    return rollout


def wait_for_end(client: Client, rollout: dict[str, Any]) -> dict[str, Any]:
    """The rollout once it is finished or aborted; says how each of its phases ended."""
    phase, text = 0, ""

    def ended() -> dict[str, Any] | None:
        nonlocal phase, text
        found: dict[str, Any] = client.get(f"/rollouts/{rollout['id']}")
        if found["phase"] != phase:
            console.print(text)
        phase = found["phase"]
        counts = ", ".join(f"{n} {state}" for state, n in sorted(found["assignments"].items()))
        text = f"phase {phase + 1} of {len(found['phases'])}: {counts}"
        return found if found["state"] in ("finished", "aborted") else None

    found = wait_for(f"rollout {rollout['id']}", ended, PATIENCE)
    console.print(text)
    return found


def _finish(client: Client, rollout: dict[str, Any]) -> dict[str, Any]:
    found = wait_for_end(client, rollout)
    if found["state"] != "finished":
        raise processes.DemoFailed("died", f"rollout {found['id']} is {found['state']}")
    return found


def _fleet(client: Client) -> int:
    return len(client.get("/devices", limit=500)["items"])


def _versions(client: Client) -> dict[str, int]:
    """How many devices run which version."""
    items = client.get("/devices", limit=500)["items"]
    return dict(Counter(str(held["version"]) for d in items for held in d["models"]))


if __name__ == "__main__":
    sys.exit(main())
