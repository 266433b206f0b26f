"""Asset `criteria_scores`: each dialog scored by the criteria of its categories, with text and quotes."""

from dataclasses import asdict, replace
from typing import Any

import dagster as dg

from dialog_assets.analysis.criteria import criteria_requests, read_scores
from dialog_assets.assets.classifications import select_criteria
from dialog_assets.assets.outcomes import outcome_of
from dialog_assets.assets.purchases import PortalLedger
from dialog_assets.assets.steps import CallItem, StepRun, run_step, step_asset
from dialog_assets.llm.errors import LLMAnswerError, LLMRequestRejected
from dialog_assets.llm.requests import Subject
from dialog_assets.llm.router import LLMRouter
from dialog_assets.portals import Portal
from dialog_assets.resources.llm import LLMResource
from dialog_assets.resources.postgres import PostgresResource
from dialog_assets.store import classifications, fixed_dialogs
from dialog_assets.store import criteria_scores as table
from dialog_assets.store.pool import Connection
from dialog_assets.worklist import Outcome


def build(portal: Portal) -> dg.AssetsDefinition:
    """The asset of one portal."""

    @step_asset(portal, "criteria_scores")
    def criteria_scores(
        context: dg.AssetExecutionContext, postgres: PostgresResource, llm: LLMResource
    ) -> dg.MaterializeResult:
        """Scores of the dialogs by every criterion (in its present version) that their categories select."""

        async def core(run: StepRun) -> None:
            async with llm.router(portal.llm.criteria) as router:
                await score(run, router)

        return run_step(context, portal, "criteria_scores", postgres, core)

    return criteria_scores


async def score(run: StepRun, router: LLMRouter) -> None:
    """Score each (dialog, applicable criterion version) without a score; a changed criterion applies at once."""
    await select_criteria(run)
    await run.inherit()

    async def one(item: CallItem) -> Outcome:
        return await score_one(run, router, item)

    await run.work(run.items(), one, concurrency=run.portal.llm.concurrency)


async def score_one(run: StepRun, router: LLMRouter, item: CallItem) -> Outcome:
    """One dialog's missing scores. Raises the LLM room's errors.

    What useless answers to one group of criteria leave unscored fails the call, but the other groups' scores are stored.
    """
    portal = run.portal
    dialog = dialog_of(item.input_key)
    async with run.pool.connection() as connection:
        turns = await fixed_dialogs.turns(connection, portal.portal, item.call_id)
        selected = await classifications.selected(connection, portal.portal, item.call_id)
        scored = await table.scored(connection, portal.portal, item.call_id, dialog)
    missing = [
        criterion
        for criterion in portal.criteria
        if criterion.label in selected and (criterion.name, criterion.version) not in scored
    ]
    subject = Subject(portal.portal, run.step, call_id=item.call_id)
    book = PortalLedger(run.pool, portal, item.day)
    rows: list[dict[str, Any]] = []
    keys: list[str] = []
    failure: LLMAnswerError | LLMRequestRejected | None = None
    for group, request in criteria_requests(turns, portal, missing):
        try:
            answer = await router.complete(request, subject, book)
        except LLMAnswerError as error:
            failure = error
            keys += error.keys
            continue
        except LLMRequestRejected as error:
            failure = error
            continue
        keys += answer.keys
        results = read_scores(turns, group, answer.value)
        costs = portal.llm.shares(answer.cost_usd, len(results))
        rows += [
            {
                **asdict(result),
                "prompt_version": request.prompt_version,
                "model": answer.model_returned,
                "cost_rub": cost,
            }
            for result, cost in zip(results, costs, strict=True)
        ]

    async def save(connection: Connection) -> None:
        await table.put(connection, portal.portal, item.call_id, dialog, rows)

    if failure is not None:
        return replace(outcome_of(failure), save=save, paid=tuple(keys))
    return Outcome("done", output_key=item.input_key, save=save, paid=tuple(keys))


def dialog_of(key: str) -> str:
    """The dialog's part of a key that step classifications left."""
    return key.partition("/")[0]
