"""The folder of recordings in passing: gone with its step, swept after a kill, left alone while its owner lives."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dialog_assets.assets.temporary import NoRoomForRecordings, room_in, work_folder

OWNER = """
import sys, tempfile
from pathlib import Path
from dialog_assets.assets.temporary import work_folder
tempfile.tempdir = sys.argv[1]
with work_folder() as folder:
    (folder / "recording").write_bytes(b"voices")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def passing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine's temporary folder, of this test alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def owner(passing: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that holds a folder with a recording until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(passing)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_it_ends_with_its_step(passing: Path) -> None:
    """Whatever is in it, and also when the step fails."""
    with pytest.raises(ZeroDivisionError), work_folder() as folder:
        (folder / "recording").write_bytes(b"voices")
        assert folder.stat().st_mode & 0o077 == 0, "others cannot look into it"
        raise ZeroDivisionError
    assert not folder.exists()


def test_after_a_kill(passing: Path) -> None:
    """A killed owner's folder is swept by the next step, even one with the same process id; a living owner's is not."""
    killed, left = owner(passing)
    living, kept = owner(passing)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    # In a container the next run often has the id that the killed one had.
    again = left.with_name(f"{os.getpid()}-{left.name.partition('-')[2]}")
    left.rename(again)
    with work_folder() as own:
        assert not again.exists()
        assert (kept / "recording").read_bytes() == b"voices"
        with work_folder() as other:
            assert own.exists()
            assert other != own
    living.communicate()
    assert [path for path in kept.parent.iterdir() if path.is_dir()] == []


def test_a_full_disk_is_told_from_other_trouble(tmp_path: Path) -> None:
    """No room and no quota are one sentence with what to do; anything else stays what it is."""
    for number in (errno.ENOSPC, errno.EDQUOT):
        with pytest.raises(NoRoomForRecordings, match="set TMPDIR"), room_in(tmp_path / "1"):
            raise OSError(number, os.strerror(number))
    with pytest.raises(PermissionError), room_in(tmp_path / "1"):
        raise PermissionError(errno.EACCES, "no")


def test_only_folders_of_recordings_are_swept(passing: Path) -> None:
    """Whatever else is in the passing folder, or looks like a folder of recordings, stays; an earlier version's goes."""
    with work_folder() as own:
        root = own.parent
    kept = [root / name for name in ("1f3d5a7b9c", "python_PostgresServer", "recordings", "0-notes.d")]
    swept = [root / name for name in ("recordings-abc_12xy", "4711-abc_12xy")]
    for folder in (*kept, *swept):
        folder.mkdir(mode=0o700)
    outside = root.parent / "outside"
    outside.mkdir()
    (root / "recordings-link0000").symlink_to(outside)
    with work_folder():
        assert [folder for folder in (*kept, *swept) if folder.exists()] == kept
        assert outside.exists()
