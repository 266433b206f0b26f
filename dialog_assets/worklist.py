"""The engine of every step (rules 1, 3, 4): take what lacks this step's result, work on it concurrently, commit as it comes.

Here: bounded concurrency, per-item outcomes, the breaker, the order in which days become complete, progress lines.
Not here: which items there are (store.call_steps), and what is done with one (the step's handler).
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Generic, TypeVar

import psycopg

from dialog_assets.errors import DialogAssetsError, first_of
from dialog_assets.interruption import on_interruption
from dialog_assets.store import call_steps, ledger
from dialog_assets.store.errors import LockLost
from dialog_assets.store.pool import Connection, Patience, Pool

log = logging.getLogger("dialog_assets")

PROGRESS_EVERY_S = 10.0
BREAKER_LIMIT = 10
GRACE_S = 60.0
INTERRUPTION_GRACE_S = 8.0
"""How long what is in flight may take to end when the run is asked to: docker and Kubernetes kill after 10 s and 30 s."""


class StepStopped(DialogAssetsError):
    """One broken key stops the day: a refused credential, an empty balance, or too many failures in a row."""


class StepInterrupted(StepStopped):
    """Somebody ends the run."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item.

    `save` writes the result; it runs in the transaction that records the state. `output_key` identifies the result for
    the step after this one. A failed item without `next_try` is not tried again before its input changes. `paid` are the
    ledger rows that this outcome closes. `outage`: the service failed rather than the item; such failures trip the breaker.
    """

    state: call_steps.State
    output_key: str | None = None
    reason: str | None = None
    detail: str | None = None
    next_try: datetime | None = None
    save: Callable[[Connection], Awaitable[None]] | None = None
    paid: tuple[str, ...] = ()
    outage: bool = False


@dataclass(frozen=True)
class Item:
    """One piece of work: what it is about, the calls whose state it decides, the key it starts from, the rules it is done by."""

    name: str
    calls: tuple[int, ...]
    day: date | None
    input_key: str | None
    rules: tuple[str, ...] | None = field(default=None, kw_only=True)


I = TypeVar("I", bound=Item)  # noqa: E741 - the usual name of an item's type


@dataclass
class Work(Generic[I]):
    """One step over a window of days.

    `items` come in order of day (items without a day may come at any time); `handle` never raises for what is the
    item's own fault: it returns an Outcome. It raises StepStopped for what would befall every other item too.
    `day_done` is called for each of `days`, in order, once no item of that day is left while later days are still being
    worked on; when `run` returns, all days are done.
    """

    pool: Pool
    portal: str
    step: str
    days: Sequence[date]
    items: AsyncIterator[I]
    handle: Callable[[I], Awaitable[Outcome]]
    concurrency: int
    day_done: Callable[[date], Awaitable[None]]
    breaker_limit: int = BREAKER_LIMIT
    grace_s: float = GRACE_S
    interruption_grace_s: float = INTERRUPTION_GRACE_S

    _left: Counter[date] = field(default_factory=Counter, init=False)
    _fed_to: date = field(default=date.min, init=False)
    _told: int = field(default=0, init=False)
    _telling: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _states: Counter[str] = field(default_factory=Counter, init=False)
    _outages: int = field(default=0, init=False)
    _stop: StepStopped | None = field(default=None, init=False)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set, init=False)
    _last_line: float = field(default_factory=time.monotonic, init=False)

    async def run(self) -> Counter[str]:
        """Work until the list is empty; returns how many items ended in which state.

        Raises StepStopped: then nothing new is begun, and what is in flight, perhaps paid for, may end within
        `grace_s`, or `interruption_grace_s` when the run is asked to end (StepInterrupted). On any other error the items in
        flight are cancelled; what they had committed stays.
        """
        with on_interruption(self._interrupt):
            return await self._work()

    async def _work(self) -> Counter[str]:
        slots = asyncio.Semaphore(self.concurrency)
        try:
            async with asyncio.TaskGroup() as group:
                async for item in self.items:
                    await slots.acquire()
                    if self._stop is not None:
                        break
                    if item.day is not None:
                        self._left[item.day] += 1
                        self._fed_to = item.day
                    task = group.create_task(self._one(item, slots))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
        except BaseExceptionGroup as errors:
            error = self._stop or first_of(errors)
            raise error from error.__cause__
        if self._stop is not None:
            await self._tell_days()
            raise self._stop
        return self._states

    async def _one(self, item: I, slots: asyncio.Semaphore) -> None:
        try:
            outcome = await self._outcome(item)
            try:
                await self._commit(item, outcome)
            except (psycopg.DataError, psycopg.IntegrityError, UnicodeError) as error:
                # A NUL or half an emoji in an answer: it would stop this day every night, and the others can be stored.
                outcome = Outcome("failed", reason="unstorable_result", detail=type(error).__name__, paid=outcome.paid)
                await self._commit(item, outcome)
            self._note(item, outcome)
        except StepStopped as stop:
            self._begin_to_stop(stop)
            return
        finally:
            slots.release()
        if item.day is not None:
            self._left[item.day] -= 1
            await self._tell_days()

    def _begin_to_stop(self, stop: StepStopped) -> None:
        """Feed no more; the items in flight end by themselves, or are cancelled after the grace."""
        if self._stop is None:
            self._stop = stop
            asyncio.get_running_loop().call_later(self.grace_s, self._cancel_all)

    def _interrupt(self) -> None:
        """The run is asked to end: as if the step stopped, with less time; also if it is stopping already."""
        self._stop = self._stop or StepInterrupted(
            f"{self.portal}/{self.step}: the run was ended; run it again to go on."
        )
        log.info(
            "%s/%s: the run is asked to end: %d items in flight have up to %g s to do so",
            self.portal,
            self.step,
            len(self._tasks),
            self.interruption_grace_s,
        )
        asyncio.get_running_loop().call_later(self.interruption_grace_s, self._cancel_all)

    def _cancel_all(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _commit(self, item: I, outcome: Outcome) -> None:
        async def write(connection: Connection) -> None:
            if outcome.save is not None:
                await outcome.save(connection)
            if outcome.paid:
                failed = outcome.state == "failed"
                if not (failed and outcome.next_try):
                    await ledger.close_unused(connection, self.portal, outcome.paid)
                await ledger.settle(connection, self.portal, outcome.paid, failure=outcome.reason if failed else None)
            await call_steps.record(
                connection,
                self.portal,
                item.calls,
                self.step,
                outcome.state,
                reason=outcome.reason,
                detail=outcome.detail,
                input_key=item.input_key,
                output_key=outcome.output_key,
                next_try=outcome.next_try,
                rules=item.rules,
            )

        await self.pool.transact(write)

    async def _outcome(self, item: I) -> Outcome:
        patience = Patience()
        try:
            while True:
                try:
                    return await self.handle(item)
                except psycopg.Error as error:
                    # What was paid for so far is in the ledger: the item goes on from there.
                    await patience.wait(error)
        except (StepStopped, LockLost, psycopg.Error):
            raise
        except Exception as error:  # noqa: BLE001 - one bad call never stops a day, not even by a fault of ours
            # The error's own text may hold people's data, so only its type and place are kept.
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
            return Outcome("failed", reason="internal_error", detail=place, next_try=datetime.now(UTC))

    def _note(self, item: I, outcome: Outcome) -> None:
        """Count, tell, and raise StepStopped where a breaker opens."""
        self._states[outcome.state] += 1
        self._outages = self._outages + 1 if outcome.outage else 0
        reason = outcome.reason if outcome.state == "failed" else None
        if reason is not None:
            log.warning("%s/%s: %s failed: %s (%s)", self.portal, self.step, item.name, reason, outcome.detail)
        if self._outages >= self.breaker_limit:
            raise StepStopped(
                f"{self.portal}/{self.step}: {self._outages} items in a row failed, the last with {reason} "
                f"({outcome.detail}); the step stops, run it again when the service is well."
            )
        if time.monotonic() - self._last_line >= PROGRESS_EVERY_S:
            self._last_line = time.monotonic()
            counts = ", ".join(f"{number} {state}" for state, number in sorted(self._states.items()))
            log.info("%s/%s: %s; at %s", self.portal, self.step, counts, item.name)

    async def _tell_days(self) -> None:
        """Report the days that are complete: fed to the end and with nothing in flight."""
        async with self._telling:
            while self._told < len(self.days):
                day = self.days[self._told]
                if day >= self._fed_to or self._left[day]:
                    return
                self._told += 1
                await self.day_done(day)
