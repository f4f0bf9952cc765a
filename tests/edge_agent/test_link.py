"""Which link counts, how fast it may be used, and what a budget leaves; by a clock of the tests."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edge_agent.api import DeviceApi
from edge_agent.budget import SAVE_BYTES
from edge_agent.config import Config, LinkConfig
from edge_agent.download import SLICE_SECONDS, download, received
from edge_agent.errors import LinkHeld
from edge_agent.link import HEADER_BYTES, LEAST_PART_BYTES, Link, default_interfaces
from shared.wire import PackageOffer

DAY = 86400.0
SIZE = 50_000
NOON = 1_790_000_000.0 - 1_790_000_000.0 % DAY + DAY / 2
CAPPED = {"interfaces": ["wwan*"], "action": "cap", "max_bytes_per_second": 1000}

HEADER = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
V6 = "{to} {bits} {z} 00 {z} {metric:08x} 00000001 00000000 {flags:08x} {name:>8}\n"


def v4(name: str, metric: int = 0, to: str = "00000000", mask: str = "00000000") -> str:
    return f"{name}\t{to}\t0101A8C0\t0003\t0\t0\t{metric}\t{mask}\t0\t0\t0 \n"


def v6(name: str, metric: int = 1024, to: str = "0" * 32, flags: int = 3) -> str:
    bits = "00" if to == "0" * 32 else "40"
    return V6.format(to=to, bits=bits, z="0" * 32, metric=metric, flags=flags, name=name)


class Time:
    """Seconds that pass only in `wait`."""

    def __init__(self) -> None:
        self.passed, self.ahead = 500.0, NOON - 500

    def clock(self) -> float:
        return self.passed

    def now(self) -> float:
        return self.passed + self.ahead

    def wait(self, seconds: float) -> None:
        assert seconds > 0
        self.passed += seconds


@pytest.fixture
def time() -> Time:
    return Time()


class Machine:
    """A root directory with the kernel's tables of routes, and links on it."""

    def __init__(self, root: Path, time: Time) -> None:
        self.root, self.time = root, time
        (root / "proc/net").mkdir(parents=True)

    def routes(self, *ipv4: str, ipv6: tuple[str, ...] = ()) -> None:
        (self.root / "proc/net/route").write_text(HEADER + "".join(ipv4))
        (self.root / "proc/net/ipv6_route").write_text("".join(ipv6))

    def link(self, links: dict[str, Any], **settings: Any) -> Link:
        given = {
            "server": "https://weft.example",
            "models": {"digits": {}},
            "state_dir": str(self.root / "state"),
            "links": links,
            **settings,
        }
        (self.root / "state").mkdir(exist_ok=True)
        time = self.time
        config = Config.model_validate(given)
        return Link(config, time.wait, clock=time.clock, now=time.now, root=self.root)


@pytest.fixture
def machine(tmp_path: Path, time: Time) -> Machine:
    made = Machine(tmp_path, time)
    made.routes(v4("wwan0"))
    return made


def budget(nbytes: int, seconds: float = DAY) -> dict[str, Any]:
    return {"cell": {"interfaces": ["wwan*"], "budget_bytes": nbytes, "budget_seconds": seconds}}


# Which link it is.


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "found"),
    [
        ([v4("eth0")], [], ["eth0"]),
        ([v4("wwan0", 700), v4("eth0", 100)], [], ["eth0"]),
        ([v4("eth0", to="0001A8C0", mask="00FFFFFF"), v4("wwan0")], [], ["wwan0"]),
        ([], [v6("eth0"), v6("eth0", to="fe80" + "0" * 28)], ["eth0"]),
        ([], [v6("lo", 0xFFFFFFFF, flags=0x200200), v6("wlan0")], ["wlan0"]),
        ([], [v6("eth1", flags=0x201)], []),
        ([v4("eth0")], [v6("wwan0")], ["eth0", "wwan0"]),
        ([], [], []),
        (["no table\n"], ["at all\n"], []),
    ],
)
def test_the_default_route_says_the_interface(
    machine: Machine, ipv4: list[str], ipv6: list[str], found: list[str]
) -> None:
    machine.routes(*ipv4, ipv6=tuple(ipv6))
    assert default_interfaces(machine.root) == found


def test_this_machine_can_be_read(tmp_path: Path) -> None:
    assert isinstance(default_interfaces(), list)
    assert default_interfaces(tmp_path / "none") == []


def test_a_metered_link_holds_downloads_until_there_is_another(machine: Machine) -> None:
    link = machine.link({"cell": {"interfaces": ["wwan*", "ppp0"], "action": "defer"}})
    with pytest.raises(LinkHeld, match=r"cell \[link\.metered\]"):
        link.check(1)
    machine.routes(v4("wwan0", 700), v4("eth0", 100))
    link.check(1)
    machine.routes(v4("ppp0"))
    with pytest.raises(LinkHeld):
        link.check(1)


def test_the_first_link_that_fits_counts_and_the_stricter_one_of_two(machine: Machine) -> None:
    rules = {
        "roaming": {"interfaces": ["wwan1"], "action": "defer"},
        "cell": CAPPED,
        "wired": {"interfaces": ["eth*"]},
    }
    link = machine.link(rules)
    machine.routes(v4("wwan1"))
    with pytest.raises(LinkHeld):
        link.check(1)
    machine.routes(v4("eth0"), ipv6=(v6("wwan0"),))
    assert link.allowed(10**9, link.clock() + 20) == 20_000
    machine.routes(v4("eth0"))
    assert link.allowed(10**9, link.clock() + 20) == 10**9


def test_without_rules_nothing_is_held(machine: Machine) -> None:
    assert machine.link({}).allowed(10**9, 0) == 10**9


@pytest.mark.parametrize(
    "wrong",
    [
        {"interfaces": []},
        {"interfaces": ["eth0"], "action": "cap"},
        {"interfaces": ["eth0"], "max_bytes_per_second": 1000},
        {"interfaces": ["eth0"], "budget_bytes": 0},
        {"interfaces": ["eth0"], "speed": 5},
    ],
)
def test_a_link_that_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LinkConfig.model_validate(wrong)


# How fast.


def test_a_cap_holds_over_any_time_but_for_one_seconds_worth(machine: Machine, time: Time) -> None:
    link = machine.link({"cell": CAPPED})
    link.check(1)
    time.wait(100)  # what was not used before is not saved up
    began = time.clock()
    came = 0
    for size in (500, 4000, 1, 65_536, 300) * 5:
        link.pace(size)
        came += size
        assert came <= (time.clock() - began + 1) * 1000 + 1e-6
    assert time.clock() - began == pytest.approx(came / 1000 - 1)


def test_a_part_is_no_longer_than_a_slice_may_last(machine: Machine) -> None:
    link = machine.link({}, max_bytes_per_second=5000)
    assert link.allowed(10**6, link.clock() + SLICE_SECONDS) == 100_000
    assert link.allowed(10**6, link.clock() - 1) == LEAST_PART_BYTES
    assert link.allowed(10, link.clock() - 1) == 10


def test_the_slower_of_two_caps_counts(machine: Machine) -> None:
    assert machine.link({"cell": CAPPED}, max_bytes_per_second=5000).allowed(10**6, 520) == 20_000
    assert machine.link({"cell": CAPPED}, max_bytes_per_second=300).allowed(10**6, 520) == 6000


# How much.


def test_a_budget_that_is_spent_holds_downloads_until_the_next_period(
    machine: Machine, time: Time
) -> None:
    link = machine.link(budget(50_000))
    assert link.allowed(10**6, 0) == 50_000 - HEADER_BYTES
    link.count(45_000)
    with pytest.raises(LinkHeld, match=r"cell is spent.* \[link\.budget_spent\]") as held:
        link.check(10**6)
    assert held.value.retry_after == DAY / 2
    link.check(100)  # what is left is enough for this one
    time.wait(DAY / 2)
    assert link.allowed(10**6, 0) == 50_000 - HEADER_BYTES


def test_another_link_does_not_use_up_the_budget(machine: Machine) -> None:
    link = machine.link(budget(50_000))
    machine.routes(v4("eth0"))
    assert link.allowed(10**6, 0) == 10**6
    link.count(45_000)
    machine.routes(v4("wwan0"))
    assert link.allowed(10**6, 0) == 50_000 - HEADER_BYTES


def test_what_was_spent_is_known_after_a_restart(machine: Machine) -> None:
    link = machine.link(budget(50_000))
    link.count(30_000)
    link.persist()
    assert machine.link(budget(50_000)).allowed(10**6, 0) == 20_000 - HEADER_BYTES


def test_a_crash_forgets_no_more_than_one_writing(machine: Machine) -> None:
    link = machine.link(budget(10**8))
    for _ in range(1000):
        link.count(10_000)
    left = machine.link(budget(10**8)).allowed(10**9, 0)
    assert left < 10**8 - 10**7 + SAVE_BYTES


def test_polls_alone_write_once_an_hour_at_most(machine: Machine, time: Time) -> None:
    link = machine.link(budget(10**8))
    written = set()
    for _ in range(6 * 60):
        time.wait(60)
        link.count(600)
        if (machine.root / "state/traffic.json").exists():
            written.add((machine.root / "state/traffic.json").read_text())
    assert len(written) in (5, 6)


def test_without_a_budget_nothing_is_written(machine: Machine) -> None:
    link = machine.link({"cell": CAPPED})
    link.count(10**7)
    link.persist()
    assert list((machine.root / "state").iterdir()) == []


@pytest.mark.parametrize("damage", ["", "{", '{"format": 9}', '{"seen": -1}', '{"seen": 1e999}'])
def test_a_damaged_account_begins_anew(machine: Machine, damage: str) -> None:
    link = machine.link(budget(50_000))
    (machine.root / "state/traffic.json").write_text(damage)
    link = machine.link(budget(50_000))
    assert link.allowed(10**6, 0) == 50_000 - HEADER_BYTES


def test_a_full_disk_does_not_silence_the_agent(machine: Machine) -> None:
    link = machine.link(budget(50_000))
    (machine.root / "state").rename(machine.root / "gone")
    link.count(SAVE_BYTES)
    link.persist()


# The clock jumps.


def spend_all(link: Link) -> None:
    link.count(50_000)
    with pytest.raises(LinkHeld):
        link.check(10**6)


def test_a_clock_that_goes_back_neither_gives_nor_blocks(machine: Machine, time: Time) -> None:
    link = machine.link(budget(50_000))
    spend_all(link)
    time.ahead -= 30 * 365 * DAY
    with pytest.raises(LinkHeld) as held:
        link.check(10**6)
    assert held.value.retry_after == DAY / 2
    time.wait(DAY / 2)
    link.check(10**6)


def test_a_clock_that_was_ahead_for_a_while_gives_one_period_and_blocks_one(
    machine: Machine, time: Time
) -> None:
    link = machine.link(budget(50_000))
    spend_all(link)
    time.ahead += 30 * 365 * DAY
    link.check(10**6)
    spend_all(link)
    time.ahead -= 30 * 365 * DAY
    for _ in range(3):
        time.ahead += 30 * 365 * DAY
        with pytest.raises(LinkHeld):
            link.check(10**6)
        time.ahead -= 30 * 365 * DAY
        with pytest.raises(LinkHeld):
            link.check(10**6)
    time.wait(DAY)
    link.check(10**6)


def test_a_device_without_a_clock_gets_no_budget_by_restarting(
    machine: Machine, time: Time
) -> None:
    link = machine.link(budget(50_000))
    spend_all(link)
    link.persist()
    right = time.ahead
    for _ in range(5):
        time.ahead = 0.0  # 1970, until the network tells the time
        link = machine.link(budget(50_000))
        with pytest.raises(LinkHeld):
            link.check(10**6)
        time.ahead = right
        with pytest.raises(LinkHeld):
            link.check(10**6)


def test_the_account_is_plain(machine: Machine, time: Time) -> None:
    link = machine.link(budget(50_000))
    link.count(5000)
    link.persist()
    state = json.loads((machine.root / "state/traffic.json").read_text())
    start = NOON - DAY / 2
    assert state == {
        "format": 1,
        "seen": NOON,
        "links": {"cell": {"start": start, "used": 5000}},
    }


# Downloads over such links, from a real server.


class Download:
    """A package of the plane's, asked for slice by slice."""

    def __init__(self, plane: Any, machine: Machine, link: Link, size: int = SIZE) -> None:
        self.whole = random.Random(4).randbytes(size)
        sha256 = hashlib.sha256(self.whole).hexdigest()
        plane.files[sha256] = self.whole
        config = Config.model_validate({"server": plane.url, "models": {"digits": {}}})
        self.api = DeviceApi(config, "test", link.count)
        self.api.use_token(plane.token)
        self.offer = PackageOffer(
            sha256=sha256,
            size=size,
            url=f"/device/v1/packages/{sha256}",
            base_digest=None,
            method="full",
        )
        self.link, self.path = link, machine.root / "package"

    def slice(self, seconds: float = SLICE_SECONDS) -> bool:
        until = self.link.clock() + seconds
        return download(self.api, self.offer, self.path, self.link, until)


def test_a_capped_download_asks_for_what_it_may_take_and_wastes_nothing(
    plane: Any, machine: Machine, time: Time
) -> None:
    task = Download(plane, machine, machine.link({}, max_bytes_per_second=1000))
    began = time.clock()
    assert [task.slice() for _ in "123"] == [False, False, True]
    task.api.close()
    assert task.path.read_bytes() == task.whole
    assert time.clock() - began == pytest.approx(SIZE / 1000 - 1, abs=1)
    asked = [headers.get("range") for headers in plane.asked("/device/v1/packages")]
    assert asked[0] == "bytes=0-19999"
    assert asked[-1].endswith("-")
    assert len(asked) <= 5


def test_a_download_larger_than_the_budget_goes_on_in_the_next_period(
    plane: Any, machine: Machine, time: Time
) -> None:
    task = Download(plane, machine, machine.link(budget(SIZE // 2)))
    held = []
    for _ in range(3):
        with contextlib.suppress(LinkHeld):
            assert task.slice()
        held.append(received(task.path))
        time.wait(DAY)
    task.api.close()
    assert held[0] in range(SIZE // 2 - 2 * HEADER_BYTES, SIZE // 2)
    assert held[2] == SIZE
    assert task.path.read_bytes() == task.whole


def test_a_server_that_sends_only_whole_packages_is_not_given_more_than_the_budget(
    plane: Any, machine: Machine
) -> None:
    task = Download(plane, machine, machine.link(budget(SIZE - 1)))

    def whole(handler: Any) -> bool:
        del handler.headers["Range"]
        handler.package(task.whole)
        return True

    plane.faults = [whole]
    with pytest.raises(LinkHeld, match="only whole packages"):
        task.slice()
    task.api.close()
    assert not task.path.exists()


def test_a_server_that_ignores_ranges_sends_what_is_held_in_vain(
    plane: Any, machine: Machine
) -> None:
    link = machine.link({}, max_bytes_per_second=10_000)
    task = Download(plane, machine, link, 400_000)
    task.path.write_bytes(task.whole[:200_000])

    def whole(handler: Any) -> bool:
        del handler.headers["Range"]
        handler.package(task.whole)
        return True

    plane.faults = [whole]
    assert task.slice()  # it cannot be gone on with, so the end of the slice does not end it
    task.api.close()
    assert task.path.read_bytes() == task.whole


def test_a_slice_ends_in_time_however_much_is_left(
    plane: Any, machine: Machine, time: Time
) -> None:
    link = machine.link({})
    task = Download(plane, machine, link)
    assert task.slice(seconds=0) is False
    assert plane.asked("/device/v1/packages") == []
    assert task.slice() is True
    task.api.close()
