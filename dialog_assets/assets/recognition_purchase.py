"""One recording's purchase at the recogniser: its rows in the ledger and its slot among the account's streams, together.

Here: what is written down before and after each thing that costs money, each in one transaction. Not here: what is asked
of the recogniser, and when (transcripts.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from dialog_assets.assets.steps import StepRun
from dialog_assets.speech.port import Label
from dialog_assets.speech.prices import recognition_cost
from dialog_assets.store import ledger
from dialog_assets.store.pool import Connection, Row
from dialog_assets.store.recogniser_slots import UNCLEAR, Slots

Way = Literal["deferred", "immediate"]
"""Deferred recognition, or Recognize; also the ledger's `model`."""

WAYS: tuple[Way, ...] = ("deferred", "immediate")

KEPT_FOR = timedelta(days=5)
"""How long a finished operation's result can be had."""

LOST = ("vanished", "timed_out")
UNCLEAR_ANSWER = "unclear"


P = ParamSpec("P")
T = TypeVar("T")


def _transaction(
    method: Callable[Concatenate[Purchase, Connection, P], Awaitable[T]],
) -> Callable[Concatenate[Purchase, P], Coroutine[Any, Any, T]]:
    """The method is one transaction of the run, done again where a passing fault of Postgres has undone it."""

    async def whole(self: Purchase, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run.pool.transact(lambda connection: method(self, connection, *args, **kwargs))

    whole.__doc__ = method.__doc__
    return whole


class Purchase:
    """The recording of `call_id`, of so many seconds, bought in one `way`; `input_key` names its bytes."""

    def __init__(
        self,
        run: StepRun,
        recogniser: str,
        slots: Slots,
        way: Way,
        *,
        call_id: int,
        day: date,
        input_key: str,
        duration_s: Decimal,
    ) -> None:
        self._run = run
        self._recogniser = recogniser
        self._portal = run.portal.portal
        self._slots = slots
        self.way = way
        self._call_id = call_id
        self._day = day
        self.key = f"{recogniser}/{call_id}/{input_key}"
        speech = run.portal.speech
        rate = speech.rub_per_minute if way == "deferred" else speech.immediate_rub_per_minute
        self._price = recognition_cost(float(duration_s), rate)
        self._bill: dict[str, Any] = {"cost": self._price, "currency": "RUB", "audio_seconds": duration_s}

    @property
    def cost_rub(self) -> Decimal:
        """What it costs, in roubles: by the price that was in force when it was known to be at the vendor."""
        cost: Decimal = self._bill["cost"]
        return cost

    def label(self, row: Row) -> Label:
        """What the recogniser is to call this try; a group for each call, so that looking into it costs one short list."""
        group = f"{self._portal}-{self._call_id}"
        return Label(f"{group}-{row['id']}-{row['attempts']}", group)

    @_transaction
    async def open(self, connection: Connection) -> Row | None:
        """The row that is not closed, of either way."""
        return await ledger.find(connection, self._portal, self.key)

    def take_over(self, row: Row) -> None:
        """Go on with an earlier run's purchase, at its price."""
        if row["cost_rub"] is not None:
            self._bill["cost"] = row["cost_rub"]

    async def lost_before(self) -> int:
        """How often the recording was paid for, and nothing came of it."""
        return await self._closed(LOST)

    async def unclear_before(self) -> int:
        """How often it was asked for at once, and no answer came."""
        return await self._closed((UNCLEAR_ANSWER,))

    @_transaction
    async def _closed(self, connection: Connection, failures: tuple[str, ...]) -> int:
        return await ledger.closed(connection, self._portal, self.key, failures)

    async def take_slot(self, until: float) -> bool:
        """Wait for one of the account's streams until the event loop's time `until`."""
        return await self._slots.take(self.key, until)

    async def keep_slot(self) -> None:
        """Tell the others that it is looked after."""
        await self._slots.keep(self.key)

    @_transaction
    async def free_slot(self, connection: Connection) -> None:
        """Nothing of it is at the vendor."""
        await self._slots.free(connection, self.key)

    async def hold_unclear(self) -> None:
        """It may be at the vendor; the next run finds out."""
        await self._slots.keep(self.key, UNCLEAR)

    @_transaction
    async def ask(self, connection: Connection) -> Row:
        """Write down the intent."""
        self._bill["cost"] = self._price
        asked = await ledger.ask(
            connection,
            self._portal,
            self.key,
            {
                "vendor": self._recogniser,
                "model": self.way,
                "step": "transcripts",
                "day": self._day,
                "call_id": self._call_id,
                "rub_rate": Decimal(1),
                "audio_seconds": self._bill["audio_seconds"],
            },
        )
        return {**asked, "asked_at": datetime.now(UTC)}

    @_transaction
    async def ask_again(self, connection: Connection, row: Row) -> Row:
        """Renew the intent of a run that ended: nothing had arrived."""
        await ledger.asked_again(connection, self._portal, self.key)
        return {**row, "asked_at": datetime.now(UTC)}

    @_transaction
    async def accepted(self, connection: Connection, operation: str) -> None:
        """It is at the vendor: from here on the bill shows it, whatever becomes of the result."""
        await ledger.accepted(connection, self._portal, self.key, operation, **self._bill)
        await self._slots.hold(connection, self.key, operation)

    @_transaction
    async def resumed(self, connection: Connection, operation: str) -> None:
        """An earlier run's operation is looked after again."""
        await self._slots.hold(connection, self.key, operation)

    @_transaction
    async def answered(self, connection: Connection, vendor_request_id: str, answer: str | None = None) -> None:
        """The answer is there, and the vendor has nothing more to do. `answer`: to be kept, where it cannot be had again."""
        await ledger.answered(
            connection,
            self._portal,
            self.key,
            vendor_request_id=vendor_request_id,
            answer=answer,
            **self._bill,
        )
        await self._slots.free(connection, self.key)

    @_transaction
    async def failed(self, connection: Connection, reason: str) -> None:
        """The try has ended without an answer, and costs nothing."""
        await ledger.failed(connection, self._portal, self.key, reason[:200])
        await self._slots.free(connection, self.key)

    @_transaction
    async def not_taken(self, connection: Connection, reason: str) -> None:
        """The vendor has refused before it did anything; the slot stays, for the next try."""
        await ledger.not_taken(connection, self._portal, self.key, reason)

    @_transaction
    async def close(self, connection: Connection, failure: str, *, at_vendor: bool = False) -> None:
        """Paid for, or perhaps, and nothing came of it. `at_vendor`: it may work on it for a while yet."""
        await ledger.close(connection, self._portal, self.key, failure, **self._bill)
        if not at_vendor:
            await self._slots.free(connection, self.key)

    @_transaction
    async def lose(self, connection: Connection, operation: str) -> None:
        """The vendor does not know the operation any more; its price stays on the bill."""
        await ledger.accepted(connection, self._portal, self.key, operation, **self._bill)
        await ledger.lost(connection, self._portal, self.key, KEPT_FOR)
        await self._slots.free(connection, self.key)
