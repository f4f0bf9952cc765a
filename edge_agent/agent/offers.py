"""Whether an offer is something new, or what is under way, or what was done already. Pure."""

from __future__ import annotations

from edge_agent.journal import Journal, Target
from shared.wire import DesiredModel


def is_news(offer: DesiredModel, journal: Journal, in_use: str | None) -> bool:
    """Whether a device at rest should begin with it; `in_use` is a weights digest."""
    if offer.held or _is_settled(Target.of(offer), journal.settled):
        return False
    return offer.weights_digest != in_use or offer.assignment is not None


def goes_on(target: Target, offer: DesiredModel | None) -> bool:
    """Whether what is under way is still wanted; one that is held may come without its package.

    Another attempt of the same is what is under way: a download need not begin again. What somebody
    ordered on the device itself is finished first.
    """
    if target.origin != "server":
        return True
    if offer is None:
        return False
    if offer.held:
        return _identity(Target.of(offer))[:2] == _identity(target)[:2]
    return _identity(Target.of(offer)) == _identity(target)


def was_left(target: Target, journal: Journal) -> bool:
    """Whether somebody has gone back from these weights by hand, and nothing new was ordered."""
    left = journal.left
    return (
        left is not None
        and target.origin == "server"
        and (left.digest, left.assignment) == (target.weights_digest, target.assignment)
    )


def _is_settled(target: Target, settled: Target | None) -> bool:
    """Whether this very attempt has been finished, for good or bad."""
    if settled is None:
        return False
    return _identity(target) == _identity(settled) and target.attempt == settled.attempt


def _identity(target: Target) -> tuple[str, int | None, tuple[str, ...]]:
    """What an update is: where to, for which assignment, and by which packages."""
    packages = tuple(offer.sha256 for offer in target.packages)
    return target.weights_digest, target.assignment, packages
