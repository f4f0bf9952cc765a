"""Golden samples: a few inputs, and the labels that the new weights must give for them.

Only the labels travel. The inputs are drawn from a seed, to the bit, or are a set of samples that
the device has already, known by its digest. A package may carry one `Golden` in its header, of at
most MAX_BYTES; the program that holds the weights runs the inputs and compares. Arithmetic differs
between machines, so a label that hangs on the last bits may come out otherwise: `agree` says how
many must be the same.

This module is small on purpose: numpy is imported only where inputs are made.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.wire import Digest

if TYPE_CHECKING:
    from shared.tensors import Array

#: What it may add to a package.
MAX_BYTES = 200
#: More elements of all inputs together are refused unseen.
MAX_ELEMENTS = 1 << 26
#: The one tensor of a file of samples: F32, a sample a row, as the network takes them.
SAMPLES = "inputs"
_KEY_BYTES = len(json.dumps('"golden":,')) - 2  # as text in a text
_DRAWN_BITS = 24  # what a float32 holds exactly


class Golden(BaseModel):
    """Inputs and expected answers. Exactly one of `seed` and `samples` is given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int | None = Field(default=None, ge=0, lt=1 << 32)
    shape: tuple[Annotated[int, Field(ge=1, le=1 << 16)], ...] = Field(
        default=(), max_length=6, description="Of one input; with a seed."
    )
    samples: Digest | None = Field(default=None, description="See `samples_digest`.")
    classes: int = Field(ge=2, le=1 << 16, description="Columns of the network's answer.")
    agree: int = Field(ge=1, description="Least number of labels that must be as expected.")
    labels: str = Field(
        min_length=1, description="Base64 of the labels: a byte each, two (little) above 256."
    )

    @model_validator(mode="after")
    def _adds_up(self) -> Golden:
        if (self.seed is None) == (self.samples is None):
            raise ValueError("give a seed or a set of samples")
        if (self.seed is None) != (not self.shape):
            raise ValueError("a shape goes with a seed")
        if len(self.labels) > MAX_BYTES:
            raise ValueError("too many labels")
        if _text(self.expected, self.classes) != self.labels:
            raise ValueError("the labels are not canonical base64")
        if not self.expected or max(self.expected) >= self.classes:
            raise ValueError("there is no such label")
        if self.agree > self.count:
            raise ValueError("more must agree than there are")
        if self.count * math.prod(self.shape) > MAX_ELEMENTS:
            raise ValueError("the inputs are too large")
        return self

    @property
    def expected(self) -> list[int]:
        """The labels, one an input."""
        raw, width = base64.b64decode(self.labels, validate=True), _width(self.classes)
        return [int.from_bytes(raw[i : i + width], "little") for i in range(0, len(raw), width)]

    @property
    def count(self) -> int:
        """How many inputs there are."""
        return len(self.expected)

    @property
    def package_bytes(self) -> int:
        """What it adds to a package."""
        return _KEY_BYTES + len(json.dumps(json.dumps(self.fields(), separators=(",", ":")))) - 2

    def fields(self) -> dict[str, object]:
        """What is written of it: no more than is said."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def inputs(self) -> Array:
        """The inputs of a seed, float32 of shape (count, *shape), in [-1, 1): the same everywhere.

        Input `j` does not depend on how many there are.
        """
        assert self.seed is not None
        return drawn(self.seed, self.count, self.shape)

    def disagreement(self, labels: Iterable[int]) -> str | None:
        """What is wrong with the labels that a program found; None where they are accepted."""
        found = list(labels)
        if len(found) != self.count:
            return f"{len(found)} answers to {self.count} golden samples"
        same = sum(a == b for a, b in zip(found, self.expected, strict=True))
        if same >= self.agree:
            return None
        return f"{same} of {self.count} golden samples agree, {self.agree} must"


def golden_of(
    expected: Iterable[int], classes: int, agree: int, source: Mapping[str, object]
) -> Golden:
    """One of plain labels; `source` holds `seed` and `shape`, or `samples`. Raises ValueError."""
    labels = list(expected)
    if not all(0 <= label < classes <= 1 << 16 for label in labels):
        raise ValueError(f"labels of {classes} classes are expected")
    made = Golden.model_validate(
        {"classes": classes, "agree": agree, "labels": _text(labels, classes), **source}
    )
    if made.package_bytes > MAX_BYTES:
        raise ValueError(f"it would add {made.package_bytes} bytes, the limit is {MAX_BYTES}")
    return made


def drawn(seed: int, count: int, shape: tuple[int, ...]) -> Array:
    """Float32 inputs (count, *shape) in [-1, 1), every one a multiple of 2^-23.

    Fine noise looks all the same to a network that averages over an image. So inputs of two
    dimensions or more are made of squares along the last two: of 1, 2, 4, 8, 1, 2... elements.
    """
    import numpy as np

    from shared import prng

    words = prng.words(prng.stream_key(seed, "golden"), 0, count * math.prod(shape))
    steps = (words >> np.uint64(64 - _DRAWN_BITS)).astype(np.int64) - (1 << (_DRAWN_BITS - 1))
    inputs = steps.astype(np.float32) * np.float32(2.0 ** (1 - _DRAWN_BITS))
    inputs = inputs.reshape(count, *shape)
    return np.stack([_coarse(one, 1 << (j % 4)) for j, one in enumerate(inputs)])


def _coarse(one: Array, side: int) -> Array:
    """Squares of equal elements along the last two dimensions: what stands at their corners."""
    if one.ndim < 2:
        return one
    import numpy as np

    rows, columns = (np.arange(n) // side * side for n in one.shape[-2:])
    return one[..., rows[:, None], columns[None, :]]


def samples_digest(inputs: Array) -> str:
    """What a set of samples is known by: the weights digest of one F32 tensor `inputs`."""
    from shared.tensors import STORAGE, TensorSpec, WeightsDigest

    digest = WeightsDigest()
    digest.start(TensorSpec(SAMPLES, "F32", tuple(inputs.shape)))
    digest.update(inputs.astype(STORAGE["F32"], copy=False))
    return digest.digest().hex()


def load_samples(path: Path) -> Array:
    """The inputs of a file of samples; raises BadWeights where it is none."""
    from shared.errors import BadWeights
    from shared.weights import WeightsReader

    with WeightsReader(path) as reader:
        spec = reader.schema.get(SAMPLES)
        if spec is None or spec.dtype != "F32" or not spec.shape or len(reader.schema) != 1:
            raise BadWeights("schema_mismatch", f"{path}: one F32 tensor `{SAMPLES}` is expected")
        return reader.read(SAMPLES)


def _width(classes: int) -> int:
    return 1 if classes <= 256 else 2


def _text(labels: Iterable[int], classes: int) -> str:
    width = _width(classes)
    return base64.b64encode(b"".join(n.to_bytes(width, "little") for n in labels)).decode()
