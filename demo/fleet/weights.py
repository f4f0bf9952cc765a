"""The weights that travel in the story, and what a device asks of them before it keeps them.

1   what the devices are delivered with
2   a version gone wrong: one tensor is a hundred times too large
3   the same change, done right
4   somebody else's: sound by all checks, and released by nobody
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from shared.weights import WeightsReader, write_weights

MODEL = "vision"
#: A sound version's weights stay below this.
LIMIT = 10.0


def write_version(number: int, path: Path) -> Path:
    """Write version 1, 2, 3 or 4 of the model."""
    draw = np.random.default_rng(7)
    arrays = {
        "conv.weight": draw.normal(size=(16, 3, 3, 3)).astype(np.float32),
        "conv.bias": draw.normal(size=16).astype(np.float32),
        "head.weight": draw.normal(size=(10, 64)).astype(np.float32),
        "head.bias": draw.normal(size=10).astype(np.float32),
    }
    if number > 1:
        arrays["head.bias"] = arrays["head.bias"] + np.float32(0.25)
    if number == 4:
        arrays["head.bias"] = -arrays["head.bias"]
    if number == 2:
        arrays["head.weight"] = arrays["head.weight"] * np.float32(100)
    write_weights(path, {name: ("F32", array) for name, array in arrays.items()})
    return path


def are_sound(path: Path) -> bool:
    """The health check of every device that has one."""
    with WeightsReader(path) as reader:
        largest = max(float(np.abs(reader.read(name)).max()) for name in reader.schema)
    return largest < LIMIT


def main() -> int:
    """The health command of the real agents: exit status 0 accepts the weights."""
    return 0 if are_sound(Path(os.environ["WEFT_WEIGHTS"])) else 1


if __name__ == "__main__":
    sys.exit(main())
