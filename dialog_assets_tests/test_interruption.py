"""Ctrl-C and SIGTERM: what is in flight may end, what is not ends at once, and the signal's own handler hears it at last."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from types import FrameType

import pytest

from dialog_assets import interruption
from dialog_assets.store.pool import open_pool
from dialog_assets.worklist import Item, Outcome, Work
from dialog_assets_tests.store.rows import MONDAY, PORTAL, all_rows

STEP = "classifications"


class Ended(BaseException):
    """As Dagster's: raised by a handler wherever the main thread is."""


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def number(request: pytest.FixtureRequest) -> Iterator[int]:
    """A signal whose handler raises, as in a run of Dagster."""

    def raising(_number: int, _frame: FrameType | None) -> None:
        raise Ended

    before = signal.signal(request.param, raising)
    try:
        yield request.param
    finally:
        signal.signal(request.param, before)


def run_of(url: str, number: int, *, signals: int, takes_s: float, grace_s: float) -> list[int]:
    """A step of nine items, four at once, which is asked to end when four are in flight; the ids of those that were cut."""
    cut: list[int] = []

    async def core() -> None:
        everyone = asyncio.Barrier(4)

        async def handle(item: Item) -> Outcome:
            try:
                await everyone.wait()
                if item.calls[0] == 0:
                    for _ in range(signals):
                        signal.raise_signal(number)
                        await asyncio.sleep(0.01)
                await asyncio.sleep(takes_s)
            except asyncio.CancelledError:
                cut.append(item.calls[0])
                raise
            return Outcome("done", output_key="out")

        async def items() -> AsyncIterator[Item]:
            for one in range(9):
                yield Item(f"call {one}", (one,), MONDAY, "in")

        async def nothing(_: object) -> None: ...

        async with open_pool(url, size=4) as pool:
            await Work(pool, PORTAL, STEP, (MONDAY,), items(), handle, 4, nothing, interruption_grace_s=grace_s).run()

    with pytest.raises(Ended):
        interruption.run(core())
    return cut


def done(url: str) -> list[int]:
    async def read() -> list[int]:
        async with open_pool(url, size=1) as pool:
            return [row["call_id"] for row in await all_rows(pool, "SELECT call_id FROM call_steps ORDER BY 1")]

    return asyncio.run(read())


def test_what_is_in_flight_ends_and_nothing_is_begun(database: str, number: int) -> None:
    """All four answers are stored, no fifth is asked for, and then the run ends as it was to."""
    assert run_of(database, number, signals=1, takes_s=0.05, grace_s=30) == []
    assert done(database) == [0, 1, 2, 3]


def test_what_does_not_end_in_time_is_cut(database: str, number: int) -> None:
    """The grace is short."""
    assert sorted(run_of(database, number, signals=1, takes_s=600, grace_s=0.05)) == [0, 1, 2, 3]
    assert done(database) == []


def test_a_second_signal_does_not_wait(database: str, number: int) -> None:
    """Who presses Ctrl-C twice means it."""
    assert sorted(run_of(database, number, signals=2, takes_s=600, grace_s=600)) == [0, 1, 2, 3]
    assert done(database) == []


def test_without_work_the_run_ends_at_once(number: int) -> None:
    """A step that is still looking for its items is cancelled; its resources are closed first."""
    closed: list[bool] = []

    async def core() -> None:
        try:
            signal.raise_signal(number)
            await asyncio.sleep(600)
        finally:
            closed.append(True)

    with pytest.raises(Ended):
        interruption.run(core())
    assert closed == [True]


def test_without_a_signal_it_is_asyncio_run() -> None:
    """The value comes back, an error is raised as it is, and the handlers are those of before."""
    before = [signal.getsignal(one) for one in interruption.SIGNALS]

    async def three() -> int:
        return 3

    async def wrong() -> None:
        raise ValueError("wrong")

    assert interruption.run(three()) == 3
    with pytest.raises(ValueError, match="wrong"):
        interruption.run(wrong())
    assert [signal.getsignal(one) for one in interruption.SIGNALS] == before
