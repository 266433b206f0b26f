"""Commands that are told to stop, or not to begin, as processes of their own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from filelock import FileLock

from dialog_assets.cli.world import SandboxProcess
from dialog_assets.store import server
from dialog_assets_tests.conftest import ROOT
from dialog_assets_tests.dagster_layer.processes import session
from dialog_assets_tests.databases import copy_of
from dialog_assets_tests.faults.support import LLM_VENDORS

BACKFILL = ("backfill", "--portal", "avto_ural", "--from", "2026-03-02", "--to", "2026-03-04")


def begun(*arguments: str) -> subprocess.Popen[str]:
    """`dialog-assets …` at the head of a session, and so of a group as in a terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", "dialog_assets.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def chunked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder, also this process's, in which a range is worked on as runs of two days."""
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    shutil.copytree(ROOT / "portals", tmp_path / "portals")
    file = tmp_path / "portals" / "avto_ural.yaml"
    text = file.read_text(encoding="utf-8")
    assert "days_per_run: 7" in text
    file.write_text(text.replace("days_per_run: 7", "days_per_run: 2"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIALOG_ASSETS_PORTALS", str(tmp_path / "portals"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("how", "whom"),
    [
        (signal.SIGINT, "group"),
        (signal.SIGTERM, "process"),
        pytest.param(signal.SIGINT, "process", marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, "group", marks=pytest.mark.long),
    ],
)
def test_a_backfill_that_is_stopped_stays_stopped(
    chunked: Path,
    database: str,
    postgres: str,
    sandbox: SandboxProcess,
    monkeypatch: pytest.MonkeyPatch,
    how: signal.Signals,
    whom: str,
) -> None:
    """In mid-run: one line, 130, no other run, no child; the run is ended in Dagster, and the same command does the rest."""
    with copy_of(server.with_database(postgres, "postgres")) as storage:
        monkeypatch.setenv("DAGSTER_POSTGRES_URL", server.with_scheme(storage, "postgresql+psycopg2"))
        sandbox.post("/faults", [{"service": vendor, "kind": "slow", "value": 0.3} for vendor in LLM_VENDORS])
        process = begun(*BACKFILL)
        while not answers(sandbox.books()):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        (os.killpg if whom == "group" else os.kill)(process.pid, how)
        out, err = process.communicate()
        assert (process.returncode, out) == (130, "")
        told = err.splitlines()
        assert [line for line in told if line.startswith("Stopped; what run ")] == told[-1:]
        assert "Traceback" not in err
        assert session(process.pid) == []
        with dg.DagsterInstance.get() as instance:
            (run,) = instance.get_runs()
            assert run.is_finished
        again = begun(*BACKFILL)
        out, err = again.communicate()
        assert again.returncode == 0, err


def answers(books: dict[str, Any]) -> int:
    """How often an LLM vendor has answered."""
    return sum(books.get(vendor, {}).get("counts", {}).get("answered", 0) for vendor in LLM_VENDORS)


def test_a_second_ui_on_the_same_data_is_refused(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one sentence, before it starts anything."""
    monkeypatch.setenv("DIALOG_ASSETS_DATA", str(tmp_path))
    with FileLock(tmp_path / "ui.lock"):
        second = begun("ui")
        out, err = second.communicate()
    assert (second.returncode, out) == (1, "")
    assert err.splitlines()[-1].startswith(f"Error: The UI is served already on the data in {tmp_path}: stop that one")
    assert "Traceback" not in err
