"""The decode with a known result fails on a machine that computes wrongly, and only there."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.decode import known_answer
from shared.errors import BadResult
from shared.svd import NumpyLapack

FLUSHING = """
import torch
from shared.decode import known_answer
from shared.errors import BadResult
known_answer()
assert torch.set_flush_denormal(True)
try:
    known_answer()
except BadResult as error:
    print(error.code)
"""


def test_this_machine_computes_rightly() -> None:
    known_answer()


def test_subnormals_that_are_flushed_to_zero_are_found(checkout: Path) -> None:
    if platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("torch cannot flush subnormals on this processor")
    done = subprocess.run(
        [sys.executable, "-c", FLUSHING],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "result.broken_arithmetic"


def spoil(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = getattr(NumpyLapack, name)

    def broken(self: NumpyLapack, a: Any) -> Any:
        found = sound(self, a)
        if isinstance(found, tuple):
            u, s, vt = found
            return u, s, np.roll(vt, 1, axis=0)
        return found + 0.1 * np.eye(len(found))

    monkeypatch.setattr(NumpyLapack, name, broken)


@pytest.mark.parametrize("name", ["svd", "triangle"])
def test_a_broken_factorisation_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(name, monkeypatch)
    with pytest.raises(BadResult) as caught:
        known_answer()
    assert caught.value.code == "result.broken_arithmetic"
    assert caught.value.exit_status == 2


def test_a_factorisation_of_nothing_but_nan_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NumpyLapack, "triangle", lambda self, a: np.full((a.shape[1],) * 2, np.nan))
    with pytest.raises(BadResult):
        known_answer()


def test_the_known_answer_has_room_for_what_sound_machines_differ_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sound = NumpyLapack.svd

    def slightly_off(self: NumpyLapack, a: Any) -> Any:
        u, s, vt = sound(self, a)
        return -u, s * (1 + 1e-13), -vt

    monkeypatch.setattr(NumpyLapack, "svd", slightly_off)
    known_answer()
