"""Asset `fixed_dialogs`: recognised dialogs corrected by an LLM, with every edit kept."""

from collections import deque
from dataclasses import asdict, dataclass, field
from decimal import Decimal

import dagster as dg

from dialog_assets.analysis.correction import Draft, Stretch, correction_request, stretches, take
from dialog_assets.analysis.prompts import prompt
from dialog_assets.assets.purchases import PortalLedger
from dialog_assets.assets.steps import CallItem, StepRun, run_step, step_asset
from dialog_assets.dialogs import turns_key
from dialog_assets.llm.errors import LLMAnswerError, LLMAnswerInvalid, LLMError, LLMRequestRejected, LLMTruncated
from dialog_assets.llm.requests import Subject
from dialog_assets.llm.router import LLMRouter
from dialog_assets.portals import Portal
from dialog_assets.resources.llm import LLMResource
from dialog_assets.resources.postgres import PostgresResource
from dialog_assets.store import fixed_dialogs as table
from dialog_assets.store import transcripts
from dialog_assets.store.pool import Connection
from dialog_assets.worklist import Outcome

REJECTED_FOR_LENGTH = 6_000
"""Characters of a part that may be too many for a vendor that does not accept the request."""


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
    """One dialog's correction, a long one's in parts, one after another. Raises the LLM room's errors.

    Where one of them cannot be had, the answers to the others stay in the ledger, for the next run to go on from.
    """
    portal = run.portal
    async with run.pool.connection() as connection:
        turns = await transcripts.turns(connection, portal.portal, item.call_id)
    subject = Subject(portal.portal, run.step, call_id=item.call_id)
    book = PortalLedger(run.pool, portal, item.day)
    draft = Draft(list(turns))
    bought = _Bought()
    to_ask = deque(stretches(turns, portal))
    while to_ask:
        part = to_ask.popleft()
        request = correction_request(draft.turns, portal, part)
        try:
            answer = await router.complete(request, subject, book)
        except (LLMTruncated, LLMRequestRejected) as error:
            shorter = part.halves() if part.lines is None and _is_long(draft, part, error) else ()
            if not shorter:
                raise
            bought.failed(error)
            to_ask.extendleft(reversed(shorter))
            continue
        except LLMAnswerInvalid as error:
            if part.lines is None:
                raise
            # What was right of the part's first answer stands; these lines stay as they were recognised.
            bought.failed(error)
            draft.refused += part.complaints
            continue
        bought.keys += answer.keys
        bought.cost_usd += answer.cost_usd
        bought.model = answer.model_returned
        rest = take(draft, part, answer.value, part.tries + len(answer.keys))
        if rest is not None:
            to_ask.appendleft(rest)
    correction = draft.correction()

    async def save(connection: Connection) -> None:
        await table.put(
            connection,
            portal.portal,
            item.call_id,
            turns=correction.turns,
            edits=[asdict(edit) for edit in correction.edits],
            refused=correction.refused,
            made_from=item.input_key,
            prompt_version=prompt("correction").version,
            model=bought.model,
            cost_rub=portal.llm.roubles(bought.cost_usd),
        )

    return Outcome("done", output_key=turns_key(correction.turns), save=save, paid=tuple(bought.keys))


@dataclass
class _Bought:
    """The answers behind a dialog's correction."""

    keys: list[str] = field(default_factory=list)
    cost_usd: Decimal = Decimal(0)
    model: str = ""

    def failed(self, error: LLMError) -> None:
        """Answers that were paid and of no use."""
        if isinstance(error, LLMAnswerError):
            self.keys += error.keys
            self.cost_usd += error.cost_usd


def _is_long(draft: Draft, part: Stretch, error: LLMError) -> bool:
    """Whether fewer lines may help: always where the answer was cut off, and where the request may have been too long."""
    return isinstance(error, LLMTruncated) or (
        sum(len(turn.text) for turn in draft.turns[part.start : part.stop]) > REJECTED_FOR_LENGTH
    )
