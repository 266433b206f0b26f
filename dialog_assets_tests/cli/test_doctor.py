"""The doctor shows every finding, whatever befalls one of its checks."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from dialog_assets.audio import workers
from dialog_assets.cli import main
from dialog_assets.cli.doctor import examination, folders, recordings
from dialog_assets.cli.doctor.examination import Answer, Check, Context, Finding, Unwell, examine_all
from dialog_assets.portals import Portal
from dialog_assets_tests.conftest import ROOT


async def _well() -> str:
    return "all is well"


async def _ill() -> str:
    raise Unwell("it is broken: mend it.")


async def _broken() -> str:
    raise KeyError("token of somebody")


async def _silent() -> str:
    await asyncio.Event().wait()
    return "never"


async def _two() -> list[Finding]:
    return [Finding("first", "ok", "well"), Finding("second", "warn", "soon")]


def test_every_finding_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that raises what nobody foresaw, or never ends, is a finding of its own beside the others; no text of an error."""
    monkeypatch.setattr(examination, "CHECK_S", 0.2)
    looks: dict[str, Callable[[], Awaitable[Answer]]] = {
        "well": _well,
        "ill": _ill,
        "broken": _broken,
        "silent": _silent,
        "two": _two,
    }
    found = asyncio.run(examine_all([Check(what, look) for what, look in looks.items()]))
    assert [(finding.what, finding.state) for finding in found] == [
        ("well", "ok"),
        ("ill", "fail"),
        ("broken", "fail"),
        ("silent", "fail"),
        ("first", "ok"),
        ("second", "warn"),
    ]
    assert "KeyError at test_doctor.py" in found[2].sentence
    assert "somebody" not in found[2].sentence


def test_a_broken_file_does_not_hide_the_rest(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A portal's file that cannot be read is a finding, and the portals of the others are examined all the same."""
    shutil.copy(ROOT / "portals" / "okna_sever.yaml", tmp_path)
    (tmp_path / "torn.yaml").write_text("portal: torn\n", encoding="utf-8")
    monkeypatch.setenv("DIALOG_ASSETS_PORTALS", str(tmp_path))
    monkeypatch.chdir(ROOT)
    told = CliRunner().invoke(main, ["doctor", "--json"])
    assert told.exit_code == 1
    found = json.loads(told.stdout)
    assert any(finding["state"] == "fail" and "torn.yaml" in finding["sentence"] for finding in found)
    assert {"Postgres", "Bitrix24 okna_sever", "S3 archive", "VoiceKit"} <= {finding["what"] for finding in found}


def _of_recordings(portals: list[Portal]) -> list[Finding]:
    return asyncio.run(examine_all(recordings.checks(Context(portals, None))))


def test_the_doctor_reads_a_tiny_recording(
    portals: list[Portal], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In the real worker; where the room is broken the finding says so, and a night could not run."""
    reading, room = _of_recordings(portals)
    assert (reading.state, room.state) == ("ok", "ok")
    program = tmp_path / "broken.py"
    program.write_text(
        "import av; del av.open\nfrom dialog_assets.audio.worker import main\nmain(512, 4096)",
    )
    monkeypatch.setattr(workers, "_PROGRAM", (str(program),))
    reading, _ = _of_recordings(portals)
    assert reading.state == "fail"
    assert "No recording can be read here" in reading.sentence


def test_the_doctor_holds_the_disk_against_the_largest_recording(
    portals: list[Portal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of 512 MB, the recording and its conversion; all downloads at once; a disk without any room."""
    for free, state, told in (
        (10**12, "ok", "enough"),
        (2 * 10**9, "ok", "they take turns"),
        (10**9, "warn", "takes 1.1 GB with its conversion: it would be set aside"),
    ):
        usage = shutil._ntuple_diskusage(free, 0, free)
        monkeypatch.setattr(shutil, "disk_usage", lambda _, usage=usage: usage)
        _, room = _of_recordings(portals)
        assert room.state == state
        assert told in room.sentence


def test_doctor_tells_what_other_users_can_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A .env, or a folder of the data, that everybody can read and reach; behind a closed folder neither is."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        project = Path(place)
        monkeypatch.chdir(project)
        monkeypatch.setenv("DIALOG_ASSETS_DATA", str(project / "data"))
        (project / "data" / "sandbox").mkdir(parents=True)
        (project / ".env").write_text("OPENAI_API_KEY=sk-planted")
        for path in (project, project / "data", project / "data" / "sandbox"):
            path.chmod(0o755)
        (project / ".env").chmod(0o644)
        found = asyncio.run(folders.closed())
        assert [finding.state for finding in found] == ["warn", "warn"]
        assert f"chmod 600 {project}/.env" in found[1].sentence
        assert "chmod u=rwX,go=" in found[0].sentence
        project.chmod(0o700)
        assert [finding.state for finding in asyncio.run(folders.closed())] == ["ok"]
