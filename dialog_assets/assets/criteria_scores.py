"""Asset `criteria_scores`: each dialog scored by the criteria of its categories, with text and quotes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from typing import Any

import dagster as dg

from dialog_assets.analysis.criteria import (
    CriteriaAnswer,
    Scores,
    criteria_request,
    criteria_requests,
    read_scores,
)
from dialog_assets.assets.classifications import select_criteria
from dialog_assets.assets.outcomes import outcome_of
from dialog_assets.assets.purchases import PortalLedger
from dialog_assets.assets.steps import CallItem, StepRun, run_step, step_asset
from dialog_assets.dialogs import Turn
from dialog_assets.llm.errors import LLMAnswerError, LLMAnswerInvalid, LLMRequestRejected
from dialog_assets.llm.requests import CORRECTIONS, LLMRequest, Subject
from dialog_assets.llm.router import Completion, LLMRouter
from dialog_assets.portals import Criterion, Portal
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
    asking = _Asking(
        router, Subject(portal.portal, run.step, call_id=item.call_id), PortalLedger(run.pool, portal, item.day)
    )
    for group, request in criteria_requests(turns, portal, missing):
        await asking.group(turns, portal, group, request)
    rows = asking.rows

    async def save(connection: Connection) -> None:
        await table.put(connection, portal.portal, item.call_id, dialog, rows)

    if asking.failure is not None:
        return replace(outcome_of(asking.failure), save=save, paid=tuple(asking.keys))
    return Outcome("done", output_key=item.input_key, save=save, paid=tuple(asking.keys))


@dataclass
class _Asking:
    """Questions about one dialog: `rows` and `keys` are what has come of them, `failure` why something has not."""

    router: LLMRouter
    subject: Subject
    book: PortalLedger
    rows: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    failure: LLMAnswerError | LLMRequestRejected | None = None

    async def group(
        self, turns: Sequence[Turn], portal: Portal, group: Sequence[Criterion], request: LLMRequest[CriteriaAnswer]
    ) -> None:
        """Ask for a group of criteria, and again only for those of which the answer cannot be used."""
        asked, tries = group, 0
        while True:
            try:
                answer = await self.router.complete(request, self.subject, self.book)
            except LLMAnswerError as error:
                self.failure = error
                self.keys += error.keys
                return
            except LLMRequestRejected as error:
                self.failure = error
                return
            self.keys += answer.keys
            tries += len(answer.keys)
            scores = read_scores(turns, asked, answer.value)
            self._keep(scores, request, answer, portal)
            asked = [criterion for criterion in asked if criterion.name in scores.missing]
            if not asked:
                return
            if tries > CORRECTIONS:
                self.failure = LLMAnswerInvalid(
                    f"{request.vendor} {request.model} answered prompt {request.prompt} {tries} times, never by its rules "
                    f"about {', '.join(criterion.name for criterion in asked)}: try another model, or simplify the criteria",
                    keys=(),
                    cost_usd=Decimal(0),
                    complaints=scores.complaints,
                )
                return
            request = criteria_request(turns, portal, asked, scores.complaints, tries)

    def _keep(
        self, scores: Scores, request: LLMRequest[CriteriaAnswer], answer: Completion[CriteriaAnswer], portal: Portal
    ) -> None:
        costs = portal.llm.shares(answer.cost_usd, len(scores.results))
        self.rows += [
            {
                **asdict(result),
                "prompt_version": request.prompt_version,
                "model": answer.model_returned,
                "cost_rub": cost,
            }
            for result, cost in zip(scores.results, costs, strict=True)
        ]


def dialog_of(key: str) -> str:
    """The dialog's part of a key that step classifications left."""
    return key.partition("/")[0]
