"""Factories of an operator, in a module that uses other things too."""

from __future__ import annotations

from subprocess import run

from torch import nn


def small() -> nn.Module:
    """A factory."""
    run(["true"], check=True)
    return nn.Linear(2, 2)
