"""Each recording is bought once: what a run leaves behind, however it ends, the next one takes up."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dialog_assets.assets.steps import StepRun
from dialog_assets.assets.transcripts import recognise
from dialog_assets.errors import DialogAssetsError
from dialog_assets.portals import Portal
from dialog_assets.resources.s3 import Archive, ArchivedFileChanged, ArchivedFileMissing
from dialog_assets.speech.errors import (
    OperationExpired,
    RecogniserBusy,
    RecogniserRefused,
    RecogniserUnavailable,
    RecordingRejected,
    SpeechError,
    UnexpectedAnswer,
)
from dialog_assets.speech.port import AudioFormat, Done, Failed, Label, Options, Pending, Phrase, Reference, poll_delays
from dialog_assets.store import audio_files, ledger
from dialog_assets.store.pool import Row
from dialog_assets.worklist import BREAKER_LIMIT, StepStopped
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
    """A speech service of another make: results are files with names of their own, which are fetched.

    What it was asked, what it has, and where the next run is to break.
    """

    name: str = "fake"
    account: str = "fake-1"
    raw: dict[str, Any] = field(default_factory=lambda: SPEECH)
    answers: list[Any] = field(default_factory=list)
    submit_breaks: list[tuple[bool, BaseException]] = field(default_factory=list)
    find_breaks: list[SpeechError] = field(default_factory=list)
    listed_at: int = 0
    at_once: list[Any] = field(default_factory=list)
    operations: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    submissions: list[str] = field(default_factory=list)
    polls: list[str] = field(default_factory=list)
    finds: list[str] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)
    formats: list[AudioFormat] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    asked_at_once: list[str] = field(default_factory=list)
    options: Options = field(default_factory=Options)

    async def upload(self, path: Path, object_name: str, *, in_message: bool = False) -> Reference:
        """Keep the file's name."""
        self.uploads.append(object_name)
        return path if in_message else f"storage://{object_name}"

    async def submit(self, recording: Reference, audio: AudioFormat, options: Options, label: Label) -> str:
        """Start an operation, unless the request is to break before it arrives or after."""
        assert label.request_id not in self.operations, "the same request id would not be a new purchase"
        assert isinstance(recording, str) or recording.exists()
        arrives, error = self.submit_breaks.pop(0) if self.submit_breaks else (True, None)
        if arrives:
            self.submissions.append(label.request_id)
            self.operations[label.request_id] = f"op{len(self.operations) + 1}"
            self.groups[label.request_id] = label.group
            self.formats.append(audio)
            self.options = options
        if error is not None:
            raise error
        return self.operations[label.request_id]

    async def find(self, label: Label) -> str | None:
        """The operation of that request."""
        self.finds.append(label.request_id)
        if self.find_breaks:
            raise self.find_breaks.pop(0)
        if len(self.finds) <= self.listed_at:
            return None
        return self.operations.get(label.request_id) if self.groups.get(label.request_id) == label.group else None

    async def poll(self, operation_id: str, label: Label | None) -> Pending | Done | Failed:
        """The next of `answers`, else that its result is in a file."""
        self.polls.append(operation_id)
        answer = self.answers.pop(0) if self.answers else Done(f"result of {operation_id}")
        if isinstance(answer, BaseException):
            raise answer
        assert isinstance(answer, Pending | Done | Failed)
        return answer

    async def fetch(self, done: Done) -> dict[str, Any]:
        """The result of that name."""
        if isinstance(done.result, BaseException):
            raise done.result
        assert done.result.startswith("result of op")
        return self.raw

    async def cancel(self, operation_id: str) -> None:
        """Note it."""
        self.cancelled.append(operation_id)

    def takes_at_once(self, size: int, duration_s: float) -> bool:
        """Up to two minutes."""
        return duration_s <= 120

    async def recognise_at_once(self, path: Path, audio: AudioFormat, options: Options, label: Label) -> dict[str, Any]:
        """The next of `at_once`, else the result."""
        assert path.exists()  # noqa: ASYNC240
        self.asked_at_once.append(label.request_id)
        answer = self.at_once.pop(0) if self.at_once else None
        if answer is not None:
            raise answer
        return self.raw

    def advice(self, vocabulary: Sequence[str]) -> str | None:
        """None."""
        return None

    def phrases(self, raw: dict[str, Any]) -> list[Phrase]:
        """The raw answer's phrases."""
        if "phrases" not in raw:
            raise UnexpectedAnswer("no phrases")
        return [Phrase(*phrase) for phrase in raw["phrases"]]


class FolderArchive(Archive):
    """The archive of a test: every recording is the same file."""

    def __init__(self, path: Path) -> None:
        super().__init__(None, "bucket")
        self._path = path

    async def get(
        self, key: str, path: Path, *, sha256: str, size: int | None = None, bucket: str | None = None
    ) -> None:
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
    streams: int = 2
    listed_within_s: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)

    async def run(self, patience_hours: float = 1.0, **settings: Any) -> None:
        """One run of the step."""
        speech = self.portal.speech.model_copy(
            update={
                "patience_hours": patience_hours,
                "rub_per_minute": Decimal("0.18"),
                "concurrency": 2,
                **self.settings,
                **settings,
            }
        )
        portal = self.portal.model_copy(update={"speech": speech})

        async def nothing(_: date) -> None: ...

        run = StepRun(portal, "transcripts", (MONDAY,), self.pool, nothing)
        await recognise(
            run,
            FolderArchive(self.recording),
            self.account,
            streams=self.streams,
            delays=partial(poll_delays, 0.05, 0.0),
            listed_within_s=self.listed_within_s,
        )

    async def killed(self) -> None:
        """A run that is killed."""
        with pytest.raises(Killed):
            await self.run()

    async def ledger(self) -> Row:
        """The only row of the ledger."""
        return await one(self.pool, "SELECT * FROM ledger")

    async def ledger_states(self) -> list[tuple[str, str | None]]:
        """State and failure of every row of the ledger."""
        rows = await all_rows(self.pool, "SELECT state, failure FROM ledger ORDER BY id")
        return [(row["state"], row["failure"]) for row in rows]

    async def step(self, number: int = 1) -> Row:
        """The call's state."""
        return await step(self.pool, number, "transcripts")


@contextmanager
def patience_ends(when: Callable[[], bool]) -> Iterator[None]:
    """A run's patience that ends when something has happened, however long that takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dialog_assets.assets.transcripts.Recognition._has_time", lambda recognition, delay: not when())
        yield


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
        assert set(account.groups.values()) == {"okna_sever-1"}
        assert (account.formats[0].encoding, account.formats[0].channels, account.formats[0].sample_rate) == (
            "mp3",
            2,
            8000,
        )
        assert "стеклопакет" in account.options.vocabulary
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


@pytest.mark.parametrize("error", [ArchivedFileMissing("it is gone."), ArchivedFileChanged("it is another.")])
def test_a_recording_that_the_archive_has_lost(
    database: str, portals: list[Portal], recording: Path, error: DialogAssetsError, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is bought; the step before fetches it again, and then it is recognised."""

    async def story(night: Night) -> None:
        async def lost(*_: Any, **__: Any) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(FolderArchive, "get", lost)
            await night.run()
        assert (await night.step())["state"] == "failed"
        before = await step(night.pool, 1, "audio_files")
        assert (before["state"], before["reason"], before["input_key"]) == (
            "waiting",
            (await night.step())["reason"],
            None,
        )
        await put_step(night.pool, 1, "audio_files", "done", output_key="sha1")
        await night.run()
        assert (await night.step())["state"] == "done"
        assert len(night.account.submissions) == 1

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


def test_a_list_that_is_behind(database: str, portals: list[Portal], recording: Path) -> None:
    """A run that begins a moment after the one that was killed: what that submitted is not listed yet, and waited for."""

    async def story(night: Night) -> None:
        night.account.submit_breaks = [(True, Killed())]
        await night.killed()
        night.account.listed_at, night.listed_within_s = 3, 60
        await night.run()
        assert (len(night.account.submissions), len(night.account.finds)) == (1, 4)
        assert (await night.ledger())["vendor_request_id"] == "op1"

    night(database, portals, recording, story)


def test_a_submission_of_a_version_before(database: str, portals: list[Portal], recording: Path) -> None:
    """Its length was not written down with the intent: the archived recording's is taken."""

    async def story(night: Night) -> None:
        night.account.submit_breaks = [(True, Killed())]
        await night.killed()
        async with night.pool.connection() as connection:
            await connection.execute("UPDATE ledger SET audio_seconds = NULL")
        await night.run()
        assert await bill(night) == [("settled", None, 1, "op1", PRICE)]

    night(database, portals, recording, story)


def test_what_could_not_be_found_at_first(database: str, portals: list[Portal], recording: Path) -> None:
    """The list is out of reach when the run begins: the recording's turn looks again, and writes down what it finds."""

    async def story(night: Night) -> None:
        night.account.submit_breaks = [(True, Killed())]
        await night.killed()
        night.account.find_breaks = [RecogniserUnavailable("down")]
        night.account.answers = [Killed()]
        await night.killed()
        assert len(night.account.finds) == 2
        assert await bill(night) == [("asked", None, 1, "op1", PRICE)], "before it waits for the answer"
        await night.run()
        assert (len(night.account.submissions), len(night.account.finds)) == (1, 2)

    night(database, portals, recording, story)


def test_a_database_that_fails_while_stock_is_taken(database: str, portals: list[Portal], recording: Path) -> None:
    """The run ends with its error, and no other look goes on behind it."""
    looked_at: asyncio.Queue[str] = asyncio.Queue()
    cancelled: list[str] = []

    class Failing(Account):
        async def find(self, label: Label) -> str | None:
            if label.request_id == self.submissions[0]:
                await looked_at.get()
                raise psycopg.OperationalError("the server closed the connection")
            try:
                looked_at.put_nowait(label.request_id)
                await asyncio.Event().wait()
            finally:
                cancelled.append(label.request_id)
            raise AssertionError

    async def story(night: Night) -> None:
        night.account = Failing()
        night.account.submit_breaks = [(True, RecogniserUnavailable("reset"))] * 2
        await night.run()
        with pytest.raises(psycopg.OperationalError, match="the server closed"):
            await night.run()
        assert cancelled == night.account.submissions[1:]

    night(database, portals, recording, story, calls=(1, 2))


def test_killed_before_the_submission_arrived(database: str, portals: list[Portal], recording: Path) -> None:
    """What the service does not know is submitted, under the id that was written down."""

    async def story(night: Night) -> None:
        night.account.submit_breaks = [(False, Killed())]
        await night.killed()
        await night.run()
        row = await night.ledger()
        assert night.account.submissions == [f"okna_sever-1-{row['id']}-1"]
        assert set(night.account.finds) == set(night.account.submissions)
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
        night.account.submit_breaks = [(True, RecogniserUnavailable("reset"))]
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


async def age(night: Night, by: timedelta) -> None:
    """Let the open purchase be so much older."""
    async with night.pool.connection() as connection:
        await connection.execute("UPDATE ledger SET asked_at = asked_at - %s", [by])


def test_the_bill_shows_what_was_accepted(database: str, portals: list[Portal], recording: Path) -> None:
    """From the moment the service takes a recording its price is in the ledger, though the result may never be had."""

    async def story(night: Night) -> None:
        night.account.answers = [Killed()]
        await night.killed()
        assert await bill(night) == [("asked", None, 1, "op1", PRICE)]
        row = await night.ledger()
        assert (row["currency"], row["audio_seconds"]) == ("RUB", Decimal("61.2"))

    night(database, portals, recording, story)


def test_the_price_is_that_of_the_purchase(database: str, portals: list[Portal], recording: Path) -> None:
    """A price that changes while the recording is at the service is not that of this recording; of the next one it is."""

    async def story(night: Night) -> None:
        night.account.answers = [Killed()]
        await night.killed()
        await night.run(rub_per_minute=Decimal("0.30"))
        assert await bill(night) == [("settled", None, 1, "op1", PRICE)]
        assert (await one(night.pool, "SELECT cost_rub FROM transcripts"))["cost_rub"] == PRICE
        await put_step(night.pool, 1, "audio_files", "done", output_key="other")
        await night.run(rub_per_minute=Decimal("0.30"))
        assert [row[-1] for row in await bill(night)] == [PRICE, Decimal("0.310000")]

    night(database, portals, recording, story)


def test_the_price_of_a_second_purchase_is_todays(database: str, portals: list[Portal], recording: Path) -> None:
    """The expired one keeps its price, what is bought in its place has the present one."""

    async def story(night: Night) -> None:
        night.account.answers = [Killed()]
        await night.killed()
        await age(night, timedelta(days=6))
        night.account.answers = [OperationExpired("unknown")]
        await night.run(rub_per_minute=Decimal("0.30"))
        assert [row[-1] for row in await bill(night)] == [PRICE, Decimal("0.310000")]

    night(database, portals, recording, story)


def test_an_expired_operation_is_bought_again_once(database: str, portals: list[Portal], recording: Path) -> None:
    """After five days the service has forgotten the result: it is bought again, and both purchases are on the bill."""

    async def story(night: Night) -> None:
        night.account.answers = [Killed()]
        await night.killed()
        await age(night, timedelta(days=6))
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


def test_an_answer_that_was_heard_but_not_kept(database: str, portals: list[Portal], recording: Path) -> None:
    """A run is killed between answer and transcript, and the service forgets it: bought again, and nothing stays open."""

    async def story(night: Night) -> None:
        with pytest.raises(Killed), pytest.MonkeyPatch.context() as patch:
            patch.setattr("dialog_assets.assets.transcripts.recognised_dialog", _killed)
            await night.run()
        assert await night.ledger_states() == [("answered", None)]
        night.account.answers = [OperationExpired("unknown")]
        await night.run()
        assert await night.ledger_states() == [("settled", "vanished"), ("settled", None)]
        assert (await night.step())["state"] == "done"

    night(database, portals, recording, story)


async def _refused_by_postgres(*_: Any, **__: Any) -> None:
    raise psycopg.errors.NumericValueOutOfRange("integer out of range")


def _killed(*_: object, **__: object) -> None:
    raise Killed


def test_a_recording_is_bought_again_once_a_run(database: str, portals: list[Portal], recording: Path) -> None:
    """One purchase expires in its time and the next vanishes: the run ends there, and the run after it tries again."""

    async def story(night: Night) -> None:
        night.account.answers = [Killed()]
        await night.killed()
        await age(night, timedelta(days=6))
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
        with patience_ends(lambda: bool(night.account.submissions)):
            await night.run()
        row = await night.step()
        assert (row["state"], row["reason"], row["attempts"]) == ("waiting", "recognition", 0)
        assert row["next_try"] is not None
        assert (await night.ledger())["state"] == "asked"
        await due(night)
        await night.run()
        assert (len(night.account.submissions), night.account.polls) == (1, ["op1", "op1"])
        assert (await night.step())["state"] == "done"

    night(database, portals, recording, story)


@pytest.mark.parametrize(("hours", "minutes"), [(0.01, 1), (2, 30), (20, 60)])
def test_what_waits_is_not_asked_for_at_once(
    database: str, portals: list[Portal], recording: Path, hours: float, minutes: float
) -> None:
    """The next try comes after a quarter of the time that the operation has been at the vendor: a minute to an hour."""

    async def story(night: Night) -> None:
        night.account.answers = [Killed()]
        await night.killed()
        await age(night, timedelta(hours=hours))
        night.account.answers = [Pending("enqueued")]
        await night.run(patience_hours=1e-9)
        row = await one(
            night.pool, "SELECT reason, next_try - now() AS wait FROM call_steps WHERE step = 'transcripts'"
        )
        assert row["reason"] == "recognition"
        assert abs(row["wait"] - timedelta(minutes=minutes)) < timedelta(minutes=0.5)
        await night.run()
        assert len(night.account.polls) == 2, "before that a run leaves it alone"

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
    """Busy means that nothing was started: the run asks again, under the same id, and the bill shows one try."""

    async def story(night: Night) -> None:
        night.account.submit_breaks = [(False, RecogniserBusy("full")), (False, RecogniserBusy("full"))]
        night.account.answers = [RecogniserBusy("full")]
        await night.run()
        assert (await night.step())["state"] == "done"
        row = await night.ledger()
        assert night.account.submissions == [f"okna_sever-1-{row['id']}-1"]
        assert night.account.polls == ["op1", "op1"]
        assert await bill(night) == [("settled", None, 1, "op1", PRICE)]

    night(database, portals, recording, story)


def test_a_quota_that_stays_full(database: str, portals: list[Portal], recording: Path) -> None:
    """Calls wait for the next run; however many there are, it is no outage that stops the step, and nothing is looked for."""

    async def story(night: Night) -> None:
        night.account.submit_breaks = [(False, RecogniserBusy("full"))] * 1000
        with patience_ends(
            lambda: len(night.account.uploads) >= BREAKER_LIMIT and len(night.account.submit_breaks) < 999
        ):
            await night.run()
        rows = await all_rows(night.pool, "SELECT state, reason FROM call_steps WHERE step = 'transcripts'")
        assert {row["state"] for row in rows} == {"waiting"}
        assert len(rows) == 12
        assert Counter(row["reason"] for row in rows)["recogniser_busy"] >= BREAKER_LIMIT
        assert {row[:2] + row[4:] for row in await bill(night)} == {("failed", "busy", None)}
        night.account.submit_breaks = []
        await due(night)
        await night.run()
        assert (len(night.account.submissions), night.account.finds) == (12, [])
        assert {row[0] for row in await bill(night)} == {"settled"}

    night(database, portals, recording, story, calls=range(1, 13))


def test_a_busy_storage_holds_up_nobody_else(database: str, portals: list[Portal], recording: Path) -> None:
    """While recordings wait for the storage, those that get in go on."""

    class Busy(Account):
        async def upload(self, path: Path, object_name: str, *, in_message: bool = False) -> Reference:
            if "sha9" not in object_name and not self.submissions:
                raise RecogniserBusy("slow down")
            return await super().upload(path, object_name, in_message=in_message)

    async def story(night: Night) -> None:
        night.account = Busy()
        await night.run()
        assert night.account.submissions[0].startswith("okna_sever-9-")
        assert len(night.account.submissions) == 9

    night(database, portals, recording, story, calls=range(1, 10))


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


def test_a_recording_replaced_before_its_purchase_was_heard_of(
    database: str, portals: list[Portal], recording: Path
) -> None:
    """The bill of a submission that a killed run left behind is that of what it submitted, not of what is archived now."""

    async def story(night: Night) -> None:
        night.account.submit_breaks = [(True, Killed())]
        await night.killed()
        await put_step(night.pool, 1, "audio_files", "done", output_key="other")
        async with night.pool.connection() as connection:
            await connection.execute("UPDATE audio_files SET sha256 = 'other', duration_s = 600")
        await night.run()
        rows = await all_rows(night.pool, "SELECT request_key, audio_seconds, cost_rub FROM ledger ORDER BY id")
        assert [tuple(row.values()) for row in rows] == [
            ("fake/1/sha1", Decimal("61.2"), PRICE),
            ("fake/1/other", Decimal(600), Decimal("1.8")),
        ]

    night(database, portals, recording, story)


def test_a_killed_run_of_many_calls(database: str, portals: list[Portal], recording: Path) -> None:
    """Wherever the run of several calls is cut, again and again, each recording is submitted once in all."""

    async def story(night: Night) -> None:
        account = night.account
        for arrives, cut in ((True, "submit"), (False, "submit"), (True, "poll"), (True, "submit"), (True, "poll")):
            if cut == "submit":
                account.submit_breaks = [(True, None), (arrives, Killed())]  # type: ignore[list-item]
            else:
                account.answers = [Done("result of op"), Killed()]
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


async def slots(night: Night) -> list[tuple[Any, ...]]:
    """Who holds or waits for one of the account's streams."""
    rows = await all_rows(night.pool, "SELECT request_key, granted, operation_id FROM recogniser_slots ORDER BY place")
    return [tuple(row.values()) for row in rows]


def test_an_operation_that_never_ends(database: str, portals: list[Portal], recording: Path) -> None:
    """After 30 hours it is cancelled and failed, its price stays on the bill; it is bought once more, and then no more."""

    async def story(night: Night) -> None:
        for number in (1, 2):
            night.account.answers = [Killed()]
            await night.killed()
            await age(night, timedelta(hours=30.5))
            night.account.answers = [Pending("processing")]
            await night.run()
            row = await night.step()
            assert (row["state"], row["reason"]) == ("failed", "recognition_timed_out")
            assert "30 hours" in row["detail"]
            assert (row["next_try"] is None) == (number == 2)
        assert night.account.cancelled == ["op1", "op2"]
        assert await bill(night) == [("settled", "timed_out", 1, f"op{number}", PRICE) for number in (1, 2)]
        async with night.pool.connection() as connection:
            await connection.execute("UPDATE call_steps SET next_try = now() WHERE step = 'transcripts'")
        await night.run()
        assert (await night.step())["reason"] == "recognition_vanished"
        assert len(night.account.submissions) == 2

    night(database, portals, recording, story)


def test_what_an_earlier_run_did_not_get_to_ask_has_its_time_anew(
    database: str, portals: list[Portal], recording: Path
) -> None:
    """A submission that never arrived is sent two days later under its own id, and is not taken for two days old."""

    async def story(night: Night) -> None:
        night.account.submit_breaks = [(False, Killed())]
        await night.killed()
        await age(night, timedelta(days=2))
        night.account.answers = [Pending("processing")]
        await night.run()
        assert (await night.step())["state"] == "done"
        assert (night.account.cancelled, len(night.account.submissions)) == ([], 1)

    night(database, portals, recording, story)


def test_a_recognition_that_fails_again_and_again(database: str, portals: list[Portal], recording: Path) -> None:
    """For passing reasons it is tried five times, later each time; then a person must ask for it."""

    async def story(night: Night) -> None:
        for number in range(1, 6):
            night.account.answers = [Failed(13, "fault")]
            await night.run()
            row = await one(night.pool, "SELECT *, next_try - now() AS wait FROM call_steps WHERE step = 'transcripts'")
            assert (row["state"], row["reason"]) == ("failed", "recognition_failed")
            if number < 5:
                assert abs(row["wait"] - timedelta(minutes=15) * (number - 1)) < timedelta(minutes=1)
            await due(night) if number < 5 else None
        assert row["next_try"] is None
        assert row["detail"] == "fake code 13, try 5 of 5"
        await night.run()
        assert len(night.account.submissions) == 5

    night(database, portals, recording, story)


def test_an_answer_that_postgres_cannot_store(database: str, portals: list[Portal], recording: Path) -> None:
    """The call fails with a reason and the purchase is closed with its price: it was paid, and is not open for ever."""

    async def story(night: Night) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dialog_assets.store.transcripts.put", _refused_by_postgres)
            await night.run()
        assert (await night.step())["reason"] == "unstorable_result"
        assert await bill(night) == [("settled", None, 1, "op1", PRICE)]
        await night.run()
        assert len(night.account.submissions) == 1

    night(database, portals, recording, story)


def test_characters_that_postgres_does_not_take(database: str, portals: list[Portal], recording: Path) -> None:
    """A NUL or half an emoji in the answer does not cost the transcript."""

    async def story(night: Night) -> None:
        night.account.raw = {"phrases": [[0, 0, 900, "Добрый\0 день"], [1, 1000, 1900, "окно \ud83d"]]}
        await night.run()
        row = await one(night.pool, "SELECT raw FROM transcripts")
        assert row["raw"] == {"phrases": [[0, 0, 900, "Добрый день"], [1, 1000, 1900, "окно \ufffd"]]}

    night(database, portals, recording, story)


@pytest.mark.parametrize("where", ["poll", "fetch", "phrases"])
def test_an_answer_outside_the_contract(database: str, portals: list[Portal], recording: Path, where: str) -> None:
    """It is paid and of no use: the call fails for good, the purchase is closed with its price, the slot is free."""

    async def story(night: Night) -> None:
        error = UnexpectedAnswer("odd")
        broken: dict[str, list[Any]] = {"poll": [error], "fetch": [Done(error)], "phrases": []}
        night.account.answers = broken[where]
        night.account.raw = {} if where == "phrases" else SPEECH
        await night.run()
        row = await night.step()
        assert (row["state"], row["reason"], row["next_try"]) == ("failed", "unexpected_answer", None)
        ((state, _, _, operation, price),) = await bill(night)
        assert (state, operation, price) == ("settled", "op1", PRICE)
        assert await slots(night) == []

    night(database, portals, recording, story)


def test_a_credential_that_is_refused(database: str, portals: list[Portal], recording: Path) -> None:
    """The step stops; nothing was taken, so the next run neither looks for it nor counts a try."""

    async def story(night: Night) -> None:
        night.account.submit_breaks = [(False, RecogniserRefused("key"))]
        with pytest.raises(StepStopped, match="key"):
            await night.run()
        assert await bill(night) == [("failed", "refused", 0, None, None)]
        assert await slots(night) == []
        await night.run()
        assert night.account.finds == []
        assert await bill(night) == [("settled", None, 1, "op1", PRICE)]

    night(database, portals, recording, story)


def test_an_outage_while_waiting(database: str, portals: list[Portal], recording: Path) -> None:
    """A service that does not answer for a while is asked again; one that stays away leaves the purchase to the next run."""

    async def story(night: Night) -> None:
        away = RecogniserUnavailable("away")
        night.account.answers = [*[away] * 4, Pending("processing"), *[away] * 4]
        await night.run()
        assert (await night.step())["state"] == "done"
        await put_step(night.pool, 1, "audio_files", "done", output_key="other")
        night.account.answers = [away] * 5
        await night.run()
        row = await night.step()
        assert (row["state"], row["reason"]) == ("failed", "recogniser_unavailable")
        assert [held[2] for held in await slots(night)] == ["op2"], "it is at the vendor all the while"
        await night.run()
        assert (await night.step())["state"] == "done"
        assert len(night.account.submissions) == 2
        assert await slots(night) == []

    night(database, portals, recording, story)


def test_the_slot_is_held_while_the_operation_is_at_the_vendor(
    database: str, portals: list[Portal], recording: Path
) -> None:
    """With one stream, what a killed run left there keeps others out until it has ended; then they go."""

    async def story(night: Night) -> None:
        night.streams = 1
        night.account.answers = [Killed()]
        await night.killed()
        assert await slots(night) == [("fake/1/sha1", True, "op1")]
        await archived(night.pool, 2, 3)
        async with night.pool.connection() as connection:
            await connection.execute(
                "UPDATE calls SET started_at = started_at + make_interval(hours => 1) WHERE call_id = 1"
            )
        night.account.answers = [Pending("processing"), Pending("processing")]
        await night.run()
        assert len(night.account.submissions) == 3
        assert night.account.polls[1] == "op1", "who waits asks what became of it"
        rows = await all_rows(night.pool, "SELECT state FROM call_steps WHERE step = 'transcripts'")
        assert [row["state"] for row in rows] == ["done"] * 3
        assert await slots(night) == []

    night(database, portals, recording, story)


@pytest.mark.parametrize("arrives", [1, 0])
def test_a_slot_of_a_killed_submission_keeps_nobody_waiting(
    database: str, portals: list[Portal], recording: Path, arrives: int
) -> None:
    """Before others stand in line it is found out whether anything is at the vendor: if not, the slot is free at once."""

    async def story(night: Night) -> None:
        night.streams = 1
        night.account.submit_breaks = [(bool(arrives), Killed())]
        await night.killed()
        assert await slots(night) == [("fake/1/sha1", True, None)]
        await archived(night.pool, 2, 3)
        async with night.pool.connection() as connection:
            await connection.execute(
                "UPDATE calls SET started_at = started_at + make_interval(hours => 1) WHERE call_id = 1"
            )
        await night.run(concurrency=1)
        assert len(night.account.submissions) == 3
        assert await slots(night) == []

    night(database, portals, recording, story)


def test_a_small_recording_goes_in_the_message(database: str, portals: list[Portal], recording: Path) -> None:
    """By setting; the file is there until it is submitted, and gone when the run has ended."""

    async def story(night: Night) -> None:
        night.account.submit_breaks = [(False, RecogniserBusy("full"))]
        await night.run(upload="message")
        assert (await night.step())["state"] == "done"

    night(database, portals, recording, story)


AT_ONCE: dict[str, Any] = {"immediate_below_s": 100, "immediate_rub_per_minute": Decimal("0.48")}
AT_ONCE_PRICE = Decimal("0.496000")


def test_a_short_recording_at_once(database: str, portals: list[Portal], recording: Path) -> None:
    """One call, at its own price, under the same rules: written down before, settled with its transcript."""

    async def story(night: Night) -> None:
        night.settings = AT_ONCE
        await night.run()
        row = await night.ledger()
        name = f"okna_sever-1-{row['id']}-1"
        assert (night.account.asked_at_once, night.account.uploads, night.account.submissions) == ([name], [], [])
        assert (row["model"], row["state"], row["answer"]) == ("immediate", "settled", None)
        assert row["cost_rub"] == AT_ONCE_PRICE
        found = await one(night.pool, "SELECT operation_id, cost_rub FROM transcripts")
        assert tuple(found.values()) == (name, AT_ONCE_PRICE)
        assert await slots(night) == []

    night(database, portals, recording, story)


def test_a_call_at_once_without_an_answer_counts_as_paid(database: str, portals: list[Portal], recording: Path) -> None:
    """There is no list to look into: each is on the bill and an outage, one a run; after two the recording goes the way
    that can be looked up.
    """

    async def story(night: Night) -> None:
        night.settings = AT_ONCE
        night.account.at_once = [RecogniserUnavailable("cut"), RecogniserUnavailable("cut")]
        for number in (1, 2):
            await night.run()
            assert (await night.step())["reason"] == "recogniser_unavailable"
            assert (len(night.account.asked_at_once), len(night.account.submissions)) == (number, 0)
        await night.run()
        assert (len(night.account.asked_at_once), len(night.account.submissions)) == (2, 1)
        assert await bill(night) == [
            *[("settled", "unclear", 1, None, AT_ONCE_PRICE)] * 2,
            ("settled", None, 1, "op1", PRICE),
        ]
        assert (await night.step())["state"] == "done"

    night(database, portals, recording, story)


def test_killed_during_a_call_at_once(database: str, portals: list[Portal], recording: Path) -> None:
    """Before the answer: counted as paid, and asked once more. After it: the answer is in the ledger, and is used."""

    async def story(night: Night) -> None:
        night.settings = AT_ONCE
        night.account.at_once = [Killed()]
        await night.killed()
        with pytest.raises(Killed), pytest.MonkeyPatch.context() as patch:
            patch.setattr("dialog_assets.assets.transcripts.recognised_dialog", _killed)
            await night.run()
        assert (await night.ledger_states()) == [("settled", "unclear"), ("answered", None)]
        await night.run()
        assert (await night.ledger_states()) == [("settled", "unclear"), ("settled", None)]
        assert len(night.account.asked_at_once) == 2
        assert (await night.step())["state"] == "done"

    night(database, portals, recording, story)


@pytest.mark.parametrize(
    ("error", "state"),
    [(RecordingRejected("refused_by_recogniser", "no"), "failed"), (RecogniserBusy("full"), "done")],
)
def test_a_call_at_once_that_is_refused(
    database: str, portals: list[Portal], recording: Path, error: SpeechError, state: str
) -> None:
    """A recording that is refused costs nothing; over a full quota it is asked again, and the bill shows one try."""

    async def story(night: Night) -> None:
        night.settings = AT_ONCE
        night.account.at_once = [error]
        await night.run()
        assert (await night.step())["state"] == state
        ((_, _, attempts, _, price),) = await bill(night)
        assert (attempts, price) == (1, AT_ONCE_PRICE if state == "done" else None)
        assert await slots(night) == []

    night(database, portals, recording, story)


def test_a_failed_call_may_change_its_way(database: str, portals: list[Portal], recording: Path) -> None:
    """What failed the deferred way and is then asked at once is not taken for a deferred one after a kill."""

    async def story(night: Night) -> None:
        night.account.answers = [Failed(13, "fault")]
        await night.run()
        night.account.at_once = [Killed()]
        with pytest.raises(Killed):
            await night.run(**AT_ONCE)
        assert (await night.ledger())["model"] == "immediate"
        await night.run()
        assert night.account.finds == []
        assert (await night.step())["state"] == "done"

    night(database, portals, recording, story)
