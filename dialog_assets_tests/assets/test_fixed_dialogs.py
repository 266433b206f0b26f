"""Long dialogs are corrected in parts by models with their real limits, and nothing that was bought is bought again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from dialog_assets.assets.fixed_dialogs import correct
from dialog_assets.assets.steps import StepRun
from dialog_assets.dialogs import Role, Turn, turns_key
from dialog_assets.llm.router import LLMRouter
from dialog_assets.portals import Portal
from dialog_assets.sandbox.world.model import Script, ScriptTurn, World
from dialog_assets.store import fixed_dialogs, schema, transcripts
from dialog_assets_tests.analysis.support import portal as small_portal
from dialog_assets_tests.llm.support import (
    KEYS,
    MODELS,
    SandboxVendors,
    Wire,
    chat_body,
    failing,
    ok,
    routed,
    sandbox_vendors,
)
from dialog_assets_tests.store.rows import MONDAY, PORTAL, Pool, all_rows, call, one, put_calls, put_step, step
from dialog_assets_tests.store.rows import with_pool as run_with_pool

NUMBERS = ["один", "два", "три", "четыре", "пять", "шесть", "семь", "восемь", "девять", "десять"]


def said(index: int) -> str:
    """What is said in a line of the long dialog: its own words, so that every line is another one."""
    digits = " ".join(NUMBERS[int(digit)] for digit in f"{index:04d}")
    return f"строка {digits} про окна и балкон"


def long_dialog(turns: int, role: Role | None) -> list[Turn]:
    """A dialog of so many turns as it was recognised: the word балкон is misheard in every one."""
    sides: tuple[Role, Role] = ("operator", "client")
    return [
        Turn(
            role or sides[index % 2],
            index % 2,
            index * 1000,
            index * 1000 + 900,
            said(index).replace("балкон", "болкон"),
        )
        for index in range(turns)
    ]


def world_of(turns: int) -> World:
    """A world that knows the long dialog, and the true words of it."""
    script = Script(
        name="long",
        portal=PORTAL,
        turns=tuple(
            ScriptTurn(
                "client" if index % 2 else "operator",
                said(index),
                said(index).replace("балкон", "болкон"),
                index * 1000,
                index * 1000 + 900,
            )
            for index in range(turns)
        ),
        categories=(),
        judgements=(),
        duration_ms=turns * 1000,
    )
    return World(portals={}, scripts={"long": script})


@dataclass
class Desk:
    """One recognised call, the vendors, and runs of the step."""

    pool: Pool
    portal: Portal
    vendors: SandboxVendors
    turns: list[Turn]
    naps: list[float] = field(default_factory=list)

    async def run(self) -> None:
        """One run over Monday."""

        async def nothing(_: date) -> None: ...

        async def nap(seconds: float) -> None:
            self.naps.append(seconds)

        async with LLMRouter(KEYS, self.vendors.base_urls, timeout_s=120, sleep=nap) as router:
            await correct(StepRun(self.portal, "fixed_dialogs", (MONDAY,), self.pool, nothing), router)

    def books(self) -> dict[str, Any]:
        """What the vendor counted."""
        vendor = self.portal.llm.correction.vendor
        return {"counts": {}, "cost": {}, **self.vendors.books.as_dict().get(vendor, {})}

    async def ledger_usd(self) -> Decimal:
        """What the ledger says was spent."""
        row = await one(self.pool, "SELECT coalesce(sum(cost), 0) AS cost FROM ledger")
        return Decimal(row["cost"])


@contextmanager
def desk_of(
    database: str, turns: int, role: Role | None, vendor: str = "openai", **choice: Any
) -> Iterator[Callable[[Callable[[Desk], Awaitable[None]]], None]]:
    """Plays a story on a desk with one recognised dialog."""
    portal = small_portal(vendor, MODELS[vendor])
    correction = portal.llm.correction.model_copy(update=choice)
    portal = portal.model_copy(update={"llm": portal.llm.model_copy(update={"correction": correction})})
    schema.setup_portals(database, [portal])
    dialog = long_dialog(turns, role)

    def play(story: Callable[[Desk], Awaitable[None]]) -> None:
        async def work(pool: Pool) -> None:
            await put_calls(pool, call(1))
            async with pool.connection() as connection:
                await transcripts.put(
                    connection,
                    PORTAL,
                    1,
                    recogniser="voicekit",
                    operation_id="o",
                    sha256="s",
                    raw={},
                    turns=dialog,
                    talk_metrics={},
                    cost_rub=Decimal(0),
                )
            await put_step(pool, 1, "transcripts", "done", input_key="s", output_key=turns_key(dialog))
            async with sandbox_vendors(world_of(turns)) as vendors:
                await story(Desk(pool, portal, vendors, dialog))

        run_with_pool(database, work)

    yield play


@pytest.mark.parametrize(
    ("turns", "role", "vendor"), [(600, "speaker", "deepseek"), (1500, None, "anthropic"), (4, "speaker", "openai")]
)
def test_every_line_is_corrected_and_given_its_side(database: str, turns: int, role: Role | None, vendor: str) -> None:
    """A long dialog in which every line has a mistake ends with a result; our bill equals the vendor's; a second run is free."""

    async def story(desk: Desk) -> None:
        await desk.run()
        row = await step(desk.pool, 1, "fixed_dialogs")
        assert (row["state"], row["reason"], row["detail"]) == ("done", None, None)
        async with desk.pool.connection() as connection:
            done = await fixed_dialogs.turns(connection, PORTAL, 1)
        assert [turn.text for turn in done] == [said(index) for index in range(turns)]
        assert [turn.role for turn in done] == [turn.role for turn in long_dialog(turns, None)]
        kept = await one(desk.pool, "SELECT jsonb_array_length(edits) AS edits, cost_rub FROM fixed_dialogs")
        assert kept["edits"] == turns
        assert await desk.ledger_usd() == Decimal(desk.books()["cost"]["USD"])
        assert kept["cost_rub"] == desk.portal.llm.roubles(await desk.ledger_usd())
        answered = desk.books()["counts"]["answered"]
        assert answered == 1 if turns == 4 else 5 < answered < 40
        await desk.run()
        assert desk.books()["counts"]["answered"] == answered
        assert {r["state"] for r in await all_rows(desk.pool, "SELECT state FROM ledger")} == {"settled"}

    with desk_of(database, turns, role, vendor) as play:
        play(story)


def test_a_part_that_fails_costs_the_others_nothing(database: str) -> None:
    """The vendor goes away between two parts: the next run takes what is there from the ledger and buys the rest."""

    async def story(desk: Desk) -> None:
        desk.vendors.faults.set([{"service": "openai", "kind": "503", "after": 3}])
        await desk.run()
        row = await step(desk.pool, 1, "fixed_dialogs")
        assert (row["state"], row["reason"]) == ("failed", "llm_unavailable")
        assert desk.books()["counts"]["answered"] == 3
        desk.vendors.faults.set([])
        await desk.run()
        assert (await step(desk.pool, 1, "fixed_dialogs"))["state"] == "done"
        prompts = desk.books()["items"]["prompt"]
        assert set(prompts.values()) == {1}
        assert {r["state"] for r in await all_rows(desk.pool, "SELECT state FROM ledger")} == {"settled"}

    with desk_of(database, 300, "speaker") as play:
        play(story)


def test_an_answer_without_room_is_asked_for_in_halves(database: str) -> None:
    """Where even twice the limit is too little for a part, it is asked for in two."""

    async def story(desk: Desk) -> None:
        await desk.run()
        assert (await step(desk.pool, 1, "fixed_dialogs"))["state"] == "done"
        async with desk.pool.connection() as connection:
            done = await fixed_dialogs.turns(connection, PORTAL, 1)
        assert [turn.text for turn in done] == [said(index) for index in range(40)]
        row = await one(desk.pool, "SELECT cost_rub FROM fixed_dialogs")
        assert row["cost_rub"] == desk.portal.llm.roubles(Decimal(desk.books()["cost"]["USD"]))

    with desk_of(database, 40, "speaker", max_output_tokens=200) as play:
        play(story)


@pytest.mark.parametrize(("turns", "requests", "state"), [(300, 5, "done"), (4, 2, "failed")])
def test_a_long_request_that_is_not_accepted_is_asked_for_in_halves(
    database: str, turns: int, requests: int, state: str
) -> None:
    """A part that the vendor rejects may be too long for it, so its halves are asked for; a short one is not tried again.

    One request more is the canary: the vendor takes others.
    """

    async def story(desk: Desk) -> None:
        async def nothing(_: date) -> None: ...

        wire = Wire([failing(400), ok(chat_body('{"edits": []}'))])
        async with routed(wire) as router:
            await correct(StepRun(desk.portal, "fixed_dialogs", (MONDAY,), desk.pool, nothing), router)
        assert (await step(desk.pool, 1, "fixed_dialogs"))["state"] == state
        assert len(wire.sent) == requests

    with desk_of(database, turns, None) as play:
        play(story)
