"""The sandbox's addresses as a file of settings."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner
from dotenv import dotenv_values

from dialog_assets.cli import main
from dialog_assets.cli.world import ForeignFile, check_environment_file, write_environment


def test_it_is_read_back_and_closed_to_others(tmp_path: Path) -> None:
    """What is written is what a .env gives; a second sandbox replaces it."""
    values = {"A": "http://127.0.0.1:1/rest/1/x$y#z/", "B": "sl/ash+plus="}
    path = tmp_path / "sandbox.env"
    for environment in ({"A": "old"}, values):
        check_environment_file(path)
        write_environment(path, environment)
    assert dotenv_values(path) == values
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_somebody_elses_settings_stay(tmp_path: Path) -> None:
    """A real .env is not replaced."""
    path = tmp_path / ".env"
    path.write_text("VOICEKIT_API_KEY=real\n", encoding="utf-8")
    with pytest.raises(ForeignFile, match="was not written by the sandbox"):
        check_environment_file(path)
    with pytest.raises(ForeignFile, match="cannot be written"):
        write_environment(tmp_path / "no" / "folder", {})


@pytest.mark.parametrize(
    "content",
    ["# ключ\nVOICEKIT_API_KEY=secret".encode("cp1251"), "VOICEKIT_API_KEY=secret".encode("utf-16"), b"A=sec\0ret\n"],
    ids=["Windows-1251", "UTF-16", "NUL"],
)
def test_settings_that_are_no_text_in_utf8(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An editor of Windows saves so: one sentence with the file's path, and nothing of what is in it."""
    (tmp_path / ".env").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(main, ["coverage"])
    assert told.exit_code == 1
    assert f"{tmp_path / '.env'} cannot be read as settings: save it as plain text in UTF-8" in told.stderr
    assert "Traceback" not in told.stderr
    assert "sec" not in told.stderr.replace(str(tmp_path), "")
