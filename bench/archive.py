"""The memory of a run that archives recordings, by the size of a recording: Bitrix24 → file → one reading → S3.

The real step in a process of its own, against a portal and S3 in another. Memory is what the run's process takes above
what it has before the step, and its workers beside it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import av
import boto3

from bench.database import database
from bench.report import Section
from dialog_assets.portals import load_portals

ROOT = Path(__file__).parents[1]
MONDAY = date(2026, 3, 2)
ALLOWED_MB = 80
TOGETHER_MB = 64
AT_ONCE = 8
"""As many as a portal's file asks for by default."""


@dataclass(frozen=True)
class Case:
    """So many recordings of one size in one run."""

    megabytes: int
    recordings: int = 1

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.recordings} × {self.megabytes} MB"


def measure(sizes: Sequence[int], repetitions: int) -> tuple[list[Section], dict[str, str]]:
    """Sections, and the versions of what ran."""
    cases = [*map(Case, sizes), Case(TOGETHER_MB, AT_ONCE)]
    found: dict[Case, list[dict[str, Any]]] = {case: [] for case in cases}
    with database(load_portals(ROOT / "portals")) as url, _world(sorted({case.megabytes for case in cases})) as world:
        day = MONDAY
        for _ in range(repetitions):
            for case in cases:
                job = {"day": day.isoformat(), "calls": case.recordings, "file": world["files"][str(case.megabytes)]}
                found[case].append(_run(job, {**world["environment"], "DATABASE_URL": url}))
                day += timedelta(days=1)
    versions = {"boto3": boto3.__version__, "PyAV": av.__version__}
    return [_section(found, repetitions)], versions


def _section(found: dict[Case, list[dict[str, Any]]], repetitions: int) -> Section:
    section = Section(
        "Archive: memory by the size of a recording",
        f"WAV of 48 kHz stereo; the highest of {repetitions} runs each. own: above the idle process; workers: all that read "
        f"recordings; together: both at one moment, above the idle process. Allowed for one recording: {ALLOWED_MB} MB more than "
        "the smallest.",
        (
            "recordings",
            "wall, s",
            "MB/s",
            "own, MB",
            "workers, MB",
            "together, MB",
            "more than the smallest, MB",
            "archived",
        ),
    )
    peaks = {case: _peaks(runs) for case, runs in found.items()}
    smallest = peaks[min(peaks, key=lambda case: (case.recordings, case.megabytes))]["together"]
    for case, runs in found.items():
        peak, wall = peaks[case], min(run["wall_s"] for run in runs)
        archived = min(run["archived"] for run in runs)
        section.rows.append(
            (
                f"**{case.name}**",
                f"{wall:.1f}",
                f"{case.megabytes * case.recordings / wall:.0f}",
                f"{peak['own']:.0f}",
                f"{peak['children']:.0f}",
                f"{peak['together']:.0f}",
                f"**{peak['together'] - smallest:.0f}**" if case.recordings == 1 else "",
                f"{archived} of {case.recordings}",
            )
        )
    return section


def _peaks(runs: Sequence[dict[str, Any]]) -> dict[str, float]:
    return {
        "own": max(run["own_mb"] - run["idle_mb"] for run in runs),
        "children": max(run["children_mb"] for run in runs),
        "together": max(run["together_mb"] - run["idle_mb"] for run in runs),
    }


def _run(job: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.clients.archive"],
        input=json.dumps(job),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@contextmanager
def _world(sizes: Sequence[int]) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="dialog_assets_bench-") as folder:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "bench.archive_world",
                "--folder",
                folder,
                *(f"--megabytes={size}" for size in sizes),
            ],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise SystemExit(
                    f"The world ended with code {process.wait()} before it was up; its error stands above."
                )
            yield json.loads(line)
        finally:
            process.terminate()
            process.wait(20)
