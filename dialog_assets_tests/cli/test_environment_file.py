"""The sandbox's addresses as a file of settings."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from dotenv import dotenv_values

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
