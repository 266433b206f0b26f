"""Asset `classifications`: the categories of each dialog, and the criteria that they select."""

import dagster as dg

from dialog_assets.analysis.classification import classification_request, read_categories
from dialog_assets.assets.purchases import PortalLedger
from dialog_assets.assets.steps import CallItem, StepRun, run_step, step_asset
from dialog_assets.llm.requests import Subject
from dialog_assets.llm.router import LLMRouter
from dialog_assets.portals import Portal
from dialog_assets.resources.llm import LLMResource
from dialog_assets.resources.postgres import PostgresResource
from dialog_assets.store import classifications as table
from dialog_assets.store import fixed_dialogs, rules
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
    """Classify the dialogs without categories."""
    await run.inherit()
    await select_criteria(run)

    async def one(item: CallItem) -> Outcome:
        return await classify_one(run, router, item)

    await run.work(run.items(), one, concurrency=run.portal.llm.concurrency)


async def select_criteria(run: StepRun) -> None:
    """Bring the criteria of the days' classified dialogs up to the configuration; costs nothing."""
    async with run.pool.connection() as connection:
        await rules.record(connection, run.portal)
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
    request = classification_request(turns, portal)
    subject = Subject(portal.portal, run.step, call_id=item.call_id)
    answer = await router.complete(request, subject, PortalLedger(run.pool, portal, item.day))
    categories = read_categories(answer.value, portal)
    criteria = selection(portal)
    costs = portal.llm.shares(answer.cost_usd, len(categories))
    rows = [
        {
            "category": category.category,
            "category_version": category.version,
            "confidence": category.confidence,
            "reason": category.reason,
            "criteria": criteria[category.category],
            "prompt_version": request.prompt_version,
            "model": answer.model_returned,
            "cost_rub": cost,
        }
        for category, cost in zip(categories, costs, strict=True)
    ]

    async def save(connection: Connection) -> None:
        await table.replace(connection, portal.portal, item.call_id, rows)

    if not categories:
        return Outcome("skipped", reason="no_category", save=save, paid=answer.keys)
    key = table.output_key({category.category: criteria[category.category] for category in categories})
    return Outcome("done", output_key=f"{item.input_key}/{key}", save=save, paid=answer.keys)
