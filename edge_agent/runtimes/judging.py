"""Whether loaded weights do their job, asked in the program that holds them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from edge_agent.errors import HealthError
from shared.golden import Golden, load_samples, samples_digest

if TYPE_CHECKING:
    from shared.tensors import Array

Model = TypeVar("Model")
_log = logging.getLogger(__name__)


class Judge(Generic[Model]):
    """A callable, golden samples, both, or neither; see `Holder` for what is what."""

    def __init__(
        self,
        check: Callable[[Model], bool | str] | None,
        golden: bool,
        samples: Iterable[Path],
    ) -> None:
        self._check = check
        self._samples = {samples_digest(load_samples(path)): path for path in samples}
        self._takes_golden = golden or bool(self._samples)

    @property
    def exists(self) -> bool:
        """Whether anything may be judged."""
        return self._check is not None or self._takes_golden

    def judge(
        self, model: Model, labels: Callable[[Array], list[int]], golden: Golden | None
    ) -> list[str]:
        """What was passed; empty where nothing could be asked. Raises HealthError."""
        return [*self._ask(model), *self._run(labels, golden)]

    def _ask(self, model: Model) -> list[str]:
        if self._check is None:
            return []
        try:
            answer = self._check(model)
        except Exception as error:
            _log.exception("the check failed")
            raise HealthError("failed", f"the check: {type(error).__name__}: {error}") from error
        if answer is not True:
            raise HealthError("failed", f"the check says: {answer or 'no'}")
        return ["the check"]

    def _run(self, labels: Callable[[Array], list[int]], golden: Golden | None) -> list[str]:
        if golden is None or not self._takes_golden:
            return []
        if golden.samples and golden.samples not in self._samples:
            _log.warning("there are no golden samples %s here", golden.samples)
            return []
        try:
            inputs = load_samples(self._samples[golden.samples]) if golden.samples else None
            given = golden.inputs() if inputs is None else inputs[: golden.count]
            wrong = golden.disagreement(labels(given))
        except Exception as error:
            _log.exception("the golden samples could not be run")
            raise HealthError("failed", f"the golden samples: {error}") from error
        if wrong:
            raise HealthError("failed", wrong)
        return [f"{golden.count} golden samples"]
