"""Several servers share a database: a rollout keeps its promises, whoever answers, whoever dies."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, func, select

from server.db import reading
from server.tables import Assignment, Event, Lease, Rollout
from tests.device_keys import DeviceKey
from tests.several_processes.conftest import TOKEN, Program

pytestmark = pytest.mark.postgres("SQLite serves one process")

#: Evaluated by the duty where a model has more devices than that, else by whoever reports. Leases
#: and looks are short, that the test is.
CHANGES = (
    "from server import duties; duties.LEASE_SECONDS = 2; "
    "from server.rollouts import evaluation; "
    "evaluation.SMALL_FLEET, evaluation.INTERVAL_SECONDS = 10, 0.05"
)
NO_LIMITS = {"WEFT_JOBS_AT_ONCE": "0"} | {
    f"WEFT_RATE_{name}": "0" for name in ("DEVICES", "ENROLMENTS", "OTHERS")
}

#: Model -> devices that run it, and most of them that may be updating at a time.
FLEETS = {"large": (24, 5), "small": (8, 2)}
PHASES = [{"percent": 25, "soak_seconds": 0}, {"percent": 100, "soak_seconds": 0}]


class Servers:
    """Asks any of the servers that live, each request another one."""

    def __init__(self, programs: list[Program]) -> None:
        self.programs = programs
        self.draw = random.Random(0)
        self._clients = {
            id(program): httpx.Client(base_url=program.said["url"], timeout=60, verify=False)
            for program in programs
        }

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        program = self.draw.choice(self.programs)
        return self._clients[id(program)].request(method, path, **request)

    def must(self, method: str, path: str, **request: Any) -> Any:
        answer = self.ask(method, path, **request)
        assert answer.is_success, answer.text
        return answer.json()

    def kill(self, program: Program) -> None:
        self.programs.remove(program)
        program.end(signal.SIGKILL)

    def close(self) -> None:
        for client in self._clients.values():
            client.close()


@dataclass
class Simulated:
    """A device that does at once what it is told."""

    device_id: str
    key: DeviceKey
    headers: dict[str, str]
    counter: int = 0
    offered: list[int] = field(default_factory=list)

    def step(self, servers: Servers) -> None:
        desired = servers.must("GET", "/device/v1/desired", headers=self.headers)
        for wanted in desired["models"]:
            if wanted.get("package") or wanted.get("chain"):
                self.offered.append(wanted["assignment"])
                self.counter += 1
                report = {
                    "counter": self.counter,
                    "model": wanted["model"],
                    "assignment": wanted["assignment"],
                    "result": "committed",
                    "state": "committed",
                    "weights_digest": wanted["weights_digest"],
                    "slots": [wanted["weights_digest"]],
                }
                signed = self.key.signed("report", self.device_id, report, self.headers)
                servers.must("POST", "/device/v1/reports", **signed)


@pytest.fixture
def servers(start: Callable[..., Program]) -> Any:
    programs = [start("serve", "--port", "0", changes=CHANGES, **NO_LIMITS) for _ in range(2)]
    servers = Servers(programs)
    yield servers
    servers.close()


@pytest.fixture
def devices(servers: Servers, weights_file: Callable[..., Path]) -> list[Simulated]:
    """Both models with two versions, and the devices that hold the first."""
    files, digests = [weights_file(0), weights_file(1)], {}
    for model in FLEETS:
        servers.must("POST", "/api/v1/models", json={"name": model})
        for path in files:
            answer = servers.must(
                "POST",
                f"/api/v1/models/{model}/versions",
                content=path.read_bytes(),
                headers={"Content-Type": "application/octet-stream"},
            )
            digests.setdefault(model, answer["weights_digest"])

    def enrol(number: int) -> Simulated:
        held = {
            model: {"slots": [digests[model]], "current": digests[model]}
            for model, (count, _) in FLEETS.items()
            if number < count
        }
        body = {"name": f"d{number}", "token": TOKEN, "models": held}
        key = DeviceKey()
        given = servers.must("POST", "/device/v1/enrol", **key.enrolment(body))
        headers = {"Authorization": f"Bearer {given['token']}"}
        return Simulated(given["device_id"], key, headers)

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(enrol, range(max(count for count, _ in FLEETS.values()))))


def open_now(engine: Engine) -> dict[int, int]:
    """Rollout -> assignments that are open, in one snapshot."""
    counted = select(Assignment.rollout_id, func.count()).where(Assignment.finished_at.is_(None))
    with reading(engine) as session:
        rows = session.execute(counted.group_by(Assignment.rollout_id)).all()
    return {rollout: count for rollout, count in rows}  # noqa: C416 - rows are no pairs


def evaluator(engine: Engine, servers: Servers) -> Program | None:
    """The process that has the duty of evaluating rollouts."""
    with reading(engine) as session:
        holder = session.scalar(select(Lease.holder).where(Lease.name == "rollouts")) or "--"
    pid = int(holder.split("-")[-2] or 0)
    return next((p for p in servers.programs if p.process.pid == pid), None)


def test_a_rollout_over_several_servers_keeps_its_promises(
    servers: Servers, devices: list[Simulated], engine: Engine, wait_for: Any
) -> None:
    rollouts = {
        model: servers.must(
            "POST",
            "/api/v1/rollouts",
            json={"model": model, "version": 2, "phases": PHASES, "max_open": most},
        )["id"]
        for model, (_, most) in FLEETS.items()
    }
    caps = {rollouts[model]: most for model, (_, most) in FLEETS.items()}
    most_seen: Counter[int] = Counter()

    def step(device: Simulated) -> None:
        device.step(servers)
        for rollout, count in open_now(engine).items():
            assert count <= caps[rollout], (rollout, count)
            most_seen[rollout] = max(most_seen[rollout], count)

    def round_of_polls() -> int:
        list(pool.map(step, devices))
        with reading(engine) as session:
            done = select(func.count()).where(Assignment.state == "committed")
            return session.scalar(done) or 0

    with ThreadPoolExecutor(6) as pool:
        wait_for("the first updates", lambda: round_of_polls() >= 8)
        first = wait_for("an evaluator", lambda: evaluator(engine, servers))
        servers.kill(first)
        total = sum(count for count, _ in FLEETS.values())
        wait_for("all updates", lambda: round_of_polls() == total)

    def states() -> set[str]:
        with reading(engine) as session:
            return set(session.scalars(select(Rollout.state)))

    wait_for("both ends", lambda: states() == {"finished"})
    assert evaluator(engine, servers) in servers.programs
    with reading(engine) as session:
        assert session.scalar(select(func.count()).select_from(Assignment)) == total
        offered = list(
            session.scalars(select(Event.assignment_id).where(Event.kind.endswith(".offered")))
        )
    assert len(offered) == len(set(offered)) == total
    assert most_seen == caps  # the places were used, too
    for program in servers.programs:
        assert program.end() == 0
        assert "Traceback" not in program.log.read_text()
