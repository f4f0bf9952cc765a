"""To which rollout a device belongs, as devices change, rollouts end, and decisions come late."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import event, update

from server.db import writing
from server.rollouts import deploy, evaluation, once_more
from server.tables import Assignment, Device, DeviceModel, Group, Rollout
from shared.wire import Capabilities

HALF = [{"percent": 50, "soak_seconds": 60}, {"percent": 100, "soak_seconds": 0}]


def order(yard, rollout_id, what):
    with writing(yard.engine) as session:
        what(session, deploy.find_rollout(session, rollout_id))


def test_what_was_chosen_too_early_is_not_taken_from_a_later_rollout(yard, monkeypatch):
    for _ in range(4):
        yard.enrol()
    old = yard.roll_out(phases=HALF, success_percent=50)
    first, stuck = yard.states(old)
    yard.succeed(first)
    with writing(yard.engine) as session:  # in the middle of its swap, so that the rollout waits
        mine = Assignment.device_id == stuck
        session.execute(update(Assignment).where(mine).values(state="swapping"))
    later: list[int] = []
    carry_out = evaluation._try

    def begin_another_first(engine, view, step, batch, at):
        if batch and not later:
            later.append(0)
            later[0] = yard.roll_out(3)
        return carry_out(engine, view, step, batch, at)

    monkeypatch.setattr(evaluation, "_try", begin_another_first)
    yard.wait(61)
    assert set(yard.states(old)) == {first, stuck}
    assert set(yard.states(later[0]).values()) == {"idle"}


@pytest.mark.parametrize("ends", ["by an operator", "by a rule"])
def test_who_waited_for_an_aborted_rollout_comes_to_the_one_before(yard, ends):
    good = yard.roll_out()
    yard.succeed(yard.enrol())
    rules = [{"kind": "failed", "percent": 1, "min_count": 1}]
    bad = yard.roll_out(3, max_open=1, abort_rules=rules)
    tried, waits = next(iter(yard.states(bad))), yard.enrol()
    assert waits not in yard.states(good)
    if ends == "by a rule":
        yard.fail(tried)
    else:
        order(yard, bad, deploy.abort_rollout)
    assert yard.rollout(bad).state == "aborted"
    assert yard.states(good)[waits] == "idle"


def test_who_holds_a_newer_version_does_not_come_back_by_itself(yard):
    good = yard.roll_out()
    yard.succeed(yard.enrol())
    bad = yard.roll_out(3)
    ahead = yard.enrol()
    yard.succeed(ahead)
    order(yard, bad, deploy.abort_rollout)
    late = yard.enrol()
    assert late in yard.states(good)
    assert ahead not in yard.states(good)


def test_the_deadline_does_not_run_while_the_rollout_itself_holds_a_device(yard):
    device = yard.enrol()
    nightly = {"cron": "0 22 * * *", "duration_seconds": 7200, "time_zone": "UTC"}
    rollout = yard.roll_out(window=nightly, deadline_seconds=3600)
    assert yard.poll(device).desired.models[0].held == "outside_window"
    yard.at += timedelta(hours=10)
    with writing(yard.engine) as session:  # nothing leads to the version yet
        session.get_one(DeviceModel, (device, "m")).slots = ["1" * 64]
        session.get_one(Device, device).last_seen_at = yard.at
    assert yard.poll(device).desired.models[0].held == "package_being_built"
    yard.wait(3599)
    assert yard.states(rollout)[device] == "idle"
    yard.wait(1)
    assert yard.states(rollout)[device] == "timed_out"


def test_who_comes_to_match_by_its_agent_joins(yard):
    device = yard.enrol()
    rollout = yard.roll_out(filter="agent==2.*")
    assert yard.states(rollout) == {}
    able = Capabilities(agent="2.0").model_dump()
    yard.report(device, None, 1, state="idle", capabilities=able)
    assert yard.states(rollout) == {device: "idle"}


def test_who_comes_to_match_by_its_failures_joins(yard):
    device = yard.enrol()
    yard.roll_out(2)
    fixed = yard.roll_out(3, filter="failures=ge=1")
    yard.fail(device)
    assert yard.states(fixed) == {device: "idle"}


def test_nobody_joins_what_was_rolled_back_after_its_end(yard):
    bad = yard.roll_out()
    yard.succeed(yard.enrol())
    assert yard.rollout(bad).state == "finished"
    with writing(yard.engine) as session:
        once_more.roll_back(session, deploy.find_rollout(session, bad), None, yard.release)
    late = yard.enrol()
    assert late not in yard.states(bad)
    assert yard.poll(late).desired.models == []
    assert yard.rollout(bad).reason["code"] == "rolled_back"


def test_rules_hold_though_nobody_can_be_said_to_match(yard):
    for _ in range(4):
        yard.enrol(site="north")
    with writing(yard.engine) as session:
        session.add(Group(name="g", filter="attr.site==north"))
    rules = [{"kind": "failed", "percent": 20, "min_count": 2}]
    rollout = yard.roll_out(filter="group==g", phases=HALF, abort_rules=rules)
    with writing(yard.engine) as session:
        session.delete(session.get_one(Group, 1))
    for device in yard.states(rollout):
        yard.fail(device)
    assert yard.rollout(rollout).reason["code"] == "too_many_failed"
    assert yard.rollout(rollout).state == "aborted"


def test_years_of_rollouts_to_one_group_are_one_condition(yard):
    """SQLite bears no more than 1,000 conditions, and a report must not look at each of them."""
    first = yard.roll_out(filter="attr.site==north")
    ended = {"state": "finished", "model_id": 1, "version_id": 2, "filter": "attr.site==south"}
    with writing(yard.engine) as session:
        session.add_all(
            Rollout(**ended, started_at=yard.at, finished_at=yard.at) for _ in range(1200)
        )
    queries: list[str] = []
    event.listen(yard.engine, "before_cursor_execute", lambda *told: queries.append(told[2]))
    device = yard.enrol(site="north")
    assert yard.states(first) == {device: "idle"}
    assert len(queries) < 60
