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

from dialog_assets.audio.values import AudioProbe, Header
from dialog_assets.sandbox.world.loader import AUDIO
from dialog_assets_tests.audio import odd_files
from dialog_assets_tests.audio.files import SHARED

STORED = Path(__file__).with_name("ffprobe.json")
BEFORE_PADDING = 7
"""Until this version ffprobe counted the padding of an MP3 file as length."""
VARYING = "vendor_id"
"""An empty one is a tag to some versions of FFmpeg."""


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


def command(path: Path) -> list[str]:
    """What is asked about a file."""
    return ["ffprobe", "-v", "quiet", "-show_format", "-show_streams", "-of", "json", str(path)]


def values(path: Path) -> dict[str, Any] | None:
    """Under the names of `Header`; None where ffprobe finds no audio either."""
    shown = json.loads(subprocess.run(command(path), capture_output=True, check=False).stdout or "{}")
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


def lame_padding_s(path: Path, rate: int) -> float:
    """Silence that the encoder put around the sound, as it noted in the file's first frame; 0 without a note."""
    data = path.read_bytes()
    mark = max(data.find(b"Xing", 0, 4000), data.find(b"Info", 0, 4000))
    if mark < 0 or data[mark + 120 : mark + 124] not in (b"LAME", b"Lavf", b"Lavc"):
        return 0.0
    noted = int.from_bytes(data[mark + 141 : mark + 144], "big")
    return ((noted >> 12) + (noted & 0xFFF)) / rate


def differences(path: Path, found: Header | AudioProbe, told: dict[str, Any], version: int) -> dict[str, Any]:
    """What is found otherwise than ffprobe tells it; what two versions of ffprobe tell differently is allowed for."""
    lengths = {found.stated_duration_s}
    if version < BEFORE_PADDING:
        lengths.add(found.stated_duration_s + lame_padding_s(path, found.sample_rate))
    same = {
        "container": found.container == told["container"],
        "codec": found.codec == told["codec"],
        "sample_rate": found.sample_rate == told["sample_rate"],
        "channels": found.channels == told["channels"],
        "bit_rate": found.bit_rate == told["bit_rate"] or (isinstance(found, AudioProbe) and told["bit_rate"] == 0),
        "duration_s": any(abs(length - told["duration_s"]) < 2e-6 for length in lengths),
        "bytes": found.bytes == told["bytes"],
        "tags": {**found.tags, VARYING: ""} == {**told["tags"], VARYING: ""},
    }
    return {
        name: (getattr(found, name, found.stated_duration_s), told[name]) for name, equal in same.items() if not equal
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
