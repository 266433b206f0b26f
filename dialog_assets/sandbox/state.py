"""What the sandbox keeps on disk between two lives: plain files and JSON, each written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dialog_assets.errors import DialogAssetsError

_AFRESH = "remove the sandbox's state folder to start afresh"


class StateError(DialogAssetsError):
    """A state folder that cannot be read."""


def save_objects(folder: Path, objects: Iterable[tuple[str, bytes, dict[str, Any]]]) -> None:
    """Write named objects (name, contents, JSON values about it) below `folder`; what was there before goes away."""
    index: dict[str, dict[str, Any]] = {}
    for name, data, about in objects:
        sha256 = hashlib.sha256(data).hexdigest()
        if not (folder / "objects" / sha256).exists():
            _replace(folder / "objects" / sha256, data)
        index[name] = {"sha256": sha256, "about": about}
    write_json(folder / "index.json", index)
    kept = {saved["sha256"] for saved in index.values()}
    for path in (folder / "objects").glob("*"):
        if path.name not in kept:
            path.unlink()


def load_objects(folder: Path) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """What `save_objects` wrote; a folder that is not there holds nothing. Raises StateError."""
    for name, saved in read_json(folder / "index.json").items():
        try:
            yield name, (folder / "objects" / saved["sha256"]).read_bytes(), saved["about"]
        except (OSError, KeyError, TypeError) as error:
            raise StateError(f"{folder}: an object is missing; {_AFRESH}") from error


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write or replace a JSON file."""
    _replace(path, json.dumps(value, ensure_ascii=False, indent=1).encode())


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, empty if there is no file; StateError if it is not JSON."""
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise StateError(f"{path}: not valid JSON; {_AFRESH}") from error
    if not isinstance(value, dict):
        raise StateError(f"{path}: expected a JSON object; {_AFRESH}")
    return value


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(data)
    os.replace(partial, path)  # noqa: PTH105
