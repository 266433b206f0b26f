"""Recordings in passing: a folder that ends with its step, and what to do when the disk has no room for it."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dialog_assets.errors import DialogAssetsError
from dialog_assets.folders import is_private, passing_folder

_LOCK = ".lock"
_NAME = "recordings-"
_OURS = re.compile(rf"(?:{_NAME}|\d+-)\w+")
"""Only folders of these names are swept; the second is an earlier version's."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_HARDLY_ANY = 1_000_000
"""Bytes: with less room than this no recording passes."""


class NoRoomForRecordings(DialogAssetsError):
    """The disk of the temporary files is full: no recording can pass."""


class NoRoomForRecording(DialogAssetsError):
    """One recording does not fit where others do: it is set aside."""


@contextmanager
def work_folder() -> Iterator[Path]:
    """A private folder, removed at the end; folders that killed processes left are swept at the start.

    An owner holds its folder's lock, which ends with the process however it dies. A process id would not do: in containers
    the next run often has the same, and a living one of another container is not seen.
    Raises NoRoomForRecordings, FolderUnusable.
    """
    root = passing_folder()
    with room_in(root), FileLock(root / _LOCK):
        for left in root.iterdir():
            if _OURS.fullmatch(left.name) and is_private(left) and not _in_use(left):
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(dir=root, prefix=_NAME))
        lock = FileLock(folder / _LOCK)
        lock.acquire()
    try:
        yield folder
    finally:
        with FileLock(root / _LOCK):  # nobody sweeps what is being removed
            lock.release()
            shutil.rmtree(folder, ignore_errors=True)  # what is left by it is swept at the next start


class Room:
    """The disk of a step's work folder, given out before it is written on: items that do not fit side by side take turns."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._given = 0
        self._returned = asyncio.Event()

    @asynccontextmanager
    async def of(self, count: int) -> AsyncIterator[None]:
        """Room for `count` bytes, as soon as those who have theirs leave it.

        Raises NoRoomForRecording where it is not there for this one alone, NoRoomForRecordings where none is for any.
        """
        while self._given + count > (free := shutil.disk_usage(self._folder).free):
            if not self._given:
                raise _none(self._folder, "it is full") if free < _HARDLY_ANY else _too_large(self._folder, count, free)
            await self._returned.wait()
        self._given += count
        try:
            yield
        finally:
            self._given -= count
            self._returned.set()
            self._returned = asyncio.Event()


@contextmanager
def room_in(folder: Path, own: Path | None = None) -> Iterator[None]:
    """Tell what does not fit on the disk of `folder`; `own` is the file or folder that one recording writes there.

    Raises NoRoomForRecording where it was this one that filled the disk, else NoRoomForRecordings.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        written = _bytes_at(own) if own is not None else 0
        if written > _HARDLY_ANY:
            raise _too_large(folder, written, written) from None
        raise _none(folder, os.strerror(error.errno)) from None


def _bytes_at(own: Path) -> int:
    files = own.iterdir() if own.is_dir() else [own]
    return sum(file.stat().st_size for file in files if file.is_file())


def _none(folder: Path, why: str) -> NoRoomForRecordings:
    return NoRoomForRecordings(
        f"The disk of {folder.parent} has no room for a recording ({why}): free some, "
        "or set TMPDIR to a folder on a larger disk."
    )


def _too_large(folder: Path, count: int, free: int) -> NoRoomForRecording:
    return NoRoomForRecording(
        f"The disk of {folder.parent} has {free / 1e6:.0f} MB for a recording that takes {count / 1e6:.0f} MB or more: "
        "free some, or set TMPDIR to a folder on a larger disk; the next run tries again."
    )


def _in_use(folder: Path) -> bool:
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False
