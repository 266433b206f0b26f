"""How fast requests may leave: the portal's leaky bucket, kept on our side (facts/bitrix24.md 2.1).

Here: the `Pacer` protocol and the bucket of one process. A pacer that several processes share keeps the protocol.
Not here: what to do after a refusal (retries.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

JITTER_S = 0.75
"""The longest delay between our count and the portal's that the margin covers, seconds.

Delays matter only where they keep an empty bucket empty, as at the start of a burst: while the portal's bucket drains, a
late request finds it lower than we count it.
"""


def room(size: float, drain_per_second: float) -> float:
    """The level that our own count may reach in a bucket of `size`: what any pacer, of one process or of many, keeps free.

    Requests may bunch up on the way: what we sent in T seconds can arrive in T - JITTER_S, and the portal then sees up to
    `drain_per_second * JITTER_S` more than we count. So that many places (at least one) stay free.
    """
    if size < 1 or drain_per_second <= 0:
        raise ValueError("a bucket needs a size of at least 1 and a drain above 0")
    return max(1.0, size - max(1.0, drain_per_second * JITTER_S))


class Pacer(Protocol):
    """Lets one request leave."""

    async def take(self) -> None:
        """Return when one request may be sent, which must then happen at once."""


class LeakyBucket:
    """The portal's bucket modelled at the sender: `take` returns when one more request fits.

    Each request adds 1 and `drain_per_second` leave; the portal refuses what would lift the level above `size`. A request
    is counted when it leaves, under a lock, so that simultaneous senders cannot share one free place.
    """

    def __init__(
        self,
        size: int,
        drain_per_second: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._room = room(size, drain_per_second)
        self._drain = drain_per_second
        self._clock = clock
        self._sleep = sleep
        self._lock = asyncio.Lock()
        self._level = 0.0
        self._seen_at = clock()

    async def take(self) -> None:
        """Wait for a free place and occupy it; first come, first served."""
        async with self._lock:
            while (wait := self._wait()) > 0:
                await self._sleep(wait)
            self._level += 1

    def _wait(self) -> float:
        now = self._clock()
        self._level = max(0.0, self._level - (now - self._seen_at) * self._drain)
        self._seen_at = now
        missing = self._level + 1 - self._room
        # Rounding can leave a rest so small that no clock moves by it.
        return missing / self._drain if missing > 1e-6 else 0.0
