"""Strategies: what a rollout does next. One file each, and one line here.

The contract is the docstring of `base.py`.
"""

from typing import Final

from server.rollouts.strategies.base import Strategy
from server.rollouts.strategies.doubling import DOUBLING
from server.rollouts.strategies.staged import STAGED

STRATEGIES: Final[dict[str, Strategy]] = {
    "staged": STAGED,
    "doubling": DOUBLING,
}
