"""What makes a running program use new weights; the contract is the docstring of `base.py`.

`RUNTIMES` is the one list of what the agent itself can be told to use (`kind` in the table
`[models.<name>.runtime]`). What a program needs on its own side is in `serving`, `holder` and one
module for each framework; the agent never imports those.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Final

from edge_agent.config import ModelConfig
from edge_agent.runtimes.base import Runtime, Verdict, Weights

__all__ = ["RUNTIMES", "Runtime", "Verdict", "Weights", "open_runtime"]

#: Kind -> `module:class`; imported when asked for.
RUNTIMES: Final = {
    "file": "edge_agent.runtimes.file:File",
    "program": "edge_agent.runtimes.program:Program",
}


def open_runtime(model: str, config: ModelConfig, beat: Callable[[], None]) -> Runtime:
    """The runtime of a model as it is configured; `beat` is called often while it waits."""
    module, _, name = RUNTIMES[config.runtime.kind].partition(":")
    made: Runtime = getattr(importlib.import_module(module), name)(model, config, beat)
    return made
