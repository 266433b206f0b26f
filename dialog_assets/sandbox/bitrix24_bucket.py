"""The leaky bucket of a portal (facts/bitrix24.md 2.1). Not here: what is answered when it is full."""

from __future__ import annotations

import time
from collections.abc import Callable


class Bucket:
    """Rises by one with each request that arrives, refused ones included, and drains steadily.

    `size` requests fit at once, `drain_per_second` leave in a second; `timer` gives seconds.
    """

    def __init__(self, size: float, drain_per_second: float, timer: Callable[[], float] = time.monotonic) -> None:
        self.size = size
        self.drain_per_second = drain_per_second
        self._timer = timer
        self._level = 0.0
        self._at = timer()

    def admit(self) -> bool:
        """Count one arrival; False if the level is above the size with it."""
        now = self._timer()
        self._level = max(0.0, self._level - (now - self._at) * self.drain_per_second) + 1
        self._at = now
        return self._level <= self.size
