"""What is asked of `auto`: a size that no package may exceed, an accuracy to reach, or both."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.errors import BadRefinement

#: The method of a refinement that leaves the choice to the planner. No package has it.
AUTO = "auto"

#: Trainings of one request: it costs at most so many refinements.
MOST_TRIALS = 5


class Goal(BaseModel):
    """The options of `auto`. With both: the fewest bytes that reach the accuracy, in that size."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_bytes: int | None = Field(
        None, ge=1, le=1 << 40, description="Most bytes of the package file."
    )
    min_accuracy: float | None = Field(
        None, ge=0, le=100, description="Percent that the decoded weights must reach."
    )
    trials: int = Field(
        4, ge=1, le=MOST_TRIALS, description="Most trainings; each costs as much as a refinement."
    )

    def allows(self, size: int) -> bool:
        """Whether a package of that size may be published."""
        return self.max_bytes is None or size <= self.max_bytes

    def is_reached(self, accuracy: float) -> bool:
        """Whether a share of right answers (0 to 1) is enough."""
        return self.min_accuracy is None or accuracy * 100 >= self.min_accuracy


def read_goal(options: dict[str, Any]) -> Goal:
    """The goal of a request's options; raises BadRefinement `bad_goal`."""
    try:
        goal = Goal.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadRefinement("bad_goal", f"{AUTO}: {place}: {first['msg']}") from error
    if goal.max_bytes is None and goal.min_accuracy is None:
        raise BadRefinement("bad_goal", f"{AUTO}: neither max_bytes nor min_accuracy is given")
    return goal
