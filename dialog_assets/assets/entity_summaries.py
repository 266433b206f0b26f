"""Asset `entity_summaries`: one running summary for every CRM entity, from the criteria's texts about all its calls."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date

import dagster as dg

from dialog_assets.analysis.summaries import (
    SummaryInput,
    average_percent,
    average_scores,
    choose,
    inputs_hash,
    read_summary,
    summary_request,
)
from dialog_assets.assets.purchases import PortalLedger
from dialog_assets.assets.steps import StepRun, run_step, step_asset
from dialog_assets.llm.requests import Subject
from dialog_assets.llm.router import LLMRouter
from dialog_assets.portals import Portal
from dialog_assets.resources.llm import LLMResource
from dialog_assets.resources.postgres import PostgresResource
from dialog_assets.store import entities
from dialog_assets.store import entity_summaries as table
from dialog_assets.store.pool import Connection
from dialog_assets.worklist import Item, Outcome


@dataclass(frozen=True)
class EntityItem(Item):
    """An entity with scored calls in the days of the run, or that lost one; `booked_on` is the day of the newest of them."""

    entity_type: str
    entity_id: int
    booked_on: date


def build(portal: Portal) -> dg.AssetsDefinition:
    """The asset of one portal."""

    @step_asset(portal, "entity_summaries")
    def entity_summaries(
        context: dg.AssetExecutionContext, postgres: PostgresResource, llm: LLMResource
    ) -> dg.MaterializeResult:
        """Summaries of contacts, leads and companies whose inputs changed, with the average scores over all their calls."""

        async def core(run: StepRun) -> None:
            async with llm.router(portal.llm.summary) as router:
                await summarise(run, router)

        return run_step(context, portal, "entity_summaries", postgres, core)

    return entity_summaries


async def summarise(run: StepRun, router: LLMRouter) -> None:
    """Write a new version of the summary of each entity whose inputs changed."""
    await run.inherit()
    async with run.pool.connection() as connection:
        await table.skip_without_entity(connection, run.portal.portal, run.first, run.last)

    async def one(item: EntityItem) -> Outcome:
        return await summarise_one(run, router, item)

    await run.work(_items(run), one, concurrency=run.portal.llm.concurrency)


async def _items(run: StepRun) -> AsyncIterator[EntityItem]:
    portal = run.portal.portal
    async for row in table.entities_with_scores(run.pool, portal, run.first, run.last):
        yield EntityItem(
            name=f"{portal} {row['entity_type']} {row['entity_id']}",
            calls=tuple(row["calls"]),
            day=None,
            input_key=None,
            entity_type=row["entity_type"],
            entity_id=row["entity_id"],
            booked_on=row["newest_day"],
        )


async def summarise_one(run: StepRun, router: LLMRouter, item: EntityItem) -> Outcome:
    """One entity's summary. Raises the LLM room's errors."""
    portal = run.portal
    where = (portal.portal, item.entity_type, item.entity_id)
    described = {item.name: item.version for item in portal.criteria if item.include_in_entity_description}
    async with run.pool.connection() as connection:
        inputs = [SummaryInput(**row) for row in await table.inputs(connection, *where, described)]
        latest = await table.latest(connection, *where)
        titles = await entities.titles(connection, portal.portal, [where[1:]])
    if not inputs:

        async def end(connection: Connection) -> None:
            await table.end(connection, *where, inputs_hash([]))

        return Outcome("skipped", reason="nothing_to_summarise", save=end)
    identity = inputs_hash(inputs)
    if latest is not None and latest["inputs_hash"] == identity:
        return Outcome("done", output_key=identity)
    chosen = choose(inputs, portal)
    shown = {part.call_id for part in chosen.shown}
    request = summary_request(titles.get(where[1:]), inputs, portal)
    subject = Subject(portal.portal, run.step, entity_type=item.entity_type, entity_id=item.entity_id)
    answer = await router.complete(request, subject, PortalLedger(run.pool, portal, item.booked_on))

    async def save(connection: Connection) -> None:
        await table.add(
            connection,
            *where,
            {
                "version": 1 if latest is None else latest["version"] + 1,
                "text": read_summary(answer.value, portal),
                "average_scores": {name: str(value) for name, value in average_scores(inputs).items()},
                "average_percent": {name: str(value) for name, value in average_percent(inputs).items()},
                "inputs_hash": identity,
                "calls": sorted(shown),
                "inputs": len(chosen.shown),
                "inputs_left_out": len(chosen.left_out),
                "calls_left_out": sorted({part.call_id for part in chosen.left_out} - shown),
                "prompt_version": request.prompt_version,
                "model": answer.model_returned,
                "cost_rub": portal.llm.roubles(answer.cost_usd),
            },
        )

    return Outcome("done", output_key=identity, save=save, paid=answer.keys)
