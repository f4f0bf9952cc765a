"""What a strategy is: two pure functions, of what comes next and of the phases as they are shown.

`decide` makes a plan, a snapshot and a time the next step. Whoever calls it carries the step out,
takes a new snapshot and asks again, until the step is `Wait`. Between snapshot and step, devices
may only have ended: the caller sees to it that a step is dropped where another decision came first.

`outline` makes a plan and a snapshot the phases from the first to the last that is known, the
current one included. Quotas never fall from one to the next. Neither function touches a database
or a clock, and nothing else in Weft knows one strategy from another.

A device is, in its rollout, one of:

    waiting     it matches, and has not been admitted yet
    again       it was admitted before, and waits to be admitted once more (retry)
    updating    admitted, without an end so far; only these count toward `max_open`
    unreached   not heard of since its admission; outside the success share
    committed, failed, timed_out    `failed` includes rolled back
    blocked     it matches, and another rollout cannot let go of it
    boxed       it matches, and its updates failed too often: it counts nowhere
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

Kind = Literal["failed", "timed_out", "unreached"]


@dataclass(frozen=True)
class Phase:
    """Up to which share of the devices (cumulative), and how long to watch them then."""

    percent: float
    soak_seconds: int = 0


@dataclass(frozen=True)
class Rule:
    """Abort at this share of bad ends of a kind, if there are at least `min_count` of them.

    `failed` counts timed_out too. Its share and that of `timed_out` are of the devices that have
    ended; that of `unreached` is of those admitted.
    """

    kind: Kind
    percent: float
    min_count: int


@dataclass(frozen=True)
class Plan:
    """What the operator asked for."""

    phases: tuple[Phase, ...]
    max_open: int | None
    success_percent: float
    abort_rules: tuple[Rule, ...]


@dataclass(frozen=True)
class Snapshot:
    """A rollout at one moment: numbers of devices, the phase, and since when that is done."""

    waiting: int = 0
    again: int = 0
    updating: int = 0
    unreached: int = 0
    committed: int = 0
    failed: int = 0
    timed_out: int = 0
    blocked: int = 0
    boxed: int = 0
    held: int = 0
    """Of those updating: how many cannot be offered anything yet."""
    closed: bool = False
    """Whether no device can come any more."""
    phase: int = 0
    phase_done_at: datetime | None = None

    @property
    def ended(self) -> int:
        """Devices with an end that counts, good or bad."""
        return self.committed + self.failed + self.timed_out

    @property
    def admitted(self) -> int:
        """Devices in the rollout."""
        return self.again + self.updating + self.unreached + self.ended

    @property
    def devices(self) -> int:
        """All devices that the rollout is for, at this moment."""
        return self.admitted + self.waiting + self.blocked


@dataclass(frozen=True)
class Reason:
    """Why a rollout waits or was aborted."""

    code: str
    message: str

    def as_json(self) -> dict[str, Any]:
        """As it is stored and shown."""
        return {"code": self.code, "message": self.message}


@dataclass(frozen=True)
class Admit:
    """Admit this many of those that wait, in the order of the draw."""

    count: int


@dataclass(frozen=True)
class AdmitAgain:
    """Admit this many of those once more that wait for it."""

    count: int


@dataclass(frozen=True)
class PhaseDone:
    """The phase has come to its goal; its soak time begins."""


@dataclass(frozen=True)
class NextPhase:
    """The phase is over; the next one begins."""


@dataclass(frozen=True)
class Finish:
    """All is done; `reason` says what is to be known about it."""

    reason: Reason | None = None


@dataclass(frozen=True)
class Abort:
    """Too much went wrong."""

    reason: Reason


@dataclass(frozen=True)
class Wait:
    """Nothing to do until something happens, or until this time."""

    reason: Reason | None = None
    until: datetime | None = None


Step: TypeAlias = Admit | AdmitAgain | PhaseDone | NextPhase | Finish | Abort | Wait


@dataclass(frozen=True)
class Outline:
    """A phase as a strategy has it: for decisions, and as it is shown."""

    quota: int
    """Devices that may have been admitted at its end, in all."""
    percent: float | None
    """The share of all devices that this is by the plan; None: it is not by a share."""
    soak_seconds: int


@dataclass(frozen=True)
class Strategy:
    """One way to go through a rollout."""

    about: str
    """One line for the API's reference and for `--help`."""
    decide: Callable[[Plan, Snapshot, datetime], Step]
    outline: Callable[[Plan, Snapshot], Sequence[Outline]]
