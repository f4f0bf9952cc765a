"""What somebody orders on the device itself: to go back, or to install what was brought along.

Both are updates like those of the server: the same states, checks and reports. What the server has
offered meanwhile is considered again afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from edge_agent.agent.outcomes import BEFORE_SWAPPING
from edge_agent.agent.update import Update
from edge_agent.errors import AgentError
from edge_agent.journal import Held, Target
from edge_agent.trust.released import check, check_result
from shared.wire import DesiredModel, PackageOffer

#: Writes a package to a path, durably.
Bring: TypeAlias = Callable[[PackageOffer, Path], None]
_log = logging.getLogger(__name__)


def begin_to_go_back(update: Update) -> None:
    """Order a model back to the weights that were in use before those in use now.

    Raises AgentError `nothing_to_go_back_to`, `update_under_way`, TrustError `not_released`.
    """
    _check_that_it_can_wait(update)
    current = update.slots.current()
    if current is None:
        raise AgentError("nothing_to_go_back_to", f"{update.model}: no weights are in use")
    for name, held in update.journal.slots.items():
        if name != current and held.used:
            _check_that_it_is_not_withdrawn(update, held)
            _make_way(update)
            before = Target(
                model=update.model,
                version=held.version,
                weights_digest=held.digest,
                origin="hand",
                verified=True,
            )
            update.take_on(before)
            return
    raise AgentError("nothing_to_go_back_to", f"{update.model}: {_why(update)}")


def begin_to_install(update: Update, desired: DesiredModel, metadata: bytes, bring: Bring) -> None:
    """Order an update whose packages were brought along, and the metadata that release it.

    They are held against `desired` like downloads. Raises TrustError, BadMetadata, AgentError
    `update_under_way`, NoSpace, and what `bring` raises.
    """
    _check_that_it_can_wait(update)
    target = Target.of(desired, "bundle")
    check(target, update.releases.brought(metadata), update.held)
    _make_way(update)
    update.slots.keep_packages(())
    for offer in desired.packages:
        bring(offer, update.slots.package(offer.sha256))
    update.take_on(target.model_copy(update={"verified": True}))


def give_up(update: Update) -> None:
    """Forget an order that could not be carried out now: nobody waits for it any more."""
    target = update.journal.target
    if target and target.origin != "server" and update.journal.state in BEFORE_SWAPPING:
        update.enter("aborted")
        update.drop()


def _check_that_it_can_wait(update: Update) -> None:
    state = update.journal.state
    if state != "idle" and state not in BEFORE_SWAPPING:
        raise AgentError("update_under_way", f"{update.model}: the update is {state}")


def _check_that_it_is_not_withdrawn(update: Update, held: Held) -> None:
    """Raise TrustError `not_released`, by what was last heard: the server may be far away.

    Nobody has released the weights that a device was delivered with, nor withdraws them.
    """
    if held.version is not None and (released := update.releases.known()):
        check_result(held.digest, released)


def _make_way(update: Update) -> None:
    """Put away what the server wants; it is offered again at the next poll."""
    if update.journal.state != "idle":
        _log.info("%s: what was under way is put away", update.model)
        update.enter("superseded")
        update.drop()


def _why(update: Update) -> str:
    if update.config.storage == "inplace":
        return "with one file, the old weights are kept only until an update is committed"
    return "no other slot holds weights that have been in use"
