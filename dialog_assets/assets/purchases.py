"""The LLM room's ledger port over the store: one portal's purchases for one item."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from datetime import date
from decimal import Decimal
from typing import get_args

from dialog_assets.llm.errors import LLMCeilingReached
from dialog_assets.llm.ledger import Answer, Asked, Finish, Usage
from dialog_assets.portals import Portal
from dialog_assets.store import ledger
from dialog_assets.store.pool import Connection, Pool, Row

log = logging.getLogger("dialog_assets")

UNREADABLE = "unreadable_answer"


class PortalLedger:
    """Implements `llm.ledger.Ledger`; each method commits before it returns."""

    def __init__(self, pool: Pool, portal: Portal, day: date) -> None:
        self._pool = pool
        self._portal = portal
        self._day = day

    async def find(self, key: str) -> Answer | None:
        """An answer already paid for and not settled yet. One that cannot be read is set aside with its price."""

        async def look(connection: Connection) -> Answer | None:
            row = await ledger.find(connection, self._portal.portal, key)
            if row is None or row["state"] != "answered":
                return None
            try:
                return _answer(row)
            except (KeyError, TypeError, ValueError, RecursionError) as error:
                log.warning(
                    "%s/%s: a kept answer cannot be read (%s): it is set aside with its price, and asked for anew",
                    self._portal.portal,
                    row["step"],
                    type(error).__name__,
                )
                await ledger.set_aside(connection, self._portal.portal, key, UNREADABLE)
                return None

        return await self._pool.transact(look)

    async def ask(self, key: str, request_info: Asked) -> None:
        """Write down the intent. Raises LLMCeilingReached."""
        subject = request_info.subject
        row = {
            "vendor": request_info.vendor,
            "model": request_info.model,
            "step": subject.step,
            "day": self._day,
            "call_id": subject.call_id,
            "entity_type": subject.entity_type,
            "entity_id": subject.entity_id,
            "prompt": request_info.prompt,
            "prompt_version": request_info.prompt_version,
            "rub_rate": self._portal.llm.rub_per_usd,
            "estimate": request_info.estimate_usd,
            "currency": "USD",
        }

        async def write(connection: Connection) -> None:
            await ledger.perhaps_paid(connection, self._portal.portal, key, ledger.NO_ANSWER)
            await self._hold_to_the_ceiling(connection, request_info)
            await ledger.ask(connection, self._portal.portal, key, row)

        await self._pool.transact(write)

    async def _hold_to_the_ceiling(self, connection: Connection, request_info: Asked) -> None:
        subject, ceiling = request_info.subject, self._portal.llm.ceiling
        tries, cost_rub = await ledger.fruitless(
            connection,
            self._portal.portal,
            subject.step,
            call_id=subject.call_id,
            entity_type=subject.entity_type,
            entity_id=subject.entity_id,
        )
        if tries >= ceiling.tries or cost_rub >= ceiling.rub:
            raise LLMCeilingReached(
                f"{tries} purchases and {cost_rub:.2f} RUB have brought no result, and llm.ceiling of the portal's file allows "
                f"{ceiling.tries} and {ceiling.rub} RUB: read in table ledger why, then run the day again with --retry-failed",
                keys=(),
                cost_usd=Decimal(0),
            )

    async def answered(self, key: str, answer: Answer) -> None:
        """Keep the answer: in memory until it can be written."""
        await self._pool.transact(
            lambda connection: ledger.answered(
                connection,
                self._portal.portal,
                key,
                cost=answer.cost_usd,
                currency="USD",
                vendor_request_id=answer.vendor_request_id,
                answer=json.dumps({"text": answer.text, "finish": answer.finish}),
                model_returned=answer.model_returned,
                usage=asdict(answer.usage),
                latency_ms=answer.latency_ms,
                estimated=answer.estimated,
            )
        )

    async def failed(self, key: str, reason: str) -> None:
        """Note that the last try was not taken."""
        await self._pool.transact(lambda connection: ledger.not_taken(connection, self._portal.portal, key, reason))

    async def perhaps_paid(self, key: str, reason: str) -> None:
        """Leave the last try on the bill, at its estimate."""
        await self._pool.transact(lambda connection: ledger.perhaps_paid(connection, self._portal.portal, key, reason))

    async def set_aside(self, key: str, reason: str) -> None:
        """Forget the answer and keep its price."""
        await self._pool.transact(lambda connection: ledger.set_aside(connection, self._portal.portal, key, reason))


def _answer(row: Row) -> Answer:
    """The answer that a row keeps. Raises KeyError, TypeError or ValueError for one that no reader of today can use."""
    kept = json.loads(row["answer"])
    text, finish, usage = kept["text"], kept["finish"], Usage(**row["usage"])
    if not isinstance(text, str) or finish not in get_args(Finish):
        raise ValueError("no answer of a model")
    if not all(type(tokens) is int for tokens in asdict(usage).values()) or not isinstance(row["cost"], Decimal):
        raise ValueError("no bill of a model")
    return Answer(
        text=text,
        finish=finish,
        usage=usage,
        model_returned=row["model_returned"] or row["model"],
        vendor_request_id=row["vendor_request_id"] or "",
        latency_ms=row["latency_ms"] or 0,
        cost_usd=row["cost"],
        estimated=row["estimated"],
    )
