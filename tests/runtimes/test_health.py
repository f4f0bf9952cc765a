"""Commands that judge: bounded in time, in what they say, and in what they leave behind."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import pytest

from edge_agent import health
from edge_agent.config import ModelConfig
from edge_agent.errors import HealthError

PAUSE = "import signal; signal.pause()"


def judge(code: str, seconds: float = 20.0, beats: list[None] | None = None) -> str:
    config = ModelConfig(
        health_command=[sys.executable, "-c", code], health_timeout_seconds=seconds
    )
    noted = [] if beats is None else beats
    return health.check("digits", config, Path("/w"), "00", lambda: noted.append(None))


def is_running(pid: int) -> bool:
    """Whether it lives; one that is dead and not yet waited for by init does not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def wait_for_end(pid: int) -> None:
    descriptor = os.pidfd_open(pid)
    try:
        import select

        assert select.select([descriptor], [], [], 20)[0], "it still lives"
    finally:
        os.close(descriptor)


def test_exit_status_0_accepts() -> None:
    assert judge("print('fine')") == "passed"


def test_another_exit_status_does_not_and_the_words_are_kept() -> None:
    with pytest.raises(HealthError, match="ended with 3: the lamp is dark") as raised:
        judge("import sys; print('the lamp is dark'); sys.exit(3)")
    assert raised.value.code == "health.failed"


def test_a_command_that_cannot_be_started_is_named(tmp_path: Path) -> None:
    config = ModelConfig(health_command=[str(tmp_path / "none")])
    with pytest.raises(HealthError, match="none") as raised:
        health.check("digits", config, Path("/w"), "00")
    assert raised.value.code == "health.not_started"


def test_it_learns_what_to_judge() -> None:
    code = "import os; assert [os.environ['WEFT_' + n] for n in ('MODEL', 'WEIGHTS', 'DIGEST')]"
    assert judge(f"{code} == ['digits', '/w', '00']") == "passed"


def test_signs_of_life_are_given_while_it_works() -> None:
    beats: list[None] = []
    with pytest.raises(HealthError) as raised:
        judge(PAUSE, 1.2, beats)
    assert raised.value.code == "health.timed_out"
    assert len(beats) >= 2


def test_of_endless_words_only_the_end_is_held_in_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(HealthError) as raised:
        judge("for _ in range(3000): print('x' * 100_000)\nprint('the end'); raise SystemExit(1)")
    assert raised.value.message.endswith("the end")
    assert len(raised.value.message) < 2100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # of 300,000 kB


@pytest.mark.parametrize("ending", [PAUSE, "raise SystemExit(1)"])
def test_what_the_command_has_started_ends_with_it(ending: str, tmp_path: Path) -> None:
    """Also where the command itself has ended, and its child holds the pipe open."""
    noted = tmp_path / "pid"
    code = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {PAUSE!r}])\n"
        f"open({str(noted)!r}, 'w').write(str(child.pid))\n"
        f"{ending}"
    )
    with pytest.raises(HealthError):
        judge(code, 3.0 if ending == PAUSE else 20.0)
    pid = int(noted.read_text())
    if is_running(pid):
        wait_for_end(pid)


def test_one_that_closes_its_output_is_waited_for() -> None:
    assert judge("import os, time; os.close(1); os.close(2); time.sleep(0.3)") == "passed"
