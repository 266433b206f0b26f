"""Where things are kept: decided the same way by every command, closed to others, and one sentence where it cannot be."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from dialog_assets import folders
from dialog_assets.folders import FolderUnusable, data_folder, data_part, other_data, passing_folder

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root had two places")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a project, with temporary files beside it, and a machine's /var/lib/dialog_assets of its own."""
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.delenv("DIALOG_ASSETS_DATA", raising=False)
    monkeypatch.setattr(folders, "_SYSTEM", tmp_path / "system")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return project


def test_the_data_are_in_the_project_and_closed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default in `.data`; what DIALOG_ASSETS_DATA names may be shorter ways of saying it."""
    assert data_folder() == here / ".data"
    assert data_part("sandbox").stat().st_mode & 0o077 == data_folder().stat().st_mode & 0o077 == 0
    (here / ".data" / "sandbox").chmod(0o755)  # as an earlier version made it
    assert data_part("sandbox").stat().st_mode & 0o077 == 0
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.setenv("DIALOG_ASSETS_DATA", "~/a/b")
    assert data_folder() == here / "a" / "b"


def test_a_folder_of_others_is_never_opened_or_closed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there keeps its mode; only what is made in it is ours."""
    theirs = here / "theirs"
    theirs.mkdir()
    theirs.chmod(0o755)
    monkeypatch.setenv("DIALOG_ASSETS_DATA", str(theirs))
    data_part("dagster_home")
    assert theirs.stat().st_mode & 0o777 == 0o755


def obstacle(here: Path, kind: str) -> str:
    """Put one in the way of a data folder; returns the folder's name."""
    match kind:
        case "a file":
            (here / "data").write_text("")
        case "a file above":
            (here / "above").write_text("")
            return "above/data"
        case "a link to nowhere":
            (here / "data").symlink_to(here / "data")
        case "too long a name":
            return "d" * 256
        case "no such user":
            return "~nobody_of_that_name/data"
        case "where nobody writes":
            return "/proc/data"
    return "data"


@pytest.mark.parametrize(
    "kind", ["a file", "a file above", "a link to nowhere", "too long a name", "no such user", "where nobody writes"]
)
def test_where_no_folder_can_be(here: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """One sentence that names the folder and says what to set."""
    name = obstacle(here, kind)
    monkeypatch.setenv("DIALOG_ASSETS_DATA", name)
    with pytest.raises(FolderUnusable) as raised:
        data_folder()
    assert name in str(raised.value)
    assert "DIALOG_ASSETS_DATA" in str(raised.value)
    assert ("is a file" in str(raised.value)) == (kind in ("a file", "a file above"))


@AS_ROOT
def test_data_of_an_earlier_version_stay_in_use(here: Path, tmp_path: Path) -> None:
    """Those that were used last, whatever the modes of the folders above are by now; the other database is told of."""

    def used(folder: Path, when: float) -> None:
        control = folder / "postgres" / "global" / "pg_control"
        control.parent.mkdir(parents=True, exist_ok=True)
        control.touch()
        os.utime(control, (when, when))

    own = here / ".data"
    earlier = folders._earlier(own)
    assert (data_folder(), other_data()) == (own, None)
    used(earlier, 1000)
    assert (data_folder(), other_data()) == (earlier, None)
    for mode in (0o700, 0o755):
        tmp_path.chmod(mode)
        used(own, 2000)
        assert (data_folder(), other_data()) == (own, earlier)
        used(earlier, 3000)
        assert (data_folder(), other_data()) == (earlier, own)
        used(earlier, 1000)


def spoil(folder: Path, how: str) -> None:
    """What somebody may have made of the folder with the name that is easy to guess."""
    match how:
        case "open to all":
            folder.chmod(0o777)
        case "a link":
            folder.rmdir()
            folder.symlink_to(folder.parent)
        case "a file":
            folder.rmdir()
            folder.write_text("")
        case "of somebody else":
            os.chown(folder, 65534, -1)


@pytest.mark.parametrize("how", ["open to all", "a link", "a file", pytest.param("of somebody else", marks=AS_ROOT)])
def test_recordings_pass_where_nobody_else_looks(here: Path, tmp_path: Path, how: str) -> None:
    """A folder that somebody else made, opened, or put a link in place of is not used; all processes agree on another."""
    guessed = tmp_path / f"dialog_assets-{os.getuid()}"
    assert passing_folder() == guessed
    assert guessed.stat().st_mode & 0o077 == 0
    spoil(guessed, how)
    other = passing_folder()
    assert other.name.startswith(f"{guessed.name}-")
    assert other.stat().st_mode & 0o077 == 0
    assert passing_folder() == other
