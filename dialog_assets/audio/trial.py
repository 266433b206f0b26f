"""One tiny recording through all that a recording goes through here: whether this installation can read recordings at all.

A worker tries it before it takes any file, so that a fault of the installation (a library of another version, a missing
codec) is told as that, and not as one of every recording. Not here: the processes (workers), the reading (probe, convert).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dialog_assets.audio.convert import prepare
from dialog_assets.audio.probe import probe
from dialog_assets.audio.values import Form

RECORDING = Path(__file__).with_name("trial.riff")
"""A second of a tone in the left channel and hardly anything in the right one: MP3 in WAV, with a title that is no UTF-8."""

SECONDS = 1.0
LOUDEST_DBFS = -12.0


class TrialFailed(Exception):
    """The tiny recording did not come out as it must."""


def read_trial(folder: Path) -> None:
    """Probe, measure and convert the tiny recording in both ways, into `folder`. Raises TrialFailed, or what the room raises."""
    found = probe(RECORDING)
    form = Form(found.container, found.codec, found.sample_rate, found.channels)
    if form != Form("wav", "mp3", 16000, 2) or abs(found.duration_s - SECONDS) > 0.2:
        raise TrialFailed(f"it was read as {form}, {found.duration_s} s")
    left, right = found.peak_dbfs
    if abs(left - LOUDEST_DBFS) > 2 or right > -30:
        raise TrialFailed(f"it was measured as {left} and {right} dBFS")
    copied = prepare(RECORDING, form, folder / "trial.mp3").path
    if probe(copied).container != "mp3":
        raise TrialFailed("it did not come out of its container")
    # As if its rate were one that no recogniser takes.
    decoded = prepare(RECORDING, replace(form, sample_rate=9000), folder / "trial.pcm").path
    if abs(decoded.stat().st_size - round(found.duration_s * 64_000)) > 6_400:
        raise TrialFailed(f"it was decoded to {decoded.stat().st_size} bytes")
