"""The states of an assignment, as one table (design: device life).

    waiting -> idle -> offered -> downloading -> downloaded -> reconstituting -> staged -> swapping
                    -> verifying -> committed | rolled_back

Any state may become `failed`; before `swapping`, `deferred`, `aborted` or `superseded`. `deferred`
is open: the device will try again. A device reports where an update ended; what it went through
in between it need not say, so any later state may follow. One end may follow another: `committed`
becomes `rolled_back` where somebody on the device goes back from the weights later.

Three states are the server's own:

    waiting     an operator had it retried: it waits for its turn, and is offered nothing yet
    timed_out   no result came until the deadline
    unreached   nothing at all was heard until the deadline

The last two are open, yet nobody waits for them: a device that comes back is still served, and its
late result replaces them, but they take no place under the rollout's cap and do not keep it from
finishing.
"""

from __future__ import annotations

from typing import Final

PATH: Final = (
    "idle",
    "offered",
    "downloading",
    "downloaded",
    "reconstituting",
    "staged",
    "swapping",
    "verifying",
)
OVERDUE: Final = frozenset({"timed_out", "unreached"})
#: The device is at it, as far as the server knows: these take a place under the cap.
UPDATING: Final = frozenset(PATH) | {"deferred"}
#: What a device may be in by its own word.
OF_DEVICES: Final = UPDATING | {"committed", "rolled_back", "failed", "aborted", "superseded"}
#: Until here the server can still take an assignment back.
BEFORE_SWAP: Final = frozenset(PATH[: PATH.index("swapping")]) | OVERDUE | {"deferred", "waiting"}
FINAL: Final = frozenset({"committed", "rolled_back", "failed", "aborted", "superseded"})
OPEN: Final = UPDATING | OVERDUE | {"waiting"}
#: What an operator may have tried once more.
RETRIABLE: Final = frozenset({"failed", "rolled_back", "timed_out"})


def may_follow(before: str, after: str) -> bool:
    """Whether an assignment in state `before` may go to `after`."""
    if before in FINAL:
        return (before, after) == ("committed", "rolled_back")
    if after in ("aborted", "superseded"):
        return before in BEFORE_SWAP
    if after in FINAL:
        return True
    if before in OVERDUE or before == "waiting":  # would take a place under the cap: not by itself
        return False
    if after == "deferred":
        return before in BEFORE_SWAP
    return before == "deferred" or PATH.index(after) >= PATH.index(before)


def state_after(result: str, state: str, holds_target: bool) -> str:
    """The state that a report leads to: its result word decides, in all but one case.

    `committed` counts only with the digest of the target: success is what was loaded and checked,
    not what was meant. A device that changed nothing may put the update off, to try again.
    """
    if result == "committed":
        return "committed" if holds_target else "failed"
    if result == "failed_no_change" and state == "deferred":
        return "deferred"
    return "rolled_back" if result == "failed_rolled_back" else "failed"
