"""What was measured beside what is wanted, a line for each target."""

from __future__ import annotations

import statistics

from server.tables import Json

#: Least throughput of idle polls, as a share of that of an empty route.
LEAST_SHARE = 0.5
#: Most that p99 may grow while other work goes on, as a factor.
MOST_GROWTH = 2.0


def verdicts(name: str, runs: dict[str, list[Json]]) -> list[str]:
    """One line for each target of the database `name`; medians of its runs."""
    share = [r["poll"]["per_second"] / r["empty"]["per_second"] for r in runs["polls"]]
    refining = [r["refining"]["p99"] / r["calm"]["p99"] for r in runs["refining"]]
    creating = [r["creating"]["p99"] / r["calm"]["p99"] for r in runs["rollout"]]
    met = _middle(share) >= LEAST_SHARE
    return [
        _line(met, f"{name}: throughput of polls / empty", share, f"at least {LEAST_SHARE:g}"),
        _growth(f"{name}: p99 of polls beside a refinement / calm", refining),
        _growth(f"{name}: p99 of polls beside the rollout's creation / calm", creating),
    ]


def _growth(what: str, values: list[float]) -> str:
    return _line(_middle(values) <= MOST_GROWTH, what, values, f"at most {MOST_GROWTH:g}")


def _middle(values: list[float]) -> float:
    return statistics.median(values)


def _line(met: bool, what: str, values: list[float], wanted: str) -> str:
    ends = f"{min(values):.2f} to {max(values):.2f}"
    word = "met" if met else "**missed**"
    return f"- {word}: {what}: {_middle(values):.2f} ({ends}), wanted {wanted}"
