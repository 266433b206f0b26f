"""What ffprobe says of the tests' recordings: `python -m dialog_assets_tests.audio.ffprobe_values` writes `ffprobe.json`.

The tests compare with the file, so that they need no ffprobe, and with ffprobe itself where it is installed.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dialog_assets.sandbox.world.loader import AUDIO
from dialog_assets_tests.audio import odd_files
from dialog_assets_tests.audio.files import SHARED

STORED = Path(__file__).with_name("ffprobe.json")
BEFORE_PADDING = 7
"""Until this version ffprobe counted the padding of an MP3 file as length."""


def shared_files() -> dict[str, Path]:
    """The vendor's and derived samples that name what they are, if they are here."""
    return {path.name: path for path in sorted(SHARED.glob("*")) if path.suffix in (".mp3", ".wav", ".aac")}


def world_files() -> dict[str, Path]:
    """The sandbox's recordings; one of them is no audio."""
    return {path.name: path for path in sorted(AUDIO.glob("*.mp3"))}


def version() -> int:
    """The main version of the installed ffprobe."""
    shown = subprocess.run(["ffprobe", "-version"], capture_output=True, check=True, text=True).stdout
    found = re.search(r"version n?(\d+)", shown)
    return int(found[1]) if found else BEFORE_PADDING


def values(path: Path) -> dict[str, Any] | None:
    """Under the names of `Header`; None where ffprobe finds no audio either."""
    command = ["ffprobe", "-v", "quiet", "-show_format", "-show_streams", "-of", "json", str(path)]
    shown = json.loads(subprocess.run(command, capture_output=True, check=False).stdout or "{}")
    streams = [stream for stream in shown.get("streams", ()) if stream["codec_type"] == "audio"]
    if not streams:
        return None
    stream, container = streams[0], shown["format"]
    return {
        "container": container["format_name"],
        "codec": stream["codec_name"],
        "sample_rate": int(stream["sample_rate"]),
        "channels": stream["channels"],
        "bit_rate": int(stream.get("bit_rate") or container.get("bit_rate", 0)),
        "duration_s": float(container.get("duration", 0)),
        "bytes": int(container["size"]),
        "tags": {name.lower(): text for part in (container, stream) for name, text in part.get("tags", {}).items()},
    }


def stored() -> dict[str, Any]:
    """What was written."""
    told: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return told


def sha256(path: Path) -> str:
    """Values hold for these bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def main() -> None:
    """Ask the installed ffprobe about every file."""
    with tempfile.TemporaryDirectory() as folder:
        told = {
            "ffprobe": version(),
            "odd": _table(odd_files.make(Path(folder))),
            "world": _table(world_files()),
            "shared": _table(shared_files()),
        }
    STORED.write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{sum(len(part) for part in told.values() if isinstance(part, dict))} files\n")


def _table(files: Mapping[str, Path]) -> dict[str, Any]:
    found = {name: values(path) for name, path in files.items()}
    return {name: told and {"sha256": sha256(files[name]), **told} for name, told in found.items()}


if __name__ == "__main__":
    main()
