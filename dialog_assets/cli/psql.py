"""`dialog-assets psql`: Postgres' own terminal on the application database, whose server runs meanwhile."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from dialog_assets.cli import instance
from dialog_assets.errors import DialogAssetsError
from dialog_assets.store import embedded_programs

_NEEDED = re.compile(r"PATH|HOME|USER|TERM|TERMINFO|COLUMNS|LINES|LANG|LC_\w+|TZ|PAGER|LESS|EDITOR|VISUAL|PSQL\w*")
"""What psql may know of this process's environment: a shell can be opened from it."""


class NoPsql(DialogAssetsError):
    """There is no psql on this machine."""


def run_psql(arguments: Sequence[str]) -> int:
    """Run psql with these arguments in the foreground; returns its exit code. Raises NoPsql and what finding a database does."""
    own_server = not os.environ.get("DATABASE_URL")
    url = instance.find_database()
    environment = {name: value for name, value in os.environ.items() if _NEEDED.fullmatch(name)}
    # By the environment, as arguments are seen by every user of the machine.
    names = {option.keyword.decode(): option.envvar for option in psycopg.pq.Conninfo.get_defaults()}
    for key, value in conninfo_to_dict(url).items():
        if (variable := names.get(key)) is not None:
            environment[variable.decode()] = str(value)
    process = subprocess.Popen([_program(own_server=own_server), *arguments], env=environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends a query there
    return process.wait()


def _program(*, own_server: bool) -> str:
    """The package's psql for its server; elsewhere the machine's comes first, which may know encryption that the other lacks."""
    found = [shutil.which("psql")]
    try:
        packaged = embedded_programs.installed() / "bin" / "psql"
    except embedded_programs.Trouble:
        pass
    else:
        found.insert(0 if own_server else 1, str(packaged) if Path(packaged).exists() else None)
    program = next(filter(None, found), None)
    if program is None:
        raise NoPsql("There is no psql on this machine: install Postgres' client programs (Debian: postgresql-client).")
    return program
