"""What a request costs in simulated time: a debt that its commands run up and sleeping pays off.

Sleeping is never shorter than asked and often a millisecond longer; paid as one debt, fifty commands of 4 ms take
200 ms and not 250. The time that the stand-in itself needs for a command is part of the command's cost, not added.
"""

from __future__ import annotations

import asyncio
import time

_WORTH_SLEEPING = 0.0015


class Pace:
    """The debt of one request; it begins now."""

    def __init__(self) -> None:
        self._due = time.perf_counter()

    async def spend(self, seconds: float) -> None:
        """Take the time of one command, or let the next one take it too if it is too short to sleep."""
        self._due += seconds
        left = self._due - time.perf_counter()
        if left >= _WORTH_SLEEPING:
            await asyncio.sleep(left)
        else:
            await asyncio.sleep(0)

    async def settle(self) -> None:
        """Take what is left."""
        left = self._due - time.perf_counter()
        if left > 0:
            await asyncio.sleep(left)
