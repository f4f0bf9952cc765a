"""What is measured, as functions that give one record each.

`polls`: the empty route and the idle poll in turns (ABAB), each as fast as the server can.
`beside_refinement`: idle polls at a fixed rate, in turns with and without a refinement running.
`rollout`: one rollout over the whole fleet is created while other devices poll at a fixed rate.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import httpx
from sqlalchemy import Engine, func, select

from benchmarks.load.client import GRACE_SECONDS, MOST_SECONDS, Plan
from benchmarks.load.databases import Databases, Site
from benchmarks.load.fleet import FLEET
from benchmarks.load.refinement import refining, save_images
from benchmarks.load.serving import EMPTY_PATH, Server, serving
from server.db import open_engine, reading
from server.tables import Assignment, Json
from shared.wire import DESIRED_PATH


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    fleet: int
    """Devices in the rollout."""
    idle: int
    """Devices that poll meanwhile."""
    runs: int
    seconds: float
    """Of one measurement at full speed, or at a fixed rate."""
    share: float = 0.3
    """Of the measured maximum: the fixed rate."""
    connections: int = 32


#: A rollout that is not created by then never will be.
ROLLOUT_SECONDS = 120.0

FULL = Scale(fleet=100_000, idle=10_000, runs=5, seconds=2.5)
QUICK = Scale(fleet=400, idle=100, runs=1, seconds=0.3)

Say = Callable[[str], None]


def polls(site: Site, etag: str, scale: Scale, say: Say) -> Iterator[Json]:
    """One record a run: both routes at full speed, then the server's memory."""
    with serving(site.folder, site.url) as server:
        idle = server.resident_bytes()
        devices = scale.fleet + scale.idle
        for run in range(scale.runs):
            record: Json = {"run": run, "idle_bytes": idle}
            for name, path in (("empty", EMPTY_PATH), ("poll", DESIRED_PATH)):
                plan = Plan(server.port, scale.seconds, path, connections=scale.connections)
                record[name] = _measure(server, plan, devices, etag)
                say(f"run {run}: {name} {record[name]['per_second']:,.0f} a second")
            yield record | {"resident_bytes": server.resident_bytes()}


def beside_refinement(site: Site, etag: str, rate: float, scale: Scale, say: Say) -> Iterator[Json]:
    """One record a run: polls at `rate` while the refinement stands still, and while it runs."""
    images = save_images(site.folder)
    roots = {"WEFT_DATASET_ROOTS": str(site.folder)}
    with (
        serving(site.folder, site.url, **roots) as server,
        refining(server, images) as let_run,
    ):
        for run in range(scale.runs):
            record: Json = {"run": run, "rate": rate}
            for name, runs in (("calm", False), ("refining", True)):
                let_run(runs)
                plan = _at_rate(server, rate, scale, run)
                record[name] = _measure(server, plan, scale.fleet, etag)
                say(f"run {run}: {name} p99 {record[name]['p99'] * 1000:.2f} ms")
            yield record


def rollout(
    databases: Databases, enrolled: Site, etag: str, rate: float, scale: Scale, run: int, say: Say
) -> Json:
    """One record: a rollout over FLEET on a copy of the enrolled database."""
    site = databases.copy(enrolled)
    before = databases.size(site)
    try:
        with serving(site.folder, site.url) as server:
            record: Json = {"run": run, "rate": rate, "idle_bytes": server.resident_bytes()}
            plan = _at_rate(server, rate, scale, run, first=scale.fleet)
            record["calm"] = _measure(server, plan, scale.idle, etag)
            record |= _create(server, site, plan, scale, etag)
            record["peak_bytes"] = server.resident_bytes(peak=True)
        record["bytes_an_assignment"] = (databases.size(site) - before) / scale.fleet
    finally:
        databases.drop(site)
    say(f"run {run}: all admitted after {record['seconds']:.1f} s")
    say(f"run {run}: p99 {record['calm']['p99'] * 1000:.2f} ms, then "
        f"{record['creating']['p99'] * 1000:.2f} ms")  # fmt: skip
    return record


def _create(server: Server, site: Site, plan: Plan, scale: Scale, etag: str) -> Json:
    """Create the rollout under polls; seconds from the request until the last device is in."""
    engine = open_engine(site.url)
    cpu = server.cpu_seconds()
    try:
        with (
            _polling(_of_fleet(plan, scale.idle, etag, MOST_SECONDS)) as finish,
            httpx.Client(base_url=server.url, timeout=60, verify=False) as client,
        ):
            began = time.perf_counter()
            body = {"model": FLEET, "version": 2}
            client.post("/api/v1/rollouts", json=body).raise_for_status()
            answered = time.perf_counter()
            while _admitted(engine) < scale.fleet:
                if time.perf_counter() - began > ROLLOUT_SECONDS:
                    raise RuntimeError(f"{_admitted(engine)} devices admitted, no more")
                time.sleep(0.1)
            ended = time.perf_counter()
            seen = finish()
    finally:
        engine.dispose()
    return {
        "seconds": ended - began,
        "answer_seconds": answered - began,
        "cpu_seconds": server.cpu_seconds() - cpu,
        "creating": seen,
    }


def _admitted(engine: Engine) -> int:
    with reading(engine) as session:
        return session.scalar(select(func.count()).select_from(Assignment)) or 0


def _at_rate(server: Server, rate: float, scale: Scale, run: int, first: int = 0) -> Plan:
    return Plan(
        server.port,
        scale.seconds,
        DESIRED_PATH,
        rate=rate,
        connections=2 * scale.connections,
        first_device=first,
        seed=run,
    )


def _of_fleet(plan: Plan, devices: int, etag: str, seconds: float) -> Plan:
    return replace(plan, devices=devices, etag=etag, seconds=seconds)


def _measure(server: Server, plan: Plan, devices: int, etag: str) -> Json:
    """What the plan's devices saw, and what it took of the server."""
    cpu = server.cpu_seconds()
    with _polling(_of_fleet(plan, devices, etag, plan.seconds)) as finish:
        seen = finish(early=False)
    spent = server.cpu_seconds() - cpu
    sent = seen["answers"] * (plan.seconds + plan.warm_up) / plan.seconds
    return seen | {"cpu_per_1000": spent / max(sent, 1) * 1000}


@contextmanager
def _polling(plan: Plan) -> Iterator[Callable[..., Json]]:
    """A client process for the length of a with-block; gives what ends it and returns its words."""
    command = [sys.executable, "-m", "benchmarks.load.client"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write(json.dumps(asdict(plan)))
    process.stdin.close()
    process.stdin = None

    def finish(early: bool = True) -> Json:
        if early:
            process.terminate()
        out, _ = process.communicate(timeout=plan.seconds + 3 * GRACE_SECONDS)
        if process.returncode:
            raise RuntimeError("the client failed; its words are above")
        seen: Json = json.loads(out)
        wrong = {s: n for s, n in seen["statuses"].items() if s not in ("204", "304")}
        if wrong or seen["lost"]:
            raise RuntimeError(f"answers of another kind: {wrong}; lost: {seen['lost']}")
        return seen

    try:
        yield finish
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
