"""What an error means for the update that it stopped: one decision, without any effect."""

from __future__ import annotations

from typing import Literal, TypeAlias

from edge_agent.errors import DownloadError, LinkHeld, OutsideWindow, RuntimeAway, ServerAway
from shared.errors import NoSpace, Unreachable, WeftError
from shared.wire import State

#: In these the device still runs what it ran before, and the server may change its mind.
BEFORE_SWAPPING: frozenset[State] = frozenset(
    {"offered", "downloading", "downloaded", "reconstituting", "staged", "deferred"}
)
CHANGING: frozenset[State] = frozenset({"swapping", "verifying"})
#: What is counted as an attempt; to wait for better times is none.
COUNTED: frozenset[State] = (BEFORE_SWAPPING | CHANGING) - {"deferred"}
ENDING: frozenset[State] = frozenset(
    {"committed", "rolled_back", "failed", "aborted", "superseded"}
)

#: `away`: only the link is at fault, which may last for days; tried again, no attempt is counted.
#: `again`: the same step may succeed later, though nothing about the update changes.
#: `absent`: the program that is to use the weights is not running: after a loss of power the agent
#: may be there long before it; or it died of the weights.
#: `damaged`: what came well is not so any more on the disk; it is downloaded again, later.
#: The others are the states that follow.
Outcome: TypeAlias = Literal[
    "away", "again", "absent", "damaged", "deferred", "rolled_back", "failed"
]

#: Nobody knows whose fault it is.
_UNKNOWN = frozenset({"agent.worker_died", "agent.unexpected"})
#: It is not proven what is released: the clock, the server or somebody on the way may mend that.
_NOT_PROVEN = frozenset(
    {
        "metadata.malformed",
        "trust.bad_metadata",
        "trust.expired",
        "trust.incomplete",
        "trust.older_metadata",
        "trust.other_model",
        "trust.too_much_metadata",
        "trust.unsigned",
        "trust.wrong_root",
    }
)
#: Bytes came wrong; or, after `downloading`, they were damaged on the disk and are to come again.
_WRONG_BYTES = frozenset({"trust.wrong_length", "trust.wrong_hash"})


def outcome_of(error: WeftError, state: State) -> Outcome:
    """What `error`, raised by the step of `state`, leads to."""
    if isinstance(error, ServerAway) or error.code == "agent.token_refused":
        return "away"
    if isinstance(error, RuntimeAway) and state in CHANGING:
        return "absent"
    if error.code == "agent.too_many_attempts":
        return _end_of(state)
    is_unproven = error.code in _NOT_PROVEN
    if is_unproven or isinstance(error, (NoSpace, LinkHeld, OutsideWindow, RuntimeAway)):
        return "deferred" if state in BEFORE_SWAPPING else "again"
    if state in ENDING or isinstance(error, (Unreachable, DownloadError)):
        return "again"
    if error.code in _WRONG_BYTES:
        return "again" if state == "downloading" else "damaged"
    if error.code in _UNKNOWN:
        return "again"
    return _end_of(state)


def _end_of(state: State) -> Outcome:
    return "rolled_back" if state in CHANGING else "failed"
