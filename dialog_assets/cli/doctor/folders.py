"""Doctor's look at this machine's folders: where the data are, and whether other users are kept out."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from dialog_assets.cli.doctor.examination import Check, Context, Finding
from dialog_assets.folders import data_folder, other_data, passing_folder

_PRIVATE = ("postgres", "dagster_home", "sandbox")


def checks(_: Context) -> list[Check]:
    """One check of places, one of who gets there."""
    return [Check("data", places), Check("other users", closed)]


async def places() -> list[Finding]:
    """Where the data are. Raises FolderUnusable."""
    folder, database = data_folder(), os.environ.get("DATABASE_URL")
    told = f"Dagster's files are in {folder}, tables in DATABASE_URL's server" if database else f"in {folder}"
    findings = [Finding("data", "ok", f"{told}; recordings pass through {passing_folder()}")]
    other = other_data()
    if other is not None and not database:
        findings.append(
            Finding(
                "data",
                "warn",
                f"another database, of an earlier version and not used since, is in {other}: move it away.",
            )
        )
    return findings


async def closed() -> list[Finding]:
    """Whether another user of this machine could read recordings, the database or secrets. Raises FolderUnusable."""
    open_ones = [(path, mode) for path, mode in _ours() if _others_get_at(path)]
    if not open_ones:
        return [Finding("other users", "ok", "database, recordings and .env are closed to them")]
    return [
        Finding("other users", "warn", f"{path} can be read by every user of this machine: chmod {mode} {path}")
        for path, mode in open_ones
    ]


def _ours() -> list[tuple[Path, str]]:
    """What is nobody else's, and the mode that says so."""
    folders = [*(data_folder() / name for name in _PRIVATE), passing_folder()]
    return [*((folder, "u=rwX,go=") for folder in folders), (Path(".env").resolve(), "600")]


def _others_get_at(path: Path) -> bool:
    """Whether everybody may read this file or folder, and pass through the folders above it."""
    try:
        return bool(path.stat().st_mode & stat.S_IROTH) and all(
            parent.stat().st_mode & stat.S_IXOTH for parent in path.parents
        )
    except OSError:
        return False
