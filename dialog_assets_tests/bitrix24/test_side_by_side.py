"""Jobs side by side: few large answers in memory at once, however many are under way."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from functools import partial

import pytest

from dialog_assets.bitrix24.side_by_side import Gate, Job, streamed


class Jobs:
    """Ten jobs that note how many of them are past their gates and not given back yet."""

    def __init__(self) -> None:
        self.left = list(range(10))
        self.inside = self.under_way = 0

    def next(self, _: int) -> Job[int] | None:
        """The next one."""
        return partial(self.run, self.left.pop(0)) if self.left else None

    async def run(self, number: int, gate: Gate) -> int:
        """One of them; waits at its gate twice, as after a retry."""
        self.under_way += 1
        await gate()
        await gate()
        self.inside += 1
        return number


def test_two_answers_at_once_are_past_their_gates() -> None:
    """However slow the reader is; and all come in the end."""
    jobs = Jobs()

    async def go() -> list[int]:
        found = []
        async with aclosing(streamed(jobs.next, at_once=8)) as results:
            async for number in results:
                for _ in range(50):
                    await asyncio.sleep(0)
                assert jobs.inside <= 2
                assert jobs.under_way >= 8
                found.append(number)
                jobs.inside -= 1
        return found

    assert sorted(asyncio.run(go())) == list(range(10))


def test_the_first_error_ends_all() -> None:
    """No job stays behind, not even at its gate."""

    async def fails(gate: Gate) -> int:
        await gate()
        raise ValueError("broken")

    jobs: list[Job[int]] = [fails] * 4

    async def go() -> int:
        async with aclosing(streamed(lambda _: jobs.pop() if jobs else None)) as results:
            with pytest.raises(ValueError, match="broken"):
                await anext(results)
        return len(asyncio.all_tasks())

    assert asyncio.run(go()) == 1
