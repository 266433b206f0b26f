"""The doctor shows every finding, whatever befalls one of its checks."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from dialog_assets.cli import main
from dialog_assets.cli.doctor import examination
from dialog_assets.cli.doctor.examination import Answer, Check, Finding, Unwell, examine_all
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
