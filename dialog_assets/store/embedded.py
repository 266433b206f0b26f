"""The embedded Postgres: a server of our own that runs from the data folder while something here uses it.

Here: its start, its address, its end. Not here: what runs it and with which programs (embedded_programs), its databases
(server), tables (migrations) and rows (one module a table).

How it lives. Every process that uses the server holds a shared lock on a file beside the database; the last to let go ends
it. The server itself holds another, inherited, which no kill leaves behind: so a living server is told from what a dead one
left, whatever process has its number by now. A server that dies while it is used is started again at the same address.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import psutil
from filelock import FileLock, Timeout

from dialog_assets.folders import FolderUnusable, is_private, make_private
from dialog_assets.store.embedded_programs import NEEDED_MEGABYTES, Programs, Trouble, reason
from dialog_assets.store.errors import DatabaseUnreachable

if sys.platform != "win32":
    import fcntl
    import signal

VERSION = "18"
_PORT = "5432"
_MARK = "cluster_name=dialog_assets"
"""Among the arguments of the servers that were started here: no other is ever ended."""
_PATIENCE_S = 120.0
"""For what another process is doing with the server, and for its recovery after a power cut."""
_NOTICED_S = 0.25
"""How soon the end of a server in use is noticed."""
_LONGEST_PAUSE_S = 30.0
"""Between two attempts to start one again."""
_LONGEST_SOCKET = 100
"""The system's limit on a socket's address is 103 bytes on macOS, 107 on Linux."""
_LARGEST_LOG = 10_000_000
_ELSEWHERE = ("HOSTADDR", "SERVICE", "OPTIONS", "REQUIREAUTH", "CHANNELBINDING", "REQUIREPEER", "TARGETSESSIONATTRS")
"""Variables of libpq, after PG, that are meant for other servers and would lead away from this one, or be refused by it."""

_log = logging.getLogger(__name__)
_held: dict[Path, Holding] = {}
_holding = threading.Lock()


def url(folder: Path, database: str) -> str:
    """The URL of `database` on the server that runs from `folder`; starts it, and keeps it until this process ends.

    Raises DatabaseUnreachable with one sentence when it does not start.
    """
    if sys.platform == "win32":
        raise DatabaseUnreachable(
            "The embedded Postgres runs on Linux and macOS: set DATABASE_URL to a server of yours."
        )
    folder = folder.resolve()
    with _holding:
        held = _held.get(folder)
        if held is None:
            held = _held[folder] = Holding(folder)
        try:
            server = held.running()
        except (Trouble, FolderUnusable) as trouble:
            raise DatabaseUnreachable(str(trouble)) from None
        except (OSError, subprocess.SubprocessError, psutil.Error) as error:
            told = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            raise DatabaseUnreachable(
                f"The embedded Postgres in {folder} does not start ({told}): make room and let this user write there, or set "
                "DATABASE_URL to another Postgres."
            ) from None
    for name in _ELSEWHERE:
        os.environ.pop(f"PG{name}", None)
    return f"postgresql://postgres@/{database}?host={quote(str(server.sockets))}&port={server.port}"


def let_go(folder: Path) -> None:
    """This process needs the server of `folder` no longer; it ends if nobody else does."""
    with _holding:
        held = _held.pop(folder.resolve(), None)
    if held is not None:
        held.end()


@atexit.register
def _let_all_go() -> None:
    for folder in list(_held):
        let_go(folder)


@dataclass(frozen=True)
class _Server:
    """A living server: its first process, and its address: the folder and the number of its socket."""

    process: psutil.Process
    sockets: Path
    port: str = _PORT

    def lives(self) -> bool:
        """Whether it serves: it runs, and nobody has swept its socket away."""
        with suppress(psutil.Error):
            return (
                self.process.is_running()
                and self.process.status() != psutil.STATUS_ZOMBIE
                and (self.sockets / f".s.PGSQL.{self.port}").exists()
            )
        return False


class Holding:
    """One process's use of the server of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.owner = os.getpid()
        self.server: _Server | None = None
        self.children: list[subprocess.Popen[bytes]] = []
        self.used: BinaryIO | None = None
        self.over = threading.Event()
        self.guard: threading.Thread | None = None

    def running(self) -> _Server:
        """The server, started unless it runs. Raises Trouble, OSError, subprocess.SubprocessError, psutil.Error."""
        if self.server is None or not self.server.lives():
            with self._alone():
                self.server = self._found_or_started()
                if self.used is None:
                    self.used = self._file("users")
                    fcntl.flock(self.used, fcntl.LOCK_SH)
        if self.guard is None:
            self.guard = threading.Thread(target=self._guard, name="embedded-postgres", daemon=True)
            self.guard.start()
        return self.server

    def end(self) -> None:
        """Let go of the server, and end it if nobody else holds it."""
        if os.getpid() != self.owner:  # a fork of the process that holds it
            return
        self.over.set()
        if self.guard is not None:
            self.guard.join()
        if self.used is None or self.server is None:
            return
        with suppress(OSError, Trouble, psutil.Error), self._alone():
            self.used.close()
            with self._file("users") as users:
                if _taken(users):
                    self._stop(self.server)

    def _guard(self) -> None:
        """Start the server again when it dies in use; its address stays the same."""
        pause = _NOTICED_S
        while not self.over.wait(pause):
            if self.server is not None and self.server.lives():
                pause = _NOTICED_S
                continue
            try:
                with self._alone():
                    self.server = self._found_or_started()
            except (OSError, Trouble, subprocess.SubprocessError, psutil.Error) as error:
                _log.warning("the embedded Postgres has died and does not start again yet: %s", error)
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else starts or ends the server meanwhile."""
        lock = FileLock(self.folder.with_name(f"{self.folder.name}.lock"), mode=0o600)
        try:
            lock.acquire(timeout=_PATIENCE_S)
        except Timeout:
            raise Trouble(
                f"Another process has been starting the embedded Postgres in {self.folder} for {_PATIENCE_S:.0f} s: "
                "look at it, or set DATABASE_URL to another Postgres."
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _file(self, name: str) -> BinaryIO:
        """The file beside the database that is locked as `name` says."""
        path = self.folder.with_name(f"{self.folder.name}.{name}")
        return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0)

    def _found_or_started(self) -> _Server:
        """The living server, waited for while it starts or ends, or a new one."""
        programs = Programs.for_data(self.folder)
        self._make(programs)
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            found = self._found()
            if found is not None and found.lives():
                return found
            if found is not None and _MARK in found.process.cmdline() and _is_ready(self.folder):
                self._stop(found)  # its socket is gone: nobody reaches it any more
                continue
            if found is None:
                with self._file("running") as running:
                    if _taken(running):
                        return self._start(programs, running)
            if time.monotonic() > deadline:
                raise Trouble(
                    f"The embedded Postgres in {self.folder} is not ready after {_PATIENCE_S:.0f} s: it may be recovering, "
                    f"which its log tells ({self.folder / 'log'}), or be in use from another container or machine."
                )
            time.sleep(0.05)

    def _found(self) -> _Server | None:
        """The server that postmaster.pid tells of, if that process is one and stands in this folder, ready or not."""
        lines = _pid_file(self.folder)
        if len(lines) < 5 or not lines[0].isdigit():
            return None
        try:
            process = psutil.Process(int(lines[0]))
            if process.name() != "postgres" or not Path(process.cwd()).samefile(self.folder):
                return None
        except (psutil.Error, OSError):
            return None
        return _Server(process, Path(lines[4]), lines[3])

    def _make(self, programs: Programs) -> None:
        """The database's folder, whole or not at all: what a kill or a full disk leaves of one is made anew."""
        version = self.folder / "PG_VERSION"
        if version.exists():
            found = version.read_text().strip()
            if found != VERSION:
                raise Trouble(
                    f"The database in {self.folder} is of Postgres {found}, this version runs {VERSION}: dump it with {found} and "
                    "restore it, or set DATABASE_URL to a server of its version."
                )
            if not (self.folder / "global" / "pg_control").exists():
                raise Trouble(
                    f"The database in {self.folder} is not whole (it has no global/pg_control): restore it from a backup, or move "
                    "the folder away to begin with an empty one."
                )
            programs.take_over(self.folder)
            return
        if self.folder.exists() and any(self.folder.iterdir()):
            raise Trouble(
                f"{self.folder} holds something that is no database of Postgres: move it away, or set DIALOG_ASSETS_DATA to "
                "another folder."
            )
        new = self.folder.with_name(f"{self.folder.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        free = shutil.disk_usage(self.folder.parent).free // 1_000_000
        if free < NEEDED_MEGABYTES:
            raise Trouble(
                f"The disk of {self.folder.parent} has {free} MB free, a new database needs {NEEDED_MEGABYTES}: make room, or set "
                "DIALOG_ASSETS_DATA to a folder on another disk."
            )
        new.mkdir(mode=0o700)
        try:
            programs.take_over(new)
            programs.initialise(new)
            new.replace(self.folder)  # over an empty folder too
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _start(self, programs: Programs, running: BinaryIO) -> _Server:
        before = _pid_file(self.folder)
        (self.folder / "postmaster.pid").unlink(missing_ok=True)  # of a dead one: its number may be anybody's now
        sockets = self._socket_folder(programs, Path(before[4]) if len(before) > 4 else None)
        log = self.folder / "log"
        with suppress(FileNotFoundError):
            if log.stat().st_size > _LARGEST_LOG:
                log.replace(log.with_name("log.1"))
        with log.open("ab") as output:
            begin = output.tell()
            process = programs.start(
                self.folder,
                ["-h", "", "-p", _PORT, "-k", str(sockets), "-c", "unix_socket_permissions=0700", "-c", _MARK],
                output=output,
                inherited=running,
            )
        self.children = [child for child in self.children if child.poll() is None] + [process]
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                with suppress(OSError):
                    sockets.rmdir()
                raise Trouble(
                    f"The embedded Postgres in {self.folder} does not start: {_told(process, log, begin)}; see {log}, or set "
                    "DATABASE_URL to another Postgres."
                )
            if _is_ready(self.folder) and _pid_file(self.folder)[0] == str(process.pid):
                return _Server(psutil.Process(process.pid), sockets)
            time.sleep(0.01)
        raise Trouble(
            f"The embedded Postgres in {self.folder} is not ready after {_PATIENCE_S:.0f} s: it may be recovering, which its log "
            f"tells ({log}); run this again when it is done."
        )

    def _stop(self, server: _Server) -> None:
        """End a server that was started here, politely, and only that: one that takes longer is found by the next process."""
        if not server.process.is_running() or _MARK not in server.process.cmdline():
            return
        server.process.send_signal(signal.SIGINT)  # "fast shutdown": connections are cut, nothing is lost
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            for child in self.children:
                child.poll()
            if not server.process.is_running() or server.process.status() == psutil.STATUS_ZOMBIE:
                with suppress(OSError):
                    server.sockets.rmdir()
                return
            time.sleep(0.01)

    def _socket_folder(self, programs: Programs, before: Path | None) -> Path:
        """A private folder for the socket with a short, plain name: the data folder's may be too long, or unfit for a URL.

        `before` is where the last server of this data had its socket, which clients may still know.
        """
        place = self.folder.stat()
        name = f"dialog_assets-postgres-{place.st_dev:x}-{place.st_ino:x}"
        candidates = [among.resolve() / name for among in programs.socket_places()]
        if self.server is not None:
            candidates.insert(0, self.server.sockets)
        elif before is not None and before.name.startswith("dialog_assets-postgres-"):
            candidates.insert(0, before)
        for candidate in candidates:
            if len(os.fsencode(candidate)) + len("/.s.PGSQL.5432") > _LONGEST_SOCKET or not _is_plain(candidate):
                continue
            try:
                if not make_private(candidate) and not is_private(candidate, programs.uid):
                    candidate = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=candidate.parent))
                programs.take_over(candidate)
                for left in candidate.iterdir():  # a killed server's, whose number may be anybody's now
                    left.unlink()
            except OSError:
                continue
            return candidate
        raise Trouble(
            f"No folder for the socket of the embedded Postgres can be made in {', '.join(map(str, programs.socket_places()))}: "
            "set TMPDIR to a folder with a short name that this user may write to."
        )


def _pid_file(folder: Path) -> list[str]:
    """What a server wrote down about itself: number, folder, start, port, folder of the socket, address, memory, state."""
    try:
        return [line.strip() for line in (folder / "postmaster.pid").read_text(errors="replace").splitlines()]
    except FileNotFoundError:
        return []


def _is_ready(folder: Path) -> bool:
    return _pid_file(folder)[7:8] == ["ready"]


def _taken(file: BinaryIO) -> bool:
    """Lock the file for this process alone, if nobody holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_plain(path: Path) -> bool:
    return all(character.isascii() and (character.isalnum() or character in "/._-") for character in str(path))


def _told(process: subprocess.Popen[bytes], log: Path, begin: int) -> str:
    """Why a server ended, by its end and by what it wrote into its log since `begin`."""
    if process.returncode < 0:
        return f"signal {-process.returncode} ended it"
    with log.open("rb") as file:
        file.seek(begin)
        return reason(file.read(1_000_000).decode(errors="replace"))
