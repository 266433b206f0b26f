"""Reading recordings in process, beside FFmpeg's own programs on the same files, and how well speech is told.

ffprobe and ffmpeg are started as another program would start them, once a file; where they are not installed their rows are
left out. Each repetition alternates the ways, the best of each counts. Files: the sandbox's calls, the samples of
`../shared` where they are here, and the tests' odd ones; the truth about speech is that of the tests' made calls.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil

from bench.report import Section
from dialog_assets.audio.errors import AudioError
from dialog_assets.audio.gate import gate
from dialog_assets.audio.probe import probe, probe_header
from dialog_assets.audio.workers import Inspectors
from dialog_assets_tests.audio import calls, ffprobe_values, odd_files

LENGTH_S = 25.0
THREE_POINTS = 0.03
LINES = (
    ("MP3 32 kb/s, joint stereo", "libmp3lame", "mp3", True),
    ("MP3 32 kb/s, channels apart", "libmp3lame", "mp3", False),
    ("A-law", "pcm_alaw", "wav", False),
    ("mu-law", "pcm_mulaw", "wav", False),
)
FFMPEG = ("ffmpeg", "-nostdin", "-v", "error", "-i")
Way = Callable[[Sequence[Path]], object]


@dataclass
class Cost:
    """Seconds for all files: wall, and processor of this process and its children."""

    wall: float
    cpu: float


def measure(repetitions: int, made_calls: int) -> tuple[list[Section], dict[str, str]]:
    """Sections, and the versions of what ran; `made_calls`: how many of each kind are made for each codec."""
    with tempfile.TemporaryDirectory(prefix="dialog_assets_bench-") as name:
        odd = odd_files.make(Path(name))
        hour = odd.pop("mp3_one_hour.mp3")
        world = ffprobe_values.world_files()
        headers = [*world.values(), *ffprobe_values.shared_files().values(), *odd.values()]
        sections = [_headers(headers, repetitions), _whole(_readable(world.values()), hour, repetitions)]
    with tempfile.TemporaryDirectory(prefix="dialog_assets_bench-") as name:
        sections.append(_speech(Path(name), made_calls))
    return sections, {"PyAV": av.__version__, "FFmpeg in it": _libraries(), "ffprobe": _program("ffprobe")}


def _headers(files: Sequence[Path], repetitions: int) -> Section:
    section = Section(
        f"Headers: {len(files)} files",
        f"Container, codec, rate, channels, bit rate, length, tags. Best of {repetitions}. Equal: files of which all values are "
        "those of ffprobe, or which both refuse. probe_header: this process, one file after another.",
        ("way", "files/s", "× one ffprobe after another", "cpu, ms a file", "equal values"),
    )
    ways: dict[str, Way] = {"**probe_header**": lambda files: [_header(path) for path in files]}
    if shutil.which("ffprobe"):
        ways |= {
            "ffprobe, one after another": lambda files: [ffprobe_values.values(path) for path in files],
            f"ffprobe, {_cores()} at once": lambda files: asyncio.run(_side_by_side(_ffprobe, files)),
        }
    best = _best(ways, files, repetitions)
    one = best.get("ffprobe, one after another")
    for name, cost in best.items():
        ours = name.startswith("**")
        section.rows.append(
            (
                name,
                f"{len(files) / cost.wall:,.0f}",
                f"{'**' if ours else ''}{one.wall / cost.wall:.1f}{'**' if ours else ''}" if one else "",
                f"{1000 * cost.cpu / len(files):.1f}",
                f"{_equal(files)} of {len(files)}" if ours and one else "",
            )
        )
    return section


def _whole(files: Sequence[Path], hour: Path, repetitions: int) -> Section:
    found = [probe(path) for path in files]
    seconds = sum(each.duration_s for each in found)
    section = Section(
        f"Whole files: {len(files)} calls of {seconds / 60:.0f} minutes together, and one of an hour",
        f"Best of {repetitions}. probe: hashed, decoded and measured channel by channel. ffmpeg: decoded only; or decoded with "
        "astats and silencedetect, which know levels and silence and nothing of speech.",
        ("way", "files/s", "× real time", "× ffmpeg that decodes", "cpu, ms a minute"),
    )
    ways: dict[str, Way] = {
        "**probe, this process**": lambda files: [probe(path) for path in files],
        f"**{_cores()} workers**": lambda files: asyncio.run(_inspected(files)),
    }
    if shutil.which("ffmpeg"):
        ways |= {
            "ffmpeg that decodes": _decode,
            "ffmpeg with astats, silencedetect": partial(
                _decode, filters=("-af", "astats,silencedetect=n=-50dB:d=0.5")
            ),
        }
    for length, some in ((seconds, files), (probe(hour).duration_s, [hour])):
        best = _best(ways, some, repetitions)
        peer = best.get("ffmpeg that decodes")
        for name, cost in best.items():
            section.rows.append(
                (
                    f"{name}, {'the calls' if some is files else 'the hour'}",
                    f"{len(some) / cost.wall:.1f}",
                    f"{length / cost.wall:,.0f}",
                    f"{peer.wall / cost.wall:.2f}" if peer else "",
                    f"{1000 * cost.cpu / (length / 60):.0f}",
                )
            )
    return section


@dataclass
class _Found:
    """What the measures made of the calls of one codec."""

    errors: list[float] = field(default_factory=list)
    skipped: int = 0
    missed: int = 0
    extra: int = 0


def _speech(folder: Path, number: int) -> Section:
    section = Section(
        f"Speech told from the sound: for each codec {number} dialogs, of one sound twice, with a dead channel",
        "Spoken and made voices at -32 to -16 dBFS over noise 22 dB and more below; every third with hum, every fourth leaking. "
        "Error: a channel's speech share against the truth, in points of the call's length. Missed: dual mono or dead channel "
        "not marked. False: a dialog skipped; a mark that is not true.",
        (
            "codec",
            "error, mean",
            "error, most",
            f"above {100 * THREE_POINTS:.0f}",
            "missed",
            "false skips",
            "false marks",
        ),
    )
    for place, (name, codec, suffix, joint) in enumerate(LINES):
        found = _Found()
        path = folder / f"call.{suffix}"
        for seed in range(number):
            chance = np.random.default_rng([place, seed])
            clips = calls.spoken_clips() if seed % 2 else calls.made_clips()
            channels, shares = _dialog(chance, seed, clips)
            told = probe(calls.write(path, channels, codec=codec, joint=joint))
            verdict = gate(told)
            found.errors += [
                abs(channel.speech_share - share) for channel, share in zip(told.measures.channels, shares, strict=True)
            ]
            found.skipped += verdict.skip is not None
            found.extra += len(set(verdict.marks) - {"clipped"} - ({"crosstalk"} if seed % 4 == 0 else set()))
            seconds = float(chance.uniform(5, 7))
            verdict = gate(probe(calls.write(path, calls.one_sound(chance, seconds, clips), codec=codec, joint=joint)))
            found.missed += "dual_mono" not in verdict.marks
            found.skipped += verdict.skip is not None
            verdict = gate(probe(calls.write(path, calls.one_side(chance, seconds, clips), codec=codec, joint=joint)))
            found.missed += "dead_channel_1" not in verdict.marks
            found.skipped += verdict.skip is not None
            found.extra += len(set(verdict.marks) - {"dead_channel_1", "crosstalk", "clipped"})
        section.rows.append(
            (
                f"**{name}**",
                f"{100 * sum(found.errors) / len(found.errors):.2f}",
                f"{100 * max(found.errors):.2f}",
                f"{sum(error > THREE_POINTS for error in found.errors)} of {len(found.errors)}",
                f"{found.missed} of {2 * number}",
                f"{found.skipped} of {3 * number}",
                str(found.extra),
            )
        )
    return section


def _dialog(
    chance: np.random.Generator, seed: int, clips: Sequence[calls.Sound]
) -> tuple[list[calls.Sound], list[float]]:
    """A call as a line makes it, and each channel's true share of speech."""
    levels = (float(chance.uniform(-32, -16)), float(chance.uniform(-32, -16)))
    lines = calls.dialog(chance, LENGTH_S, clips, levels=levels)
    one, two = (
        line.sound
        + calls.noise(
            chance, LENGTH_S, float(chance.uniform(-80, min(-48, level - 22))), slope=-float(chance.integers(2))
        )
        for line, level in zip(lines, levels, strict=True)
    )
    if seed % 3 == 0:
        one = one + calls.hum(LENGTH_S, -45)
    if seed % 4 == 0:
        two = two + 10 ** (float(chance.uniform(-35, -18)) / 20) * np.roll(one, int(chance.integers(400)))
    return [one, two], [line.speech_share for line in lines]


def _best(ways: dict[str, Way], files: Sequence[Path], repetitions: int) -> dict[str, Cost]:
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, way in ways.items():
            wall, cpu = time.perf_counter(), _cpu()
            way(files)
            costs[name].append(Cost(time.perf_counter() - wall, _cpu() - cpu))
    return {name: min(all_, key=lambda cost: cost.wall) for name, all_ in costs.items()}


def _cpu() -> float:
    """Processor seconds of this process and of its children that have ended."""
    times = psutil.Process().cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def _header(path: Path) -> Any:
    try:
        return probe_header(path)
    except AudioError:
        return None


def _equal(files: Iterable[Path]) -> int:
    version = ffprobe_values.version()
    count = 0
    for path in files:
        told, found = ffprobe_values.values(path), _header(path)
        if told is None or found is None:
            count += told is None and found is None
        else:
            count += not ffprobe_values.differences(path, found, told, version)
    return count


def _readable(files: Iterable[Path]) -> list[Path]:
    good = []
    for path in files:
        with suppress(AudioError):
            probe(path)
            good.append(path)
    return good


async def _side_by_side(one: Callable[[Path], Any], files: Sequence[Path]) -> None:
    slots = asyncio.Semaphore(_cores())

    async def do(path: Path) -> None:
        async with slots:
            await one(path)

    await asyncio.gather(*map(do, files))


async def _ffprobe(path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *ffprobe_values.command(path), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    await process.communicate()


async def _inspected(files: Sequence[Path]) -> None:
    async with Inspectors(_cores()) as inspectors:
        await asyncio.gather(*map(inspectors.inspect, files))


def _decode(files: Sequence[Path], filters: Sequence[str] = ()) -> None:
    for path in files:
        subprocess.run([*FFMPEG, str(path), *filters, "-f", "null", "-"], capture_output=True, check=True)


def _cores() -> int:
    return os.cpu_count() or 1


def _libraries() -> str:
    return "lib" + ", lib".join(
        f"{name.removeprefix('lib')} {'.'.join(map(str, version))}"
        for name, version in av.library_versions.items()
        if name in ("libavcodec", "libavformat")
    )


def _program(name: str) -> str:
    if not shutil.which(name):
        return "not installed: its rows are left out"
    shown = subprocess.run([name, "-version"], capture_output=True, check=True, text=True).stdout
    return shown.split("Copyright")[0].strip()
