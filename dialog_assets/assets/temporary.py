"""Recordings in passing: a folder that ends with its step, and what to do when the disk has no room for it."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dialog_assets.errors import DialogAssetsError
from dialog_assets.folders import is_private, passing_folder

_LOCK = ".lock"
_NAME = "recordings-"
_OURS = re.compile(rf"(?:{_NAME}|\d+-)\w+")
"""Only folders of these names are swept; the second is an earlier version's."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class NoRoomForRecordings(DialogAssetsError):
    """The disk of the temporary files is full: no recording can pass."""


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


@contextmanager
def room_in(folder: Path) -> Iterator[None]:
    """Raise NoRoomForRecordings where something does not fit on the disk of `folder`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise NoRoomForRecordings(
            f"The disk of {folder.parent} has no room for a recording ({os.strerror(error.errno)}): free some, "
            "or set TMPDIR to a folder on a larger disk."
        ) from None


def _in_use(folder: Path) -> bool:
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False
