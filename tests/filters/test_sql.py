"""What SQL finds is what the filter says."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import select

from server.db import reading, writing
from server.errors import BadFilter
from server.filters import devices_where, events_where, groups_named, rollouts_where, show
from server.history.events import record
from server.tables import Device, DeviceModel, Event, Group, Rollout
from tests.filters.evaluation import holds
from tests.filters.trees import device_tree


def found(engine, text: str) -> list[str]:
    with reading(engine) as session:
        query = select(Device.id).where(devices_where(session, text)).order_by(Device.id)
        return list(session.scalars(query))


def test_devices_found_are_those_for_which_the_filter_holds(engine, devices):
    tried: dict[str, int] = {}

    @given(device_tree)
    @settings(max_examples=400, suppress_health_check=list(HealthCheck))
    def compare(tree):
        expected = [device["id"][0] for device in devices if holds(tree, device)]
        assert found(engine, show(tree)) == expected
        tried[show(tree)] = len(expected)

    compare()
    assert sum(0 < count < len(devices) for count in tried.values()) > 100


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("attr.note==*", ["c", "d"]),
        ("attr.note==a*", ["c"]),
        ("attr.note==A*", ["d"]),
        ("attr.note=in=(a[1]?,none)", ["c"]),
        (r'attr.note=="*\*x"', ["d"]),
        ("attr.note!=a*", ["d", "e"]),
        ("attr.note=null=true", ["e"]),
    ],
)
def test_patterns_are_exact_in_everything_but_the_wildcard(engine, text, expected):
    notes = {"c": {"note": "a[1]?"}, "d": {"note": "A%_*x"}, "e": {}}
    with writing(engine) as session:
        for id_, attributes in notes.items():
            session.add(Device(id=id_, name=id_, token_hash=id_, attributes=attributes))
    assert found(engine, text) == expected


def test_a_condition_keeps_to_itself_in_a_query_over_the_same_tables(engine, devices):
    """Rollouts select from device_models; a filter looks there too, for another row."""
    with reading(engine) as session:
        query = (
            select(DeviceModel.device_id)
            .join(Device, Device.id == DeviceModel.device_id)
            .where(DeviceModel.model_name == "m", devices_where(session, "model==other.1"))
        )
        both = set(session.scalars(query))
    assert both == {d["id"][0] for d in devices if {"m", "other.1"} <= set(d["model"])}
    assert both


def test_groups_stand_for_their_filters(engine, devices):
    with writing(engine) as session:
        session.add(Group(name="line 3", filter="tags==line3"))
        session.add(Group(name="weak", filter='group=="line 3",attr.ram<1000'))
    assert found(engine, "group==weak") == found(engine, "tags==line3,attr.ram<1000")
    assert found(engine, "group!=weak;failures>0") == sorted(
        set(found(engine, "failures>0")) - set(found(engine, "group==weak"))
    )
    assert groups_named('tags==a;(group=="line 3",group=in=(weak,b))') == {"line 3", "weak", "b"}
    with pytest.raises(BadFilter, match="column 8: there is no group 'nobody'"):
        found(engine, "group==nobody")


def test_groups_in_a_circle_end(engine, devices):
    with writing(engine) as session:
        session.add(Group(name="a", filter="group==b"))
        session.add(Group(name="b", filter="group==a"))
    with pytest.raises(BadFilter) as refused:
        found(engine, "group==a")
    assert refused.value.code == "filter.too_long"


def test_events_are_found_by_what_they_are_about(engine, devices):
    with writing(engine) as session:
        record(session, "a.b", {"error": {"code": "x.y"}, "n": 3}, model_id=1, device_id="d01")
        record(session, "a.c", {"n": 4}, version_id=2, rollout_id=7)

    def kinds(text: str) -> list[str]:
        with reading(engine) as session:
            query = select(Event.kind).where(events_where(session, text), Event.kind.like("a.%"))
            return list(session.scalars(query.order_by(Event.id)))

    assert kinds("kind==a.*") == ["a.b", "a.c"]
    assert kinds("model==m") == ["a.b"]
    assert kinds("model!=m") == ["a.c"]
    assert kinds("version==2;rollout==7") == ["a.c"]
    assert kinds("device==d01,data.n==4") == ["a.b", "a.c"]
    assert kinds("data.error.code==x.*") == ["a.b"]
    assert kinds("data.n==3") == ["a.b"]
    assert kinds("at<-1h") == []
    assert kinds("at>-1h;package=null=true") == ["a.b", "a.c"]


def test_rollouts_are_found(engine, devices):
    def ids(text: str) -> list[int]:
        with reading(engine) as session:
            return list(session.scalars(select(Rollout.id).where(rollouts_where(session, text))))

    assert ids("model==m;version==1;state==active;rollback==false;id==1;created>-1h") == [1]
    assert ids("rollback==true,finished=null=false,model=out=(m)") == []
