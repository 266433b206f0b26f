"""The folders that this project keeps on a machine: data that stays, and recordings in passing. Closed to other users."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
from pathlib import Path

from dialog_assets.errors import DialogAssetsError

_POSIX = hasattr(os, "geteuid")
_SYSTEM = Path("/var/lib/dialog_assets")
"""Where root's own things are: programs that a system user must reach, and the data of an earlier version's closed homes."""


class FolderUnusable(DialogAssetsError):
    """A folder that this project needs cannot be made, read or written."""


def data_folder() -> Path:
    """Where the embedded Postgres, the sandbox and Dagster keep files: DIALOG_ASSETS_DATA, by default `.data` here.

    The one exception: as root, an earlier version kept the data of a folder behind a closed one (a home) under
    /var/lib/dialog_assets. Where such data are, and are those that were used last, they stay in use; `other_data` tells
    of a second database then. Raises FolderUnusable.
    """
    folder = _asked_for()
    earlier = _earlier(folder)
    if _POSIX and os.geteuid() == 0 and _last_used(earlier) > _last_used(folder):
        return earlier
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from None
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise FolderUnusable(
            f"The data folder {folder} cannot be written to by this user: set DIALOG_ASSETS_DATA to a folder of its own."
        )
    return folder


def other_data() -> Path | None:
    """The data folder that is not used although a database is in it, where an earlier version left two."""
    folder = _asked_for()
    earlier = _earlier(folder)
    both = _last_used(folder) and _last_used(earlier)
    return (folder if data_folder() == earlier else earlier) if both else None


def data_part(name: str) -> Path:
    """A folder of this name among the data, for their owner only. Raises FolderUnusable."""
    folder = data_folder() / name
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if _POSIX and not is_private(folder):
            folder.chmod(0o700)
    except OSError as error:
        raise _unusable(folder, error) from None
    return folder


def passing_folder() -> Path:
    """This user's own folder among the machine's temporary ones, closed to others.

    Its first name is easy to guess, so somebody else may have made it, or opened it; another is taken then. It is the same
    for all processes of this user. Raises FolderUnusable.
    """
    among = Path(tempfile.gettempdir())
    name = f"dialog_assets-{os.getuid() if _POSIX else 'user'}"
    try:
        for folder in (among / name, *sorted(among.glob(f"{name}-*"))):
            if make_private(folder):
                return folder
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=among))
    except OSError as error:
        raise FolderUnusable(
            f"No folder for recordings in passing can be made in {among} ({error.strerror}): set TMPDIR to another."
        ) from None


def make_private(folder: Path) -> bool:
    """Make this folder unless it is there; whether it is this user's own and closed to others. Raises OSError."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return is_private(folder)
    return True


def is_private(folder: Path, uid: int | None = None) -> bool:
    """Whether this is a folder (no link to one) of this user, or of user `uid`, that nobody else may look into."""
    try:
        seen = folder.lstat()
    except OSError:
        return False
    if not _POSIX:
        return stat.S_ISDIR(seen.st_mode)
    return (
        stat.S_ISDIR(seen.st_mode)
        and seen.st_uid == (os.geteuid() if uid is None else uid)
        and not seen.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    )


def system_folder() -> Path:
    """Root's own folder, which every user may pass through. Raises OSError."""
    _SYSTEM.mkdir(parents=True, exist_ok=True)
    _SYSTEM.chmod(0o755)  # whatever root's umask
    return _SYSTEM


def _asked_for() -> Path:
    asked = os.environ.get("DIALOG_ASSETS_DATA") or ".data"
    try:
        return Path(asked).expanduser().resolve()
    except (
        OSError,
        RuntimeError,
    ) as error:  # the folder that this process stands in is gone; links in a circle; no such user
        raise FolderUnusable(
            f"The data folder {asked} cannot be found ({error}): correct DIALOG_ASSETS_DATA."
        ) from None


def _earlier(folder: Path) -> Path:
    return _SYSTEM / hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]


def _last_used(folder: Path) -> float:
    """When the database in this data folder was last used, 0 where none is seen: its end writes this file."""
    try:
        return (folder / "postgres" / "global" / "pg_control").stat().st_mtime
    except OSError:
        return 0


def _unusable(folder: Path, error: OSError) -> FolderUnusable:
    reason = error.strerror or type(error).__name__
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        file = next((path for path in (folder, *folder.parents) if path.exists() and not path.is_dir()), folder)
        reason = f"{'it' if file == folder else file} is a file"
    return FolderUnusable(
        f"The data folder {folder} cannot be made ({reason}): set DIALOG_ASSETS_DATA to another folder."
    )
