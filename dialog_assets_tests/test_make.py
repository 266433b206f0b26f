"""The Makefile notices what its environment was made for: the folder and the Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from dialog_assets_tests.conftest import ROOT

MADE_ANEW = "rm -rf .venv"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout under a path with a space, installed as far as make can tell."""
    folder = tmp_path / "a checkout"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy2(ROOT / name, folder)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=folder, check=True)
    (folder / ".venv" / "installed").write_text(f"{folder.resolve()}\n")
    return folder


def environment() -> dict[str, str]:
    """Without what the `make` that runs these tests says to those below it."""
    own = ("PYTHON", "VENV", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")
    return {name: value for name, value in os.environ.items() if name not in own}


def would_do(folder: Path, *words: str) -> str:
    made = subprocess.run(
        ["make", "-n", "install", *words], cwd=folder, env=environment(), capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    return made.stdout


def test_an_environment_is_kept_where_it_was_made(checkout: Path) -> None:
    assert MADE_ANEW not in would_do(checkout)
    assert MADE_ANEW not in would_do(checkout, f"PYTHON={sys.executable}")


def test_it_is_made_anew_in_a_checkout_that_was_moved(checkout: Path) -> None:
    assert MADE_ANEW in would_do(checkout.rename(checkout.parent / "moved"))


def test_it_is_made_anew_when_its_python_is_gone(checkout: Path) -> None:
    python = checkout / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3")
    assert MADE_ANEW in would_do(checkout)


def test_it_is_made_anew_when_its_making_was_cut_short(checkout: Path) -> None:
    (checkout / ".venv" / "installed").unlink()
    assert MADE_ANEW in would_do(checkout)


def test_it_is_made_anew_for_another_python_named_by_hand(checkout: Path) -> None:
    other = checkout / "python3.99"
    other.write_text("#!/bin/sh\necho 3.99\n")
    other.chmod(0o755)
    assert MADE_ANEW in would_do(checkout, f"PYTHON={str(other).replace(' ', chr(92) + ' ')}")


def test_make_reads_the_promised_pythons_where_they_are_promised() -> None:
    promised = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    first, end = map(int, re.findall(r"3\.(\d+)", promised))
    told = subprocess.run(
        ["make", "-f", "-", "told"],
        input="include Makefile\ntold:\n\t@echo '$(PYTHONS)'\n",
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert told.stdout.split() == [f"3.{minor}" for minor in range(first, end)]
