"""The folders that this project keeps on a machine: data that stays, and things in passing."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path


def data_folder() -> Path:
    """Where the embedded Postgres, the sandbox and Dagster keep files: DIALOG_ASSETS_DATA, by default `.data` here.

    Started as root, the embedded server's package opens every parent folder to its own system user; so for root a folder
    behind a closed one (a home) is replaced by one of its own under /var/lib.
    """
    folder = Path(os.environ.get("DIALOG_ASSETS_DATA") or ".data").resolve()
    if hasattr(os, "geteuid") and os.geteuid() == 0 and any(_closed(parent) for parent in folder.parents):
        folder = Path("/var/lib/dialog_assets") / hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def passing_folder() -> Path:
    """This user's own folder among the machine's temporary ones, closed to others."""
    folder = Path(tempfile.gettempdir()) / f"dialog_assets-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _closed(folder: Path) -> bool:
    return folder.exists() and not folder.stat().st_mode & stat.S_IXOTH
