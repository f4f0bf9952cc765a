"""Strategies: what a rollout does next. One pure function a file, and one line here.

The contract is the docstring of `base.py`.
"""

from typing import Final

from server.rollouts.strategies import doubling, staged
from server.rollouts.strategies.base import Strategy

STRATEGIES: Final[dict[str, Strategy]] = {
    "staged": staged.decide,
    "doubling": doubling.decide,
}
