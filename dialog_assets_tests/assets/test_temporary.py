"""The folder of recordings in passing: gone with its step, swept after a kill, left alone while its owner lives."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from dialog_assets.assets.temporary import NoRoomForRecording, NoRoomForRecordings, Room, room_in, work_folder

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


def test_one_recording_that_fills_the_disk_is_set_aside(tmp_path: Path) -> None:
    """It was large itself: smaller ones may still pass."""
    large = tmp_path / "1"
    large.mkdir()
    (large / "recording").write_bytes(bytes(2_000_000))
    for own in (large, large / "recording"):
        with pytest.raises(NoRoomForRecording, match="set TMPDIR"), room_in(tmp_path, own):
            raise OSError(errno.ENOSPC, "full")


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The disk's free bytes, as the test sets them."""
    left = [60_000_000]

    def usage(_: object) -> Any:
        return shutil._ntuple_diskusage(left[0], 0, left[0])

    monkeypatch.setattr(shutil, "disk_usage", usage)
    return left


def test_recordings_that_do_not_fit_side_by_side_take_turns(tmp_path: Path, free: list[int]) -> None:
    """The sum of what is given out at a time stays below what is free; everybody comes to it, failed ones leave theirs."""

    async def main() -> None:
        room, given, most = Room(tmp_path), 0, 0

        async def one(size: int) -> None:
            nonlocal given, most
            async with room.of(size):
                given += size
                most = max(most, given)
                await asyncio.sleep(0)
                given -= size
                if size == 59_000_000:
                    raise ZeroDivisionError

        sizes = [40_000_000, 30_000_000, 59_000_000, 20_000_000, 0, 60_000_000]
        ended = await asyncio.gather(*map(one, sizes), return_exceptions=True)
        assert [type(how) for how in ended if how] == [ZeroDivisionError]
        assert most == 60_000_000

    asyncio.run(main())


def test_only_the_recording_that_does_not_fit_is_set_aside(tmp_path: Path, free: list[int]) -> None:
    """It is told with its size once it is alone, and others go on; a full disk is everybody's."""

    async def main() -> None:
        room = Room(tmp_path)
        with pytest.raises(NoRoomForRecording, match="has 60 MB for a recording that takes 115 MB"):
            async with room.of(115_000_000):
                pass
        async with room.of(1_000_000):
            pass
        free[0] = 1000
        with pytest.raises(NoRoomForRecordings, match="set TMPDIR"):
            async with room.of(115_000_000):
                pass

    asyncio.run(main())


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
