"""Operating time of a portal: counted by credential and method in ten buckets, limited (facts/bitrix24.md 2.2).

Here: counting, when counted time leaves, when a method is blocked. Not here: what took how long, and what is answered.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from dialog_assets.sandbox.bitrix24_habits import Habits

_BUCKETS = 10

Key = tuple[str, str]
"""Credential and method."""


@dataclass
class _Bucket:
    slot: int
    leaves_at: float
    seconds: float


@dataclass(frozen=True)
class Level:
    """What `time` tells of a method: seconds counted, and when (unix) the oldest bucket's part leaves."""

    operating: float
    reset_at: float


class Operating:
    """The counters of one portal; `timer` gives unix seconds. Limits are read from the habits each time."""

    def __init__(self, habits: Callable[[], Habits], timer: Callable[[], float] = time.time) -> None:
        self._habits = habits
        self._timer = timer
        self._counted: dict[Key, deque[_Bucket]] = {}

    def blocked(self, key: Key) -> bool:
        """Whether the next call of this method with this credential is refused."""
        habits = self._habits()
        return habits.limiter and self.level(key).operating >= habits.operating_limit

    def add(self, key: Key, seconds: float) -> None:
        """Count a call that took `seconds`; the shortest are not counted."""
        habits = self._habits()
        scaled = seconds * habits.operating_scale
        if scaled > habits.operating_small:
            now = self._timer()
            self._put(key, int(now / (habits.operating_window / _BUCKETS)), now + habits.operating_window, scaled)

    def exhaust(self, key: Key, reset_in: float) -> None:
        """Count what is missing to the limit, to leave in `reset_in` seconds."""
        habits = self._habits()
        self._put(key, -1, self._timer() + reset_in, habits.operating_limit)

    def level(self, key: Key) -> Level:
        """The counter now; an empty one would leave after a whole window."""
        now = self._timer()
        buckets = self._counted.get(key)
        while buckets and buckets[0].leaves_at <= now:
            buckets.popleft()
        if not buckets:
            return Level(0, now + self._habits().operating_window)
        return Level(sum(bucket.seconds for bucket in buckets), buckets[0].leaves_at)

    def reset(self) -> None:
        """Forget everything."""
        self._counted.clear()

    def _put(self, key: Key, slot: int, leaves_at: float, seconds: float) -> None:
        buckets = self._counted.setdefault(key, deque())
        for bucket in buckets:
            if bucket.slot == slot and bucket.leaves_at > self._timer():
                bucket.seconds += seconds
                return
        place = next((n for n, bucket in enumerate(buckets) if bucket.leaves_at > leaves_at), len(buckets))
        buckets.insert(place, _Bucket(slot, leaves_at, seconds))
