"""Kind `program`: a program that takes new weights while it runs, asked over its Unix socket."""

from __future__ import annotations

from collections.abc import Callable

from edge_agent.config import ModelConfig, ProgramRuntime
from edge_agent.runtimes.base import Verdict, Weights
from shared.golden import Golden


class Program:
    """See the module, and the contract in `base`."""

    holds_copy = True

    def __init__(
        self, model: str, config: ModelConfig, beat: Callable[[], None] = lambda: None
    ) -> None:
        assert isinstance(config.runtime, ProgramRuntime)
        self._model, self._config, self._settings = model, config, config.runtime
        self._beat = beat

    @staticmethod
    def holds_copy_of(_: ModelConfig) -> bool:
        """A program that does not hold a copy refuses what is not there yet."""
        return True

    def prepare(self, new: Weights) -> None:
        raise NotImplementedError

    def swap(self, new: Weights) -> None:
        raise NotImplementedError

    def verify(self, new: Weights, golden: Golden | None) -> Verdict:
        raise NotImplementedError

    def confirm(self, new: Weights) -> None:
        raise NotImplementedError

    def revert(self, old: Weights | None) -> Verdict:
        raise NotImplementedError
