"""Abort rules: when too much went wrong, whatever the strategy.

They hold while a strategy cannot be asked too, because nobody can say which devices match.
"""

from __future__ import annotations

from server.rollouts.strategies.base import Plan, Reason, Rule, Snapshot


def broken_rule(plan: Plan, now: Snapshot) -> Reason | None:
    """The first abort rule that is broken, as a reason."""
    for rule in plan.abort_rules:
        count, base = _count(rule, now)
        if count >= max(rule.min_count, 1) and share_of(count, base) >= rule.percent:
            what = rule.kind.replace("_", " ")
            among = "were admitted" if rule.kind == "unreached" else "have ended"
            text = f"{count} of {base} devices that {among} {_VERB[rule.kind]} {what}"
            limit = f"the rule is {rule.percent:g}%, from {rule.min_count} on"
            return Reason(f"too_many_{rule.kind}", f"{text}; {limit}")
    return None


_VERB = {"failed": "have", "timed_out": "have", "unreached": "stayed"}


def _count(rule: Rule, now: Snapshot) -> tuple[int, int]:
    """How many devices ended as the rule says, and of how many."""
    if rule.kind == "unreached":
        return now.unreached, now.admitted
    if rule.kind == "timed_out":
        return now.timed_out, now.ended
    return now.failed + now.timed_out, now.ended


def share_of(count: int, base: int) -> float:
    """Percent that `count` is of `base`; 0 of nothing."""
    return 100.0 * count / base if base else 0.0
