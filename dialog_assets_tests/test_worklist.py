"""The engine of every step, over a real database: concurrency, transactions, the breaker, days, memory."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from dialog_assets.store import ledger, users
from dialog_assets.store import pool as pool_module
from dialog_assets.store.pool import Connection, Pool
from dialog_assets.worklist import GRACE_S, Item, Outcome, StepStopped, Work
from dialog_assets_tests.store.rows import MONDAY, PORTAL, all_rows, call, day, one, put_calls, step, with_pool

STEP = "transcripts"
Handle = Callable[[Item], Awaitable[Outcome]]


@dataclass
class Seen:
    """What one run of the engine did, in order."""

    pulled: int = 0
    started: list[int] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    most_ahead: int = 0
    days: list[date] = field(default_factory=list)


def item(number: int, on: date | None = MONDAY) -> Item:
    return Item(name=f"call {number}", calls=(number,), day=on, input_key=f"in{number}")


async def work(
    pool: Pool,
    items: Sequence[Item],
    handle: Handle,
    *,
    concurrency: int = 3,
    days: Sequence[date] = (MONDAY,),
    breaker_limit: int = 10,
    grace_s: float = GRACE_S,
    day_done: Callable[[date], Awaitable[None]] | None = None,
    seen: Seen | None = None,
) -> Counter[str]:
    """Run the engine over `items`, writing down in `seen` what happens even if it raises."""
    log = seen or Seen()

    async def feed() -> AsyncIterator[Item]:
        for one_item in items:
            log.pulled += 1
            log.most_ahead = max(log.most_ahead, log.pulled - len(log.finished) - len(log.cancelled))
            yield one_item

    async def watched(one_item: Item) -> Outcome:
        log.started.append(one_item.calls[0])
        log.in_flight += 1
        log.most_in_flight = max(log.most_in_flight, log.in_flight)
        try:
            outcome = await handle(one_item)
        except asyncio.CancelledError:
            log.cancelled.append(one_item.calls[0])
            raise
        finally:
            log.in_flight -= 1
        log.finished.append(one_item.calls[0])
        return outcome

    async def told(on: date) -> None:
        log.days.append(on)

    return await Work(
        pool=pool,
        portal=PORTAL,
        step=STEP,
        days=days,
        items=feed(),
        handle=watched,
        concurrency=concurrency,
        day_done=day_done or told,
        breaker_limit=breaker_limit,
        grace_s=grace_s,
    ).run()


async def done(_: Item) -> Outcome:
    return Outcome("done", output_key="out")


def outage(reason: str = "llm_unavailable") -> Outcome:
    return Outcome("failed", reason=reason, detail="no answer", next_try=datetime.now(UTC), outage=True)


def saving(number: int) -> Callable[[Connection], Awaitable[None]]:
    """A save that leaves a trace: a user with this number."""

    async def save(connection: Connection) -> None:
        await users.mark_missing(connection, PORTAL, [number])

    return save


async def saved(pool: Pool) -> list[int]:
    return [row["user_id"] for row in await all_rows(pool, "SELECT user_id FROM users ORDER BY 1")]


async def buy(pool: Pool, *keys: str) -> None:
    """An answer for each key, paid for and kept in the ledger."""
    row = {"vendor": "v", "model": "m", "step": STEP, "day": MONDAY, "rub_rate": Decimal(80)}
    async with pool.connection() as connection:
        for key in keys:
            await ledger.ask(connection, PORTAL, key, row)
            await ledger.answered(
                connection, PORTAL, key, cost=Decimal("0.1"), currency="USD", vendor_request_id="x", answer="text"
            )


async def purchases(pool: Pool) -> dict[str, str]:
    """How each purchase stands."""
    rows = await all_rows(pool, "SELECT request_key, state FROM ledger ORDER BY id")
    return {row["request_key"]: row["state"] for row in rows}


async def states(pool: Pool) -> dict[int, str]:
    rows = await all_rows(pool, "SELECT call_id, state FROM call_steps WHERE step = %s ORDER BY 1", STEP)
    return {row["call_id"]: row["state"] for row in rows}


def test_every_outcome_is_recorded_with_its_result(database: str) -> None:
    """State, reason, detail, keys and next try of each item are in call_steps, and its result beside them."""
    later = datetime(2030, 1, 1, tzinfo=UTC)
    outcomes = {
        1: Outcome("done", output_key="out", save=saving(1)),
        2: Outcome("skipped", reason="no_speech", save=saving(2)),
        3: Outcome("failed", reason="bad", detail="why"),
        4: Outcome("waiting", reason="recognition", next_try=later),
    }

    async def run(pool: Pool) -> None:
        async def handle(one_item: Item) -> Outcome:
            return outcomes[one_item.calls[0]]

        counted = await work(pool, [item(number) for number in outcomes], handle)
        assert counted == Counter(done=1, skipped=1, failed=1, waiting=1)
        for number, outcome in outcomes.items():
            row = await step(pool, number, STEP)
            for name in ("state", "reason", "detail", "output_key", "next_try"):
                assert row[name] == getattr(outcome, name), (number, name)
            assert row["input_key"] == f"in{number}"
        assert await saved(pool) == [1, 2]

    with_pool(database, run)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_concurrency_and_memory_are_bounded(database: str, concurrency: int) -> None:
    """Never more than `concurrency` items at once, and never more than one item pulled ahead of them; all get done."""
    seen = Seen()

    async def run(pool: Pool) -> None:
        async def handle(_: Item) -> Outcome:
            await asyncio.sleep(random.random() * 0.003)
            return await done(_)

        await work(pool, [item(number) for number in range(40)], handle, concurrency=concurrency, seen=seen)
        assert len(await states(pool)) == 40

    with_pool(database, run)
    assert seen.most_in_flight == concurrency
    assert seen.most_ahead <= concurrency + 1
    assert seen.started == list(range(40)), "the oldest come first"


def test_nothing_to_do(database: str) -> None:
    """An empty worklist is done at once."""
    assert with_pool(database, lambda pool: work(pool, [], done)) == Counter()


def test_a_failing_save_leaves_neither_result_nor_state(database: str) -> None:
    """Result and state are one transaction: a fault between them leaves no half, and the others stay."""

    async def run(pool: Pool) -> None:
        async def handle(one_item: Item) -> Outcome:
            number = one_item.calls[0]

            async def broken(connection: Connection) -> None:
                await saving(number)(connection)
                await connection.execute("SELECT 1 / 0 FROM nothing_of_this_name")

            return Outcome("done", output_key="out", save=broken if number == 3 else saving(number))

        with pytest.raises(psycopg.errors.UndefinedTable):
            await work(pool, [item(number) for number in range(1, 6)], handle, concurrency=1)
        assert await saved(pool) == [1, 2]
        assert await states(pool) == {1: "done", 2: "done"}

    with_pool(database, run)


def test_a_failing_record_takes_the_result_back(database: str) -> None:
    """An outcome that may not be recorded (failed without a reason) does not leave its result behind either."""

    async def run(pool: Pool) -> None:
        async def handle(_: Item) -> Outcome:
            return Outcome("failed", save=saving(1))

        assert await work(pool, [item(1)], handle) == Counter(failed=1)
        assert await saved(pool) == []
        row = await step(pool, 1, STEP)
        assert (row["state"], row["reason"], row["detail"]) == ("failed", "unstorable_result", "CheckViolation")

    with_pool(database, run)


@pytest.mark.parametrize("text", ["a\0b", "\ud83d"])
def test_a_result_that_cannot_be_stored_fails_its_item_alone(database: str, text: str) -> None:
    """Half an emoji or a NUL in one answer does not stop the day, tonight and every night after."""

    async def run(pool: Pool) -> None:
        async def handle(one_item: Item) -> Outcome:
            async def save(connection: Connection) -> None:
                value = text if one_item.calls[0] == 2 else "fine"
                await saving(one_item.calls[0])(connection)
                await connection.execute("UPDATE users SET name = %s", [value])

            return Outcome("done", output_key="out", save=save)

        assert await work(pool, [item(number) for number in (1, 2, 3)], handle) == Counter(done=2, failed=1)
        assert await saved(pool) == [1, 3]
        row = await step(pool, 2, STEP)
        assert (row["reason"], row["next_try"], row["input_key"]) == ("unstorable_result", None, "in2")
        assert text not in row["detail"]

    with_pool(database, run)


@pytest.mark.parametrize("what", ["NUL", "constraint"])
def test_a_result_that_cannot_be_stored_is_paid_all_the_same(database: str, what: str) -> None:
    """The purchases behind such a result are closed with its failure; else every later run would take them up again."""

    async def run(pool: Pool) -> None:
        await buy(pool, "k1", "k2", "other")

        async def handle(_: Item) -> Outcome:
            async def save(connection: Connection) -> None:
                await saving(1)(connection)
                query = "UPDATE users SET name = %s" if what == "NUL" else "UPDATE users SET user_id = NULL, name = %s"
                await connection.execute(query, ["a\0b" if what == "NUL" else "fine"])

            return Outcome("done", output_key="out", save=save, paid=("k1", "k2"))

        assert await work(pool, [item(1)], handle) == Counter(failed=1)
        assert await saved(pool) == []
        row = await step(pool, 1, STEP)
        assert (row["state"], row["reason"], row["next_try"]) == ("failed", "unstorable_result", None)
        assert await purchases(pool) == {"k1": "settled", "k2": "settled", "other": "answered"}

    with_pool(database, run)


def test_an_outcome_closes_what_it_paid(database: str) -> None:
    """Whatever the state, the purchases of an outcome are settled in the transaction that records it, and no others."""

    async def run(pool: Pool) -> None:
        await buy(pool, "k1", "k2", "k3", "lost", "other")

        async def handle(one_item: Item) -> Outcome:
            number = one_item.calls[0]

            async def broken(connection: Connection) -> None:
                await connection.execute("SELECT 1 / 0 FROM nothing_of_this_name")

            match number:
                case 1:
                    return Outcome("done", output_key="out", paid=("k1",))
                case 2:
                    return Outcome("failed", reason="useless", paid=("k2",))
                case 3:
                    return Outcome("skipped", reason="no_category", paid=("k3",))
            return Outcome("done", save=broken, paid=("lost",))

        with pytest.raises(psycopg.errors.UndefinedTable):
            await work(pool, [item(number) for number in range(1, 5)], handle, concurrency=1)
        assert await purchases(pool) == {
            **dict.fromkeys(("k1", "k2", "k3"), "settled"),
            "lost": "answered",
            "other": "answered",
        }

    with_pool(database, run)


def test_consecutive_outages_trip_the_breaker(database: str) -> None:
    """So many failures of the service in a row stop the step with one sentence; what was recorded stays."""
    seen = Seen()

    async def run(pool: Pool) -> None:
        async def handle(_: Item) -> Outcome:
            return outage()

        with pytest.raises(StepStopped) as caught:
            await work(pool, [item(n) for n in range(50)], handle, concurrency=1, breaker_limit=4, seen=seen)
        text = str(caught.value)
        assert text.startswith(f"{PORTAL}/{STEP}: 4 items in a row failed, the last with llm_unavailable (no answer)")
        assert list((await states(pool)).values()) == ["failed"] * 4

    with_pool(database, run)
    assert len(seen.started) <= 5


def test_a_success_between_outages_keeps_the_step_going(database: str) -> None:
    """Only failures in a row mean that the service is down; faults of the items themselves, after a success, do not."""

    async def run(pool: Pool) -> None:
        async def handle(one_item: Item) -> Outcome:
            if one_item.calls[0] % 4 == 3:
                return await done(one_item)
            return outage()

        assert await work(pool, [item(n) for n in range(20)], handle, concurrency=1, breaker_limit=4) == Counter(
            done=5, failed=15
        )

        async def hopeless(one_item: Item) -> Outcome:
            again = datetime.now(UTC) if one_item.calls[0] % 2 else None
            return await done(one_item) if one_item.calls[0] == 3 else Outcome("failed", reason="lost", next_try=again)

        counted = await work(pool, [item(n) for n in range(40)], hopeless, concurrency=1, breaker_limit=4)
        assert counted == Counter(done=1, failed=39)

    with_pool(database, run)


def test_items_that_fail_by_themselves_stop_nothing(database: str) -> None:
    """However many fail alike, and first of all: what is their own trouble does not befall the items after them."""

    async def run(pool: Pool) -> None:
        async def handle(one_item: Item) -> Outcome:
            if one_item.calls[0] < 30:
                return Outcome("failed", reason="llm_truncated", detail="too long")
            return await done(one_item)

        counted = await work(pool, [item(n) for n in range(50)], handle, breaker_limit=4, concurrency=1)
        assert counted == Counter(failed=30, done=20)

    with_pool(database, run)


@pytest.mark.parametrize("breaks", ["key", "breaker"])
def test_a_stop_begins_nothing_and_keeps_the_answers_in_flight(
    database: str, monkeypatch: pytest.MonkeyPatch, breaks: str
) -> None:
    """What was under way when the step stopped ends by itself: stored and settled, as it may have been paid for."""
    seen = Seen()

    async def run(pool: Pool) -> None:
        await buy(pool, *(f"k{number}" for number in range(6)))
        stopping = asyncio.Event()
        begin_to_stop = Work._begin_to_stop

        def stops(steps: Work[Any], stop: StepStopped) -> None:
            begin_to_stop(steps, stop)
            stopping.set()

        monkeypatch.setattr(Work, "_begin_to_stop", stops)

        async def handle(one_item: Item) -> Outcome:
            number = one_item.calls[0]
            if number == 5:
                if breaks == "key":
                    raise StepStopped("The key is refused.")
                return outage()
            if number in (3, 4):
                await stopping.wait()
            return Outcome("done", output_key="out", save=saving(number), paid=(f"k{number}",))

        with pytest.raises(StepStopped, match="refused" if breaks == "key" else "1 items in a row failed") as caught:
            await work(pool, [item(n) for n in range(50)], handle, concurrency=3, breaker_limit=1, seen=seen)
        assert caught.value.__cause__ is None
        failed = {5: "failed"} if breaks == "breaker" else {}
        assert await states(pool) == {**dict.fromkeys(range(5), "done"), **failed}
        assert await saved(pool) == [0, 1, 2, 3, 4]
        assert await purchases(pool) == {**dict.fromkeys((f"k{n}" for n in range(5)), "settled"), "k5": "answered"}

    with_pool(database, run)
    assert seen.cancelled == []
    assert max(seen.started) == 5, "nothing new is begun"


def test_what_does_not_end_within_the_grace_is_cancelled(database: str) -> None:
    """A step that stops does not wait for ever: calls still in flight stay pending, and every result before them is kept."""
    seen = Seen()

    async def run(pool: Pool) -> None:
        await buy(pool, "k3")

        async def handle(one_item: Item) -> Outcome:
            number = one_item.calls[0]
            if number < 3:
                return Outcome("done", output_key="out", save=saving(number))
            if number == 5:
                await asyncio.sleep(0.02)
                raise StepStopped("The key is refused.")
            await asyncio.sleep(3600)
            return Outcome("done", output_key="out", paid=(f"k{number}",))

        began = asyncio.get_running_loop().time()
        with pytest.raises(StepStopped, match=r"^The key is refused\.$"):
            await work(pool, [item(n) for n in range(50)], handle, concurrency=3, grace_s=0.05, seen=seen)
        assert asyncio.get_running_loop().time() - began >= 0.05
        assert await states(pool) == {0: "done", 1: "done", 2: "done"}
        assert await saved(pool) == [0, 1, 2]
        assert await purchases(pool) == {"k3": "answered"}, "the next run takes this answer up"

    with_pool(database, run)
    assert sorted(seen.cancelled) == [3, 4]
    assert max(seen.started) == 5


def test_the_stop_is_shown_and_not_what_it_led_to(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When several items fall in one moment, the sentence for people wins."""
    monkeypatch.setattr(pool_module, "PATIENCE_S", 1.0)

    async def run(pool: Pool) -> None:
        together = asyncio.Event()

        async def handle(one_item: Item) -> Outcome:
            asyncio.get_running_loop().call_later(0.02, together.set)
            await together.wait()
            if one_item.calls[0] == 2:
                raise StepStopped("The balance is empty.")
            raise psycopg.OperationalError("gone")

        with pytest.raises(StepStopped, match="The balance is empty"):
            await work(pool, [item(number) for number in range(3)], handle, concurrency=3)

    with_pool(database, run)


def test_cancelling_the_run_cancels_the_items(database: str) -> None:
    """SIGTERM reaches the work: nothing is left running, and what is unfinished stays pending."""
    seen = Seen()

    async def run(pool: Pool) -> None:
        everyone = asyncio.Barrier(4)

        async def handle(_: Item) -> Outcome:
            await everyone.wait()
            await asyncio.sleep(30)
            return await done(_)

        task = asyncio.create_task(work(pool, [item(n) for n in range(9)], handle, seen=seen))
        await everyone.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await states(pool) == {}

    with_pool(database, run)
    assert sorted(seen.cancelled) == [0, 1, 2]


def test_a_fault_of_ours_fails_its_item_without_its_text(database: str, caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected exception is one failed item; its type and place are kept, its text may hold people's data."""
    caplog.set_level(logging.DEBUG)

    async def run(pool: Pool) -> None:
        async def handle(one_item: Item) -> Outcome:
            if one_item.calls[0] == 2:
                raise ValueError("Иван Петров, +7 912 345-67-89")
            return await done(one_item)

        assert await work(pool, [item(number) for number in (1, 2, 3)], handle) == Counter(done=2, failed=1)
        row = await step(pool, 2, STEP)
        assert row["reason"] == "internal_error"
        assert row["detail"].startswith("ValueError at test_worklist.py:")
        assert row["next_try"] is not None, "the next release may mend it"
        everything = f"{row} {caplog.text}"
        assert "Петров" not in everything
        assert "912" not in everything

    with_pool(database, run)
    assert "call 2 failed: internal_error (ValueError at test_worklist.py:" in caplog.text


def test_a_lost_database_ends_the_step(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the database nothing can be recorded, so its errors are nobody's item's fault."""
    monkeypatch.setattr(pool_module, "PATIENCE_S", 1.0)

    async def run(pool: Pool) -> None:
        async def handle(one_item: Item) -> Outcome:
            if one_item.calls[0] == 2:
                raise psycopg.OperationalError("the connection is lost")
            return await done(one_item)

        with pytest.raises(psycopg.OperationalError):
            await work(pool, [item(number) for number in (1, 2, 3)], handle, concurrency=1)
        assert await states(pool) == {1: "done"}

    with_pool(database, run)


def test_a_worklist_that_breaks_ends_the_step(database: str) -> None:
    """An error of the list itself is raised as it is, after the items in flight were cancelled."""

    async def run(pool: Pool) -> None:
        async def broken() -> AsyncIterator[Item]:
            yield item(1)
            raise StepStopped("The portal refuses the list.")

        async def handle(_: Item) -> Outcome:
            await asyncio.sleep(30)
            return await done(_)

        async def nothing(_: date) -> None: ...

        with pytest.raises(StepStopped, match="refuses the list"):
            await Work(pool, PORTAL, STEP, (MONDAY,), broken(), handle, 2, nothing).run()
        assert await states(pool) == {}

    with_pool(database, run)


@pytest.mark.parametrize("seed", range(8))
def test_days_are_told_in_order_and_only_when_complete(database: str, seed: int) -> None:
    """Whatever the items take: each day is told once, in order, and by then every item of it is committed."""
    chance = random.Random(seed)
    days = [day(number) for number in range(5)]
    items, number = [], 0
    for on in days:
        for _ in range(chance.choice([0, 1, 2, 6])):
            number += 1
            items.append(item(number, on))
        if chance.random() < 0.3:
            number += 1
            items.append(item(number, None))
    slow = {one_item.calls[0]: chance.choice([0, 0, 0.002, 0.02]) for one_item in items}
    told: list[date] = []

    async def run(pool: Pool) -> None:
        async def handle(one_item: Item) -> Outcome:
            await asyncio.sleep(slow[one_item.calls[0]])
            return outage() if one_item.calls[0] % 5 == 0 else await done(one_item)

        async def day_done(on: date) -> None:
            committed = await states(pool)
            assert all(one_item.calls[0] in committed for one_item in items if one_item.day == on)
            await asyncio.sleep(chance.choice([0, 0.005]))
            told.append(on)

        await work(pool, items, handle, concurrency=chance.choice([1, 2, 4]), days=days, day_done=day_done)
        assert len(await states(pool)) == len(items)

    with_pool(database, run)
    last = max((one_item.day for one_item in items if one_item.day), default=date.min)
    assert told == [on for on in days if on < last], "each earlier day is told by the end, the last is done with `run`"


def test_a_stop_does_not_undo_the_days_before_it(database: str) -> None:
    """A crash on the last day tells the days that are complete, and not the day that was cut."""
    seen = Seen()

    async def run(pool: Pool) -> None:
        async def handle(one_item: Item) -> Outcome:
            if one_item.calls[0] == 3:
                while len(seen.days) < 2:  # noqa: ASYNC110 - the work tells days, nothing more
                    await asyncio.sleep(0.005)
                raise StepStopped("The balance is empty.")
            if one_item.calls[0] == 2:
                await asyncio.sleep(30)
            return await done(one_item)

        items = [item(0, day(0)), item(1, day(1)), item(2, day(2)), item(3, day(3))]
        with pytest.raises(StepStopped):
            await work(pool, items, handle, concurrency=4, days=[day(n) for n in range(5)], grace_s=0.02, seen=seen)

    with_pool(database, run)
    assert seen.days == [day(0), day(1)]


def test_a_stop_tells_the_days_that_nobody_told_yet(database: str) -> None:
    """Days whose last item ended before the list went on are told even if the very next item stops the step."""
    seen = Seen()

    async def run(pool: Pool) -> None:
        async def handle(one_item: Item) -> Outcome:
            if one_item.calls[0] == 3:
                raise StepStopped("The balance is empty.")
            return await done(one_item)

        items = [item(0, day(0)), item(3, day(3))]
        with pytest.raises(StepStopped):
            await work(pool, items, handle, concurrency=1, days=[day(number) for number in range(5)], seen=seen)

    with_pool(database, run)
    assert seen.days == [day(0), day(1), day(2)]


def test_an_items_outcome_is_that_of_all_its_calls(database: str) -> None:
    """An entity's item decides the state of every call that it stands for."""

    async def run(pool: Pool) -> None:
        await put_calls(pool, call(1), call(2))
        together = Item(name="contact 5", calls=(1, 2), day=None, input_key=None)
        assert await work(pool, [together], done) == Counter(done=1)
        assert await states(pool) == {1: "done", 2: "done"}
        row = await one(pool, "SELECT count(*) AS rows FROM call_steps WHERE step = %s", STEP)
        assert row == {"rows": 2}

    with_pool(database, run)
