"""How near the recogniser's step comes to what its streams can do, and whether runs side by side keep to one number of them.

The step's own core (`assets.transcripts.recognise`) with Postgres, gRPC and the storage, each run a process; the service is
a process too. Recordings are short files of which the table says that they last 1 to 10 minutes: what they are listened to
costs the service nothing, and its latency, 5 to 60 s, is drawn for each and scaled, as are the pauses between polls. The
archive is a folder. Bound: the sum of all latencies by the number of streams; the nearest that any order can come to it is
told beside it, as at the end streams stand idle.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import av
import grpc
import psycopg

from bench import speech_service
from bench.database import database
from bench.report import Section
from dialog_assets.assets.steps import StepRun
from dialog_assets.assets.transcripts import recognise
from dialog_assets.portals import Portal, load_portals
from dialog_assets.resources.s3 import Archive
from dialog_assets.speech.port import poll_delays
from dialog_assets.speech.voicekit import VoiceKit
from dialog_assets.store import audio_files, call_steps, calls
from dialog_assets.store.pool import open_pool

PORTALS = Path(__file__).parents[1] / "portals"
DAY = date(2026, 3, 2)
SECONDS = (60, 600)
_spawning = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Scale:
    """How much is done: recordings, the account's streams, by what all times are multiplied, runs side by side."""

    recordings: int = 1000
    streams: int = 50
    time_scale: float = 0.1
    side_by_side: tuple[int, ...] = (1, 4)


class Folder(Archive):
    """The archive: the files of a folder, by name."""

    def __init__(self, folder: Path) -> None:
        super().__init__(None, "bench")
        self._folder = folder

    async def get(self, key: str, path: Path, **_: object) -> None:
        """Copy the file."""
        shutil.copyfile(self._folder / key, path)


def measure(scale: Scale) -> tuple[list[Section], dict[str, str]]:
    """Sections, and the versions of what ran. Postgres is one of its own, in a temporary folder."""
    section = Section(
        f"Recognition: {scale.recordings:,} recordings, {scale.streams} streams, times × {scale.time_scale:g}",
        "Each line: so many runs at once, of as many portals, that share the account. Wall: from the moment when all may begin "
        "until the last has ended its work. Nearest: what a perfect scheduler needs for the same latencies in the same order.",
        (
            "runs side by side",
            "bound, s",
            "nearest / bound",
            "wall, s",
            "**wall / bound**",
            "most at VoiceKit at once",
            "refused over quota",
            "polls a recording",
            "cpu of a run, ms a recording",
        ),
    )
    portals = [portal(number) for number in range(max(scale.side_by_side))]
    with (
        tempfile.TemporaryDirectory(prefix="dialog_assets_bench-", ignore_cleanup_errors=True) as name,
        database(portals) as url,
    ):
        os.environ["TMPDIR"] = name
        recordings = Path(name) / "recordings"
        recordings.mkdir()
        write_recordings(recordings, scale.recordings)
        with service(recordings, scale) as (addresses, ask):
            for runs in scale.side_by_side:
                asyncio.run(prepare(url, portals[:runs], sorted(recordings.iterdir())))
                ask("begin")
                section.rows.append(_line(scale, runs, *race(url, portals[:runs], recordings, addresses, scale, ask)))
        with psycopg.connect(url) as connection:
            version = connection.info.server_version
    return [section], {
        "Postgres": f"{version // 10000}.{version % 10000}, embedded, default settings",
        "grpcio": grpc.__version__,
    }


def portal(number: int) -> Portal:
    """A portal of the bench."""
    return load_portals(PORTALS)[0].model_copy(update={"portal": f"bench_{number}"})


def write_recordings(folder: Path, number: int) -> None:
    """Short stereo MP3 files, each with bytes of its own behind the sound."""
    path = folder / "sound"
    chance = random.Random(1)  # noqa: S311 - reproducible
    with av.open(path, "w", format="mp3") as container:
        stream = container.add_stream("mp3", rate=8000, layout="stereo")
        assert isinstance(stream, av.AudioStream)  # noqa: S101 - by its codec
        for place in range(4):
            frame = av.AudioFrame(format="s16p", layout="stereo", samples=1152)
            for plane in frame.planes:
                plane.update(chance.randbytes(plane.buffer_size))
            frame.sample_rate, frame.pts, frame.time_base = 8000, place * 1152, Fraction(1, 8000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    sound = path.read_bytes()
    path.unlink()
    for place in range(number):
        tag = b"TAG" + f"recording {place}".encode().ljust(124, b"\0") + b"\xff"
        (folder / f"{place:05}.mp3").write_bytes(sound + tag)


@contextmanager
def service(recordings: Path, scale: Scale) -> Iterator[tuple[dict[str, str], Any]]:
    """The service as a process: its addresses, and a function that sends it a command and gives its books."""
    arguments = [
        "--recordings",
        str(recordings),
        "--time-scale",
        str(scale.time_scale),
        "--streams",
        str(scale.streams),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.speech_service", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PORTALS.parent,
    )
    assert process.stdin is not None  # noqa: S101 - a pipe
    assert process.stdout is not None  # noqa: S101 - a pipe
    stdin, stdout = process.stdin, process.stdout

    def ask(command: str) -> dict[str, Any]:
        stdin.write(f"{command}\n")
        stdin.flush()
        books: dict[str, Any] = json.loads(stdout.readline())
        return books

    try:
        yield json.loads(stdout.readline()), ask
    finally:
        stdin.close()
        process.wait(10)


def dealt(portals: int, recordings: list[Path]) -> list[list[Path]]:
    """The recordings, dealt out to portals."""
    return [recordings[number::portals] for number in range(portals)]


async def prepare(url: str, portals: list[Portal], recordings: list[Path]) -> None:
    """Empty tables, and the recordings in them as the step before leaves them."""
    chance = random.Random(2)  # noqa: S311 - reproducible
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("TRUNCATE calls, call_steps, audio_files, transcripts, ledger, recogniser_slots")
    shares = dealt(len(portals), recordings)
    async with open_pool(url, size=1) as pool, pool.connection() as connection:
        for one, share in zip(portals, shares, strict=True):
            start = datetime.combine(DAY, datetime.min.time(), one.zone)
            for number, path in enumerate(share, 1):
                sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
                seconds = chance.uniform(*SECONDS)
                await calls.write(connection, one.portal, [_call(number, start + timedelta(seconds=number))])
                await audio_files.put(connection, one.portal, number, _audio(path, sha256, seconds))
                await call_steps.record(
                    connection, one.portal, [number], "audio_files", "done", input_key="r", output_key=sha256
                )


def _call(number: int, started: datetime) -> dict[str, Any]:
    empty = dict.fromkeys(calls.COLUMNS)
    return {
        **empty,
        "call_id": number,
        "vendor_call_id": str(number),
        "started_at": started,
        "day": DAY,
        "direction": "incoming",
        "duration_s": 60,
        "raw": {},
    }


def _audio(path: Path, sha256: str, seconds: float) -> dict[str, Any]:
    return {
        "record_source": "disk",
        "record_file_id": 1,
        "s3_bucket": "bench",
        "s3_key": path.name,
        "sha256": sha256,
        "bytes": path.stat().st_size,
        "container": "mp3",
        "codec": "mp3",
        "sample_rate": 8000,
        "channels": 2,
        "bit_rate": None,
        "duration_s": Decimal(f"{seconds:.3f}"),
        "peak_dbfs": [-3.0, -9.0],
    }


def race(
    url: str, portals: list[Portal], folder: Path, addresses: dict[str, str], scale: Scale, ask: Any
) -> tuple[float, float, dict[str, Any], float]:
    """Let one run a portal begin at once: wall seconds, processor seconds of all, the service's books, nearest possible."""
    ready = _spawning.Barrier(len(portals) + 1)
    told = _spawning.Queue()
    processes = [
        _spawning.Process(target=run, args=(url, one.portal, str(folder), addresses, scale, ready, told))
        for one in portals
    ]
    for process in processes:
        process.start()
    ready.wait(120)
    begun = time.monotonic()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit("a run failed: its error stands above")
    ends, spent = zip(*(told.get() for _ in processes), strict=True)
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT count(*) FROM transcripts").fetchone()
        left = connection.execute("SELECT count(*) FROM recogniser_slots").fetchone()
        open_ = connection.execute("SELECT count(*) FROM ledger WHERE state <> 'settled' OR attempts <> 1").fetchone()
    if (rows, left, open_) != ((scale.recordings,), (0,), (0,)):
        raise SystemExit(f"not a race: {rows} transcripts, {left} slots left, {open_} purchases open or tried twice")
    return max(ends) - begun, sum(spent), ask("books"), nearest(dealt(len(portals), sorted(folder.iterdir())), scale)


def run(url: str, name: str, folder: str, addresses: dict[str, str], scale: Scale, ready: Barrier, told: Any) -> None:
    """One run of the step over the portal's day, in a process of its own; tells when it ended and its processor seconds."""
    number = int(name.rpartition("_")[2])
    one = portal(number)
    speech = one.speech.model_copy(update={"concurrency": scale.streams, "patience_hours": 24.0})
    one = one.model_copy(update={"speech": speech})

    async def nothing(_: date) -> None: ...

    async def work() -> None:
        key, secret = speech_service.API_KEY, speech_service.SECRET_KEY
        async with (
            open_pool(url) as pool,
            VoiceKit(addresses["endpoint"], key, secret, addresses["storage_url"]) as kit,
        ):
            await kit._inbound._open()
            await asyncio.to_thread(ready.wait, 120)
            await recognise(
                StepRun(one, "transcripts", (DAY,), pool, nothing),
                Folder(Path(folder)),
                kit,
                streams=scale.streams,
                delays=partial(poll_delays, first=scale.time_scale, most=60 * scale.time_scale),
            )

    from dialog_assets.audio import convert, probe  # noqa: F401 - in memory before the race

    before = time.process_time()
    asyncio.run(work())
    told.put((time.monotonic(), time.process_time() - before))


def nearest(shares: list[list[Path]], scale: Scale) -> float:
    """Seconds of a perfect scheduler: a free stream takes the next recording at once, portals by turns."""
    behaviour = speech_service.behaviour(scale.time_scale, scale.streams)
    free = [0.0] * scale.streams
    longest = max(map(len, shares))
    for place in range(longest):
        for share in shares:
            if place < len(share):
                sha256 = hashlib.sha256(share[place].read_bytes()).hexdigest()
                heapq.heapreplace(free, free[0] + sum(behaviour.times(sha256, 1, 0.0)))
    return max(free)


def _line(scale: Scale, runs: int, wall: float, cpu: float, books: dict[str, Any], perfect: float) -> list[str]:
    counts = books["counts"]
    bound = counts["planned_ms"] / 1000 / scale.streams
    (peak,) = books["items"]["peak_operations"].values()
    return [
        f"**{runs}**",
        f"{bound:.1f}",
        f"{perfect / bound:.3f}",
        f"{wall:.1f}",
        f"**{wall / bound:.3f}**",
        str(peak),
        str(counts.get("over_quota", 0)),
        f"{counts['GetOperation'] / scale.recordings:.1f}",
        f"{1000 * cpu / scale.recordings:.0f}",
    ]
