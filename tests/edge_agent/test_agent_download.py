"""Downloads over a link that misbehaves: each fault ends in success after retry, or clearly."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from edge_agent.agent.loop import running
from edge_agent.api import _retry_after
from edge_agent.errors import ServerAway
from shared.errors import Unreachable

PACKAGES = "/device/v1/packages"


def at(path: str, act: Callable[[Any], None]) -> Callable[[Any], bool]:
    """A fault for the next request whose path contains `path`."""

    def fault(handler: Any) -> bool:
        if path not in handler.path:
            return False
        act(handler)
        return True

    return fault


def cut_at(count: int) -> Callable[[Any], bool]:
    return at(PACKAGES, lambda h: h.package(h.plane.files[h.path.rpartition("/")[2]], count))


def answer(status: int, body: bytes = b"", **headers: str) -> Callable[[Any], bool]:
    return at(PACKAGES, lambda h: h.answer(status, body, **headers))


def settle(bench: Any, rounds: int = 9) -> list[str]:
    """Rounds, each by an agent of its own, until one ends well; the codes of what went wrong."""
    codes: list[str] = []
    for _ in range(rounds):
        failed = bench.round()
        if not failed:
            return codes
        codes += failed
    raise AssertionError(f"not settled: {codes}")


@pytest.fixture
def ready(bench: Any, plane: Any, shelf: Any) -> Any:
    plane.offer(shelf, shelf.wanted(1, "full-1"))
    return bench


def test_a_cut_download_goes_on_where_it_stopped(ready: Any, plane: Any, shelf: Any) -> None:
    plane.faults = [cut_at(100), cut_at(150)]
    assert settle(ready) == ["server.unreachable"] * 2
    assert ready.in_use() == shelf.digests[1]
    ranges = [headers.get("range") for headers in plane.asked(PACKAGES)]
    assert ranges == [None, "bytes=100-", "bytes=250-"]
    sha256 = shelf.packages["full-1"].sha256
    assert plane.asked(PACKAGES)[1]["if-range"] == f'"{sha256}"'


def test_a_long_outage_does_not_use_up_the_attempts(ready: Any, plane: Any, shelf: Any) -> None:
    ready.settings["max_attempts"] = 1
    plane.faults = [at(PACKAGES, lambda h: h.problem(502, "x.y")) for _ in "12345"]
    assert settle(ready) == ["server.unreachable"] * 5
    assert ready.in_use() == shelf.digests[1]


def test_the_servers_retry_after_is_handed_on(ready: Any, plane: Any, shelf: Any) -> None:
    plane.faults = [answer(503, Retry_After="120")]
    with running(ready.config, ready.pauses.append) as agent:
        (error,) = agent.round(patience=0)[1]
    assert error.retry_after == 120.0


def test_what_has_come_is_in_the_file_at_once(ready: Any, plane: Any, shelf: Any) -> None:
    """A killed agent has nothing in its buffers that it would have to fetch again."""
    offered = shelf.packages["full-1"]
    path = ready.folder / f"package-{offered.sha256}.weft"
    seen: list[int] = []

    def stop_until_it_is_there(handler: Any) -> None:
        handler.package(handler.plane.files[offered.sha256], 700)
        handler.wfile.flush()
        end = time.monotonic() + 10
        while not (path.exists() and path.stat().st_size) and time.monotonic() < end:
            time.sleep(0.001)  # the agent is waiting for more meanwhile
        seen.append(path.stat().st_size)

    plane.faults = [at(PACKAGES, stop_until_it_is_there)]
    assert settle(ready) == ["server.unreachable"]
    assert seen == [700]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        ("Sun, 01 Mar 2026 10:02:00 GMT", 120.0),
        ("Sun, 01 Mar 2026 09:00:00 GMT", None),
        ("Sun, 01 Mar 2099 10:00:00 GMT", 86400.0),
        ("Sun, 99 Mar 2026 10:02:00 GMT", None),
        ("-5", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_is_understood_in_both_its_forms(header: str, seconds: float | None) -> None:
    date = "Sun, 01 Mar 2026 10:00:00 GMT"
    assert _retry_after({"retry-after": header, "date": date}) == seconds


def test_a_server_that_ignores_ranges_starts_over(ready: Any, plane: Any, shelf: Any) -> None:
    whole = shelf.packages["full-1"].path.read_bytes()
    plane.faults = [cut_at(100), answer(200, whole)]
    assert settle(ready) == ["server.unreachable"]
    assert len(plane.asked(PACKAGES)) == 2


def test_not_even_a_server_that_ignores_ranges_makes_it_lose_bytes(
    ready: Any, plane: Any, shelf: Any
) -> None:
    def begin_again_and_cut(handler: Any) -> None:
        del handler.headers["Range"]
        cut_at(300)(handler)

    plane.faults = [cut_at(700), at(PACKAGES, begin_again_and_cut)]
    assert settle(ready) == ["server.unreachable"] * 2
    assert plane.asked(PACKAGES)[-1]["range"] == "bytes=700-"


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (answer(200, b"x" * 100, Content_Encoding="gzip"), "server.bad_answer"),
        (answer(200, b"x" * 100, ETag='"other"'), "server.bad_answer"),
        (answer(206, b"x" * 100, Content_Range="bytes 5-104/105"), "server.bad_answer"),
        (answer(206, b"x" * 100), "server.bad_answer"),
        (answer(204), "server.bad_answer"),
        (answer(200, b"x" * 100_000), "server.bad_answer"),
        (answer(302, Location="https://elsewhere.example/"), "server.bad_answer"),
        (answer(404, b'{"code": "package.not_found", "detail": "gone"}'), "server.refused"),
        (answer(404, b"<html>"), "server.bad_answer"),
    ],
)
def test_wrong_answers_are_named_and_tried_again(
    ready: Any, plane: Any, shelf: Any, fault: Any, code: str
) -> None:
    plane.faults = [fault]
    assert ready.round() == [code]
    assert ready.in_use() is None
    assert ready.round() == []
    assert ready.in_use() == shelf.digests[1]


def test_flipped_bits_are_found_and_fetched_again(ready: Any, plane: Any, shelf: Any) -> None:
    data = bytearray(shelf.packages["full-1"].path.read_bytes())
    data[len(data) // 2] ^= 4
    plane.faults = [answer(200, bytes(data))]
    assert ready.round() == ["trust.wrong_hash"]
    assert ready.round() == []
    assert "range" not in plane.asked(PACKAGES)[-1]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"method": "xor"}, "trust.wrong_method"),
        ({"size": 100}, "download.too_long"),
    ],
)
def test_an_offer_that_does_not_fit_its_package(
    bench: Any, plane: Any, shelf: Any, changes: dict[str, Any], code: str
) -> None:
    wanted = shelf.wanted(1, "full-1")
    plane.offer(
        shelf, wanted.model_copy(update={"package": wanted.package.model_copy(update=changes)})
    )
    assert bench.round() == [code]
    assert bench.in_use() is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"weights_digest": "0" * 64}, "trust.wrong_result"),
        ({"model": "faces"}, "trust.wrong_model"),
    ],
)
def test_a_package_for_something_else_is_refused_before_it_is_decoded(
    bench: Any, plane: Any, shelf: Any, changes: dict[str, Any], code: str
) -> None:
    bench.settings["models"] = {"digits": {}, "faces": {}}
    plane.offer(shelf, shelf.wanted(1, "full-1").model_copy(update=changes))
    assert bench.round() == [code]
    assert [r.result for r in plane.reports] == ["failed_no_change"]


@pytest.mark.parametrize(
    ("status", "body", "error", "code"),
    [
        (500, b"", ServerAway, "server.unreachable"),
        (200, b"<html>hotel wifi</html>", Unreachable, "server.bad_answer"),
        (200, b'{"models": [{"model": "../x"}]}', Unreachable, "server.bad_answer"),
        (200, b"[" * 2_000_000, Unreachable, "server.bad_answer"),
        (301, b"", ServerAway, "server.bad_answer"),
    ],
)
def test_polls_that_make_no_sense(
    bench: Any, plane: Any, status: int, body: bytes, error: type[Exception], code: str
) -> None:
    plane.faults = [at("/desired", lambda h: h.answer(status, body))]
    with pytest.raises(error) as raised:
        bench.round()
    assert raised.value.code == code  # type: ignore[attr-defined]
    assert bench.round() == []


@pytest.mark.parametrize(
    ("said", "used"), [("1e9", 86400.0), ("nan", 60.0), ("soon", 60.0), ("0", 0.05)]
)
def test_the_interval_is_bounded(bench: Any, plane: Any, said: str, used: float) -> None:
    plane.interval = said
    with running(bench.config, bench.pauses.append) as agent:
        assert agent.round()[0] == used


def test_an_unanswered_report_is_sent_again_with_the_same_bytes(
    ready: Any, plane: Any, shelf: Any
) -> None:
    def lose_the_answer(handler: Any) -> None:
        handler.plane.bodies.append(b"lost")
        handler.close_connection = True

    plane.faults = [at("/reports", lose_the_answer)]
    with pytest.raises(ServerAway):
        ready.round()
    pending = (ready.config.state_dir / "reports.json").read_bytes()
    assert ready.round() == []
    assert plane.bodies[0] == b"lost"
    assert plane.bodies[1].decode() in pending.decode().replace('\\"', '"')
    assert [r.counter for r in plane.reports] == [1]


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, "device.unknown_assignment"), (403, "device.model_not_allowed")],
)
def test_a_refused_report_does_not_block_later_ones(
    ready: Any,
    plane: Any,
    shelf: Any,
    status: int,
    code: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plane.faults = [at("/reports", lambda h: h.problem(status, code))]
    assert ready.round() == []
    (line,) = (text for text in caplog.messages if text.startswith("a report is dropped"))
    assert f"[{code}]" in line
    plane.offer(shelf, shelf.wanted(2, "full-2", 2))
    assert ready.round() == []
    assert [r.counter for r in plane.reports] == [2]


def test_on_a_metered_link_an_update_waits_and_is_told_once(
    ready: Any, plane: Any, shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready.settings["links"] = {"cell": {"interfaces": ["wwan*"], "action": "defer"}}
    interfaces = ["wwan0"]
    monkeypatch.setattr("edge_agent.link.default_interfaces", lambda _root: interfaces)
    with ready.running() as agent:
        for _ in "123":
            assert ready.go_on(agent) == ["link.metered"]
        assert [(r.state, r.error.code) for r in plane.reports] == [("deferred", "link.metered")]
        assert plane.asked(PACKAGES) == []
        interfaces[:] = ["eth0"]
        assert ready.go_on(agent) == []
    assert ready.in_use() == shelf.digests[1]
    assert plane.reports[-1].result == "committed"


def test_an_update_larger_than_a_budget_comes_in_parts(
    ready: Any, plane: Any, shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.link.default_interfaces", lambda _root: ["wwan0"])
    monkeypatch.setattr("edge_agent.link.LEAST_PART_BYTES", 100)
    link = {"interfaces": ["wwan*"], "budget_bytes": 1 << 14}
    ready.settings["links"] = {"cell": link}
    with ready.running() as agent:
        agent._device.link.count((1 << 14) - 7000)
        assert ready.go_on(agent) == ["link.budget_spent"]
        assert [(r.state, r.error.code) for r in plane.reports] == [
            ("deferred", "link.budget_spent")
        ]
        asked = [headers["range"] for headers in plane.asked(PACKAGES)]
        assert len(asked) == 1
        agent.clock.wait(86400)
        assert ready.go_on(agent) == []
    assert ready.in_use() == shelf.digests[1]
    assert len(plane.asked(PACKAGES)) == 2
