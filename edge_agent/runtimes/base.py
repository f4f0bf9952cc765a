"""The contract of a runtime: what makes a running program use new weights.

The agent calls, for each update, in this order; after a crash of either side it repeats the last
call, so each must find its work done already:

    prepare(new)         The weights in use are not touched yet. The program looks at what is to
                         come and gets ready, so that the swap is short. Raises RuntimeAway where
                         the program does not answer, RuntimeRefused where it cannot take these
                         weights, with the tensors' names. Nothing has changed then.
    (the agent switches the storage: `new.path` holds the new weights now, if it did not before)
    swap(new)            The program uses the new weights from now on. Prepares first if it must.
    verify(new, golden)  They are judged where they are held. `passed` or `unverified`; raises
                         HealthError where they are not accepted, or a program that is there
                         says nothing in time; RuntimeAway where it is not running.
    confirm(new)         They stay. A program that went back meanwhile, because it heard nothing
                         for too long, loads them again. Raises RuntimeAway where it is there, yet
                         does not answer; one that is not running needs no word: it finds them in
                         use when it starts.
    revert(old)          Instead of `confirm`: back to `old`, which the storage has in use again
                         (None: there was nothing). Says what the program holds then. Raises
                         RuntimeAway as `confirm` does.

`swap` raises HealthError, RuntimeAway or RuntimeRefused. After RuntimeAway, here and in `verify`,
the agent asks again for some minutes; after that, and after the others at once, it goes back.
What a call may take is bounded in time, and `beat` is called at least once a second meanwhile.

Weights that are not accepted must produce no result: a program with a checker answers nobody from
`swap` until the verdict. One without is believed at once, and its updates are `unverified`.

`holds_copy`: the program has the weights in memory of its own and goes on while the file changes
under it. Only such a one can be used with the storage mode `inplace`, in which `new.path` still
holds the old bytes at `prepare` (`new.ready` is false).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge_agent.config import ModelConfig
from shared.golden import Golden
from shared.wire import Health


@dataclass(frozen=True)
class Weights:
    """Weights in a file. `version` is None where the server has not named them.

    `ready`: whether `path` holds them already.
    """

    path: Path
    digest: str
    version: int | None = None
    ready: bool = True


@dataclass(frozen=True)
class Verdict:
    """What came of it; `digest` is that of the tensors which the program holds, if it knows."""

    health: Health
    digest: str | None = None
    message: str = ""


class Runtime(Protocol):
    """See the module."""

    holds_copy: bool

    def prepare(self, new: Weights) -> None: ...  # noqa: D102 - all in the module's docstring

    def swap(self, new: Weights) -> None: ...  # noqa: D102

    def verify(self, new: Weights, golden: Golden | None) -> Verdict: ...  # noqa: D102

    def confirm(self, new: Weights) -> None: ...  # noqa: D102

    def revert(self, old: Weights | None) -> Verdict: ...  # noqa: D102


#: How the agent makes one: the model's name, its settings, and the sign of life while waiting.
Open = Callable[[str, ModelConfig, Callable[[], None]], Runtime]
