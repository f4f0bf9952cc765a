"""What becomes of a refinement, whatever its process does; the children are real processes."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from server.db import reading, writing
from server.errors import DatabaseError
from server.jobs import queue
from server.settings import Settings
from server.tables import Event, Refinement
from shared.errors import BadWeights

GOOD = """
print(json.dumps({"stage": "refine", "epoch": 1}))
print("a library talks")
print(json.dumps({"stage": "evaluate", "accuracy": 0.5}))
pathlib.Path(sys.argv[1], "result.json").write_text("{}")
pathlib.Path(sys.argv[1], "checkpoint.safetensors").write_text("large")
"""
#: The first start leaves a checkpoint and waits for its end; the second one finds it and succeeds.
TWO_STARTS = """
checkpoint = pathlib.Path(sys.argv[1], "checkpoint")
if not checkpoint.exists():
    checkpoint.write_text("half")
    print(json.dumps({"stage": "waiting"}), flush=True)
    sys.exit(5 if sys.stdin.read() == "" else 6)
"""
WAIT = 'print(json.dumps({"stage": "waiting", "pid": os.getpid()})); sys.stdin.read()'
STUBBORN = f"signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAIT}"
CRASH = "os.kill(os.getpid(), signal.SIGKILL)"
FAIL = """
error = {"code": "dataset.bad_label", "message": "label 12", "todo": "Correct the labels."}
pathlib.Path(sys.argv[1], "error.json").write_text(json.dumps(error))
sys.exit(1)
"""


def ended(row: Refinement) -> bool:
    return row.state not in queue.OPEN


def waiting(row: Refinement) -> bool:
    return row.progress is not None and row.progress["stage"] == "waiting"


def kinds(engine: Engine) -> list[str]:
    with reading(engine) as session:
        return list(session.scalars(select(Event.kind).order_by(Event.id)))


def test_runs_to_success_and_stores_the_last_progress(
    supervise: Any, enqueue: Any, until: Any, engine: Engine
) -> None:
    job = enqueue()
    supervise(GOOD)
    row = until(job, ended)
    assert (row.state, row.attempts, row.error) == ("succeeded", 1, None)
    assert row.progress == {"stage": "evaluate", "accuracy": 0.5}
    assert row.started_at is not None
    assert kinds(engine) == ["refinement.started", "refinement.succeeded"]


def test_diverging_loss_is_stored_as_unknown(supervise: Any, enqueue: Any, until: Any) -> None:
    job = enqueue()
    supervise('print(json.dumps({"stage": "refine", "loss": float("nan")}))')
    assert until(job, ended).progress == {"stage": "refine", "loss": None}


def test_cancelled_in_the_queue_leaves_no_checkpoint(
    supervise: Any, enqueue: Any, until: Any, settings: Settings, engine: Engine
) -> None:
    running, waiting_job = enqueue(), enqueue()
    supervisor = supervise(WAIT)
    until(running, waiting)
    folder = settings.jobs_dir / str(waiting_job)
    folder.mkdir(parents=True)
    (folder / "checkpoint.safetensors").write_text("of an earlier attempt")
    with writing(engine) as session:
        queue.cancel(session, session.get_one(Refinement, waiting_job))
    supervisor.cancel(waiting_job)
    assert list(folder.iterdir()) == []


def test_folder_keeps_what_explains_and_drops_what_is_large(
    supervise: Any, enqueue: Any, until: Any, settings: Settings
) -> None:
    job = enqueue()
    supervisor = supervise(GOOD)
    until(job, ended)
    supervisor.stop()
    assert {p.name for p in (settings.jobs_dir / str(job)).iterdir()} == {"log.txt", "result.json"}


def test_one_at_a_time_in_order(supervise: Any, enqueue: Any, until: Any, engine: Engine) -> None:
    jobs = [enqueue() for _ in range(3)]
    supervise(GOOD)
    for job in jobs:
        until(job, ended)
    assert kinds(engine) == ["refinement.started", "refinement.succeeded"] * 3
    with reading(engine) as session:
        assert list(session.scalars(select(Event.refinement_id).order_by(Event.id))) == [
            job for job in jobs for _ in range(2)
        ]


def test_several_at_once_where_the_operator_wants_it(
    supervise: Any, enqueue: Any, until: Any
) -> None:
    jobs = [enqueue(), enqueue()]
    supervise(WAIT, at_once=2)
    pids = {until(job, waiting).progress["pid"] for job in jobs}
    assert len(pids) == 2


def test_woken_for_a_new_refinement(supervise: Any, enqueue: Any, until: Any) -> None:
    supervisor = supervise(GOOD)
    job = enqueue()
    supervisor.wake()
    assert until(job, ended).state == "succeeded"


def test_error_that_the_child_explains_ends_it_at_once(
    supervise: Any, enqueue: Any, until: Any, engine: Engine
) -> None:
    job = enqueue()
    supervise(FAIL)
    row = until(job, ended)
    assert (row.state, row.attempts) == ("failed", 1)
    assert row.error == {
        "code": "dataset.bad_label",
        "message": "label 12",
        "todo": "Correct the labels.",
    }
    assert kinds(engine)[-1] == "refinement.failed"


def test_child_that_keeps_dying_is_started_three_times(
    supervise: Any, enqueue: Any, until: Any
) -> None:
    job = enqueue()
    supervise(CRASH)
    row = until(job, ended)
    assert (row.state, row.attempts) == ("failed", 3)
    assert row.error["code"] == "service.worker_failed"
    assert "signal 9" in row.error["message"]


def test_refinement_that_cannot_be_prepared_fails_clearly(
    supervise: Any, enqueue: Any, until: Any, engine: Engine, script_work: Any
) -> None:
    work = script_work(GOOD)
    work.error = BadWeights("not_found", "no blob")
    job = enqueue()
    supervise(work)
    assert until(job, ended).error["code"] == "weights.not_found"


def test_surprise_inside_the_server_fails_only_that_refinement(
    supervise: Any, enqueue: Any, until: Any, script_work: Any
) -> None:
    work = script_work(GOOD)
    work.error = ZeroDivisionError("a bug")
    bad = enqueue()
    supervisor = supervise(work)
    assert until(bad, ended).error["code"] == "service.internal"
    work.error = None
    good = enqueue()
    supervisor.wake()
    assert until(good, ended).state == "succeeded"


def test_queue_that_cannot_be_read_is_read_again(
    supervise: Any, enqueue: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, failures = queue.claim, [OSError("read-only"), DatabaseError("busy", "locked")]

    def unwilling(engine: Engine) -> int | None:
        if failures:
            raise failures.pop()
        return claim(engine)

    monkeypatch.setattr(queue, "claim", unwilling)
    monkeypatch.setattr("server.jobs.supervisor.QUEUE_INTERVAL", 0.01)
    wanted = enqueue()
    supervise(GOOD)
    assert until(wanted, ended).state == "succeeded"


def test_end_that_cannot_be_stored_is_stored_later(
    supervise: Any, enqueue: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail, failures = queue.fail, [OSError("read-only"), DatabaseError("busy", "locked")]

    def unwilling(*arguments: Any) -> None:
        if failures:
            raise failures.pop()
        fail(*arguments)

    monkeypatch.setattr(queue, "fail", unwilling)
    monkeypatch.setattr("server.jobs.supervisor.QUEUE_INTERVAL", 0.01)
    refinement = enqueue()
    supervise(FAIL)
    assert until(refinement, ended).error["code"] == "dataset.bad_label"
    assert not failures


def test_results_wait_for_a_database_that_is_busy(
    supervise: Any, enqueue: Any, until: Any, script_work: Any
) -> None:
    work = script_work(GOOD)
    finish, failures = work.finish, [DatabaseError("busy", "locked")]

    def unwilling(*arguments: Any) -> None:
        if failures:
            raise failures.pop()
        finish(*arguments)

    work.finish = unwilling
    refinement = enqueue()
    supervise(work)
    row = until(refinement, ended)
    assert (row.state, row.attempts) == ("succeeded", 2)


@pytest.mark.parametrize(("script", "grace"), [(WAIT, 5.0), (STUBBORN, 0.05)])
def test_cancel_ends_the_process_even_a_stubborn_one(
    script: str, grace: float, supervise: Any, enqueue: Any, until: Any, engine: Engine
) -> None:
    job = enqueue()
    supervisor = supervise(script, grace=grace)
    pid = until(job, waiting).progress["pid"]
    with writing(engine) as session:
        assert queue.cancel(session, session.get_one(Refinement, job))
    supervisor.cancel(job)
    supervisor.stop()
    assert until(job, ended).state == "cancelled"
    assert not Path(f"/proc/{pid}").exists()


def test_cancelled_in_the_queue_is_never_started(
    supervise: Any, enqueue: Any, until: Any, engine: Engine
) -> None:
    first, second = enqueue(), enqueue()
    with writing(engine) as session:
        assert queue.cancel(session, session.get_one(Refinement, first))
        assert not queue.cancel(session, session.get_one(Refinement, first))
    supervise(GOOD)
    until(second, ended)
    assert until(first, ended).attempts == 0


def test_cancel_by_another_process_is_seen_at_the_next_progress(
    supervise: Any, enqueue: Any, until: Any, engine: Engine, tmp_path: Path
) -> None:
    fifo = tmp_path / "go"
    os.mkfifo(fifo)
    job = enqueue()
    supervise(f'print(json.dumps({{"stage": "waiting"}})); open({str(fifo)!r}).read(); {WAIT}')
    until(job, waiting)
    with writing(engine) as session:
        queue.cancel(session, session.get_one(Refinement, job))
    fifo.write_text("go on")
    until(job, ended)  # the fixture's stop() would hang if the child went on waiting


def test_orderly_stop_queues_what_runs_without_counting_the_attempt(
    supervise: Any, enqueue: Any, until: Any
) -> None:
    job = enqueue()
    first = supervise(TWO_STARTS)
    until(job, waiting)
    first.stop()
    row = until(job, lambda row: row.state == "queued")
    assert row.attempts == 0
    supervise(TWO_STARTS)
    assert until(job, ended).state == "succeeded"


def test_start_after_a_crash_resumes_or_gives_up(
    supervise: Any, enqueue: Any, until: Any, engine: Engine
) -> None:
    resumed, given_up = enqueue("running", attempts=2), enqueue("running", attempts=3)
    supervise(GOOD)
    assert until(resumed, ended).state == "succeeded"
    row = until(given_up, ended)
    assert (row.state, row.error["code"]) == ("failed", "service.interrupted")


def test_nothing_is_left_after_a_stop(supervise: Any, enqueue: Any, until: Any) -> None:
    others = set(threading.enumerate())  # a server of several tests may run beside this one
    job = enqueue()
    supervisor = supervise(WAIT)
    pid = until(job, waiting).progress["pid"]
    supervisor.stop()
    assert not Path(f"/proc/{pid}").exists()
    left = set(threading.enumerate()) - others
    assert [t.name for t in left if t.name.startswith("refinement")] == []
