"""Asset `fixed_dialogs`: recognised dialogs corrected by an LLM, with every edit kept."""

from dataclasses import asdict

import dagster as dg

from dialog_assets.analysis.correction import apply_correction, correction_request
from dialog_assets.assets.purchases import PortalLedger
from dialog_assets.assets.steps import CallItem, StepRun, run_step, step_asset
from dialog_assets.dialogs import turns_key
from dialog_assets.llm.requests import Subject
from dialog_assets.llm.router import LLMRouter
from dialog_assets.portals import Portal
from dialog_assets.resources.llm import LLMResource
from dialog_assets.resources.postgres import PostgresResource
from dialog_assets.store import fixed_dialogs as table
from dialog_assets.store import transcripts
from dialog_assets.store.pool import Connection
from dialog_assets.worklist import Outcome


def build(portal: Portal) -> dg.AssetsDefinition:
    """The asset of one portal."""

    @step_asset(portal, "fixed_dialogs")
    def fixed_dialogs(
        context: dg.AssetExecutionContext, postgres: PostgresResource, llm: LLMResource
    ) -> dg.MaterializeResult:
        """Dialogs with recognition errors and punctuation corrected; in mono recordings also who says what."""

        async def core(run: StepRun) -> None:
            async with llm.router(portal.llm.correction) as router:
                await correct(run, router)

        return run_step(context, portal, "fixed_dialogs", postgres, core)

    return fixed_dialogs


async def correct(run: StepRun, router: LLMRouter) -> None:
    """Correct the dialogs that are not corrected yet."""
    await run.inherit()

    async def one(item: CallItem) -> Outcome:
        return await correct_one(run, router, item)

    await run.work(run.items(), one, concurrency=run.portal.llm.concurrency)


async def correct_one(run: StepRun, router: LLMRouter, item: CallItem) -> Outcome:
    """One dialog's correction. Raises the LLM room's errors."""
    portal = run.portal
    async with run.pool.connection() as connection:
        turns = await transcripts.turns(connection, portal.portal, item.call_id)
    request = correction_request(turns, portal)
    subject = Subject(portal.portal, run.step, call_id=item.call_id)
    answer = await router.complete(request, subject, PortalLedger(run.pool, portal, item.day))
    correction = apply_correction(turns, answer.value)

    async def save(connection: Connection) -> None:
        await table.put(
            connection,
            portal.portal,
            item.call_id,
            turns=correction.turns,
            edits=[asdict(edit) for edit in correction.edits],
            prompt_version=request.prompt_version,
            model=answer.model_returned,
            cost_rub=portal.llm.roubles(answer.cost_usd),
        )

    return Outcome("done", output_key=turns_key(correction.turns), save=save, paid=answer.keys)
