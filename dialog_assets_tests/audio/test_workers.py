"""Reading in processes of their own: what one file does there is that file's end only, and no process is left behind."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from dialog_assets.audio import workers
from dialog_assets.audio.convert import prepare
from dialog_assets.audio.errors import AudioError, WorkersUnavailable
from dialog_assets.audio.lines import Answer
from dialog_assets.audio.probe import probe
from dialog_assets.audio.workers import Inspectors, Limits
from dialog_assets_tests.audio import odd_files
from dialog_assets_tests.audio.files import form_of, write_audio

CALL = odd_files.RINGING


def endless(path: Path) -> Path:
    """A WAV of ten hours in a moment: a file full of holes, which takes a worker half a minute."""
    size = 36_000 * 8000 * 2
    path.write_bytes(odd_files.wave(b"", channels=1, promised=size))
    os.truncate(path, size + 44)
    return path


def children() -> set[psutil.Process]:
    found = set()
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # one that has just ended
            if "dialog_assets.audio.worker" in child.cmdline():
                found.add(child)
    return found


async def busy_child() -> psutil.Process:
    """The worker that has begun with its file."""
    while True:
        for child in children():
            if any(file.path.endswith(".wav") for file in child.open_files()):
                return child
        await asyncio.sleep(0.02)


async def refusal(inspectors: Inspectors, path: Path) -> AudioError:
    with pytest.raises(AudioError) as caught:
        await inspectors.inspect(path)
    return caught.value


def test_a_worker_finds_and_makes_what_the_functions_do(tmp_path: Path) -> None:
    """The same values over the process's border, refusals and system errors too; the worker stays for the next file."""

    async def main() -> None:
        flac = write_audio(tmp_path / "a.flac", [0.5, 0.25], 2.0, codec="flac")
        async with Inspectors() as inspectors:
            assert await inspectors.inspect(CALL) == probe(CALL)
            worker = children()
            found = await inspectors.inspect(flac)
            prepared = await inspectors.prepare(flac, form_of(found), tmp_path / "there")
            here = prepare(flac, form_of(found), tmp_path / "here")
            assert prepared.path.read_bytes() == here.path.read_bytes()
            assert (prepared.encoding, prepared.sample_rate, prepared.channels) == ("pcm_s16le", 8000, 2)
            (tmp_path / "page.mp3").write_text("<html>404</html>")
            assert (await refusal(inspectors, tmp_path / "page.mp3")).reason == "not_audio"
            with pytest.raises(FileNotFoundError):
                await inspectors.inspect(tmp_path / "none.mp3")
            with pytest.raises(OSError, match="No such file"):
                await inspectors.prepare(flac, form_of(found), tmp_path / "no" / "folder")
            assert children() == worker
        assert not children()

    asyncio.run(main())


@pytest.mark.parametrize("by", [signal.SIGSEGV, signal.SIGKILL])
def test_a_crash_is_one_files_end(tmp_path: Path, by: signal.Signals) -> None:
    """The parser dies in the middle: that file is refused, those beside it and after it are read by others."""

    async def main() -> None:
        async with Inspectors(2) as inspectors:
            bomb = asyncio.create_task(refusal(inspectors, endless(tmp_path / "a.wav")))
            victim = await busy_child()
            beside = asyncio.gather(*(inspectors.inspect(CALL) for _ in range(3)))
            victim.send_signal(by)
            error = await bomb
            assert error.reason == "parser_crashed"
            assert by.name in str(error)
            assert {found.codec for found in await beside} == {"mp3"}
            await asyncio.gather(*(inspectors.inspect(CALL) for _ in range(2)))
            assert victim not in children()
        assert not children()

    asyncio.run(main())


def test_a_file_has_its_time_and_its_memory(tmp_path: Path) -> None:
    """Too slow and too large are reasons of the file; the next one is read all the same."""

    async def main() -> None:
        slow = Limits(seconds=0.5, seconds_per_megabyte=0)
        async with Inspectors(limits=slow) as inspectors:
            assert (await refusal(inspectors, endless(tmp_path / "a.wav"))).reason == "too_slow"
            assert not children()
        async with Inspectors(limits=Limits(memory_megabytes=4)) as inspectors:
            assert (await refusal(inspectors, CALL)).reason == "too_large"
        enough = Limits(memory_megabytes=200)
        async with Inspectors(limits=enough) as inspectors:
            assert (await inspectors.inspect(CALL)).codec == "mp3"

    asyncio.run(main())


def test_a_conversion_writes_no_more_than_it_may(tmp_path: Path) -> None:
    """What grows without end when decoded does not fill the disk."""

    async def main() -> None:
        flac = write_audio(tmp_path / "a.flac", [0.0], 80, codec="flac")
        async with Inspectors(limits=Limits(file_megabytes=1)) as inspectors:
            found = await inspectors.inspect(flac)
            with pytest.raises(AudioError) as caught:
                await inspectors.prepare(flac, form_of(found), tmp_path / "out")
            assert caught.value.reason == "too_large"

    asyncio.run(main())


def test_cancelling_ends_the_processes(tmp_path: Path) -> None:
    """A run that is stopped leaves nobody working."""

    async def main() -> None:
        async def work() -> None:
            async with Inspectors(2) as inspectors, asyncio.TaskGroup() as group:
                group.create_task(inspectors.inspect(endless(tmp_path / "a.wav")))
                group.create_task(inspectors.inspect(endless(tmp_path / "b.wav")))

        task = asyncio.create_task(work())
        victim = await busy_child()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not victim.is_running()
        assert not children()

    asyncio.run(main())


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_workers_die_with_their_run(tmp_path: Path, by: signal.Signals) -> None:
    """However a run ends, its workers end with it, in the middle of a file too."""
    script = (
        "import asyncio, signal, sys; from pathlib import Path; from dialog_assets.audio.workers import Inspectors\n"
        # A suite in a shell's background ignores SIGINT, Dagster then SIGTERM too, and so would what they start.
        "signal.signal(signal.SIGTERM, signal.SIG_DFL); signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "async def main():\n"
        "    async with Inspectors() as inspectors: await inspectors.inspect(Path(sys.argv[1]))\n"
        "asyncio.run(main())"
    )
    path = endless(tmp_path / "a.wav")
    run = psutil.Popen([sys.executable, "-c", script, str(path)], stderr=subprocess.DEVNULL)
    worker = None
    while worker is None:
        assert run.poll() is None
        busy = [child for child in run.children() if any(file.path == str(path) for file in child.open_files())]
        worker = busy[0] if busy else None
        time.sleep(0.02)
    run.send_signal(by)
    run.wait(20)
    psutil.wait_procs([worker], timeout=20)
    assert not worker.is_running()


def test_a_worker_knows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a recording could take over has no key in its environment."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "invented")
    monkeypatch.setenv("DATABASE_URL", "postgresql://invented")

    async def main() -> None:
        async with Inspectors() as inspectors:
            await inspectors.inspect(CALL)
            (worker,) = children()
            assert "invented" not in "".join(worker.environ().values())

    asyncio.run(main())


def replace_worker(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Put another program into the worker's place."""
    package = folder / "dialog_assets" / "audio"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").touch()
    (package.parent / "__init__.py").touch()
    (package / "worker.py").write_text(text)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])


def test_a_worker_that_lies_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another file than the one asked for, or what is no answer, is a crash."""
    found = probe(CALL)
    other = (
        Answer(prepared=prepare(CALL, form_of(found), tmp_path / "out")).model_dump_json().replace(CALL.name, "passwd")
    )

    async def main() -> str:
        async with Inspectors() as inspectors:
            with pytest.raises(AudioError) as caught:
                await inspectors.prepare(CALL, form_of(found), tmp_path / "out")
            return caught.value.reason

    for line in (other, "{}", "nonsense", '{"prepared": {"path": "/"}}', "x" * 2_000_000):
        lie = f"print('ready', flush=True)\ninput()\nprint({line!r}, flush=True)\ninput()"
        replace_worker(tmp_path, monkeypatch, lie)
        assert asyncio.run(main()) == "parser_crashed"


def test_a_worker_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken installation is no fault of the recording."""
    replace_worker(tmp_path, monkeypatch, "raise SystemExit(3)")

    async def main() -> None:
        async with Inspectors() as inspectors:
            with pytest.raises(WorkersUnavailable, match="ended with code 3 before it began"):
                await inspectors.inspect(CALL)

    asyncio.run(main())


BROKEN = {
    "open": "import av; av.open = lambda *a, **k: (_ for _ in ()).throw(TypeError('an unexpected keyword'))",
    "resampler": "import av; del av.AudioResampler",
    "samples": "import av, numpy; av.AudioFrame = None\nfrom dialog_assets.audio import probe\n"
    "probe._samples = lambda frame: numpy.zeros((2, frame.samples), 'int16')",
    "conversion": "from dialog_assets.audio import convert; convert._transcode = lambda *a: None",
    "copying": "from dialog_assets.audio import convert\n"
    "def _copy(source, target, form): target.write_bytes(b'no sound')\nconvert._copy = _copy",
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_room_that_is_broken_is_no_fault_of_a_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A library of another version, or our own mistake: the first worker says so, and no recording is refused for it."""
    program = tmp_path / "broken.py"
    program.write_text(
        f"{BROKEN[how]}\nimport sys\nfrom dialog_assets.audio.worker import main\nmain(int(sys.argv[1]), int(sys.argv[2]))"
    )
    monkeypatch.setattr(workers, "_PROGRAM", (str(program),))

    async def main() -> None:
        async with Inspectors() as inspectors:
            for ask in (inspectors.check(), inspectors.inspect(CALL)):
                with pytest.raises(WorkersUnavailable, match=r"No recording can be read here.*repair the installation"):
                    await ask
        assert not children()

    asyncio.run(main())


def test_workers_are_replaced_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many files a worker makes room for a new one."""
    monkeypatch.setattr(workers, "FILES_A_WORKER", 2)

    async def main() -> None:
        async with Inspectors() as inspectors:
            seen = set()
            for _ in range(5):
                await inspectors.inspect(CALL)
                seen |= {child.pid for child in children()}
            assert len(seen) == 3
            assert len(children()) == 1

    asyncio.run(main())


def hostile(folder: Path) -> list[Path]:
    """Fuzzed files, and what is built to hurt: sizes that lie, bombs, endless pages."""
    chance = random.Random(20)
    folder.mkdir()
    files = {
        "huge_wav.wav": odd_files.wave(bytes(4000), promised=0x7FFFFFF0),
        "no_channels.wav": odd_files.wave(bytes(4000), channels=0),
        "many_channels.wav": odd_files.wave(bytes(4000), channels=0xFFFF, bits=8),
        "fast.wav": odd_files.wave(bytes(4000), rate=0x7FFFFFFF, channels=1),
        "no_rate.wav": odd_files.wave(bytes(4000), rate=0),
        "chunks.wav": odd_files.wave(bytes(400), before=(b"LIST" + struct.pack("<I", 4) + b"INFO") * 50_000),
        "deep.id3.mp3": odd_files.id3(TIT2="a") * 20_000 + CALL.read_bytes(),
        "lying.id3.mp3": b"ID3\x03\x00\x00\x7f\x7f\x7f\x7f" + CALL.read_bytes(),
        "moov.mp4": b"\0\0\0\x18ftypM4A \0\0\0\0M4A isom" + struct.pack(">I", 0x7FFFFFFF) + b"moov" + bytes(9000),
        "boxes.mp4": b"\0\0\0\x18ftypM4A \0\0\0\0M4A isom"
        + b"".join(struct.pack(">I", 8 * depth) + b"moov" for depth in range(3000, 0, -1)),
        "pages.ogg": (b"OggS" + bytes(22) + b"\x01\x00") * 20_000,
        "ebml.mkv": b"\x1aE\xdf\xa3\x01" + b"\xff" * 7 + bytes(4000),
        "flac.flac": b"fLaC\x84\xff\xff\xff" + struct.pack("<II", 0x7FFFFFFF, 0x7FFFFFFF) + bytes(4000),
    }
    originals = [CALL.read_bytes(), odd_files.wave(bytes(range(256)) * 20, before=b"LIST\x04\0\0\0INFO")]
    for codec, suffix in (("flac", "flac"), ("libopus", "ogg"), ("aac", "m4a"), ("aac", "mkv")):
        rate = 48000 if codec == "libopus" else 16000
        originals.append(write_audio(folder / f"original.{suffix}", [0.5], 1.0, codec=codec, rate=rate).read_bytes())
    for number in range(60):
        fuzzed = bytearray(originals[number % len(originals)])
        for _ in range(chance.choice((3, 30, 300))):
            fuzzed[chance.randrange(min(len(fuzzed), chance.choice((100, 2000, len(fuzzed)))))] = chance.randrange(256)
        files[f"fuzzed_{number}"] = bytes(fuzzed)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return sorted(folder.iterdir())


def test_hostile_files_end_with_values_or_a_reason(tmp_path: Path) -> None:
    """Whatever the bytes, within limits: measures, or an AudioError that names no file."""

    async def main() -> None:
        files = hostile(tmp_path / "hostile")
        async with Inspectors(2, Limits(seconds=20, memory_megabytes=256)) as inspectors:
            results = await asyncio.gather(*(inspectors.inspect(path) for path in files), return_exceptions=True)
        for path, result in zip(files, results, strict=True):
            if isinstance(result, BaseException):
                assert isinstance(result, AudioError), path
                assert path.name not in str(result)
                assert "Error in" not in result.detail, (path, result)
        assert sum(not isinstance(result, BaseException) for result in results) > 20

    asyncio.run(main())
