"""Recordings in passing: a folder that ends with its step."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from dialog_assets.folders import passing_folder


@contextmanager
def work_folder() -> Iterator[Path]:
    """A private folder, removed at the end; folders that killed processes left are swept at the start."""
    root = passing_folder()
    for left in root.iterdir():
        owner = left.name.partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=f"{os.getpid()}-") as folder:
        yield Path(folder)
