"""Asset audio_files against a portal and an S3 service over sockets: archived once, decided by the gate, stopped by what stops."""

from __future__ import annotations

import asyncio
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from psycopg.rows import dict_row

from dialog_assets.assets import audio_files as asset
from dialog_assets.assets import temporary
from dialog_assets.assets.audio_files import archive_recordings
from dialog_assets.assets.steps import StepRun
from dialog_assets.bitrix24.recordings import Fetched, Recordings
from dialog_assets.portals import AudioSettings
from dialog_assets.resources.bitrix24 import Bitrix24Resource
from dialog_assets.resources.s3 import Archive, ArchiveRefused, ArchiveResource
from dialog_assets.sandbox.world.model import Call, Recording
from dialog_assets.store import audio_files, call_steps, day_numbers
from dialog_assets.store.pool import open_pool
from dialog_assets.worklist import StepStopped
from dialog_assets_tests.assets.portal_on_a_socket import okna_sever, portal_site
from dialog_assets_tests.audio import odd_files
from dialog_assets_tests.audio.files import write_audio
from dialog_assets_tests.audio.odd_files import RINGING
from dialog_assets_tests.resources.archive_on_a_socket import Bucket, served_bucket
from dialog_assets_tests.sandbox.bitrix24_portal import MIDNIGHT, Site, make_portal
from dialog_assets_tests.store.rows import MONDAY, PORTAL, Pool, call, put_calls, with_pool

SPOKEN = Path(asset.__file__).parents[1] / "sandbox" / "world" / "audio"
ONE, OTHER = SPOKEN / "okna_sever_7001.mp3", SPOKEN / "okna_sever_7003.mp3"
LET_ALL = {"min_duration_s": 0.0, "min_speech_s": 0.0, "silence_dbfs": -120.0}


@pytest.fixture(scope="module")
def served() -> Iterator[Bucket]:
    """One S3 service for all tests here."""
    with served_bucket() as bucket:
        yield bucket


@pytest.fixture(scope="module")
def archive(served: Bucket) -> Archive:
    """Its bucket; requests are not repeated."""
    return ArchiveResource(attempts=1).open()


@dataclass
class Night:
    """A portal with recordings, an empty bucket, a database; runs of the step over Monday, one after another."""

    database: str
    bucket: Bucket
    site: Site
    files: dict[int, Path]
    temporary: Path
    archive: Archive

    def calls(self, **recordings: int | None) -> None:
        """The statistics say now that call `c1` has this recording, and so on."""
        rows = [call(int(name[1:]), record_file_id=file_id) for name, file_id in recordings.items()]
        with_pool(self.database, lambda pool: put_calls(pool, *rows))

    def run(self, **audio: float) -> None:
        """One run of the step; `audio` are the portal's settings of that section."""
        configured = okna_sever().model_copy(update={"audio": AudioSettings(**audio)})

        async def day_done(_: object) -> None:
            return None

        async def run() -> None:
            async with open_pool(self.database, size=4) as pool:
                step = StepRun(configured, "audio_files", (MONDAY,), pool, day_done)
                await archive_recordings(step, Bitrix24Resource(), self.archive)

        asyncio.run(run())
        assert self.left() == []

    def left(self) -> list[Path]:
        """What is in the folders for files in passing."""
        return [path for path in self.temporary.glob("*/*") if path.is_dir()]

    def asked(self) -> dict[str, int]:
        """Recordings fetched, objects written and bytes sent since the last time."""
        downloads = self.site.counts().get("downloads", 0) if self.site.books.as_dict() else 0
        self.site.books.reset()
        counts = self.bucket.counts()
        told = {"downloads": downloads, "written": counts.get("PutObject", 0), "bytes": counts.get("upload_bytes", 0)}
        return {name: number for name, number in told.items() if number}

    def rows(self, query: str) -> list[dict[str, Any]]:
        """The rows of a query."""
        with psycopg.connect(self.database, row_factory=dict_row) as connection:
            return connection.execute(query.encode()).fetchall()

    def states(self) -> dict[int, tuple[str, str | None]]:
        """Call → state and reason at this step."""
        found = self.rows("SELECT call_id, state, reason FROM call_steps WHERE step = 'audio_files' ORDER BY 1")
        return {row["call_id"]: (row["state"], row["reason"]) for row in found}

    def to_recognise(self) -> list[int]:
        """The worklist of the step after this one."""

        async def read(pool: Pool) -> list[int]:
            found = call_steps.pending(pool, PORTAL, "transcripts", "audio_files", MONDAY, MONDAY)
            return [item.call_id async for item in found]

        return with_pool(self.database, read)


@pytest.fixture
def night(
    database: str, served: Bucket, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Mapping[int, Path]], Night]]:
    """Makes the night of a portal with these recordings (file id → file)."""
    served.reset()
    passing = tmp_path / "passing"
    passing.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(passing))
    sites = []

    def make(files: Mapping[int, Path]) -> Night:
        ready = MIDNIGHT
        calls = tuple(
            Call(file_id, ready, {}, Recording(file_id, path, f"{file_id}.mp3", "speech", 2, 0, None, ready))
            for file_id, path in files.items()
        )
        site = portal_site(make_portal(calls))
        sites.append(site)
        return Night(database, served, site.__enter__(), dict(files), passing, archive)

    yield make
    for site in sites:
        site.__exit__(None, None, None)


Make = Callable[[Mapping[int, Path]], Night]


def silence(tmp_path: Path) -> Path:
    """Two seconds of an idle line."""
    return write_audio(tmp_path / "silence.mp3", [0.0001, 0.0001])


def test_one_run_archives_and_the_next_does_nothing(night: Make, tmp_path: Path) -> None:
    """Rows have measures, marks and the gate that decided; what is skipped is archived too; a second run fetches nothing."""
    monday = night({501: ONE, 502: silence(tmp_path)})
    monday.calls(c1=501, c2=502)
    monday.run()
    assert monday.states() == {1: ("done", None), 2: ("skipped", "silent_recording")}
    sizes = ONE.stat().st_size + (tmp_path / "silence.mp3").stat().st_size
    assert monday.asked() == {"downloads": 2, "written": 2, "bytes": sizes}
    assert monday.bucket.keys() == ["okna_sever/2026-03-02/1.mp3", "okna_sever/2026-03-02/2.mp3"]
    spoken, silent = monday.rows("SELECT * FROM audio_files ORDER BY call_id")
    assert spoken["measures"]["channels"][0]["speech_s"] > 1
    assert len(spoken["measures"]["channels"]) == spoken["channels"] == len(spoken["peak_dbfs"])
    assert spoken["marks"] == []
    assert spoken["gate"] == silent["gate"]
    assert monday.to_recognise() == [1]
    monday.run()
    assert monday.asked() == {}


def test_a_days_numbers(night: Make, tmp_path: Path) -> None:
    """Recordings, minutes, megabytes, what the gate stopped, and how many have which mark."""
    mono = write_audio(tmp_path / "mono.mp3", [0.5], 30)
    monday = night({501: ONE, 502: silence(tmp_path), 503: mono})
    monday.calls(c1=501, c2=502, c3=503)
    monday.run(**LET_ALL | {"silence_dbfs": -50.0})

    async def read(pool: Pool) -> dict[str, float]:
        async with pool.connection() as connection:
            return (await day_numbers.read(connection, PORTAL, "audio_files", MONDAY, MONDAY))[MONDAY]

    found = with_pool(monday.database, read)
    (sums,) = monday.rows("SELECT sum(duration_s) AS seconds, sum(bytes) AS bytes FROM audio_files")
    assert found["recordings"] == 3
    assert found["minutes"] == pytest.approx(float(sums["seconds"]) / 60, abs=0.05)
    assert found["megabytes"] == pytest.approx(float(sums["bytes"]) / 1e6, abs=0.05)
    assert found["stopped_by_gate"] == 1
    assert found["marked_mono"] == 1
    assert 1 <= found["marked"] <= 3


# The same, another, none


def test_the_same_bytes_under_many_calls(night: Make) -> None:
    """Each call has its own object and row, so that one can be replaced without the others."""
    monday = night({501: ONE, 502: ONE})
    monday.calls(c1=501, c2=502, c3=501)
    monday.run()
    assert set(monday.states().values()) == {("done", None)}
    assert monday.bucket.keys() == [f"okna_sever/2026-03-02/{number}.mp3" for number in (1, 2, 3)]
    assert len(monday.rows("SELECT DISTINCT sha256 FROM audio_files")) == 1


def test_a_recording_that_is_replaced(night: Make) -> None:
    """Another recording of the call takes the object's place and goes on to recognition; the same one anew does not."""
    monday = night({501: ONE, 502: OTHER, 503: OTHER})
    monday.calls(c1=501)
    monday.run()
    before = monday.rows("SELECT * FROM audio_files")[0]
    monday.asked()
    for file_id, written in ((502, 1), (503, 0)):
        monday.calls(c1=file_id)
        monday.run()
        sent = {"written": written, "bytes": OTHER.stat().st_size} if written else {}
        assert monday.asked() == {"downloads": 1, **sent}
    (row,) = monday.rows("SELECT * FROM audio_files")
    assert (row["s3_key"], row["record_file_id"]) == (before["s3_key"], 503)
    assert row["sha256"] != before["sha256"]
    stored = monday.bucket.client.get_object(Bucket=monday.bucket.name, Key=row["s3_key"])["Body"].read()
    assert stored == OTHER.read_bytes()
    (step,) = monday.rows("SELECT output_key FROM call_steps WHERE step = 'audio_files'")
    assert step["output_key"] == row["sha256"]


def test_a_recording_that_comes_anew_in_another_form(
    night: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A WAV instead of an MP3 has another key; the earlier object stays, and where is told."""
    wav = write_audio(tmp_path / "a.wav", [0.5, 0.4], 3, codec="pcm_s16le")
    monday = night({501: ONE, 502: wav})
    for file_id in (501, 502):
        monday.calls(c1=file_id)
        monday.run()
    assert monday.bucket.keys() == ["okna_sever/2026-03-02/1.mp3", "okna_sever/2026-03-02/1.wav"]
    assert "its earlier recording stays at okna_sever/2026-03-02/1.mp3" in caplog.text
    assert monday.rows("SELECT s3_key FROM audio_files") == [{"s3_key": "okna_sever/2026-03-02/1.wav"}]


def test_a_replacement_that_cannot_be_had(night: Make) -> None:
    """The call fails with the reason, whatever the thresholds; what was archived before is still there."""
    monday = night({501: ONE})
    monday.calls(c1=501)
    monday.run()
    monday.calls(c1=999)
    for thresholds in ({}, {"min_speech_s": 1000.0}):
        monday.run(**thresholds)
        assert monday.states() == {1: ("failed", "recording_gone")}
    assert monday.bucket.keys() == ["okna_sever/2026-03-02/1.mp3"]
    assert monday.rows("SELECT record_file_id FROM audio_files") == [{"record_file_id": 501}]


def test_recordings_deleted_at_the_portal(night: Make, tmp_path: Path) -> None:
    """Archived is archived: neither a file that is gone nor statistics without a recording undo it, or ask for it again."""
    monday = night({501: ONE, 502: silence(tmp_path)})
    monday.calls(c1=501, c2=502)
    monday.run()
    before = monday.states(), monday.rows("SELECT * FROM audio_files ORDER BY call_id")
    monday.asked()
    (tmp_path / "silence.mp3").unlink()  # gone from the Disk, while the statistics still name it
    monday.run()
    assert monday.asked() == {}
    monday.calls(c1=None, c2=None)
    monday.run()
    assert monday.asked() == {}
    assert (monday.states(), monday.rows("SELECT * FROM audio_files ORDER BY call_id")) == before
    assert monday.to_recognise() == [1]


def test_a_recording_that_the_archive_has_lost(night: Make, served: Bucket) -> None:
    """The step after this one finds it gone and puts the call back on the worklist: it is fetched again, nothing else is."""
    one = night({7001: ONE, 7003: OTHER})
    one.calls(c1=7001, c2=7003)
    one.run(**LET_ALL)
    one.asked()
    (row,) = one.rows("SELECT s3_key, sha256 FROM audio_files WHERE call_id = 1")
    served.client.delete_object(Bucket=served.name, Key=row["s3_key"])

    async def lost(pool: Pool) -> None:
        async with pool.connection() as connection:
            for output_key in ("another", row["sha256"]):
                await call_steps.take_up_again(
                    connection, PORTAL, 1, "audio_files", output_key, "archived_file_missing"
                )

    with_pool(one.database, lost)
    assert one.states() == {1: ("waiting", "archived_file_missing"), 2: ("done", None)}
    assert one.to_recognise() == [2]
    one.run(**LET_ALL)
    assert one.asked()["downloads"] == 1
    assert one.states() == {1: ("done", None), 2: ("done", None)}
    assert sorted(served.keys()) == sorted(found["s3_key"] for found in one.rows("SELECT s3_key FROM audio_files"))


def test_a_run_that_died_between_upload_and_database(night: Make) -> None:
    """The recording is fetched again, found in the archive, and not sent again."""
    monday = night({501: ONE})
    monday.calls(c1=501)
    monday.run()
    monday.asked()
    with psycopg.connect(monday.database) as connection:
        connection.execute("DELETE FROM audio_files")
        connection.execute("DELETE FROM call_steps WHERE step = 'audio_files'")
    monday.run()
    assert monday.asked() == {"downloads": 1}
    assert monday.states() == {1: ("done", None)}
    assert len(monday.rows("SELECT FROM audio_files")) == 1


# The gate


def test_changed_thresholds_decide_again_without_fetching(night: Make, tmp_path: Path) -> None:
    """Stricter ones stop what was let through, the old ones let it through again, lax ones let all: nothing is fetched."""
    monday = night({501: ONE, 502: silence(tmp_path)})
    monday.calls(c1=501, c2=502)
    monday.run()
    first = monday.states()
    monday.asked()
    archived = monday.rows("SELECT call_id, archived_at FROM audio_files ORDER BY 1")

    monday.run(min_speech_s=1000)
    assert monday.states()[1] in (("skipped", "no_speech"), ("skipped", "ringing_only"))
    assert monday.to_recognise() == []
    monday.run()
    assert monday.states() == first
    assert monday.to_recognise() == [1]
    monday.run(**LET_ALL)
    assert monday.states() == {1: ("done", None), 2: ("done", None)}
    assert monday.to_recognise() == [1, 2]
    assert monday.asked() == {}
    assert monday.rows("SELECT call_id, archived_at FROM audio_files ORDER BY 1") == archived
    attempts = monday.rows("SELECT attempts FROM call_steps WHERE step = 'audio_files'")
    assert attempts == [{"attempts": 1}] * 2, "to decide again is no attempt"


@pytest.mark.parametrize("state", ["asked", "answered"])
def test_what_is_bought_is_not_stopped(night: Make, state: str) -> None:
    """A stricter gate comes too late for a recording that is at the recogniser; if nothing comes of it, it is decided."""
    monday = night({501: ONE, 502: ONE})
    monday.calls(c1=501, c2=502)
    monday.run()
    with psycopg.connect(monday.database) as connection:
        connection.execute(
            "INSERT INTO ledger (portal, request_key, state, vendor, model, step, day, call_id, rub_rate) "
            "SELECT portal, 'k', %s, 'tinkoff', 'deferred', 'transcripts', day, call_id, 1 FROM calls WHERE call_id = 1",
            [state],
        )
    monday.run(min_speech_s=1000)
    assert monday.states()[1] == ("done", None)
    assert monday.states()[2][0] == "skipped"
    with psycopg.connect(monday.database) as connection:
        connection.execute("UPDATE ledger SET state = 'failed'")
    monday.run(min_speech_s=1000)
    assert monday.states()[1][0] == "skipped"


@pytest.mark.parametrize("told", [True, False])
def test_a_recording_that_ends_early(
    night: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, told: bool
) -> None:
    """Cut in the portal, it is archived, marked and recognised; where it may have been cut on the way, it is fetched anew."""
    cut = tmp_path / "cut.mp3"
    cut.write_bytes(ONE.read_bytes()[: ONE.stat().st_size // 2])
    fetch = Recordings.fetch

    async def fetched(*arguments: Any) -> Fetched:
        return replace(await fetch(*arguments), told=told)

    monkeypatch.setattr(Recordings, "fetch", fetched)
    monday = night({501: cut})
    monday.calls(c1=501)
    monday.run()
    if told:
        assert monday.states() == {1: ("done", None)}
        assert "truncated" in monday.rows("SELECT marks FROM audio_files")[0]["marks"]
        assert monday.to_recognise() == [1]
    else:
        assert monday.states() == {1: ("failed", "recording_truncated")}
        assert monday.rows("SELECT next_try FROM call_steps WHERE step = 'audio_files'")[0]["next_try"] is not None
        assert monday.asked()["downloads"] == 1
        monday.run()
        monday.run()
        assert monday.states() == {1: ("done", None)}, "it is so at its source: nothing is fetched again for ever"
        assert "truncated" in monday.rows("SELECT marks FROM audio_files")[0]["marks"]
        monday.asked()
        monday.run()
        assert monday.asked() == {}


def test_empty_recordings_are_skipped(night: Make, tmp_path: Path) -> None:
    """No bytes, a header alone, a tag alone: many in a row trip no breaker, and nothing is fetched again."""
    files = {501 + number: tmp_path / f"{number}" for number in range(24)}
    contents = [b"", odd_files.wave(b""), odd_files.id3(TIT2="Звонок")]
    for file_id, path in files.items():
        path.write_bytes(contents[file_id % 3])
    monday = night(files)
    monday.calls(**{f"c{file_id}": file_id for file_id in files})
    monday.run()
    assert set(monday.states().values()) == {("skipped", "empty_recording")}
    assert monday.asked() == {"downloads": 24}
    monday.run()
    assert monday.asked() == {}


def test_odd_recordings_end_with_a_reason_or_a_row(night: Make, tmp_path: Path) -> None:
    """What the portal serves may begin and say anything: read where it can be, else final under a name of its own."""
    spoken = ONE.read_bytes()
    whole = odd_files.wave(bytes(32_000), channels=1)
    sizes = bytearray(whole)
    sizes[4:8] = sizes[40:44] = struct.pack("<I", 0x7FFFF000)
    contents = {
        "bom": b"\xef\xbb\xbf" + spoken,
        "zeros": bytes(600) + spoken,
        "ones": b"\xff" * 600 + spoken,
        "newline": b"\n" + spoken,
        "frame": spoken[1000:],
        "sizes": bytes(sizes),
        "channels": odd_files.wave(bytes(48_000), channels=12),
        "rate": odd_files.wave(bytes(4000), channels=1, rate=0x7FFFFFF),
        "words": b"not found " * 100,
    }
    files = {}
    for number, content in enumerate(contents.values()):
        files[501 + number] = tmp_path / f"{number}"
        files[501 + number].write_bytes(content)
    monday = night(files)
    monday.calls(**{f"c{file_id}": file_id for file_id in files})
    monday.run()
    ended = dict(zip(contents, monday.states().values(), strict=True))
    assert {ended[name] for name in ("bom", "zeros", "ones", "newline", "frame")} == {("done", None)}
    assert ended["sizes"] == ("skipped", "silent_recording")
    assert ended["channels"] == ("failed", "recording_too_many_channels")
    assert ended["rate"] == ("failed", "recording_impossible_rate")
    assert ended["words"] == ("failed", "recording_not_audio")
    assert not monday.rows("SELECT FROM audio_files WHERE 'truncated' = ANY(marks)")
    monday.asked()
    monday.run()
    assert monday.asked() == {}


def test_a_recording_that_does_not_fit_is_set_aside(night: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others pass; the next run tries it again."""
    monday = night({501: ONE, 502: RINGING})
    monday.calls(c1=501, c2=502)
    small = RINGING.stat().st_size
    assert small < ONE.stat().st_size
    with monkeypatch.context() as patch:
        patch.setattr(temporary, "_HARDLY_ANY", 1000)
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(small, 0, small))
        monday.run()
    assert monday.states() == {1: ("failed", "no_room_for_recording"), 2: ("done", None)}
    monday.run()
    assert monday.states()[1] == ("done", None)


def test_changed_thresholds_mark_again(night: Make) -> None:
    """Marks follow the thresholds too; a run with the same ones writes nothing."""
    monday = night({501: ONE})
    monday.calls(c1=501)
    monday.run()
    monday.run(min_speech_s=30)
    (changed,) = monday.rows("SELECT marks, xmin::text FROM audio_files")
    assert changed["marks"] == ["no_speech_channel_1"], "that side speaks for 23 s"
    monday.run(min_speech_s=30)
    assert monday.rows("SELECT marks, xmin::text FROM audio_files") == [changed]


def test_recordings_of_before_the_measures(night: Make, tmp_path: Path) -> None:
    """Rows without measures, and with measures of another shape, keep the decision that they have."""
    monday = night({501: ONE, 502: ONE, 503: ONE})
    monday.calls(c1=501, c2=502, c3=503)
    monday.run()
    with psycopg.connect(monday.database) as connection:
        connection.execute("UPDATE audio_files SET measures = NULL, marks = NULL, gate = NULL WHERE call_id = 1")
        connection.execute("UPDATE audio_files SET measures = '{\"loud\": 1}', gate = NULL WHERE call_id = 2")
    monday.run(min_speech_s=1000)
    assert [state for state, _ in monday.states().values()] == ["done", "done", "skipped"]


def test_many_are_decided_again_a_page_at_a_time(night: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is looked at once, whatever the size of a page."""
    monday = night({501: ONE})
    monday.calls(**{f"c{number}": 501 for number in range(1, 6)})
    monday.run()
    monkeypatch.setattr(audio_files, "_DECIDED_AT_ONCE", 2)
    monday.run(min_speech_s=1000)
    assert {state for state, _ in monday.states().values()} == {"skipped"}


def test_recognised_calls_stay_recognised(night: Make) -> None:
    """What has been paid for is not taken back by stricter thresholds."""
    monday = night({501: ONE})
    monday.calls(c1=501)
    monday.run()

    async def recognised(pool: Pool) -> None:
        async with pool.connection() as connection:
            (row,) = await (await connection.execute("SELECT sha256 FROM audio_files")).fetchall()
            await call_steps.record(
                connection, PORTAL, [1], "transcripts", "done", input_key=row["sha256"], output_key="turns"
            )

    with_pool(monday.database, recognised)
    monday.run(min_speech_s=1000)
    assert monday.states()[1] == ("done", None)

    async def inherit(pool: Pool) -> None:
        async with pool.connection() as connection:
            await call_steps.record(connection, PORTAL, [1], "audio_files", "skipped", reason="no_speech")
            await call_steps.inherit(connection, PORTAL, "transcripts", "audio_files", MONDAY, MONDAY)

    with_pool(monday.database, inherit)
    assert monday.rows("SELECT state FROM call_steps WHERE step = 'transcripts'") == [{"state": "done"}]


# What stops the step, and what fails an item


def test_a_refusing_archive_stops_the_step(night: Make) -> None:
    """Denied writes: one sentence, no call is marked, and the next run does it all."""
    monday = night({501: ONE, 502: OTHER})
    monday.calls(c1=501, c2=502)
    monday.bucket.fails("denied", "PutObject")
    with pytest.raises(StepStopped, match="S3 refuses PutObject"):
        monday.run()
    assert (monday.states(), monday.left()) == ({}, [])
    monday.bucket.faults.set([])
    monday.run()
    assert set(monday.states().values()) == {("done", None)}


def test_a_missing_bucket_is_told_before_anything_is_fetched(night: Make) -> None:
    """No recording is downloaded for a bucket that is not there."""
    monday = night({501: ONE})
    monday.calls(c1=501)
    monday.archive = Archive(monday.archive.client, "not-here")
    with pytest.raises(ArchiveRefused, match="bucket not-here does not exist"):
        monday.run()
    assert (monday.asked(), monday.states()) == ({}, {})


def test_an_archive_that_is_down_for_a_while_fails_items(night: Make) -> None:
    """A busy service fails the recordings that it refuses, to be tried by the next run."""
    monday = night({501: ONE, 502: OTHER})
    monday.calls(c1=501, c2=502)
    monday.bucket.fails("slow_down", "PutObject", times=1)
    monday.run()
    failed = [number for number, state in monday.states().items() if state == ("failed", "archive_unavailable")]
    assert len(failed) == 1
    (row,) = monday.rows("SELECT next_try, detail FROM call_steps WHERE state = 'failed'")
    assert row["next_try"] <= datetime.now(UTC)
    assert "SlowDown" in row["detail"]
    monday.run()
    assert set(monday.states().values()) == {("done", None)}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_stops_the_step(night: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk of the temporary files has no room: one sentence that says where and what to do; no call is marked."""
    monday = night({501: ONE})
    monday.calls(c1=501)
    whole = tempfile.mkdtemp

    def without_room(**arguments: Any) -> str:
        folder: str = whole(**arguments)
        Path(folder, "1").symlink_to("/dev/full")
        return folder

    monkeypatch.setattr(tempfile, "mkdtemp", without_room)
    with pytest.raises(StepStopped, match=r"has no room for a recording \(No space left on device\).*set TMPDIR"):
        monday.run()
    assert (monday.states(), monday.left()) == ({}, [])


def test_every_threshold_can_be_set() -> None:
    """The portal file's section has the gate's thresholds, each with a description, and the same defaults."""
    described = {name: info.description for name, info in AudioSettings.model_fields.items()}
    thresholds = AudioSettings().thresholds
    assert set(described) == set(type(thresholds).__dataclass_fields__)
    assert all(described.values())
    assert thresholds == type(thresholds)()


def test_the_portal_file_shows_the_defaults() -> None:
    """The commented section of the example is what an empty one means, setting for setting."""
    text = (Path(__file__).parents[2] / "portals" / "okna_sever.yaml").read_text(encoding="utf-8")
    section = text[text.index("# audio:") : text.index("speech:")]
    shown = yaml.safe_load("\n".join(line.removeprefix("# ") for line in section.splitlines()))
    assert shown == {"audio": AudioSettings().model_dump()}
