"""`xor` and `full`: the target to the bit, whatever its tensors are.

`xor` sends the bitwise difference to the base; `full` sends everything and needs no base. Both
are byte-shuffled and compressed, and stream through a bounded window.
"""

from __future__ import annotations

from typing import ClassVar

from shared.methods.base import Method
from shared.plans import Plan


class Lossless(Method):
    """A method that sends tensors as bytes."""

    plan: ClassVar[Plan]


class Xor(Lossless):
    """Bitwise difference."""

    id = "xor"
    summary = "lossless: the bitwise difference to the base"
    plan = Plan.XOR


class Full(Lossless):
    """Everything."""

    id = "full"
    summary = "lossless: all weights; needs no base"
    needs_base = False
    plan = Plan.RAW
