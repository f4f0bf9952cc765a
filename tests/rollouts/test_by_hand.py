"""What somebody does on a device itself: going back, and installing what was brought along."""

from __future__ import annotations

from server.db import reading
from server.tables import Assignment, Device, Event

LEFT = {
    "result": "failed_rolled_back",
    "state": "rolled_back",
    "version": 2,
    "error": {"code": "agent.rolled_back_by_hand", "message": "somebody went back to version 1"},
}
IDLE = {"state": "idle"}


def only_assignment(yard):
    with reading(yard.engine) as session:
        return session.query(Assignment).one()


def test_a_version_that_was_left_by_hand_is_not_called_committed(yard):
    device = yard.enrol()
    rollout = yard.roll_out()
    yard.succeed(device)
    assignment = only_assignment(yard)
    yard.report(device, assignment.id, 1, **LEFT)
    left = only_assignment(yard)
    assert (left.state, left.error["code"]) == ("rolled_back", "agent.rolled_back_by_hand")
    assert yard.rollout(rollout).state == "finished"
    with reading(yard.engine) as session:
        kinds = [event.kind for event in session.query(Event).order_by(Event.id)]
        assert kinds[-1] == "assignment.rolled_back"
        assert session.get_one(Device, device).failures == 0  # the update itself had ended well


def test_who_has_left_it_is_not_led_back_when_it_tells_of_itself_again(yard):
    device = yard.enrol()
    yard.roll_out()
    yard.succeed(device)
    yard.report(device, only_assignment(yard).id, 1, **LEFT)
    yard.report(device, None, 1, **IDLE)  # a newer agent, say
    assert yard.poll(device).desired.models == []


def test_many_that_were_left_by_hand_abort_a_rollout(yard):
    for _ in range(10):
        yard.enrol()
    rollout = yard.roll_out(
        max_open=3, abort_rules=[{"kind": "failed", "percent": 20, "min_count": 3}]
    )
    for device in list(yard.states(rollout)):
        yard.succeed(device)
    with reading(yard.engine) as session:
        done = session.query(Assignment).filter_by(state="committed").limit(3).all()
    for assignment in done:
        yard.report(assignment.device_id, assignment.id, 1, **LEFT)
    assert yard.rollout(rollout).state == "aborted"


def test_what_was_brought_along_is_newer_than_the_rollout_and_stays(yard):
    device = yard.enrol()
    rollout = yard.roll_out(version=2)
    yard.succeed(device)
    yard.report(device, None, 3, version=3)
    assert yard.states(rollout) == {device: "committed"}
    assert yard.rollout(rollout).state == "finished"
    assert yard.poll(device).desired.models == []


def test_what_was_brought_along_is_older_and_the_rollout_takes_it_on(yard):
    device = yard.enrol()
    rollout = yard.roll_out(version=3)
    yard.succeed(device)
    yard.report(device, None, 2, version=2)
    (offer,) = yard.poll(device).desired.models
    assert (offer.version, offer.attempt) == (3, 2)
    yard.succeed(device)
    assert yard.states(rollout) == {device: "committed"}


def test_a_device_asks_anew_once_it_holds_something_else(yard):
    """Else a packageless switch would not be offered in place of the package that it needs not."""
    device = yard.enrol()
    yard.roll_out(version=2)
    before = yard.poll(device)
    yard.report(device, None, 1, **IDLE)
    assert yard.poll(device).generation == before.generation
    yard.report(device, None, 2, version=2)
    after = yard.poll(device)
    assert after.generation > before.generation
    assert after.desired.models[0].packages == []
    yard.succeed(device)


def test_a_device_asks_anew_once_it_can_do_something_else(yard):
    device = yard.enrol()
    yard.roll_out(version=2)
    before = yard.poll(device)
    yard.report(device, None, 1, **IDLE, capabilities={"chain": 3})
    changed = yard.poll(device)
    assert changed.generation > before.generation
    yard.report(device, None, 1, **IDLE, capabilities={"chain": 3})
    assert yard.poll(device).generation == changed.generation


def test_history_says_what_was_brought_along_and_how_it_ended(yard):
    device = yard.enrol()
    yard.report(device, None, 2, version=2, health="unverified", seconds=1.5)
    refused = {"code": "trust.wrong_base", "message": "it starts from other weights"}
    failed = {"result": "failed_no_change", "state": "failed", "version": 3, "error": refused}
    yard.report(device, None, 2, **failed)
    yard.report(device, None, 2, **IDLE)
    with reading(yard.engine) as session:
        told = session.query(Event).filter_by(kind="device.reported").order_by(Event.id).all()
    assert [event.version_id for event in told] == [2, 3, None]
    first, second, last = (event.data for event in told)
    assert (first["version"], first["state"]) == (2, "committed")
    assert (first["health"], first["seconds"]) == ("unverified", 1.5)
    assert (second["result"], second["error"]) == ("failed_no_change", refused)
    assert "version" not in last
