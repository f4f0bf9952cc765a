"""Several workers take from one queue: each has its own, and only a dead one loses what it ran."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select

from server.db import reading, writing
from server.errors import DatabaseError, ServerError
from server.jobs import queue
from server.jobs.heartbeat import Heartbeat
from server.jobs.settings import JobSettings
from server.tables import Event, Refinement, now

DEAD = ServerError("interrupted", "it is dead")
MINUTE = timedelta(minutes=1)


def row_of(engine: Engine, job: int) -> Refinement:
    with reading(engine) as session:
        return session.get_one(Refinement, job)


def test_each_refinement_is_taken_by_one_worker(engine: Engine, enqueue: Any) -> None:
    jobs = [enqueue() for _ in range(6)]
    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(lambda n: queue.claim(engine, f"worker-{n % 2}"), range(8)))
    assert sorted(job for job in taken if job) == jobs
    assert taken.count(None) == 2
    assert {row_of(engine, job).worker for job in jobs} == {"worker-0", "worker-1"}


def test_what_a_living_worker_runs_is_left_to_it(engine: Engine, enqueue: Any) -> None:
    job = enqueue()
    queue.claim(engine, "other")
    assert queue.recover(engine, 3, DEAD, lost_before=now() - MINUTE) == []
    assert row_of(engine, job).state == "running"


def test_what_a_dead_worker_ran_goes_on(engine: Engine, enqueue: Any) -> None:
    job = enqueue()
    queue.claim(engine, "dead")
    assert queue.recover(engine, 3, DEAD, lost_before=now() + MINUTE) == [job]
    assert queue.recover(engine, 3, DEAD, lost_before=now() + MINUTE) == []
    assert queue.claim(engine, "next") == job
    row = row_of(engine, job)
    assert (row.state, row.worker, row.attempts) == ("running", "next", 2)


def test_a_beat_keeps_it_and_names_what_is_lost(engine: Engine, enqueue: Any) -> None:
    kept, cancelled, taken_over = enqueue(), enqueue(), enqueue()
    for _ in range(3):
        queue.claim(engine, "ours")
    with writing(engine) as session:
        queue.cancel(session, session.get_one(Refinement, cancelled))
        session.get_one(Refinement, taken_over).worker = "another"
        for job in (kept, taken_over):
            session.get_one(Refinement, job).heartbeat_at = now() - MINUTE
    assert queue.beat(engine, {kept, cancelled, taken_over}, "ours") == {cancelled, taken_over}
    assert queue.recover(engine, 3, DEAD, lost_before=now() - MINUTE / 2) == [taken_over]


def test_a_worker_that_comes_back_changes_nothing_any_more(engine: Engine, enqueue: Any) -> None:
    job = enqueue()
    queue.claim(engine, "slow")
    queue.recover(engine, 3, DEAD, lost_before=now() + MINUTE)
    queue.claim(engine, "next")
    assert not queue.store_progress(engine, job, {"stage": "late"}, "slow")
    assert not queue.retry(engine, job, 3, DEAD, "slow")
    queue.fail(engine, job, queue.describe(DEAD), "slow")
    queue.release(engine, job, "slow")
    row = row_of(engine, job)
    assert (row.state, row.worker, row.progress) == ("running", "next", None)
    assert not queue.is_ours(row, "slow")
    assert queue.is_ours(row, "next")
    with reading(engine) as session:
        kinds = list(session.scalars(select(Event.kind).order_by(Event.id)))
    assert kinds == ["refinement.started", "refinement.interrupted", "refinement.started"]


def test_a_curve_outlives_the_progress_that_brought_it(engine: Engine, enqueue: Any) -> None:
    job = enqueue()
    queue.claim(engine)
    queue.store_progress(engine, job, {"stage": "compare", "curve": {"points": []}})
    assert row_of(engine, job).progress == {"stage": "compare"}
    queue.store_progress(engine, job, {"stage": "refine", "epoch": 1})
    queue.fail(engine, job, queue.describe(DEAD))
    row = row_of(engine, job)
    assert (row.state, row.curve) == ("failed", {"points": []})


def test_out_of_reach_it_ends_its_children_before_others_take_over(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 100.0
    monkeypatch.setattr("time.monotonic", lambda: clock)
    heart = Heartbeat(engine, JobSettings(lost_after=30), alone=False)

    def unreachable(*_: object) -> set[int]:
        raise DatabaseError("unreachable", "no route")

    monkeypatch.setattr(queue, "beat", unreachable)
    clock = 104.0
    assert heart.beat({1}) == set()  # not time yet
    clock = 110.0
    with pytest.raises(DatabaseError):  # it may come back
        heart.beat({1})
    clock = 116.0
    assert heart.beat({1}) == {1}


def test_a_server_that_runs_none_leaves_the_queue_alone(
    supervise: Any, enqueue: Any, until: Any, engine: Engine
) -> None:
    left, waiting = enqueue("running", attempts=1), enqueue()
    supervise("", at_once=0).wake()
    assert (row_of(engine, left).state, row_of(engine, waiting).state) == ("running", "queued")
    supervise("")
    assert until(waiting, lambda row: row.state not in queue.OPEN).state == "succeeded"
