"""Dialogs follow the portal's rules without a recognition being bought again, and wrong channels are noticed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from dialog_assets.assets.dialogs import channels_check, dialog_rules, rebuild
from dialog_assets.assets.steps import StepRun
from dialog_assets.dialogs import Turn, turns_key
from dialog_assets.portals import Channels, DialogSettings, Portal
from dialog_assets.speech.errors import UnexpectedAnswer
from dialog_assets.speech.port import Phrase
from dialog_assets.store import call_steps, day_numbers, transcripts
from dialog_assets_tests.assets.test_transcripts import Account, Night, archived, night, recording
from dialog_assets_tests.store.rows import MONDAY, PORTAL, Pool, all_rows, one, put_step, step, with_pool

__all__ = ["recording"]

GREETING = [[0, 0, 900, "окна север слушаю вас"], [1, 1000, 1900, "хочу заказать окно"]]
LISTENED = [[0, 0, 6000, "замер бесплатный"], [1, 3000, 3400, "угу"], [0, 6500, 9000, "мастер приедет завтра"]]
ROWS = "SELECT *, xmin::text AS written FROM transcripts ORDER BY call_id"
STEPS = "SELECT *, xmin::text AS written FROM call_steps WHERE step = 'transcripts' ORDER BY call_id"


class Unreadable(Account):
    """A recogniser that does not know its own old answers."""

    def phrases(self, raw: dict[str, Any]) -> list[Phrase]:
        """None."""
        raise UnexpectedAnswer("no results")


def configured(portals: list[Portal], **settings: Any) -> Portal:
    """The portal with `channels` and `dialogs` of its own."""
    return portals[1].model_copy(update=settings)


async def rebuilt(pool: Pool, portal: Portal, account: Account | None = None) -> None:
    """What a run does before it recognises anything."""

    async def nothing(_: date) -> None: ...

    await rebuild(StepRun(portal, "transcripts", (MONDAY,), pool, nothing), account or Account())


async def stored(
    pool: Pool, portal: Portal, calls: dict[int, list[list[Any]]], *, lines: Sequence[str] = (), before: bool = False
) -> None:
    """Transcripts of `calls` (phrases by call), built by the portal's rules, or left by the release before there were any."""
    await archived(pool, *calls)
    for place, (number, phrases) in enumerate(calls.items()):
        turns = [Turn("client" if channel else "operator", channel, *rest) for channel, *rest in phrases]
        async with pool.connection() as connection:
            if lines:
                await connection.execute("UPDATE calls SET line = %s WHERE call_id = %s", [lines[place], number])
            await transcripts.put(
                connection, PORTAL, number, recogniser=Account().name, operation_id=f"op{number}", sha256=f"sha{number}",
                raw={"phrases": phrases}, turns=turns, talk_metrics={"silence_share": 0.5}, cost_rub=Decimal("0.2"),
                dialog_rules=None if before else "others",
            )  # fmt: skip
        await put_step(pool, number, "transcripts", "done", input_key=f"sha{number}", output_key=turns_key(turns))
    if not before:
        await rebuilt(pool, portal)


async def pending(pool: Pool) -> list[int]:
    """The calls that the correction would buy."""
    return [
        one.call_id async for one in call_steps.pending(pool, PORTAL, "fixed_dialogs", "transcripts", MONDAY, MONDAY)
    ]


async def corrected(pool: Pool) -> None:
    """Every dialog as it is now has been corrected."""
    for row in await all_rows(pool, STEPS):
        await put_step(pool, row["call_id"], "fixed_dialogs", "done", input_key=row["output_key"], output_key="f")


def story(database: str, tell: Callable[[Pool], Awaitable[None]]) -> None:
    """Run `tell`."""
    with_pool(database, tell)


def test_a_changed_pause_rebuilds_from_the_stored_answers(database: str, portals: list[Portal]) -> None:
    """Only the dialogs that come out differently are new to the steps after; answer, price and time of all stay."""
    slow = [[0, 0, 900, "окна север слушаю вас"], [0, 2000, 2900, "говорите"]]

    async def tell(pool: Pool) -> None:
        await stored(pool, portals[1], {1: slow, 2: GREETING})
        await corrected(pool)
        before = await all_rows(pool, ROWS)
        shorter = configured(portals, dialogs=DialogSettings(pause_ms=1000))
        await rebuilt(pool, shorter)
        after = await all_rows(pool, ROWS)
        assert [len(row["turns"]) for row in before] == [1, 2]
        assert [len(row["turns"]) for row in after] == [2, 2]
        assert after[0]["talk_metrics"]["turns_operator"] == 2
        for name in ("raw", "operation_id", "cost_rub", "created_at", "sha256"):
            assert [row[name] for row in before] == [row[name] for row in after]
        assert await pending(pool) == [1]
        assert (await step(pool, 1, "transcripts"))["input_key"] == "sha1"
        assert await all_rows(pool, "SELECT * FROM ledger") == []
        await rebuilt(pool, shorter)
        assert await all_rows(pool, ROWS) == after, "a second run finds nothing to do"

    story(database, tell)


def test_another_name_of_the_company_costs_nothing(database: str, portals: list[Portal]) -> None:
    """Rules that only the check of the roles uses leave every dialog as it is, and no step after this one has work."""
    spoken = [[1, 0, 900, "теплодом добрый день"], [0, 1000, 1900, "мне бы окно"]]

    async def tell(pool: Pool) -> None:
        await stored(pool, portals[1], {1: spoken})
        await corrected(pool)
        steps = await all_rows(pool, STEPS)
        named = configured(portals, dialogs=DialogSettings(company_names=("Теплодом",)))
        await rebuilt(pool, named)
        row = await one(pool, ROWS)
        assert row["marks"] == ["roles_disagree"]
        assert row["dialog_rules"] == dialog_rules(named, None).label
        assert {sign["words"] for sign in row["role_check"]["evidence"]} >= {"теплодом", "мне бы"}
        assert await all_rows(pool, STEPS) == steps
        assert await pending(pool) == []

    story(database, tell)


def test_channels_put_right_turn_the_roles_round(database: str, portals: list[Portal]) -> None:
    """The operator was on the other channel: roles change, the mark goes, the analysis is asked again; nothing else is."""

    async def tell(pool: Pool) -> None:
        wrong = configured(portals, channels=Channels(operator=1))
        await stored(pool, wrong, {1: GREETING})
        assert (await one(pool, ROWS))["marks"] == ["roles_disagree"]
        await corrected(pool)
        await rebuilt(pool, portals[1])
        row = await one(pool, ROWS)
        assert (row["marks"], [turn["role"] for turn in row["turns"]]) == ([], ["operator", "client"])
        assert await pending(pool) == [1]

    story(database, tell)


def test_a_line_may_have_its_operator_elsewhere(database: str, portals: list[Portal]) -> None:
    """`channels.by_line` counts for the calls over that line only."""

    async def tell(pool: Pool) -> None:
        swapped = other_side(GREETING)
        await stored(pool, portals[1], {1: GREETING, 2: swapped}, lines=["reg1", "reg2"])
        await corrected(pool)
        by_line = configured(portals, channels=Channels(operator=0, by_line={"reg2": 1}))
        await rebuilt(pool, by_line)
        rows = await all_rows(pool, ROWS)
        assert [[turn["role"] for turn in row["turns"]] for row in rows] == [["operator", "client"]] * 2
        assert await pending(pool) == [2]
        await rebuilt(pool, by_line)
        assert await all_rows(pool, ROWS) == rows

    story(database, tell)


@pytest.mark.parametrize("before", [False, True])
def test_a_recording_found_to_be_dual_mono_is_one_stream(database: str, portals: list[Portal], *, before: bool) -> None:
    """When the measurements of the archive mark it later on, its dialog follows, and stays so."""
    leaking = [[0, 0, 900, "окна север слушаю вас"], [1, 30, 900, "окна север"], [1, 1000, 1900, "хочу окно"]]

    async def tell(pool: Pool) -> None:
        await stored(pool, portals[1], {1: leaking, 2: GREETING}, before=before)
        await corrected(pool)
        async with pool.connection() as connection:
            await connection.execute("ALTER TABLE audio_files ADD COLUMN IF NOT EXISTS marks text[]")
            await connection.execute("UPDATE audio_files SET marks = '{clipped,dual_mono}' WHERE call_id = 1")
        await rebuilt(pool, portals[1])
        rows = await all_rows(pool, ROWS)
        assert [turn["text"] for turn in rows[0]["turns"]] == ["окна север слушаю вас", "хочу окно"]
        assert (rows[0]["marks"], rows[1]["marks"]) == (["dual_mono", "mono"], [])
        assert await pending(pool) == [1]
        await rebuilt(pool, portals[1])
        assert await all_rows(pool, ROWS) == rows
        await rebuilt(pool, configured(portals, dialogs=DialogSettings(company_names=("Теплодом",))))
        assert (await all_rows(pool, ROWS))[0]["marks"] == ["dual_mono", "mono"]

    story(database, tell)


def test_a_dialog_of_before_keeps_its_turns(database: str, portals: list[Portal]) -> None:
    """The first release cut turns otherwise and kept no rules: such a dialog gets marks and figures, and is not bought again."""

    async def tell(pool: Pool) -> None:
        await stored(pool, portals[1], {1: LISTENED}, before=True)
        await corrected(pool)
        before, steps = await one(pool, ROWS), await all_rows(pool, STEPS)
        assert before["dialog_rules"] is None
        await rebuilt(pool, portals[1])
        row = await one(pool, ROWS)
        assert row["turns"] == before["turns"]
        assert len(row["turns"]) == 3
        assert row["talk_metrics"]["turns_operator"] == 2
        assert await all_rows(pool, STEPS) == steps
        assert await pending(pool) == []
        await rebuilt(pool, configured(portals, dialogs=DialogSettings(company_names=("Теплодом",))))
        row = await one(pool, ROWS)
        assert (row["turns"], "Теплодом" in row["dialog_rules"]) == (before["turns"], True)
        await rebuilt(pool, configured(portals, channels=Channels(operator=1)))
        assert [turn["role"] for turn in (await one(pool, ROWS))["turns"]] == ["client", "operator"]
        assert await pending(pool) == [1]

    story(database, tell)


def test_a_dialog_of_before_with_the_wrong_roles_is_rebuilt(database: str, portals: list[Portal]) -> None:
    """When the channels are put right with the update, dialogs of before follow too."""

    async def tell(pool: Pool) -> None:
        await stored(pool, portals[1], {1: GREETING}, before=True)
        await rebuilt(pool, configured(portals, channels=Channels(operator=1)))
        assert [turn["role"] for turn in (await one(pool, ROWS))["turns"]] == ["client", "operator"]

    story(database, tell)


def test_what_is_not_rebuilt(database: str, portals: list[Portal]) -> None:
    """Another recogniser's answer cannot be read; a replaced recording, or a call that waits, is about to be recognised anew.

    A call without speech stays skipped.
    """

    async def tell(pool: Pool) -> None:
        await stored(pool, portals[1], {**dict.fromkeys((1, 2, 3, 4), GREETING), 5: []})
        await put_step(pool, 5, "transcripts", "skipped", reason="no_speech", input_key="sha5")
        async with pool.connection() as connection:
            await connection.execute("UPDATE transcripts SET recogniser = 'another' WHERE call_id = 1")
            await connection.execute("UPDATE audio_files SET sha256 = 'new' WHERE call_id = 2")
        await put_step(pool, 3, "transcripts", "waiting", reason="recognition", input_key="sha3")
        await rebuilt(pool, configured(portals, channels=Channels(operator=1)))
        roles = [[turn["role"] for turn in row["turns"]][:1] for row in await all_rows(pool, ROWS)]
        assert roles == [["operator"], ["operator"], ["operator"], ["client"], []]
        assert (await step(pool, 5, "transcripts"))["state"] == "skipped"

    story(database, tell)


def test_an_answer_that_cannot_be_read_keeps_its_dialog(
    database: str, portals: list[Portal], caplog: pytest.LogCaptureFixture
) -> None:
    """It is told in the log, and the run goes on."""

    async def tell(pool: Pool) -> None:
        await stored(pool, portals[1], {1: GREETING, 2: GREETING})
        before = await all_rows(pool, ROWS)
        await rebuilt(pool, configured(portals, channels=Channels(operator=1)), Unreadable())
        assert await all_rows(pool, ROWS) == before

    story(database, tell)
    assert "call 1 keeps its dialog: no results" in caplog.text


def test_more_dialogs_than_a_page(database: str, portals: list[Portal]) -> None:
    """All of the days' dialogs are rebuilt, however many there are."""

    async def tell(pool: Pool) -> None:
        await stored(pool, portals[1], dict.fromkeys(range(1, 61), GREETING), before=True)
        await rebuilt(pool, configured(portals, channels=Channels(operator=1)))
        roles = await all_rows(pool, "SELECT turns -> 0 ->> 'role' AS role, count(*) FROM transcripts GROUP BY 1")
        assert [tuple(row.values()) for row in roles] == [("client", 60)]

    story(database, tell)


def test_a_run_rebuilds_and_buys_nothing(database: str, portals: list[Portal], recording: Path) -> None:
    """Through the step itself: after a changed rule the next run has a new dialog, and the recogniser was asked for nothing."""

    async def tell(night: Night) -> None:
        night.account.raw = {"phrases": LISTENED}
        await night.run()
        first = await one(night.pool, ROWS)
        assert ([turn["role"] for turn in first["turns"]], first["marks"]) == (["operator", "client"], [])
        night.portal = configured(portals, dialogs=DialogSettings(backchannel_ms=0))
        await night.run()
        second = await one(night.pool, ROWS)
        assert [turn["role"] for turn in second["turns"]] == ["operator", "client", "operator"]
        assert (len(night.account.submissions), len(night.account.polls)) == (1, 1)
        assert (await step(night.pool, 1, "transcripts"))["output_key"] == turns_key(
            [Turn.from_json(turn) for turn in second["turns"]]
        )

    night(database, portals, recording, tell)


def other_side(phrases: list[list[Any]]) -> list[list[Any]]:
    """The phrases with the channels swapped."""
    return [[1 - phrase[0], *phrase[1:]] for phrase in phrases]


def verdicts(agree: int, disagree: int, unclear: int = 0, first: int = 1) -> dict[int, list[list[Any]]]:
    """Calls from number `first` on whose words agree with operator on channel 0, disagree, or tell nothing."""
    kinds = [GREETING] * agree + [other_side(GREETING)] * disagree + [[[0, 0, 900, "добрый день"]]] * unclear
    return dict(enumerate(kinds, first))


@pytest.mark.parametrize(
    ("calls", "lines", "passed", "says"),
    [
        ({}, [], True, "0 of 0 calls"),
        (verdicts(0, 4, 9), [], True, "0 of 4 calls"),
        (verdicts(3, 3), [], True, "3 of 6 calls"),
        (verdicts(2, 3), [], False, "3 of 5 calls whose words tell who the operator is have it on the other channel: "),
        (verdicts(0, 6), [], False, "set `channels.operator: 1` in the file of portal okna_sever"),
        (
            verdicts(9, 5),
            ["a"] * 9 + ["b"] * 5,
            False,
            '(those over b): listen to one, set `channels.by_line: {"b": 1}`',
        ),
        (verdicts(4, 6), ["a"] * 4 + ["b"] * 6, False, 'set `channels.by_line: {"b": 1}`'),
    ],
)
def test_channels_fit_the_content(
    database: str,
    portals: list[Portal],
    calls: dict[int, list[list[Any]]],
    lines: list[str],
    *,
    passed: bool,
    says: str,
) -> None:
    """Yellow when more than half of at least five calls with evidence disagree, over all or over one line; it says what to set."""

    async def tell(pool: Pool) -> None:
        await stored(pool, portals[1], calls, lines=lines)
        async with pool.connection() as connection:
            result = await channels_check(portals[1], connection, MONDAY, MONDAY)
            numbers = await day_numbers.read(connection, PORTAL, "transcripts", MONDAY, MONDAY)
        assert (result.passed, result.severity.value) == (passed, "WARN")
        assert says in (result.description or "")
        found = sum(1 for phrases in calls.values() if len(phrases) == 2 and phrases[0][0] == 1)
        if calls:
            assert numbers[MONDAY]["roles_disagree"] == found

    story(database, tell)
