"""The LLM room's ledger port over the store: one portal's purchases for one item."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import date

from dialog_assets.llm.ledger import Answer, Asked, Usage
from dialog_assets.portals import Portal
from dialog_assets.store import ledger
from dialog_assets.store.pool import Pool


class PortalLedger:
    """Implements `llm.ledger.Ledger`; each method commits before it returns."""

    def __init__(self, pool: Pool, portal: Portal, day: date) -> None:
        self._pool = pool
        self._portal = portal
        self._day = day

    async def find(self, key: str) -> Answer | None:
        """An answer already paid for and not settled yet."""
        row = await self._pool.transact(lambda connection: ledger.find(connection, self._portal.portal, key))
        if row is None or row["state"] != "answered":
            return None
        kept = json.loads(row["answer"])
        return Answer(
            text=kept["text"],
            finish=kept["finish"],
            usage=Usage(**row["usage"]),
            model_returned=row["model_returned"],
            vendor_request_id=row["vendor_request_id"],
            latency_ms=row["latency_ms"],
            cost_usd=row["cost"],
        )

    async def ask(self, key: str, request_info: Asked) -> None:
        """Write down the intent."""
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
        }
        await self._pool.transact(lambda connection: ledger.ask(connection, self._portal.portal, key, row))

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
            )
        )

    async def failed(self, key: str, reason: str) -> None:
        """Note that the last try brought nothing."""
        await self._pool.transact(lambda connection: ledger.failed(connection, self._portal.portal, key, reason))
