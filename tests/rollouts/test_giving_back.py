"""An aborted rollout gives devices back to the older one from which it had taken them."""

from __future__ import annotations

import pytest

from server.db import writing
from server.rollouts import deploy


def order(yard, rollout_id, what):
    with writing(yard.engine) as session:
        what(session, deploy.find_rollout(session, rollout_id))


@pytest.mark.parametrize("ends", ["by an operator", "by a rule"])
def test_devices_go_on_with_the_rollout_before(yard, ends):
    done, first, second = (yard.enrol() for _ in range(3))
    old = yard.roll_out()
    yard.succeed(done)
    rules = [{"kind": "failed", "percent": 1, "min_count": 1}]
    fix = yard.roll_out(3, abort_rules=rules)
    assert yard.rollout(old).state == "finished"
    if ends == "by a rule":
        yard.fail(first)
    else:
        order(yard, fix, deploy.abort_rollout)
    assert yard.rollout(fix).state == "aborted"
    assert yard.rollout(old).state == "active"
    assert yard.states(old) == {done: "committed", first: "idle", second: "idle"}
    for device in (first, second):
        yard.succeed(device)
    assert yard.rollout(old).state == "finished"
    assert set(yard.states(old).values()) == {"committed"}


def test_who_holds_the_aborted_version_stays_there(yard):
    there, late, back = (yard.enrol() for _ in range(3))
    old = yard.roll_out()
    fix = yard.roll_out(3)
    yard.succeed(there)
    (offer,) = yard.poll(late).desired.models
    order(yard, fix, deploy.abort_rollout)
    assert yard.states(old) == {there: "superseded", late: "idle", back: "idle"}
    yard.report(late, offer.assignment, 3)
    assert yard.states(old) == {there: "superseded", late: "superseded", back: "idle"}
    yard.succeed(back)
    assert yard.rollout(old).state == "finished"


def test_the_last_rollout_that_was_not_aborted_goes_on(yard):
    device = yard.enrol()
    old = yard.roll_out()
    replaced = yard.roll_out(3)
    newest = yard.roll_out(3)
    order(yard, newest, deploy.abort_rollout)
    assert yard.states(old) == {device: "superseded"}
    assert yard.states(replaced) == {device: "idle"}
    order(yard, replaced, deploy.abort_rollout)
    assert yard.states(old) == {device: "idle"}
    order(yard, old, deploy.abort_rollout)
    for rollout in (old, replaced, newest):
        assert yard.states(rollout) == {device: "aborted"}


def test_nothing_comes_back_from_a_rollout_that_took_the_device_since(yard):
    device, other = yard.enrol(site="a"), yard.enrol(site="b")
    old = yard.roll_out()
    fix = yard.roll_out(3)
    newer = yard.roll_out(3, filter="attr.site==a")
    order(yard, fix, deploy.abort_rollout)
    assert yard.states(old) == {device: "superseded", other: "idle"}
    assert yard.states(newer) == {device: "idle"}


def test_a_paused_rollout_takes_them_when_it_is_resumed(yard):
    device = yard.enrol()
    old = yard.roll_out()
    order(yard, old, deploy.pause_rollout)
    fix = yard.roll_out(3)
    order(yard, fix, deploy.abort_rollout)
    assert yard.states(old) == {device: "waiting"}
    order(yard, old, deploy.resume_rollout)
    yard.succeed(device)
    assert yard.rollout(old).state == "finished"
