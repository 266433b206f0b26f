"""Operating time: how much of its time on the portal each method has used up, and how long the next call should wait.

Here: the counters as the answers show them, as a pure model without sleeping. Not here: the request bucket (pacing.py).
Source: facts/bitrix24.md 2.2. `operating` is a level and never summed up. An answer's own clock tells how far its reset
is, so the two machines' clocks need not agree. Batches are billed to their commands or to `batch`: both are tracked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

LIMIT_S = 480.0
"""The limit of the documentation's example, seconds in a window of ten minutes."""

SLOW_FROM = 0.8
"""Share of the limit from which calls are spread over the time that is left."""

UNKNOWN_RESET_S = 10.0
"""How long a blocked method rests when no answer has told its reset."""

_WINDOW_S = 600.0
_SENSIBLE = 1e12
"""Seconds, above any clock of a portal."""


@dataclass
class _Method:
    level: float = 0.0
    reset_at: float = 0.0
    cost: float = 0.0
    next_at: float = 0.0
    blocked_until: float = 0.0


class OperatingTime:
    """The counters of one credential. `clock` gives seconds that only grow."""

    def __init__(self, limit_s: float = LIMIT_S, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit_s
        self._clock = clock
        self._methods: dict[str, _Method] = {}

    def note(self, method: str, told: object, calls: int = 1) -> None:
        """Learn from the `time` of an answer to `calls` calls of `method`; fields may be missing (facts 1.2)."""
        if not isinstance(told, Mapping):
            return
        level, reset, now = (_number(told.get(name)) for name in ("operating", "operating_reset_at", "finish"))
        if level is None:
            return
        state = self._methods.setdefault(method, _Method())
        if level > state.level:
            state.cost = (level - state.level) / calls
        state.level = level
        if reset is not None and now is not None:
            state.reset_at = self._clock() + min(_WINDOW_S, max(0.0, reset - now))

    def refuse(self, method: str) -> None:
        """The portal blocked `method`: it rests until its last known reset."""
        now = self._clock()
        state = self._methods.setdefault(method, _Method())
        state.blocked_until = state.reset_at if state.reset_at > now else now + UNKNOWN_RESET_S

    def is_blocked(self, method: str) -> bool:
        """Whether `method` rests."""
        state = self._methods.get(method)
        return state is not None and state.blocked_until > self._clock()

    def wait_s(self, calls: Mapping[str, int]) -> float:
        """Seconds that a request with these calls by method should wait; it takes its place in the spread."""
        return max((self._wait(method, number) for method, number in calls.items()), default=0.0)

    def _wait(self, method: str, calls: int) -> float:
        state = self._methods.get(method)
        now = self._clock()
        if state is None:
            return 0.0
        if state.blocked_until > now:
            return state.blocked_until - now
        left = state.reset_at - now
        if left <= 0 or state.level < SLOW_FROM * self._limit:
            return 0.0
        # What the calls may cost, as a share of what is left of the limit, is the share of the remaining time they take.
        room = self._limit - state.level
        step = left * min(1.0, calls * state.cost / room) if room > 0 else left
        start = max(now, state.next_at)
        state.next_at = min(start + step, state.reset_at)
        return min(start + step, state.reset_at) - now


def _number(value: object) -> float | None:
    """Seconds; None for what is no number, and for one so large or odd that nothing can be computed with it."""
    small = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _SENSIBLE
    return float(value) if small else None  # type: ignore[arg-type]
