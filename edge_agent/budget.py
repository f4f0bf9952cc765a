"""How many bytes each link has carried in the present period, kept across restarts.

The file is written seldom, as flash wears out: a crash forgets at most SAVE_BYTES.

Periods follow the device's clock, which may jump. The time used here is the latest ever seen, plus
what has passed since: it never goes back. So a clock that was ahead for a while gives one period
too many, once; and when it is put right, periods go on at the pace of the running time, so that
nothing is blocked for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge_agent import files
from shared.errors import NoSpace

#: A crash forgets at most so many bytes.
SAVE_BYTES = 1 << 18
#: Not worth a write of their own, unless they have waited for SAVE_SECONDS.
SMALL_BYTES, SAVE_SECONDS = 1 << 12, 3600.0
_log = logging.getLogger(__name__)


class _Spent(BaseModel):
    model_config = ConfigDict(extra="forbid")

    start: float = Field(ge=0, allow_inf_nan=False)
    used: int = Field(ge=0)


class _Persisted(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    seen: float = Field(default=0, ge=0, allow_inf_nan=False)
    links: dict[str, _Spent] = Field(default_factory=dict)


class Budgets:
    """The account at `path`. `now` tells Unix time, `clock` seconds that only go forward."""

    def __init__(self, path: Path, clock: Callable[[], float], now: Callable[[], float]) -> None:
        self._path, self._clock, self._now = path, clock, now
        self._state = _load(path)
        self._seen_at, self._saved = clock(), self._state.seen
        self._unsaved = 0

    def used(self, link: str, seconds: float) -> tuple[int, float]:
        """Bytes that the link has carried in this period of `seconds`, and what is left of that."""
        spent = self._spent(link, seconds)
        return spent.used, spent.start + seconds - self._state.seen

    def spend(self, link: str, seconds: float, nbytes: int) -> None:
        """Take note of bytes that the link has carried."""
        self._spent(link, seconds).used += nbytes
        self._unsaved += nbytes
        if self._unsaved >= SAVE_BYTES or self._state.seen - self._saved >= SAVE_SECONDS:
            self._persist()

    def persist(self) -> None:
        """Write what is worth it: for the end of a download."""
        if self._unsaved >= SMALL_BYTES:
            self._persist()

    def _spent(self, link: str, seconds: float) -> _Spent:
        """The account of the present period, which is aligned to multiples of its length."""
        elapsed = self._clock()
        self._state.seen = max(self._now(), self._state.seen + elapsed - self._seen_at)
        self._seen_at = elapsed
        start = self._state.seen - self._state.seen % seconds
        spent = self._state.links.get(link)
        if spent is None or self._state.seen >= spent.start + seconds:
            spent = self._state.links[link] = _Spent(start=start, used=0)
        return spent

    def _persist(self) -> None:
        try:
            files.write(self._path, self._state.model_dump_json().encode())
        except NoSpace as error:  # a device must be able to say that its disk is full
            _log.warning("what was downloaded is not noted: %s", error)
        self._unsaved, self._saved = 0, self._state.seen


def _load(path: Path) -> _Persisted:
    try:
        return _Persisted.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return _Persisted()
    except (OSError, ValidationError) as error:
        _log.warning("%s cannot be read; budgets begin anew: %s", path, type(error).__name__)
        return _Persisted()
