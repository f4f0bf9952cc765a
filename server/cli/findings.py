"""What `weft doctor` finds around a server: settings, secrets, disk, Python, the server itself."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Any, Literal

import httpx
from pydantic import SecretStr

from server.errors import DatabaseError
from server.jobs.settings import load_job_settings
from server.lock import only_process
from server.settings import GIB, Settings, is_placeholder
from server.storage.spool import RESERVE_BYTES
from server.tables import now
from shared.errors import WeftError

State = Literal["ok", "warn", "fail"]

#: Free space below which an upload of a large model soon fails.
LOW_BYTES = GIB
SHORT_SECRET = 16
IMPORT_SECONDS = 120
ANSWER_SECONDS = 5
CLOCK_SKEW = timedelta(seconds=30)


@dataclass(frozen=True)
class Finding:
    """One check: what was found, and what to do where it is not `ok`."""

    check: str
    state: State
    found: str
    todo: str | None = None

    def record(self) -> dict[str, Any]:
        """As it is shown."""
        return asdict(self)


def of_error(check: str, error: WeftError) -> Finding:
    """What an error of ours says."""
    return Finding(check, "fail", f"{error.message} [{error.code}]", error.todo)


def surroundings(settings: Settings) -> Iterator[Finding]:
    """The checks that need neither database nor blobs."""
    yield from _secrets(settings)
    yield from _data_folder(settings)
    yield _refinement()
    yield _server(settings)


def _secrets(settings: Settings) -> Iterator[Finding]:
    if settings.require_keys:
        yield _declared(settings.admin_key, "admin key", "weft access")
    else:
        found = "no keys are asked for: whoever is on this machine may use /api/v1"
        yield Finding("admin key", "warn", found, "Unset WEFT_REQUIRE_KEYS.")
    yield _declared(settings.enrolment_token, "enrolment token", "weft tokens")


def _declared(secret: SecretStr | None, check: str, others: str) -> Finding:
    """A secret of the settings; `others`: the command by which there are more of its kind."""
    if secret is None:
        return Finding(check, "ok", f"none is declared: they are made by `{others}`")
    text = secret.get_secret_value()
    choose = "Choose a long random one: `openssl rand -hex 24`."
    if is_placeholder(text):
        return Finding(check, "fail", "it is a placeholder", choose)
    if len(text) < SHORT_SECRET:
        return Finding(check, "warn", f"it has {len(text)} characters only", choose)
    return Finding(check, "ok", "set")


def _data_folder(settings: Settings) -> Iterator[Finding]:
    folder, check = settings.data_dir, "data folder"
    if not folder.is_dir():
        yield Finding(check, "warn", f"{folder} is not there yet", "It is made at the start.")
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        yield Finding(check, "fail", f"{folder} cannot be written to", "Give it to this user.")
    elif folder.stat().st_mode & 0o007:
        text = f"{folder} is open to every user, with its tokens' hashes and weights"
        yield Finding(check, "warn", text, f"chmod o-rwx {folder}")
    else:
        yield Finding(check, "ok", str(folder))
    free = shutil.disk_usage(folder).free
    state: State = "fail" if free < RESERVE_BYTES else "warn" if free < LOW_BYTES else "ok"
    todo = None if state == "ok" else "Free some space, or let retention remove more."
    yield Finding("disk", state, f"{free / GIB:.1f} GiB free", todo)


def _refinement() -> Finding:
    """Whether a refinement's process could start here: by starting one that imports torch."""
    check = "refinement"
    try:
        at_once = load_job_settings().at_once
    except WeftError as error:
        return of_error(check, error)
    if not at_once:
        return Finding(check, "ok", "WEFT_JOBS_AT_ONCE=0: workers on other machines do it")
    if importlib.util.find_spec("torch") is None:
        return Finding(check, "fail", "torch is not installed", "Install weft[server].")
    try:
        command = [sys.executable, "-c", "import torch; print(torch.__version__)"]
        done = subprocess.run(  # noqa: S603 - our own interpreter
            command, capture_output=True, text=True, timeout=IMPORT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        text = f"torch is not imported within {IMPORT_SECONDS} s"
        return Finding(check, "fail", text, "Look at the load of this machine.")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        return Finding(check, "fail", f"torch: {last}", "Install weft[server] again.")
    python = ".".join(map(str, sys.version_info[:3]))
    return Finding(check, "ok", f"Python {python}, torch {done.stdout.strip()}")


def _server(settings: Settings) -> Finding:
    """Whether it answers at its address, and whether it is of this version."""
    check, url = "server", _url(settings)
    try:
        answer = httpx.get(f"{url}/healthz", timeout=ANSWER_SECONDS, trust_env=False)
        found = answer.raise_for_status().json()["version"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        if settings.is_sqlite and _is_locked(settings):
            text = f"it runs, and does not answer at {url}: {error or type(error).__name__}"
            return Finding(check, "fail", text, "Look at its log; is WEFT_PORT the same here?")
        return Finding(check, "ok", f"none answers at {url}")
    date = answer.headers.get("date")
    skew = abs(now() - parsedate_to_datetime(date)) if date else timedelta(0)
    if skew > CLOCK_SKEW:
        text = f"its clock and this one are {skew.total_seconds():.0f} s apart"
        return Finding(check, "warn", text, "Let both keep time by NTP.")
    if found != version("weft"):
        text = f"{url} runs Weft {found}, this is {version('weft')}"
        return Finding(check, "warn", text, "Start the server again with this version.")
    return Finding(check, "ok", f"{url} runs Weft {found}")


def _url(settings: Settings) -> str:
    here = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - not listened on
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{here.get(settings.host, host)}:{settings.port}"


def _is_locked(settings: Settings) -> bool:
    if not settings.data_dir.is_dir():
        return False
    try:
        with only_process(settings.data_dir):
            return False
    except DatabaseError:
        return True
