"""Whether new weights do their job, asked of a program that the operator names.

The command is started without a shell; WEFT_MODEL, WEFT_WEIGHTS (path) and WEFT_DIGEST tell it
what to judge. Exit status 0 accepts. A device without a command says `unverified`.
"""

from __future__ import annotations

import logging
import os
import subprocess
from pathlib import Path

from edge_agent.config import PREFIX, ModelConfig
from edge_agent.errors import HealthError
from shared.wire import Health

_OUTPUT_BYTES = 2000
_log = logging.getLogger(__name__)


def check(model: str, config: ModelConfig, weights: Path, digest: str) -> Health:
    """`passed` or `unverified`; raises HealthError where the weights are not accepted."""
    if config.health_command is None:
        return "unverified"
    told = {"WEFT_MODEL": model, "WEFT_WEIGHTS": str(weights), "WEFT_DIGEST": digest}
    # The agent's own settings stay its own: the enrolment token may be among them.
    given = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    try:
        done = subprocess.run(  # noqa: S603 - the operator's own command, without a shell
            config.health_command,
            env=given | told,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=config.health_timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        limit = config.health_timeout_seconds
        raise HealthError("timed_out", f"no answer from the check in {limit:g} s") from error
    except OSError as error:
        raise HealthError("not_started", f"{config.health_command[0]}: {error.strerror}") from error
    said = done.stdout[-_OUTPUT_BYTES:].decode(errors="replace").strip()
    if done.returncode:
        ended = f"the check ended with {done.returncode}"
        message = f"{ended}: {said}" if said else f"{ended} and said nothing"
        raise HealthError("failed", message[:_OUTPUT_BYTES])
    _log.info("%s: the health check passed: %s", model, said)
    return "passed"
