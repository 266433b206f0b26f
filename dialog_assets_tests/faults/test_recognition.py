"""A hundred times: runs of the recogniser's step under random faults, dropped or killed at random moments, then run again.

Every recording ends with a transcript or a reason, and none is submitted twice where the service's listing could have told.
A failing seed is run again by its number: `-k "seed17-"`. Most runs are dropped inside the test's process; those of
`test_killed_processes` are processes and get kill -9.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dialog_assets.portals import Portal
from dialog_assets.store.pool import open_pool
from dialog_assets_tests.audio.files import write_audio
from dialog_assets_tests.databases import copy_of
from dialog_assets_tests.faults.recordings import (
    CALM_DEADLINE_S,
    LONG_AGO,
    NUMBER,
    STREAMS,
    Day,
    client,
    day_of,
    day_without_faults,
    first_call_of,
    quick,
    run_until_killed,
    script,
)
from dialog_assets_tests.faults.speech_service import SpeechService, speech_service
from dialog_assets_tests.faults.support import forks

SEEDS = range(100)
KILLED_SEEDS = range(100, 104)
DISTURBED = 4
"""Runs under faults."""
STUCK_AFTER = (1, DISTURBED - 1)
"""The runs after which a day and more passes, so that what is still at the vendor will never end."""
RUNS = 12
"""Runs until everything must have ended: the last ones are calm."""


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Short ones, each with bytes of its own."""
    folder = tmp_path_factory.mktemp("recordings")
    return [write_audio(folder / f"{n}.mp3", (0.3 + n / 20, 0.5), 1.0) for n in range(NUMBER)]


@pytest.fixture(scope="module")
def service(recordings: list[Path]) -> Iterator[SpeechService]:
    """The service."""
    with speech_service(recordings) as service:
        yield service


@pytest.fixture(scope="module")
def tables(postgres: str) -> Iterator[str]:
    """One database for all seeds, each of which has a day of its own."""
    with copy_of(postgres) as url:
        yield url


# Two workers share them, as each has to start the service.
@pytest.mark.parametrize(
    "seed",
    [pytest.param(seed, marks=pytest.mark.xdist_group(f"recognition{seed % 2}"), id=f"seed{seed}-") for seed in SEEDS],
)
def test_nothing_is_lost_and_nothing_bought_twice(
    tables: str, portals: list[Portal], recordings: list[Path], service: SpeechService, seed: int
) -> None:
    """Up to four disturbed runs, three of which may be dropped, then calm ones until nothing is left to do."""
    chance = random.Random(seed)
    service.begin(script(chance), quick(seed))
    at_once = {"immediate_below_s": 30} if chance.random() < 0.25 else {}
    speech = portals[1].speech.model_copy(
        update={**at_once, "upload": chance.choice(("storage", "storage", "message"))}
    )

    async def live() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        addresses = (service.endpoint, service.storage_url)
        async with (
            open_pool(tables, size=4) as pool,
            client(*addresses) as voicekit,
            client(*addresses, deadline_s=CALM_DEADLINE_S) as patient,
        ):
            portal = portals[1].model_copy(update={"speech": speech})
            day = Day(pool, portal, recordings, voicekit, day_of(seed), first_call_of(seed))
            await day.archive()
            for number in range(RUNS):
                if number == DISTURBED:
                    service.heal()
                    day.client = patient
                patience_s = chance.choice((0.05, 0.2, 0.6)) if number < DISTURBED else 5.0
                if number < DISTURBED and chance.random() < 0.75:
                    await day.drop(patience_s, chance.randint(1, 70))
                else:
                    await (day.disturbed if number < DISTURBED else day.run)(patience_s)
                service.rest(until_operations_end=number in STUCK_AFTER)
                await day.time_passes(LONG_AGO if number in STUCK_AFTER else timedelta(0))
                steps = await day.rows("call_steps")
                if number > DISTURBED and len(steps) == NUMBER and all(_has_ended(row) for row in steps):
                    break
            return await day.rows("call_steps"), await day.rows("ledger")

    steps, bill = asyncio.run(live())
    _check_ends(steps, bill)
    _check_purchases(service, bill)


@pytest.mark.xdist_group("recognition0")
@pytest.mark.parametrize("seed", KILLED_SEEDS, ids=lambda seed: f"seed{seed}-")
def test_killed_processes(
    tables: str, portals: list[Portal], recordings: list[Path], service: SpeechService, seed: int
) -> None:
    """Runs as processes, killed with -9 when a submission has just been answered, then at random moments; then one to its end."""
    chance = random.Random(seed)
    service.begin([], replace(quick(seed), recognition_s=(0.1, 0.4)))
    day = (tables, portals[1], recordings, (service.endpoint, service.storage_url), seed)

    async def archive() -> None:
        async with day_without_faults(*day) as found:
            await found.archive()

    async def bought_unheard() -> int:
        async with day_without_faults(*day) as found:
            return sum(row["vendor_request_id"] is None for row in await found.rows("ledger"))

    async def end() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        async with day_without_faults(*day) as found:
            await found.run(600.0)
            return await found.rows("call_steps"), await found.rows("ledger")

    asyncio.run(archive())
    assert _killed_at("submit", 2 * chance.randint(1, STREAMS), 0.0, service, *day)
    assert asyncio.run(bought_unheard()) > 0, "an operation's id was stored before the kill"
    for _ in range(2):
        _killed_at(None, chance.randint(1, 16 * NUMBER), chance.uniform(0.001, 0.03), service, *day)
    steps, bill = asyncio.run(end())
    assert {row["state"] for row in steps} == {"done"}
    _check_ends(steps, bill)
    _check_purchases(service, bill)
    assert len(bill) == NUMBER, "without a fault each recording is bought once"


def _killed_at(of: str | None, at: int, delay_s: float, service: SpeechService, *day: Any) -> bool:
    """Whether a run was killed before it ended."""
    process = forks().Process(target=run_until_killed, args=(of, at, delay_s, *day), daemon=True)
    process.start()
    process.join()
    service.rest()
    return process.exitcode == -signal.SIGKILL


def _has_ended(row: dict[str, Any]) -> bool:
    return row["state"] in ("done", "skipped") or (row["state"] == "failed" and row["next_try"] is None)


def _check_ends(steps: list[dict[str, Any]], bill: list[dict[str, Any]]) -> None:
    """Every recording has a transcript or a reason, and no purchase is left open or without its price."""
    ends = [(row["call_id"], row["state"], row["reason"]) for row in steps]
    assert len(ends) == NUMBER, ends
    assert all(_has_ended(row) for row in steps), ends
    assert "internal_error" not in {reason for _, _, reason in ends}, [row["detail"] for row in steps]
    for row in bill:
        assert row["state"] in ("settled", "failed"), row
        assert (row["state"] == "settled") == (row["cost_rub"] is not None), row
    paid = {row["call_id"] for row in bill if row["state"] == "settled" and row["failure"] is None}
    assert {call for call, state, _ in ends if state in ("done", "skipped")} <= paid


def _check_purchases(service: SpeechService, bill: list[dict[str, Any]]) -> None:
    """No request was carried out twice, and none followed another that had not come to nothing."""
    books = service.books()
    items = books.get("items", {})
    assert set(items.get("request_id", {}).values()) <= {1}, "a listing would have shown it"
    assert max(items.get("peak_operations", {"": 0}).values()) <= STREAMS
    outcomes = service.operations()
    by_recording: dict[str, list[str]] = {}
    for submission in items.get("submission", {}):
        request_id, _, sha256 = submission.partition(" ")
        by_recording.setdefault(sha256, []).append(request_id)
    # okna_sever-<call>-<row of the ledger>-<attempt>: what became of each is in the bill, and in the service's list.
    rows = {str(row["id"]): row for row in bill}
    for request_ids in by_recording.values():
        ordered = sorted(request_ids, key=lambda one: tuple(map(int, one.split("-")[2:])))
        for request_id in ordered[:-1]:
            row = rows[request_id.split("-")[2]]
            failed = outcomes.get(request_id) == "error"
            gone = row["failure"] in ("vanished", "expired", "timed_out")
            unclear_at_once = row["model"] == "immediate" and row["failure"] == "unclear"
            assert failed or gone or unclear_at_once, (request_id, row["failure"], ordered)
    again = Counter({sha256: len(requests) for sha256, requests in by_recording.items()})
    assert not again or max(again.values()) <= 7, again
