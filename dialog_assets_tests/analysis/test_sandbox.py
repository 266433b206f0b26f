"""Every step at every vendor, over the wire of the sandbox, which is strict where the vendors are."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from dialog_assets.analysis.classification import classification_request, read_categories
from dialog_assets.analysis.correction import apply_correction, correction_request
from dialog_assets.analysis.criteria import criteria_requests, read_scores
from dialog_assets.analysis.summaries import SummaryInput, read_summary, summary_request
from dialog_assets.llm.errors import LLMRefused
from dialog_assets.llm.requests import LLMRequest
from dialog_assets.llm.router import Completion, LLMRouter
from dialog_assets.sandbox.llm_manners import MANNERS
from dialog_assets_tests.analysis.support import TRUE, dialog, portal, world
from dialog_assets_tests.llm.support import KEYS, MODELS, SUBJECT, MemoryLedger, SandboxVendors, sandbox_vendors


@pytest.mark.parametrize("vendor", list(MODELS))
def test_all_steps(vendor: str) -> None:
    """A dialog is corrected, classified, scored and summarised, and our bill equals the vendor's books."""
    asyncio.run(_all_steps(vendor))


async def _all_steps(vendor: str, *faults: dict[str, Any]) -> None:
    home = portal(vendor, MODELS[vendor])
    ledger = MemoryLedger()
    async with (
        sandbox_vendors(world()) as vendors,
        LLMRouter(KEYS, vendors.base_urls, timeout_s=120) as router,
    ):
        vendors.faults.set(list(faults))

        async def ask(request: LLMRequest[Any], step: str) -> Any:
            return (await router.complete(request, replace(SUBJECT, step=step), ledger)).value

        mono = apply_correction(
            dialog("speaker"), await ask(correction_request(dialog("speaker"), home), "fixed_dialogs")
        )
        assert [turn.role for turn in mono.turns] == [turn.role for turn in dialog()]
        turns = apply_correction(dialog(), await ask(correction_request(dialog(), home), "fixed_dialogs")).turns
        assert tuple(turn.text for turn in turns) == TRUE

        categories = read_categories(
            await ask(classification_request(turns, home), "classifications"), home.categories
        ).results
        assert [(item.category, item.confidence) for item in categories] == [("new_order", 95)]

        criteria = home.criteria_of(item.category for item in categories)
        ((_, request),) = criteria_requests(turns, home, criteria)
        scores = read_scores(turns, criteria, await ask(request, "criteria_scores")).results
        assert [(score.criterion, score.score) for score in scores] == [("greeting", 10), ("needs", 4)]
        assert [(quote.line, quote.turn, quote.start_ms) for quote in scores[1].quotes] == [("L003", 2, 10_000)]

        inputs = [
            SummaryInput(datetime(2026, 3, 2, tzinfo=UTC), 7, score.criterion, score.criterion, score.score, score.text)
            for score in scores
        ]
        summary = read_summary(await ask(summary_request("Балкон", inputs, home), "entity_summaries"), home)
        assert "Назвал компанию и имя." in summary

        booked = sum((answer.cost_usd for answer in ledger.answers.values()), Decimal(0))
        assert booked == Decimal(vendors.books.as_dict()[vendor]["cost"]["USD"])
        assert vendors.books.as_dict()[vendor]["counts"]["answered"] == len(ledger.answers) == 5


@pytest.mark.parametrize("manner", list(MANNERS))
def test_manners_are_understood(manner: str) -> None:
    """Every step reads the same out of an answer in another dress, at the price of one answer."""
    asyncio.run(_all_steps("deepseek", {"service": "deepseek", "kind": "manner", "value": manner}))


def _classify(vendor: str, *faults: dict[str, Any]) -> tuple[Completion[Any], MemoryLedger, dict[str, Any]]:
    """One classification under these faults: the completion, the ledger, the vendor's books."""

    async def nap(_seconds: float) -> None:
        return None

    async def go() -> tuple[Completion[Any], MemoryLedger, dict[str, Any]]:
        ledger = MemoryLedger()
        vendors: SandboxVendors
        async with (
            sandbox_vendors(world()) as vendors,
            LLMRouter(KEYS, vendors.base_urls, timeout_s=120, sleep=nap) as router,
        ):
            vendors.faults.set([{"service": vendor, **fault} for fault in faults])
            request = classification_request(dialog(), portal(vendor, MODELS[vendor]))
            done = await router.complete(request, SUBJECT, ledger)
            return done, ledger, vendors.books.as_dict()[vendor]

    return asyncio.run(go())


@pytest.mark.parametrize("vendor", list(MODELS))
@pytest.mark.parametrize(
    ("kind", "answers"),
    [("429", 1), ("503", 1), ("reset", 1), ("invalid_json", 2), ("blank", 2), ("length", 2)],
)
def test_faults_are_survived(vendor: str, kind: str, answers: int) -> None:
    """After one fault of each kind the step has its answer, and the ledger holds every answer that was billed."""
    done, ledger, books = _classify(vendor, {"kind": kind, "times": 1})
    assert [item.name for item in done.value.categories] == ["new_order"]
    assert len(done.keys) == len(ledger.answers) == books["counts"]["answered"] == answers
    assert done.cost_usd == Decimal(books["cost"]["USD"])


@pytest.mark.parametrize("vendor", list(MODELS))
@pytest.mark.parametrize("kind", ["401", "402", "insufficient_quota"])
def test_broken_keys_stop(vendor: str, kind: str) -> None:
    """A refused key and an empty balance stop at once, in each vendor's own way of saying so."""
    with pytest.raises(LLMRefused):
        _classify(vendor, {"kind": kind})
