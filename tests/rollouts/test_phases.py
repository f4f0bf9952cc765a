"""Phases, caps, deadlines, windows and rules, on a real database and at any time of day."""

from __future__ import annotations

import pytest

from server.db import writing
from server.errors import BadRollout
from server.rollouts import deploy, evaluation, once_more

TWO = [{"percent": 20, "soak_seconds": 600}, {"percent": 100, "soak_seconds": 0}]


def order(yard, rollout_id, what, *more):
    with writing(yard.engine) as session:
        return what(session, deploy.find_rollout(session, rollout_id), *more)


def test_a_phase_succeeds_soaks_and_the_next_one_follows(yard):
    for _ in range(10):
        yard.enrol()
    rollout = yard.roll_out(phases=TWO)
    first = list(yard.states(rollout))
    assert len(first) == 2
    for device in first:
        yard.succeed(device)
    assert yard.rollout(rollout).reason["code"] == "soaking"
    yard.wait(599)
    assert len(yard.states(rollout)) == 2
    yard.wait(1)
    assert len(yard.states(rollout)) == 10
    for device in list(yard.states(rollout))[2:]:
        yard.succeed(device)
    assert yard.rollout(rollout).state == "finished"
    assert yard.kinds(rollout) == [
        "rollout.created",
        "rollout.started",
        "rollout.phase_started",
        "rollout.phase_done",
        "rollout.phase_started",
        "rollout.phase_done",
        "rollout.finished",
    ]


def test_the_cap_is_kept_until_somebody_is_done(yard):
    for _ in range(5):
        yard.enrol()
    rollout = yard.roll_out(max_open=2)
    first, second = yard.states(rollout)
    yard.succeed(first)
    assert list(yard.states(rollout).values()) == ["committed", "idle", "idle"]
    yard.fail(second)
    assert list(yard.states(rollout).values()) == ["committed", "rolled_back", "idle", "idle"]


def test_a_bad_version_stops_in_its_first_phase(yard):
    for _ in range(20):
        yard.enrol()
    rules = [{"kind": "failed", "percent": 20, "min_count": 3}]
    rollout = yard.roll_out(phases=TWO, abort_rules=rules)
    chosen = list(yard.states(rollout))
    assert len(chosen) == 4
    yard.fail(chosen[0])
    yard.fail(chosen[1])
    assert yard.rollout(rollout).state == "active"
    yard.fail(chosen[2])
    found = yard.rollout(rollout)
    assert (found.state, found.reason["code"]) == ("aborted", "too_many_failed")
    assert list(yard.states(rollout).values()) == ["rolled_back"] * 3 + ["aborted"]
    yard.wait(86_400)
    assert len(yard.states(rollout)) == 4


def test_silence_after_the_offer_is_a_failure_and_a_late_result_replaces_it(yard):
    first, second = yard.enrol(), yard.enrol()
    rollout = yard.roll_out(deadline_seconds=3600)
    (offer,) = yard.poll(first).desired.models
    yard.succeed(second)
    yard.wait(3599)
    assert yard.states(rollout)[first] == "offered"
    yard.wait(1)
    assert yard.states(rollout)[first] == "timed_out"
    assert yard.rollout(rollout).state == "finished"
    assert yard.poll(first).desired.models == [offer]  # it is served as before
    assert yard.states(rollout)[first] == "timed_out"
    yard.report(first, offer.assignment, 2)
    assert yard.states(rollout)[first] == "committed"
    assert yard.rollout(rollout).state == "finished"


def test_who_never_came_is_unreached_and_keeps_nobody_waiting(yard):
    devices = [yard.enrol() for _ in range(4)]
    rollout = yard.roll_out(
        deadline_seconds=3600, max_open=2, phases=[{"percent": 50, "soak_seconds": 0}, TWO[1]]
    )
    here, gone = yard.states(rollout)
    yard.succeed(here)
    assert len(yard.states(rollout)) == 2  # 1 of 2 so far: the other one is pending
    yard.wait(3600)
    states = yard.states(rollout)
    assert states[gone] == "unreached"
    assert len(states) == 4
    for device in set(devices) - {here, gone}:
        yard.succeed(device)
    assert yard.rollout(rollout).state == "finished"
    yard.succeed(gone)
    assert set(yard.states(rollout).values()) == {"committed"}


def test_the_unreached_abort_only_where_a_rule_says_so(yard):
    for _ in range(3):
        yard.enrol()
    rules = [{"kind": "unreached", "percent": 50, "min_count": 2}]
    rollout = yard.roll_out(deadline_seconds=3600, abort_rules=rules)
    yard.wait(3600)
    assert yard.rollout(rollout).reason["code"] == "too_many_unreached"


def test_a_stuck_device_blocks_neither_others_nor_the_next_rollout(yard):
    stuck, other = yard.enrol(), yard.enrol()
    first = yard.roll_out(deadline_seconds=60, max_open=1)
    ahead = next(iter(yard.states(first)))
    yard.poll(ahead)
    yard.wait(60)  # it never answers, and the other one has its turn
    assert set(yard.states(first)) == {stuck, other}
    second = yard.roll_out(version=3)
    assert set(yard.states(first).values()) == {"superseded"}
    yard.succeed(stuck)
    yard.succeed(other)
    assert yard.rollout(second).state == "finished"


def test_nothing_is_offered_outside_the_window(yard):
    device, late = yard.enrol(), yard.enrol()
    window = {"cron": "0 2 * * *", "duration_seconds": 3600, "time_zone": "UTC"}
    rollout = yard.roll_out(window=window)  # at noon
    assert yard.poll(device).desired.models[0].held == "outside_window"
    assert yard.rollout(rollout).reason["code"] == "outside_window"
    yard.wait(14.5 * 3600)
    (offer,) = yard.poll(device).desired.models
    assert offer.held is None
    yard.wait(3600)
    assert yard.poll(device).desired.models == [offer]  # once offered it goes on
    assert yard.poll(late).desired.models[0].held == "outside_window"


def test_who_waits_for_a_window_is_not_late(yard):
    from server.tables import Device

    device = yard.enrol()
    window = {"cron": "0 2 * * 0", "duration_seconds": 3600, "time_zone": "UTC"}
    rollout = yard.roll_out(window=window, deadline_seconds=3600)
    for _ in range(3):
        yard.poll(device)
        with writing(yard.engine) as session:
            session.get_one(Device, device).last_seen_at = yard.at
        yard.wait(1800)
    assert yard.states(rollout)[device] == "idle"
    yard.wait(3600)  # and now it is silent
    assert yard.states(rollout)[device] == "unreached"


def test_a_pause_holds_what_was_not_offered(yard):
    first, second = yard.enrol(), yard.enrol()
    rollout = yard.roll_out(max_open=1)
    ahead = next(iter(yard.states(rollout)))
    other = second if ahead == first else first
    (offer,) = yard.poll(ahead).desired.models
    order(yard, rollout, deploy.pause_rollout)
    yard.report(ahead, offer.assignment, 2)
    assert list(yard.states(rollout)) == [ahead]
    order(yard, rollout, deploy.resume_rollout)
    order(yard, rollout, deploy.pause_rollout)
    assert yard.poll(other).desired.models[0].held == "rollout_paused"
    order(yard, rollout, deploy.resume_rollout)
    yard.succeed(other)
    assert yard.rollout(rollout).state == "finished"


def test_a_ready_rollout_waits_for_its_start(yard):
    device = yard.enrol()
    rollout = yard.roll_out(start=False)
    yard.wait(3600)
    assert (yard.rollout(rollout).state, yard.states(rollout)) == ("ready", {})
    assert yard.poll(device).desired.models == []
    order(yard, rollout, deploy.start_rollout, yard.release)
    assert yard.states(rollout) == {device: "idle"}


def test_a_device_belongs_to_the_last_started_rollout_that_it_matches(yard):
    cheap, dear = yard.enrol(gpu="none"), yard.enrol(gpu="orin")
    everyone = yard.roll_out(version=2)
    some = yard.roll_out(version=3, filter="attr.gpu==orin")
    assert yard.states(everyone) == {cheap: "idle", dear: "superseded"} or yard.states(
        everyone
    ) == {dear: "superseded", cheap: "idle"}
    later, plain = yard.enrol(gpu="orin"), yard.enrol(gpu="nano")
    assert set(yard.states(some)) == {dear, later}
    assert set(yard.states(everyone)) == {cheap, dear, plain}


def test_an_older_version_needs_the_mark(yard):
    device, other = yard.enrol(current=3), yard.enrol(current=1)
    yard.roll_out(version=2)
    (told,) = yard.poll(device).desired.models
    assert (told.held, told.rollback) == ("needs_rollback_mark", False)
    assert yard.poll(other).desired.models[0].held is None
    yard.roll_out(version=2, rollback=True)
    (told,) = yard.poll(device).desired.models
    assert (told.held, told.rollback) == (None, True)
    yard.succeed(device)


def test_what_could_only_lead_back_is_refused_without_the_mark(yard):
    yard.enrol(current=3, gpu="orin")
    yard.enrol(current=1, gpu="none")
    orin = {"filter": "attr.gpu==orin"}
    with pytest.raises(BadRollout) as raised:
        yard.roll_out(version=2, **orin)
    assert raised.value.code == "rollout.needs_rollback"
    ready = yard.roll_out(version=2, start=False, **orin)
    with pytest.raises(BadRollout, match="newer version in use"):
        order(yard, ready, deploy.start_rollout, yard.release)
    assert yard.rollout(ready).state == "ready"
    for allowed in ({"rollback": True, **orin}, {"filter": "attr.gpu==nano"}, {}):
        yard.roll_out(version=2, **allowed)


def test_retry_gives_another_turn_under_the_cap(yard):
    for _ in range(3):
        yard.enrol()
    rollout = yard.roll_out(max_open=1)
    for _ in range(3):
        for device, state in yard.states(rollout).items():
            if state == "idle":
                yard.fail(device)
    assert yard.rollout(rollout).state == "finished"
    assert yard.rollout(rollout).reason["code"] == "below_success"
    assert order(yard, rollout, once_more.retry, None) == 3
    assert sorted(yard.states(rollout).values()) == ["idle", "waiting", "waiting"]
    for _ in range(3):
        for device, state in yard.states(rollout).items():
            if state == "idle":
                yard.succeed(device)
    assert set(yard.states(rollout).values()) == {"committed"}
    assert yard.rollout(rollout).state == "finished"


def test_back_go_those_that_hold_it_or_may_be_on_the_way(yard):
    done, busy, failed, untouched = (yard.enrol() for _ in range(4))
    bad = yard.roll_out(version=2, abort_rules=[])
    yard.succeed(done)
    yard.fail(failed)
    (offer,) = yard.poll(busy).desired.models
    with writing(yard.engine) as session:
        back = once_more.roll_back(
            session, deploy.find_rollout(session, bad), None, yard.release
        ).id
    assert yard.rollout(bad).state == "aborted"
    assert set(yard.states(back)) == {done, busy}
    assert yard.rollout(back).version_id == 1
    yard.report(busy, offer.assignment, 2)  # it had begun before it could know
    yard.succeed(done)
    yard.succeed(busy)
    assert yard.rollout(back).state == "finished"
    assert yard.poll(untouched).desired.models == []


def test_who_comes_to_match_by_its_new_version_joins(yard):
    device = yard.enrol()
    rollout = yard.roll_out(version=3, filter="version.m==2")
    assert yard.states(rollout) == {}
    yard.report(device, None, 2)  # updated by hand
    assert yard.states(rollout) == {device: "idle"}


def test_a_rollout_that_cannot_be_evaluated_fills_no_log(yard, caplog):
    """Of a strategy that this version of Weft does not know, say; the others go on beside it."""
    strange = yard.roll_out(filter="attr.kind==none", strategy="by_the_moon")
    device = yard.enrol()
    rollout = yard.roll_out()
    caplog.clear()
    for _ in range(30):
        yard.wait(1)
    told = [record for record in caplog.records if f"rollout {strange};" in record.message]
    assert len(told) == 1
    assert "by_the_moon" in str(told[0].exc_info)
    yard.wait(evaluation.AGAIN_SECONDS)
    assert caplog.text.count(f"rollout {strange};") == 2
    yard.succeed(device)
    assert yard.rollout(rollout).state == "finished"
