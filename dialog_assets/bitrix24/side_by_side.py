"""Jobs side by side, their results as they come: what a reading of many requests runs on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

T = TypeVar("T")

Gate = Callable[[], Awaitable[object]]
"""Awaited when an answer's head is there and before its body is read."""

Job = Callable[[Gate], Coroutine[Any, Any, T]]
"""What makes a request and waits at its gate."""

REQUESTS = 20
"""Requests of one reading under way at once. Two a second leave the usual bucket, and a batch may take ten seconds."""

_DECODED = 2
"""Answers of up to 2,500 rows (8 MB as Python objects) in memory at once."""


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


async def streamed(next_job: Callable[[int], Job[T] | None], *, at_once: int = REQUESTS) -> AsyncGenerator[T]:
    """`side_by_side` for answers that are large: at most two of them lie decoded in memory, the rest waits in the sockets.

    A job awaits its gate, as often as it likes, before it reads an answer's body. Asking for the next result frees the place
    of the last one, so by then nothing may hold it any more.
    """
    places = asyncio.Semaphore(_DECODED)

    def in_place(running: int) -> Coroutine[Any, Any, tuple[T, _Place]] | None:
        job = next_job(running)
        return None if job is None else _done(job, _Place(places))

    async with aclosing(side_by_side(in_place, at_once=at_once)) as results:
        async for result, place in results:
            yield result
            del result
            place.free()


async def _done(job: Job[T], place: _Place) -> tuple[T, _Place]:
    return await job(place.take), place


class _Place:
    """One answer's place among those that may be decoded at once."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places = places
        self._taken = False

    async def take(self) -> None:
        """Wait for the place; again, after a retry, is no wait."""
        if not self._taken:
            await self._places.acquire()
            self._taken = True

    def free(self) -> None:
        if self._taken:
            self._places.release()
            self._taken = False
