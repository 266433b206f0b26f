"""Asset `classifications`: the categories of each dialog, and the criteria that they select."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import dagster as dg

from dialog_assets.analysis.classification import CategoryResult, classification_request, read_categories
from dialog_assets.analysis.prompts import prompt
from dialog_assets.assets.purchases import PortalLedger
from dialog_assets.assets.steps import CallItem, StepRun, run_step, step_asset
from dialog_assets.dialogs import Turn
from dialog_assets.llm.errors import LLMAnswerError, LLMAnswerInvalid
from dialog_assets.llm.requests import CORRECTIONS, Subject
from dialog_assets.llm.router import LLMRouter
from dialog_assets.portals import Category, Portal
from dialog_assets.resources.llm import LLMResource
from dialog_assets.resources.postgres import PostgresResource
from dialog_assets.store import call_steps, fixed_dialogs, rules
from dialog_assets.store import classifications as table
from dialog_assets.store.pool import Connection
from dialog_assets.worklist import Outcome


def build(portal: Portal) -> dg.AssetsDefinition:
    """The asset of one portal."""

    @step_asset(portal, "classifications")
    def classifications(
        context: dg.AssetExecutionContext, postgres: PostgresResource, llm: LLMResource
    ) -> dg.MaterializeResult:
        """Categories of the dialogs with confidence and reason, and the criteria that now apply to each."""

        async def core(run: StepRun) -> None:
            async with llm.router(portal.llm.classification) as router:
                await classify(run, router)

        return run_step(context, portal, "classifications", postgres, core)

    return classifications


async def classify(run: StepRun, router: LLMRouter) -> None:
    """Classify the dialogs without categories, and those that were not asked about all of the present ones."""
    await run.inherit()
    await select_criteria(run)

    async def one(item: CallItem) -> Outcome:
        return await classify_one(run, router, item)

    labels = [category.label for category in run.portal.categories]
    await run.work(run.items(labels), one, concurrency=run.portal.llm.concurrency)


async def select_criteria(run: StepRun) -> None:
    """Bring the criteria of the days' classified dialogs up to the configuration; costs nothing."""
    async with run.pool.connection() as connection:
        await rules.record(connection, run.portal)
        since = await rules.categories_since(connection, run.portal)
        labels = [category.label for category in run.portal.categories]
        await call_steps.adopt_rules(
            connection, run.portal.portal, "classifications", run.first, run.last, labels, since
        )
        await table.select_criteria(connection, run.portal.portal, run.first, run.last, selection(run.portal))


def selection(portal: Portal) -> dict[str, list[str]]:
    """Category → the criteria it selects, as name@version."""
    return {
        category.name: [criterion.label for criterion in portal.criteria_of([category.name])]
        for category in portal.categories
    }


async def classify_one(run: StepRun, router: LLMRouter, item: CallItem) -> Outcome:
    """One dialog's categories. Raises the LLM room's errors."""
    portal = run.portal
    async with run.pool.connection() as connection:
        turns = await fixed_dialogs.turns(connection, portal.portal, item.call_id)
    asking = _Asking(
        router, Subject(portal.portal, run.step, call_id=item.call_id), PortalLedger(run.pool, portal, item.day)
    )
    categories = await asking.categories(turns, portal)
    criteria = selection(portal)
    costs = portal.llm.shares(asking.cost_usd, len(categories))
    rows = [
        {
            "category": category.category,
            "category_version": category.version,
            "confidence": category.confidence,
            "reason": category.reason,
            "criteria": criteria[category.category],
            "made_from": item.input_key,
            "prompt_version": prompt("classification").version,
            "model": asking.model,
            "cost_rub": cost,
        }
        for category, cost in zip(categories, costs, strict=True)
    ]

    async def save(connection: Connection) -> None:
        await table.replace(connection, portal.portal, item.call_id, rows)

    if not categories:
        return Outcome("skipped", reason="no_category", save=save, paid=tuple(asking.keys))
    key = table.output_key({category.category: criteria[category.category] for category in categories})
    return Outcome("done", output_key=f"{item.input_key}/{key}", save=save, paid=tuple(asking.keys))


@dataclass
class _Asking:
    """Questions about one dialog, and what they have cost by now."""

    router: LLMRouter
    subject: Subject
    book: PortalLedger
    keys: list[str] = field(default_factory=list)
    cost_usd: Decimal = Decimal(0)
    model: str = ""

    async def categories(self, turns: Sequence[Turn], portal: Portal) -> list[CategoryResult]:
        """The dialog's categories, the surest first: what is right of an answer is kept, and only the rest asked again.

        A name that still means no category at the end is left out: there is nothing that it could be.
        Raises the LLM room's errors.
        """
        results: list[CategoryResult] = []
        asked: Sequence[Category] = portal.categories
        request = classification_request(turns, portal)
        while True:
            try:
                answer = await self.router.complete(request, self.subject, self.book)
            except LLMAnswerError as error:
                error.keys = (*self.keys, *error.keys)
                raise
            self.keys += answer.keys
            self.cost_usd += answer.cost_usd
            self.model = answer.model_returned
            found = read_categories(answer.value, asked)
            results += found.results
            asked = found.to_ask_again(asked)
            if not asked or not found.complaints:
                break
            if len(self.keys) > CORRECTIONS:
                if found.doubtful:
                    raise LLMAnswerInvalid(
                        f"{request.vendor} {request.model} answered prompt {request.prompt} {len(self.keys)} times, never "
                        f"by its rules about {', '.join(found.doubtful)}: try another model, or simplify the categories",
                        keys=self.keys,
                        cost_usd=self.cost_usd,
                        complaints=found.complaints,
                    )
                break
            request = classification_request(turns, portal, asked, found.complaints, len(self.keys))
        return sorted(results, key=lambda result: (-result.confidence, result.category))
