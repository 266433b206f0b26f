"""Each recording is bought once: what a run leaves behind, however it ends, the next one takes up."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from dialog_assets.assets.steps import StepRun
from dialog_assets.assets.transcripts import recognise
from dialog_assets.portals import Portal
from dialog_assets.resources.s3 import Archive
from dialog_assets.speech.errors import OperationExpired, RecogniserBusy, RecogniserUnavailable, RecordingRejected
from dialog_assets.speech.port import AudioFormat, Failed, Pending, Phrase, Recognised
from dialog_assets.store import audio_files, ledger
from dialog_assets.store.pool import Row
from dialog_assets_tests.audio.files import write_audio
from dialog_assets_tests.store.rows import (
    MONDAY,
    PORTAL,
    Pool,
    all_rows,
    call,
    one,
    put_calls,
    put_step,
    step,
    with_pool,
)

SPEECH = {"phrases": [[0, 0, 900, "Добрый день"], [1, 1000, 1900, "Мне нужно окно"]]}


class Killed(BaseException):
    """`kill -9` at this point: nothing after it is executed."""


@dataclass
class Account:
    """A speech service: what it was asked, what it has, and where the next run is to break."""

    name: str = "fake"
    raw: dict[str, Any] = field(default_factory=lambda: SPEECH)
    answers: list[Any] = field(default_factory=list)
    submit_breaks: list[tuple[bool, BaseException]] = field(default_factory=list)
    operations: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    submissions: list[str] = field(default_factory=list)
    polls: list[str] = field(default_factory=list)
    finds: list[str] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)
    formats: list[AudioFormat] = field(default_factory=list)
    vocabulary: tuple[str, ...] = ()
    submission_s: float = 0.0

    async def upload(self, path: Path, object_name: str) -> str:
        """Keep the file's name."""
        self.uploads.append(object_name)
        return f"storage://{object_name}"

    async def submit(
        self, uri: str, audio: AudioFormat, *, request_id: str, group: str, vocabulary: Sequence[str]
    ) -> str:
        """Start an operation, unless the request is to break before it arrives or after."""
        assert request_id not in self.operations, "the same request id would not be a new purchase"
        arrives, error = self.submit_breaks.pop(0) if self.submit_breaks else (True, None)
        if arrives:
            self.submissions.append(request_id)
            self.operations[request_id] = f"op{len(self.operations) + 1}"
            self.groups[request_id] = group
            self.formats.append(audio)
            self.vocabulary = tuple(vocabulary)
            await asyncio.sleep(self.submission_s)
        if error is not None:
            raise error
        return self.operations[request_id]

    async def find(self, request_id: str, group: str) -> str | None:
        """The operation of that request."""
        self.finds.append(request_id)
        return self.operations.get(request_id) if self.groups.get(request_id) == group else None

    async def poll(self, operation_id: str) -> Pending | Recognised | Failed:
        """The next of `answers`, else the result."""
        self.polls.append(operation_id)
        answer = self.answers.pop(0) if self.answers else Recognised(self.raw)
        if isinstance(answer, BaseException):
            raise answer
        assert isinstance(answer, Pending | Recognised | Failed)
        return answer

    def phrases(self, raw: dict[str, Any]) -> list[Phrase]:
        """The raw answer's phrases."""
        return [Phrase(*phrase) for phrase in raw["phrases"]]


class FolderArchive(Archive):
    """The archive of a test: every recording is the same file."""

    def __init__(self, path: Path) -> None:
        super().__init__(None, "bucket")
        self._path = path

    async def get(self, key: str, path: Path) -> None:
        """Copy the file."""
        shutil.copyfile(self._path, path)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second and a half of stereo."""
    return write_audio(tmp_path_factory.mktemp("audio") / "a.mp3", (0.5, 0.3), 1.5)


async def archived(pool: Pool, *numbers: int) -> None:
    """Calls whose recordings of 61.2 s are in the archive."""
    await put_calls(pool, *(call(number) for number in numbers))
    for number in numbers:
        async with pool.connection() as connection:
            row: Row = {
                "record_source": "disk",
                "record_file_id": 1,
                "s3_bucket": "bucket",
                "s3_key": "k",
                "sha256": f"sha{number}",
                "bytes": 1,
            }
            row |= {"container": "mp3", "codec": "mp3", "sample_rate": 8000, "channels": 2, "bit_rate": None}
            row |= {"duration_s": Decimal("61.2"), "peak_dbfs": [-3.0, -9.0]}
            await audio_files.put(connection, PORTAL, number, row)
        await put_step(pool, number, "audio_files", "done", output_key=f"sha{number}")


@dataclass
class Night:
    """Runs of the step over Monday, one after another, against one account."""

    pool: Pool
    portal: Portal
    recording: Path
    account: Account = field(default_factory=Account)

    async def run(self, patience_hours: float = 1.0) -> None:
        """One run of the step."""
        speech = self.portal.speech.model_copy(
            update={"patience_hours": patience_hours, "rub_per_minute": Decimal("0.18"), "concurrency": 2}
        )
        portal = self.portal.model_copy(update={"speech": speech})

        async def nothing(_: date) -> None: ...

        run = StepRun(portal, "transcripts", (MONDAY,), self.pool, nothing)
        await recognise(run, FolderArchive(self.recording), self.account)

    async def killed(self) -> None:
        """A run that is killed."""
        with pytest.raises(Killed):
            await self.run()

    async def ledger(self) -> Row:
        """The only row of the ledger."""
        return await one(self.pool, "SELECT * FROM ledger")

    async def step(self, number: int = 1) -> Row:
        """The call's state."""
        return await step(self.pool, number, "transcripts")


def night(database: str, portals: list[Portal], recording: Path, story: Any, *, calls: Sequence[int] = (1,)) -> None:
    """Play `story` with a Night."""

    async def work(pool: Pool) -> None:
        await archived(pool, *calls)
        await story(Night(pool, portals[1], recording))

    with_pool(database, work)


def test_a_recording_becomes_a_transcript(database: str, portals: list[Portal], recording: Path) -> None:
    """Submitted once with format, group and vocabulary; raw answer, turns, metrics and cost stored; ledger settled."""

    async def story(night: Night) -> None:
        await night.run()
        account, row = night.account, await night.ledger()
        assert account.submissions == [f"okna_sever-1-{row['id']}-1"]
        assert set(account.groups.values()) == {"okna_sever-2026-03-02"}
        assert (account.formats[0].encoding, account.formats[0].channels, account.formats[0].sample_rate) == (
            "mp3",
            2,
            8000,
        )
        assert "стеклопакет" in account.vocabulary
        assert (row["state"], row["cost_rub"], row["currency"]) == ("settled", Decimal("0.186000"), "RUB")
        assert (row["vendor_request_id"], row["audio_seconds"], row["request_key"]) == (
            "op1",
            Decimal("61.2"),
            "fake/1/sha1",
        )
        found = await one(night.pool, "SELECT * FROM transcripts")
        assert (found["operation_id"], found["raw"], found["cost_rub"]) == ("op1", SPEECH, Decimal("0.186"))
        assert [turn["role"] for turn in found["turns"]] == ["operator", "client"]
        assert found["talk_metrics"]["talk_ratio_client"] == 0.5
        assert ((await night.step())["state"], (await night.step())["input_key"]) == ("done", "sha1")
        await night.run()
        assert len(account.submissions) == len(account.polls) == 1, "a second run does nothing"

    night(database, portals, recording, story)


def test_killed_after_the_submission_arrived(database: str, portals: list[Portal], recording: Path) -> None:
    """The next run finds the operation at the service and adopts it: submitted once, paid once."""

    async def story(night: Night) -> None:
        night.account.submit_breaks = [(True, Killed())]
        await night.killed()
        row = await night.ledger()
        assert (row["state"], row["vendor_request_id"]) == ("asked", None), "written down before it was asked"
        await night.run()
        assert len(night.account.submissions) == 1
        assert night.account.finds == night.account.submissions
        row = await night.ledger()
        assert (row["state"], row["attempts"], row["vendor_request_id"]) == ("settled", 1, "op1")

    night(database, portals, recording, story)


def test_killed_before_the_submission_arrived(database: str, portals: list[Portal], recording: Path) -> None:
    """What the service does not know is submitted, under the id that was written down."""

    async def story(night: Night) -> None:
        night.account.submit_breaks = [(False, Killed())]
        await night.killed()
        await night.run()
        row = await night.ledger()
        assert night.account.submissions == night.account.finds == [f"okna_sever-1-{row['id']}-1"]
        assert (row["state"], row["attempts"]) == ("settled", 1)

    night(database, portals, recording, story)


def test_killed_while_waiting(database: str, portals: list[Portal], recording: Path) -> None:
    """The operation's id was stored before waiting for it: the next run asks for that one, without looking for it."""

    async def story(night: Night) -> None:
        night.account.answers = [Killed()]
        await night.killed()
        assert (await night.ledger())["vendor_request_id"] == "op1"
        await night.run()
        assert (len(night.account.submissions), night.account.polls, night.account.finds) == (1, ["op1", "op1"], [])
        assert len(night.account.uploads) == 1
        assert (await night.ledger())["state"] == "settled"

    night(database, portals, recording, story)


def test_no_clear_answer_to_the_submission(database: str, portals: list[Portal], recording: Path) -> None:
    """When the connection breaks it is unclear what was started: the next run looks before it buys."""

    async def story(night: Night) -> None:
        night.account.submit_breaks = [(True, RecogniserUnavailable("reset", unclear=True))]
        await night.run()
        row = await night.step()
        assert (row["state"], row["reason"]) == ("failed", "recogniser_unavailable")
        await night.run()
        assert len(night.account.submissions) == 1
        assert (await night.step())["state"] == "done"
        assert (await night.step())["attempts"] == 2

    night(database, portals, recording, story)


BILL = "SELECT id, state, failure, attempts, vendor_request_id, cost_rub FROM ledger ORDER BY id"
PRICE = Decimal("0.186000")


async def bill(night: Night) -> list[tuple[Any, ...]]:
    """The ledger's rows without their ids."""
    return [tuple(row.values())[1:] for row in await all_rows(night.pool, BILL)]


async def age(night: Night, days: int) -> None:
    """Let the open purchase be `days` old."""
    async with night.pool.connection() as connection:
        await connection.execute("UPDATE ledger SET asked_at = asked_at - make_interval(days => %s)", [days])


def test_the_bill_shows_what_was_accepted(database: str, portals: list[Portal], recording: Path) -> None:
    """From the moment the service takes a recording its price is in the ledger, though the result may never be had."""

    async def story(night: Night) -> None:
        night.account.answers = [Killed()]
        await night.killed()
        assert await bill(night) == [("asked", None, 1, "op1", PRICE)]
        row = await night.ledger()
        assert (row["currency"], row["audio_seconds"]) == ("RUB", Decimal("61.2"))

    night(database, portals, recording, story)


def test_an_expired_operation_is_bought_again_once(database: str, portals: list[Portal], recording: Path) -> None:
    """After five days the service has forgotten the result: it is bought again, and both purchases are on the bill."""

    async def story(night: Night) -> None:
        night.account.answers = [Killed()]
        await night.killed()
        await age(night, 6)
        night.account.answers = [OperationExpired("unknown")]
        await night.run()
        ids = [row["id"] for row in await all_rows(night.pool, BILL)]
        assert night.account.submissions == [f"okna_sever-1-{number}-1" for number in ids]
        assert night.account.polls == ["op1", "op1", "op2"]
        assert await bill(night) == [("settled", "expired", 1, "op1", PRICE), ("settled", None, 1, "op2", PRICE)]
        assert (await night.step())["state"] == "done"

    night(database, portals, recording, story)


def test_a_service_that_forgets_everything_is_not_paid_without_end(
    database: str, portals: list[Portal], recording: Path
) -> None:
    """An operation unknown soon after its purchase is bought once more; when that vanishes too, the call fails for good."""

    async def story(night: Night) -> None:
        night.account.answers = [OperationExpired("unknown")] * 2
        await night.run()
        row = await night.step()
        assert (row["state"], row["reason"], row["next_try"]) == ("failed", "recognition_vanished", None)
        assert "nothing more is bought" in row["detail"]
        await night.run()
        async with night.pool.connection() as connection:
            await connection.execute("UPDATE call_steps SET next_try = now() WHERE step = 'transcripts'")
        await night.run()
        assert len(night.account.submissions) == 2, "not even when a person asks for the call to be tried again"
        assert (await night.step())["reason"] == "recognition_vanished"
        assert await bill(night) == [("settled", "vanished", 1, f"op{number}", PRICE) for number in (1, 2)]

    night(database, portals, recording, story)


def test_a_recording_is_bought_again_once_a_run(database: str, portals: list[Portal], recording: Path) -> None:
    """One purchase expires in its time and the next vanishes: the run ends there, and the run after it tries again."""

    async def story(night: Night) -> None:
        night.account.answers = [Killed()]
        await night.killed()
        await age(night, 6)
        night.account.answers = [OperationExpired("unknown")] * 2
        await night.run()
        assert len(night.account.submissions) == 2
        row = await night.step()
        assert (row["state"], row["reason"]) == ("failed", "recognition_expired")
        await night.run()
        assert len(night.account.submissions) == 3
        assert (await night.step())["state"] == "done"
        assert [row[1] for row in await bill(night)] == ["expired", "vanished", None]

    night(database, portals, recording, story)


def test_patience_ends_before_the_recognition(database: str, portals: list[Portal], recording: Path) -> None:
    """What is not ready when the run's patience ends waits; a later run asks for the same operation."""

    async def story(night: Night) -> None:
        night.account.answers = [Pending("processing")]
        night.account.submission_s = 4
        await night.run(patience_hours=4 / 3600)
        row = await night.step()
        assert (row["state"], row["reason"], row["attempts"]) == ("waiting", "recognition", 0)
        assert row["next_try"] is not None
        assert (await night.ledger())["state"] == "asked"
        await due(night)
        await night.run()
        assert (len(night.account.submissions), night.account.polls) == (1, ["op1", "op1"])
        assert (await night.step())["state"] == "done"

    night(database, portals, recording, story)


async def due(night: Night) -> None:
    """Let the time pass until the call is to be tried again."""
    async with night.pool.connection() as connection:
        await connection.execute("UPDATE call_steps SET next_try = now() WHERE step = 'transcripts'")


def test_nothing_is_bought_after_the_patience(database: str, portals: list[Portal], recording: Path) -> None:
    """When the patience has ended nothing more is submitted, and what was bought before is asked for all the same."""

    async def story(night: Night) -> None:
        night.account.answers = [Killed(), Killed()]
        await night.killed()
        bought, uploaded, billed = len(night.account.submissions), len(night.account.uploads), len(await bill(night))
        night.account.answers = []
        await night.run(patience_hours=1e-9)
        assert len(night.account.submissions) == bought < 6
        assert len(night.account.uploads) == uploaded
        assert len(await bill(night)) == billed, "nothing was even written down"
        rows = await all_rows(night.pool, "SELECT state, reason FROM call_steps WHERE step = 'transcripts'")
        states = sorted((row["state"], row["reason"]) for row in rows)
        assert states == [("done", None)] * bought + [("waiting", "recognition")] * (6 - bought)
        await due(night)
        await night.run()
        assert len(night.account.submissions) == 6

    night(database, portals, recording, story, calls=range(1, 7))


def test_a_full_quota_is_waited_out(database: str, portals: list[Portal], recording: Path) -> None:
    """Busy means that nothing was started: the run asks again under a new id, and pays for the one that was taken."""

    async def story(night: Night) -> None:
        night.account.submit_breaks = [(False, RecogniserBusy("full")), (False, RecogniserBusy("full"))]
        night.account.answers = [RecogniserBusy("full")]
        await night.run()
        assert (await night.step())["state"] == "done"
        row = await night.ledger()
        assert night.account.submissions == [f"okna_sever-1-{row['id']}-3"]
        assert night.account.polls == ["op1", "op1"]
        assert await bill(night) == [("settled", None, 3, "op1", PRICE)]

    night(database, portals, recording, story)


def test_a_quota_that_stays_full(database: str, portals: list[Portal], recording: Path) -> None:
    """Calls wait for the next run; however many there are, it is no outage that stops the step, and nothing is looked for."""

    async def story(night: Night) -> None:
        night.account.submit_breaks = [(False, RecogniserBusy("full"))] * 1000
        await night.run(patience_hours=2 / 3600)
        rows = await all_rows(night.pool, "SELECT state, reason FROM call_steps WHERE step = 'transcripts'")
        assert {row["state"] for row in rows} == {"waiting"}
        assert len(rows) == 12
        assert "recogniser_busy" in {row["reason"] for row in rows}
        assert {row[:2] + row[4:] for row in await bill(night)} == {("failed", "busy", None)}
        night.account.submit_breaks = []
        await due(night)
        await night.run()
        assert (len(night.account.submissions), night.account.finds) == (12, [])
        assert {row[0] for row in await bill(night)} == {"settled"}

    night(database, portals, recording, story, calls=range(1, 13))


@pytest.mark.parametrize(("code", "retries"), [(13, 1), (3, 0)])
def test_a_recognition_that_fails(
    database: str, portals: list[Portal], recording: Path, code: int, retries: int
) -> None:
    """The item fails with the service's code, the purchase is closed without a price; a fault that passes is tried again."""

    async def story(night: Night) -> None:
        night.account.answers = [Failed(code, "words of the service")]
        await night.run()
        row = await night.step()
        assert (row["state"], row["reason"], row["detail"]) == ("failed", "recognition_failed", f"fake code {code}")
        assert (row["next_try"] is not None) == bool(retries)
        row = await night.ledger()
        assert (row["state"], row["failure"], row["cost_rub"]) == ("failed", f"{code}: words of the service", None)
        await night.run()
        assert len(night.account.submissions) == len(set(night.account.submissions)) == 1 + retries
        assert (await night.step())["state"] == ("done" if retries else "failed")

    night(database, portals, recording, story)


@pytest.mark.parametrize(("reason", "cured"), [("refused_by_recogniser", 0), ("missing_in_storage", 1)])
def test_a_submission_that_is_refused(
    database: str, portals: list[Portal], recording: Path, reason: str, cured: int
) -> None:
    """Nothing was bought, so the ledger does not wait for it; a recording that the storage lost is uploaded again."""

    async def story(night: Night) -> None:
        night.account.submit_breaks = [(False, RecordingRejected(reason, "text"))]
        await night.run()
        assert ((await night.step())["state"], (await night.step())["reason"]) == ("failed", reason)
        row = await night.ledger()
        assert (row["state"], row["failure"], row["cost_rub"]) == ("failed", reason, None)
        await night.run()
        assert len(night.account.uploads) == 1 + cured
        assert (await night.step())["state"] == ("done" if cured else "failed")

    night(database, portals, recording, story)


@pytest.mark.parametrize("raw", [{"phrases": []}, {"phrases": [[0, 0, 100, "  "]]}])
def test_a_recording_without_speech(database: str, portals: list[Portal], recording: Path, raw: dict[str, Any]) -> None:
    """Nobody speaks: the call is skipped, but the recognition was paid and is on the bill, and its answer is kept."""

    async def story(night: Night) -> None:
        night.account.raw = raw
        await night.run()
        row = await night.step()
        assert (row["state"], row["reason"], row["output_key"]) == ("skipped", "no_speech", None)
        row = await night.ledger()
        assert (row["state"], row["cost_rub"]) == ("settled", Decimal("0.186"))
        found = await one(night.pool, "SELECT raw, turns, cost_rub FROM transcripts")
        assert found == {"raw": raw, "turns": [], "cost_rub": Decimal("0.186")}
        await night.run()
        assert len(night.account.submissions) == 1

    night(database, portals, recording, story)


def test_a_replaced_recording_is_a_new_purchase(database: str, portals: list[Portal], recording: Path) -> None:
    """Other bytes of the same call are recognised anew; the bill shows both."""

    async def story(night: Night) -> None:
        await night.run()
        await put_step(night.pool, 1, "audio_files", "done", output_key="other")
        await night.run()
        rows = await all_rows(night.pool, "SELECT request_key, state FROM ledger ORDER BY id")
        assert [tuple(row.values()) for row in rows] == [("fake/1/sha1", "settled"), ("fake/1/other", "settled")]
        assert len(night.account.submissions) == 2
        async with night.pool.connection() as connection:
            costs = await ledger.cost_by_day(connection, PORTAL, "transcripts", MONDAY, MONDAY)
        assert costs == {MONDAY: Decimal("0.372")}

    night(database, portals, recording, story)


def test_a_killed_run_of_many_calls(database: str, portals: list[Portal], recording: Path) -> None:
    """Wherever the run of several calls is cut, again and again, each recording is submitted once in all."""

    async def story(night: Night) -> None:
        account = night.account
        for arrives, cut in ((True, "submit"), (False, "submit"), (True, "poll"), (True, "submit"), (True, "poll")):
            if cut == "submit":
                account.submit_breaks = [(True, None), (arrives, Killed())]  # type: ignore[list-item]
            else:
                account.answers = [Recognised(SPEECH), Killed()]
            try:
                await night.run()
            except Killed:
                account.submit_breaks, account.answers = [], []
        await night.run()
        rows = await all_rows(night.pool, "SELECT state, attempts FROM ledger")
        assert [tuple(row.values()) for row in rows] == [("settled", 1)] * 8
        calls = [request_id.split("-")[1] for request_id in account.submissions]
        assert sorted(calls) == [str(number) for number in range(1, 9)]

    night(database, portals, recording, story, calls=range(1, 9))
