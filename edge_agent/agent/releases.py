"""What is released of one model: asked for before an update, and looked after when it grows old."""

from __future__ import annotations

import logging
import math
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from edge_agent.api import Backoff
from edge_agent.errors import ServerAway, TrustError
from edge_agent.trust.released import Released
from edge_agent.trust.store import Store, at_least
from shared.errors import BadMetadata, Unreachable, WeftError

if TYPE_CHECKING:
    from edge_agent.agent.model import Device

#: Pauses between two looks at whether metadata that have expired are renewed by now.
FIRST_LOOK_SECONDS, LONGEST_LOOK_SECONDS = 3600.0, 86400.0
#: What a file that is damaged on the disk may lead to: then all are asked for, once.
_MAY_BE_DAMAGE = frozenset(
    {"metadata.malformed", "trust.bad_metadata", "trust.incomplete", "trust.unsigned"}
)
_log = logging.getLogger(__name__)


class Releases:
    """Signed metadata of one model. Raises TrustError, BadMetadata, NoSpace, ServerAway."""

    def __init__(self, model: str, device: Device) -> None:
        self.model, self._device = model, device
        self._store = Store.of(device.config.state_dir, model)
        self._store.prepare()
        self._expires_at = self._store.expires_at()
        self._looks = Backoff(FIRST_LOOK_SECONDS, LONGEST_LOOK_SECONDS)
        self._next_look = -math.inf

    def fetch(self) -> Released:
        """What is released now, by one request; what is held need not come again."""
        held = self._store.versions()
        try:
            return self._ask(held)
        except (TrustError, BadMetadata) as error:
            if not held or error.code not in _MAY_BE_DAMAGE:
                raise
            _log.warning("%s: %s; all metadata are asked for", self.model, error)
            return self._ask({})

    def brought(self, answer: bytes) -> Released:
        """What is released by metadata that came with a bundle, or by newer ones held here."""
        try:
            return self._verified(answer)
        except TrustError as error:
            if error.code != "trust.older_metadata":
                raise
            _log.info("%s: the metadata held here are newer than those brought", self.model)
            return self._verified(None)

    def known(self) -> Released | None:
        """What was released when that was last heard of; None where it never was."""
        try:
            return self._verified(None, now=0.0)
        except TrustError as error:
            _log.warning("%s: it is not known what is released: %s", self.model, error)
            return None

    def look_after(self) -> None:
        """Fetch what has expired: if it stays so, somebody may withhold what is newer.

        Seldom; and nothing that is installed depends on it.
        """
        if not self.have_expired or self._device.clock.now() < self._next_look:
            return
        self._next_look = self._device.clock.now() + self._looks.next()
        try:
            self.fetch()
            self._looks.reset()
            _log.info("%s: the metadata are renewed", self.model)
        except WeftError as error:
            _log.error("%s: the metadata have expired at %s: %s", self.model, self._since, error)

    @property
    def have_expired(self) -> bool:
        """Whether no new weights can be installed by what is held; not if nothing is held yet."""
        return self._expires_at is not None and self._expires_at <= self._now()

    @property
    def _since(self) -> str:
        at = datetime.fromtimestamp(self._expires_at or 0.0, timezone.utc)
        return at.isoformat(timespec="seconds").replace("+00:00", "Z")

    def _ask(self, held: dict[str, int]) -> Released:
        try:
            answer = self._device.api.metadata(self.model, held)
        except Unreachable as error:
            if error.code != "server.bad_answer" or isinstance(error, ServerAway):
                raise
            raise BadMetadata("malformed", error.message) from error
        return self._verified(answer)

    def _verified(self, answer: bytes | None, now: float | None = None) -> Released:
        when = self._now() if now is None else now
        state_dir, pin = self._device.config.state_dir, self._device.pin
        try:
            return self._device.heavy.verify_metadata(state_dir, self.model, answer, pin, when)
        finally:
            self._expires_at = self._store.expires_at()

    def _now(self) -> float:
        return at_least(self._device.clock.local().timestamp())
