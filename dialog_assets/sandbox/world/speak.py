"""Speaks the world's scripts: `python -m dialog_assets.sandbox.world.speak` writes `audio/*.mp3` and `audio/times.json`.

Here: espeak-ng for the voices, the layout of turns in time, PyAV for the MP3 encoding. Only whoever changes a script runs it;
its results are committed. Deterministic: pauses are drawn from the script's name, so the same text gives the same times.
Not here: reading of the world's data (loader).
"""

from __future__ import annotations

import io
import json
import random
import shutil
import subprocess
import sys
from array import array
from typing import Any

import av

from dialog_assets.sandbox.world import loader

RATE = 8000
BITS_PER_SECOND_A_CHANNEL = 8000
FIRST_TURN_MS = 400
LAST_SILENCE_MS = 500
PAUSE_MS = (300, 800)
OVERLAP_MS = (200, 450)
_QUIET = 200  # samples below this at a turn's edges are the synthesiser's padding, not speech
_PITCH = {"operator": 55, "client": 42}
_WORDS_PER_MINUTE = {"operator": 155, "client": 165}


class SpeakError(loader.WorldError):
    """A recording cannot be synthesised here; the text says what to install or change."""


def main() -> int:
    """Synthesise everything; returns the exit code."""
    try:
        size = speak_all()
    except loader.WorldError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{len(list(loader.AUDIO.glob('*.mp3')))} recordings, {size / 1e6:.2f} MB\n")
    return 0


def speak_all() -> int:
    """Write every recording and the turn times; returns the bytes of all recordings."""
    if shutil.which("espeak-ng") is None:
        raise SpeakError("espeak-ng is not installed: install the package espeak-ng (apt, brew) and run this again")
    spoken: dict[str, tuple[list[tuple[int, int]], list[array[int]], int]] = {}
    for script in loader.written_scripts().values():
        spoken[script.name] = _speak(script)
    loader.AUDIO.mkdir(exist_ok=True)
    for old in loader.AUDIO.glob("*.mp3"):
        old.unlink()
    size = 0
    for path in loader.portal_files():
        portal = loader.read_portal(path.stem)
        for call in portal["calls"]:
            recording = loader.written_recording(portal, call)
            if recording is not None:
                size += recording.path.write_bytes(_file(recording, spoken))
    times = {
        "scripts": {
            name: {"duration_ms": duration, "turns": [list(span) for span in spans]}
            for name, (spans, _, duration) in sorted(spoken.items())
        }
    }
    loader.TIMES.write_text(_compact(times), encoding="utf-8")
    return size


def _speak(script: loader.WrittenScript) -> tuple[list[tuple[int, int]], list[array[int]], int]:
    """Turn times in ms, the samples of operator and client over the whole script, and its duration in ms."""
    pauses = random.Random(script.name)
    voices = {"operator": script.voices[0], "client": script.voices[1]}
    spans: list[tuple[int, int]] = []
    clips: list[array[int]] = []
    end = 0
    for turn in script.turns:
        clip = _say(turn.text, voices[turn.speaker], _PITCH[turn.speaker], _WORDS_PER_MINUTE[turn.speaker])
        if not spans:
            start = FIRST_TURN_MS
        elif turn.overlap:
            start = end - pauses.randint(*OVERLAP_MS)
        else:
            start = end + pauses.randint(*PAUSE_MS)
        end = start + len(clip) * 1000 // RATE
        spans.append((start, end))
        clips.append(clip)
    duration = max(end for _, end in spans) + LAST_SILENCE_MS
    tracks = {side: array("h", bytes(2 * duration * RATE // 1000)) for side in voices}
    for turn, (start, _), clip in zip(script.turns, spans, clips, strict=True):
        first = start * RATE // 1000
        tracks[turn.speaker][first : first + len(clip)] = clip
    return spans, [tracks["operator"], tracks["client"]], duration


def _say(text: str, voice: str, pitch: int, words_per_minute: int) -> array[int]:
    """Speech as 8 kHz mono samples, without the silence around it."""
    done = subprocess.run(
        ["espeak-ng", "-v", f"ru+{voice}", "-p", str(pitch), "-s", str(words_per_minute), "--stdout", text],
        capture_output=True,
        check=False,
    )
    if done.returncode != 0 or not done.stdout:
        raise SpeakError(f"espeak-ng could not speak with the voice ru+{voice}; look at its Russian voice data")
    samples: array[int] = array("h")
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    with av.open(io.BytesIO(_complete_wav(done.stdout)), "r") as container:
        for frame in container.decode(audio=0):
            for part in resampler.resample(frame):
                samples.frombytes(bytes(part.planes[0])[: part.samples * 2])
        for part in resampler.resample(None):
            samples.frombytes(bytes(part.planes[0])[: part.samples * 2])
    loud = [place for place, sample in enumerate(samples) if abs(sample) > _QUIET]
    if not loud:
        raise SpeakError(f"espeak-ng said nothing with the voice ru+{voice}; look at its Russian voice data")
    return samples[loud[0] : loud[-1] + 1]


def _complete_wav(data: bytes) -> bytes:
    """The WAV with true lengths: written to a pipe, espeak-ng leaves placeholders in the header."""
    return (
        data[:4]
        + (len(data) - 8).to_bytes(4, "little")
        + data[8:40]
        + (len(data) - 44).to_bytes(4, "little")
        + data[44:]
    )


def _file(
    recording: loader.WrittenRecording, spoken: dict[str, tuple[list[tuple[int, int]], list[array[int]], int]]
) -> bytes:
    noise = random.Random(f"{recording.portal} {recording.file_id}")
    if recording.content == "damaged":
        # Seven-bit bytes: nothing in them looks like the start of an MP3 frame.
        return bytes(noise.randrange(128) for _ in range(20_000))
    lead = array("h", bytes(2 * recording.lead_ms * RATE // 1000))
    if recording.script is None:
        length = recording.seconds * RATE
        tracks = [array("h", (noise.randint(-6, 6) for _ in range(length))) for _ in range(2)]
    else:
        if recording.script not in spoken:
            raise SpeakError(f"recording {recording.file_id} of {recording.portal}: no script {recording.script}")
        tracks = [lead + track for track in spoken[recording.script][1]]
    if recording.operator_channel is None:
        mixed = (max(-32768, min(32767, left + right)) for left, right in zip(*tracks, strict=True))
        return _mp3([array("h", mixed)])
    return _mp3(tracks if recording.operator_channel == 0 else tracks[::-1])


def _mp3(tracks: list[array[int]]) -> bytes:
    """The channels as MP3. Channels are coded apart: joint stereo would let one side leak into the other."""
    channels = len(tracks)
    interleaved = tracks[0]
    if channels == 2:
        interleaved = array("h", bytes(4 * len(tracks[0])))
        interleaved[0::2], interleaved[1::2] = tracks
    out = io.BytesIO()
    with av.open(out, "w", format="mp3", options={"fflags": "+bitexact", "id3v2_version": "0"}) as container:
        stream = container.add_stream(
            "libmp3lame", rate=RATE, layout="mono" if channels == 1 else "stereo", options={"joint_stereo": "0"}
        )
        stream.bit_rate = BITS_PER_SECOND_A_CHANNEL * channels
        resampler = av.AudioResampler(
            format="s16p", layout=stream.layout, rate=RATE, frame_size=stream.frame_size or 576
        )
        frame = av.AudioFrame(format="s16", layout=stream.layout.name, samples=len(tracks[0]))
        frame.sample_rate = RATE
        frame.planes[0].update(interleaved.tobytes())
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return out.getvalue()


def _compact(times: dict[str, Any]) -> str:
    """One script a line, so that a changed script is one changed line."""
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in times["scripts"].items())
    return f'{{"scripts": {{\n{lines}\n}}}}\n'


if __name__ == "__main__":
    raise SystemExit(main())
