"""By which link the device is connected, and how much of it the agent may use now.

A link is known by the network interface of the default route (the better one of IPv4 and of IPv6;
where they belong to two links, the stricter link counts). `[links.<name>]` in the configuration
says what may be done by it. Every byte that the agent sends or receives is counted; only downloads
are ever held back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from edge_agent.budget import Budgets
from edge_agent.config import Config, LinkConfig
from edge_agent.errors import LinkHeld

#: Less than this is not worth a request, whose own headers take some hundreds of bytes.
LEAST_PART_BYTES = 1 << 12
#: Kept back of a budget for the headers of the request that uses it up.
HEADER_BYTES = 1 << 10
#: After a pause, so many seconds' worth of bytes may come at once.
BURST_SECONDS = 1.0

_UP, _REJECT = 0x0001, 0x0200
_STRICTNESS = ("allow", "cap", "defer")


class Link:
    """What the configuration allows by the link of the moment.

    `wait(seconds)` passes time; `clock` tells seconds that only go forward, `now` Unix time; `root`
    is where /proc is found.
    """

    def __init__(
        self,
        config: Config,
        wait: Callable[[float], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        root: Path = Path("/"),
    ) -> None:
        self._config, self._wait, self._root, self.clock = config, wait, root, clock
        self._budgets = Budgets(config.state_dir / "traffic.json", clock, now)
        self._name, self._rules = self._find()
        self._free_at = clock()
        self.carried = 0

    def check(self, nbytes: int) -> None:
        """Raise LinkHeld unless a download of `nbytes`, or some of it, may begin now."""
        self.allowed(nbytes, self.clock())

    def allowed(self, wanted: int, until: float) -> int:
        """How many of `wanted` bytes may be asked for now, to have come by `until`; at least one.

        Raises LinkHeld: `metered` where this link is not to be used, `budget_spent` where it has
        carried what it may in this period.
        """
        self._name, self._rules = self._find()
        if self._rules and self._rules.action == "defer":
            raise LinkHeld("metered", f"downloads wait for another link than {self._name}")
        left, seconds = self._left()
        if left < min(wanted, LEAST_PART_BYTES):
            told = f"the budget of link {self._name} is spent"
            raise LinkHeld(
                "budget_spent", f"{told}; a new period begins in {seconds:.0f} s", seconds
            )
        if self._rate:
            in_time = max(LEAST_PART_BYTES, int(self._rate * (until - self.clock())))
            wanted = min(wanted, in_time)
        return min(wanted, left)

    def has_room(self, nbytes: int) -> bool:
        """Whether the budget bears an answer of `nbytes`, more than was asked for."""
        return nbytes <= self._left()[0]

    def pace(self, nbytes: int) -> None:
        """Wait until bytes that have come by this link were no faster than it may be used."""
        if not self._rate:
            return
        now = self.clock()
        self._free_at = max(self._free_at, now - BURST_SECONDS) + nbytes / self._rate
        if self._free_at > now:
            self._wait(self._free_at - now)

    def count(self, nbytes: int) -> None:
        """Take note of bytes that were sent or received."""
        self.carried += nbytes
        if self._rules and self._rules.budget_bytes is not None:
            self._budgets.spend(self._name, self._rules.budget_seconds, nbytes)

    def persist(self) -> None:
        """Write what was counted, if it is worth it."""
        self._budgets.persist()

    def standing(self) -> dict[str, Any] | None:
        """See the function of that name."""
        self._name, self._rules = self._find()
        if self._rules is None:
            return None
        budget = self._rules.budget_bytes
        used = self._budgets.used(self._name, self._rules.budget_seconds)[0] if budget else None
        return {
            "name": self._name,
            "action": self._rules.action,
            "budget_bytes": budget,
            "used_bytes": used,
        }

    @property
    def _rate(self) -> int | None:
        """Bytes a second that may be used; None: any."""
        of_link = self._rules.max_bytes_per_second if self._rules else None
        return min((r for r in (of_link, self._config.max_bytes_per_second) if r), default=None)

    def _left(self) -> tuple[int, float]:
        """Bytes left of the budget for a package, and the seconds until there is a new one."""
        if self._rules is None or self._rules.budget_bytes is None:
            return 1 << 62, 0.0
        used, seconds = self._budgets.used(self._name, self._rules.budget_seconds)
        return max(0, self._rules.budget_bytes - used - HEADER_BYTES), seconds

    def _find(self) -> tuple[str, LinkConfig | None]:
        """The link of the default route; of two, the stricter one."""
        found: list[tuple[str, LinkConfig]] = []
        if self._config.links:
            for interface in default_interfaces(self._root):
                found += self._of(interface)
        return max(found, key=lambda one: _STRICTNESS.index(one[1].action), default=("", None))

    def _of(self, interface: str) -> list[tuple[str, LinkConfig]]:
        """The first link to which the interface belongs, if there is one."""
        for name, link in self._config.links.items():
            if any(fnmatchcase(interface, pattern) for pattern in link.interfaces):
                return [(name, link)]
        return []


def standing(config: Config) -> dict[str, Any] | None:
    """The link of the moment and its budget, for people; None where none is configured for it."""
    link = Link(config, lambda _: None)
    return link.standing()


def default_interfaces(root: Path = Path("/")) -> list[str]:
    """Interfaces of the best default routes of IPv4 and IPv6, as far as there are any."""
    found = (_best(_ipv4_defaults(root)), _best(_ipv6_defaults(root)))
    return [interface for interface in found if interface is not None]


def _best(routes: list[tuple[int, str]]) -> str | None:
    return min(routes)[1] if routes else None


def _ipv4_defaults(root: Path) -> list[tuple[int, str]]:
    """Metric and interface of each; columns as in Linux' Documentation/networking (route)."""
    return [
        (int(row[6]), row[0])
        for row in _rows(root / "proc/net/route", 8)
        if row[1] == row[7] == "00000000" and _usable(int(row[3], 16))
    ]


def _ipv6_defaults(root: Path) -> list[tuple[int, str]]:
    return [
        (int(row[5], 16), row[9])
        for row in _rows(root / "proc/net/ipv6_route", 10)
        if row[0] == "0" * 32 and row[1] == "00" and _usable(int(row[8], 16)) and row[9] != "lo"
    ]


def _usable(flags: int) -> bool:
    return bool(flags & _UP) and not flags & _REJECT


def _rows(path: Path, columns: int) -> list[list[str]]:
    """The lines of a table of the kernel, split; none where there is no such table."""
    try:
        lines = path.read_text("ascii").splitlines()
    except (OSError, ValueError):
        return []
    rows = [line.split() for line in lines]
    return [row for row in rows if len(row) >= columns and row[0] != "Iface"]
