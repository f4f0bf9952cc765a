"""Token buckets: how often somebody may ask, in bounded memory and about a microsecond.

A bucket is one number a key: the moment at which it would be full again (the "generic cell rate
algorithm", ITU-T I.371). A key that has been quiet for the length of a burst has a full bucket, so
it can be forgotten: keys live in two generations, and the older one is dropped as a whole.
"""

from __future__ import annotations

from collections.abc import Hashable

#: Most keys of one generation. Beyond, the oldest are forgotten early, which forgives them.
MAX_KEYS = 200_000


class Buckets:
    """One bucket a key: `rate` requests a second, and `burst` seconds' worth of them at once."""

    def __init__(self, rate: float, burst: float, max_keys: int = MAX_KEYS) -> None:
        self._cost = 1.0 / rate if rate else 0.0
        self._burst = max(burst, self._cost)
        self._max_keys = max_keys
        self._young: dict[Hashable, float] = {}
        self._old: dict[Hashable, float] = {}
        self._turned_at = 0.0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def wait(self, key: Hashable, at: float) -> float:
        """Take one request from the bucket of `key`: 0.0, or the seconds until there is one.

        `at` is a monotonic clock, in seconds.
        """
        if not self._cost:
            return 0.0
        if at - self._turned_at > self._burst or len(self._young) >= self._max_keys:
            self._turn(at)
        full_at = max(self._young.get(key) or self._old.get(key, 0.0), at) + self._cost
        wait = full_at - at - self._burst
        if wait > 1e-9:
            return wait
        self._young[key] = full_at
        return 0.0

    def _turn(self, at: float) -> None:
        """Forget the old generation; after two bursts' time nothing in either counts any more."""
        self._old = self._young if at - self._turned_at <= 2 * self._burst else {}
        self._young = {}
        self._turned_at = at
