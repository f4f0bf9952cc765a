"""The program's side of the contract in `base`, whatever the framework.

A `Net` is what a framework has to give: how a change of the weights is made ready and applied, the
digest of what is loaded, and the labels of given inputs. `Holder` does the rest: the lease, what
was there before, and the judging.

With a checker (`check`, or golden samples) the lease stays closed from the swap until `confirm` or
`revert`: no result comes of weights that nobody has accepted. If nothing is heard of the agent for
too long, the program looks at the agent's journal, and otherwise goes back by itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol

from edge_agent.errors import HealthError, RuntimeRefused
from edge_agent.runtimes.base import Verdict, Weights
from edge_agent.runtimes.judging import Judge, Model
from edge_agent.runtimes.lease import Lease
from edge_agent.runtimes.store import Store
from shared.golden import Golden

if TYPE_CHECKING:
    from shared.tensors import Array

#: How often a program without weights looks for some.
_LOOK_SECONDS = 0.5
_log = logging.getLogger(__name__)


class Change(Protocol):
    """New weights, ready to be taken over."""

    def apply(self) -> None:
        """Take them over. No inference runs meanwhile; the shorter, the better."""

    def undo(self) -> None:
        """Put back what was there before; only of a change that was made to be kept."""

    def close(self) -> None:
        """Give back what it holds; called once, without the lease."""


class Net(Protocol):
    """A network in a framework."""

    holds_copy: bool

    def change(self, path: Path, *, keep: bool) -> Change:
        """Compare what is loaded with the file, and get ready to take over the difference.

        Inferences run meanwhile. With `keep`, `undo` must work without the file of the weights
        before. Raises RuntimeRefused with the names of tensors that do not fit, BadWeights.
        """

    def digest(self) -> str:
        """The weights digest of what is loaded now, from the loaded tensors themselves."""

    def labels(self, inputs: Array) -> list[int]:
        """The most likely class of each input, float32 with a sample a row."""


class Holder(Generic[Model]):
    """Holds `model`, of which `net` is the framework's view; see the module.

    `store`: the model's directory below the agent's `state_dir`, or a weights file. The weights
    there are loaded at once, if there are any; raises what `Net.change` does. `check` is given
    `model` and accepts with True, or says what is wrong in a text. `samples` are files of golden
    samples (`shared.golden`); `golden` lets those be run that are drawn from a seed.
    """

    def __init__(
        self,
        model: Model,
        net: Net,
        store: str | os.PathLike[str],
        *,
        check: Callable[[Model], bool | str] | None = None,
        golden: bool = False,
        samples: Iterable[str | os.PathLike[str]] = (),
        hold_seconds: float = 120.0,
    ) -> None:
        self.model, self._net, self._store = model, net, Store(store)
        self._judge = Judge(check, golden, map(Path, samples))
        self._hold_seconds = hold_seconds
        self._lease = Lease()
        self._turn = threading.RLock()
        self._held: Weights | None = None
        self._before: Weights | None = None
        self._ready: tuple[str, Change] | None = None
        self._undo: Change | None = None
        self._timer: threading.Timer | None = None
        self._changes = 0
        self._load_accepted()

    @property
    def holds_copy(self) -> bool:
        """See `base`."""
        return self._net.holds_copy

    @property
    def digest(self) -> str | None:
        """The digest of the weights in use; None while there are none."""
        return self._held.digest if self._held else None

    @contextlib.contextmanager
    def lease(self, timeout: float | None = None) -> Iterator[Model]:
        """Give the model for one inference, whose weights are all of one version.

        Raises TimeoutError where there are no accepted weights for `timeout` seconds.
        """
        left = timeout
        while self._held is None and (left is None or left > _LOOK_SECONDS):
            with contextlib.suppress(TimeoutError), self._lease.read(_LOOK_SECONDS):
                break
            self._load_accepted()
            left = None if left is None else left - _LOOK_SECONDS
        with self._lease.read(left):
            yield self.model

    # The contract.

    def prepare(self, new: Weights) -> None:
        """Map the new weights, find what differs, and have it in memory."""
        new = _resolved(new)
        with self._turn:
            self._drop_ready()
            if self.digest == new.digest:
                return
            if new.ready:
                self._ready = (new.digest, self._change(new))
            elif not self.holds_copy:
                raise RuntimeRefused("refused", "the program uses the file that would be changed")

    def swap(self, new: Weights, seconds: float = 60.0) -> None:
        """Take over the new weights between two inferences; `seconds`: how long one may take."""
        new = _resolved(new)
        with self._turn:
            if self.digest != new.digest:
                # What is not accepted yet is nothing to go back to.
                before = self._before if self._lease.is_closed else self._held
                self._take(new, seconds, keep=before is not None and before.path == new.path)
                self._before = before
            if self._judge.exists and (self._lease.is_closed or self._before):
                self._lease.close(seconds)
                self._await(self._hold_seconds)
            else:
                self._release()

    def verify(self, new: Weights, golden: Golden | None, seconds: float = 60.0) -> Verdict:
        """Judge what is loaded, for at most `seconds`; then the agent is waited for once more."""
        with self._turn:
            self.swap(new, seconds)
            change = self._changes
            if self._lease.is_closed:
                self._await(seconds + self._hold_seconds)
        passed = self._judge.judge(self.model, self._net.labels, golden)
        digest = self._net.digest()
        with self._turn:
            if change != self._changes:
                raise HealthError("failed", "the program went back before the check had ended")
        return Verdict("passed" if passed else "unverified", digest, ", ".join(passed))

    def confirm(self, new: Weights) -> None:
        """Keep the new weights and release them; they are loaded again if need be."""
        with self._turn:
            if self.digest != new.digest:
                self._take(_resolved(new), self._hold_seconds)
            self._release()

    def close(self) -> None:
        """Wait for nobody any more; the model stays as it is."""
        with self._turn:
            self._stop_waiting()
            self._drop_ready()
            self._forget_undo()

    def revert(self, old: Weights | None) -> Verdict:
        """Go back, and say what is loaded then."""
        with self._turn:
            if old is None:
                self._wait_for_weights()
                return Verdict("unverified", message="the program holds no accepted weights")
            self._go_back(_resolved(old))
            return Verdict("unverified", self._net.digest())

    # How it is done; all of it in `_turn`.

    def _load_accepted(self) -> None:
        """Take what is in use on the disk, if there is anything."""
        with self._turn:
            found = self._store.accepted() if self._held is None else None
            if found:
                self._take(found, self._hold_seconds)
                self._release()

    def _change(self, new: Weights, *, keep: bool = False) -> Change:
        return self._net.change(new.path, keep=keep)

    def _take(self, new: Weights, seconds: float, *, keep: bool = False) -> None:
        """Load; the lease is closed afterwards."""
        change = self._take_ready(new) if not keep else None
        change = change or self._change(new, keep=keep)
        was_closed = self._lease.is_closed
        try:
            self._lease.close(seconds)
        except TimeoutError as error:
            change.close()
            raise HealthError("timed_out", str(error)) from error
        self._held = None  # until it is done: an error in between leaves no usable weights
        self._changes += 1
        change.apply()
        self._held = new if new.digest else Weights(new.path, self._net.digest(), new.version)
        self._forget_undo()
        if not (self._judge.exists or was_closed):
            self._lease.open()  # the rest need not keep inferences waiting
        if keep:
            self._undo = change
        else:
            change.close()

    def _go_back(self, old: Weights) -> None:
        """To `old`, and release it."""
        if self.digest != old.digest:
            undo = self._undo if self._before and self._before.digest == old.digest else None
            if undo:
                self._lease.close(self._hold_seconds)
                self._changes += 1
                undo.undo()
                self._held = old
            else:
                self._take(old, self._hold_seconds)
        self._release()

    def _release(self) -> None:
        self._stop_waiting()
        self._drop_ready()
        self._forget_undo()
        self._before = None
        self._lease.open()

    def _wait_for_weights(self) -> None:
        self._stop_waiting()
        self._lease.close(self._hold_seconds)
        self._changes += 1
        self._held = self._before = None
        self._forget_undo()

    def _take_ready(self, new: Weights) -> Change | None:
        digest, change = self._ready or ("", None)
        if digest != new.digest:
            self._drop_ready()
            return None
        self._ready = None
        return change

    def _drop_ready(self) -> None:
        if self._ready:
            self._ready[1].close()
            self._ready = None

    def _forget_undo(self) -> None:
        if self._undo:
            self._undo.close()
            self._undo = None

    # Waiting for the agent.

    def _await(self, seconds: float) -> None:
        """Go back unless something is heard within so many seconds."""
        self._stop_waiting()
        self._timer = timer = threading.Timer(seconds, lambda: self._heard_nothing(timer))
        timer.daemon = True
        timer.start()

    def _stop_waiting(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _heard_nothing(self, timer: threading.Timer) -> None:
        with self._turn:
            if self._timer is not timer:
                return
            accepted = self._store.accepted() if self._store.is_settled() else None
            back = accepted if accepted and accepted.digest else self._before
            _log.warning("nothing was heard of the agent: using %s", back or "no weights")
            try:
                self._go_back(back) if back else self._wait_for_weights()
            except Exception:
                _log.exception("the weights before could not be loaded; none are in use")
                self._wait_for_weights()


def _resolved(weights: Weights) -> Weights:
    """By the file itself: where a link leads may change."""
    return replace(weights, path=weights.path.resolve())
