"""The states of an assignment, as one table (design: device life).

    idle -> offered -> downloading -> downloaded -> reconstituting -> staged -> swapping
         -> verifying -> committed | rolled_back

Any state may become `failed`; before `swapping`, `deferred`, `aborted` or `superseded`. `deferred`
is open: the device will try again. A device reports where an update ended; what it went through
in between it need not say, so any later state may follow.
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
#: Until here the server can still take an assignment back.
BEFORE_SWAP: Final = frozenset(PATH[: PATH.index("swapping")]) | {"deferred"}
FINAL: Final = frozenset({"committed", "rolled_back", "failed", "aborted", "superseded"})
OPEN: Final = frozenset(PATH) | {"deferred"}


def may_follow(before: str, after: str) -> bool:
    """Whether an assignment in state `before` may go to `after`."""
    if before in FINAL:
        return False
    if after in ("aborted", "superseded", "deferred"):
        return before in BEFORE_SWAP
    if after in FINAL or before == "deferred":
        return True
    return PATH.index(after) >= PATH.index(before)


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
