"""Jobs side by side, their results as they come: what a reading of many requests runs on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import aclosing
from typing import Any, TypeVar

T = TypeVar("T")

REQUESTS = 20
"""Requests of one reading under way at once. Two a second leave the usual bucket, and a batch may take ten seconds."""


async def side_by_side(
    next_job: Callable[[int], Coroutine[Any, Any, T] | None], *, at_once: int = REQUESTS
) -> AsyncGenerator[T]:
    """Results of the jobs in the order of their ends. `next_job(under way)` gives the next one, None for none now.

    It is asked again after every result, and when it gives none while none is under way, all is done. The first error of
    a job is raised. However this ends, no job stays behind.
    """
    running: set[asyncio.Task[T]] = set()
    try:
        while True:
            while len(running) < at_once and (job := next_job(len(running))) is not None:
                running.add(asyncio.create_task(job))
            if not running:
                return
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            running -= done
            while done:
                # No name may keep a result alive while the next one is awaited.
                yield done.pop().result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def all_of(jobs: Iterable[Coroutine[Any, Any, None]], *, at_once: int = REQUESTS) -> None:
    """Run `jobs` side by side; the first error is raised, and the jobs that are left end with it."""
    rest = iter(jobs)
    async with aclosing(side_by_side(lambda _: next(rest, None), at_once=at_once)) as done:
        async for _ in done:
            pass


class Room:
    """Places for decoded answers: as many as are taken may lie in memory at once, the rest waits in the sockets."""

    def __init__(self, places: int) -> None:
        self._places = asyncio.Semaphore(places)

    def place(self) -> Place:
        """A place that is not taken yet."""
        return Place(self._places)


class Place:
    """One answer's place; `take` may be awaited again after a retry."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places = places
        self._taken = False

    async def take(self) -> None:
        """Wait for the place."""
        if not self._taken:
            await self._places.acquire()
            self._taken = True

    def free(self) -> None:
        """Give it back."""
        if self._taken:
            self._places.release()
            self._taken = False
