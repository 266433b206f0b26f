"""Probing recordings: true values, typed refusals, silence."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
from array import array
from pathlib import Path

import av
import pytest

from dialog_assets.audio.errors import AudioError, Reason
from dialog_assets.audio.probe import probe
from dialog_assets_tests.audio.files import SHARED, write_audio

VENDOR_FILES = sorted([*SHARED.glob("*.mp3"), *SHARED.glob("*.wav"), *SHARED.glob("*.aac")])
ENCODER_PADDING_S = 0.2


def refused(path: Path) -> Reason:
    with pytest.raises(AudioError) as caught:
        probe(path)
    assert path.name not in str(caught.value)
    return caught.value.reason


@pytest.mark.skipif(not VENDOR_FILES, reason="the shared sample audio is not here")
@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
def test_values_are_those_of_ffprobe() -> None:
    """Container, codec, rate, channels, bit rate and size equal ffprobe's; length within the encoder padding it counts."""
    for path in VENDOR_FILES:
        command = ["ffprobe", "-v", "error", "-show_format", "-show_streams", "-of", "json", str(path)]
        shown = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        stream, container = shown["streams"][0], shown["format"]
        found = probe(path)
        assert found.container == container["format_name"]
        assert found.codec == stream["codec_name"]
        assert found.sample_rate == int(stream["sample_rate"])
        assert found.channels == stream["channels"]
        assert found.bit_rate == int(stream["bit_rate"])
        assert found.bytes == int(container["size"])
        padding = float(container["duration"]) - found.duration_s
        assert -0.001 <= padding < ENCODER_PADDING_S if found.codec == "mp3" else abs(padding) < 0.001
        assert found.tags == {key.lower(): value for key, value in {**container, **stream}.get("tags", {}).items()}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared sample audio is not here")
def test_padding_is_not_length() -> None:
    """The MP3 of a WAV is as long as the WAV, although its frames hold the encoder's padding too."""
    assert probe(SHARED / "call_stereo_8k.mp3").duration_s == probe(SHARED / "call_stereo_8k.wav").duration_s


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared sample audio is not here")
def test_real_silence_is_silent_and_real_speech_is_not() -> None:
    """The sample without speech is silent, every sample with speech is not."""
    silent = {path.name for path in VENDOR_FILES if probe(path).is_silent()}
    assert silent == {"silence_stereo_8k.mp3"}


def test_peak_of_each_channel(tmp_path: Path) -> None:
    """Each channel has its own peak, exact in WAV; digital silence is -120 dBFS."""
    found = probe(write_audio(tmp_path / "a.wav", [0.5, 0.0], codec="pcm_s16le"))
    assert found.peak_dbfs == (-6.02, -120.0)
    assert (found.channels, found.sample_rate, found.duration_s) == (2, 8000, 2.0)
    assert found.sha256 == hashlib.sha256((tmp_path / "a.wav").read_bytes()).hexdigest()


def test_silence_is_a_matter_of_every_channel(tmp_path: Path) -> None:
    """A line's noise on both sides is silence; one voice on one side is not; the threshold can be moved."""
    noise = probe(write_audio(tmp_path / "noise.mp3", [0.001, 0.001]))
    assert noise.is_silent()
    assert not noise.is_silent(threshold_dbfs=-80)
    assert not probe(write_audio(tmp_path / "voice.mp3", [0.001, 0.2])).is_silent()


def test_vbr_without_header_has_its_true_length(tmp_path: Path) -> None:
    """Without a Xing header FFmpeg guesses a VBR file's length from the bit rate; the probe counts what it decodes."""
    path = tmp_path / "vbr.mp3"
    with av.open(path, "w", format="mp3", options={"write_xing": "0"}) as container:
        stream = container.add_stream("mp3", rate=16000, layout="mono")
        stream.options = {"compression_level": "9"}
        stream.codec_context.qscale = True
        chance = random.Random(1)
        for start in range(0, 16000 * 20, 576):
            frame = av.AudioFrame(format="s16p", layout="mono", samples=576)
            frame.sample_rate, frame.pts = 16000, start
            loud = 20000 if start > 16000 * 10 else 1
            data = array("h", (chance.randint(-loud, loud) for _ in range(576))).tobytes()
            frame.planes[0].update(data + bytes(frame.planes[0].buffer_size - len(data)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert abs(probe(path).duration_s - 20.0) < 0.2
    with av.open(path) as container:
        guessed = (container.duration or 0) / 1_000_000
    assert abs(guessed - 20.0) > 1


def test_no_bytes_and_no_sound_are_empty(tmp_path: Path) -> None:
    """A file of no bytes and a header without audio are both empty."""
    (tmp_path / "none.mp3").touch()
    whole = write_audio(tmp_path / "whole.wav", [0.5], codec="pcm_s16le").read_bytes()
    header = whole[: whole.index(b"data") + 4] + bytes(4)
    (tmp_path / "header.wav").write_bytes(header[:4] + (len(header) - 8).to_bytes(4, "little") + header[8:])
    assert refused(tmp_path / "none.mp3") == "empty"
    assert refused(tmp_path / "header.wav") == "empty"


@pytest.mark.parametrize("content", [b"<html><body>404 Not Found</body></html>", b'{"error":"NOT_FOUND"}', bytes(4000)])
def test_an_error_page_is_not_audio(tmp_path: Path, content: bytes) -> None:
    """What a server answers instead of a recording is refused whatever its name ends in."""
    (tmp_path / "call.mp3").write_bytes(content)
    assert refused(tmp_path / "call.mp3") == "not_audio"


def test_headerless_audio_is_refused(tmp_path: Path) -> None:
    """Raw A-law names no rate; FFmpeg would guess 44100 Hz from the suffix, the probe does not."""
    (tmp_path / "call.al").write_bytes(bytes(range(256)) * 100)
    assert refused(tmp_path / "call.al") == "not_audio"


def test_video_only_has_no_audio_stream(tmp_path: Path) -> None:
    """A media file without sound is told from a file that is no media."""
    path = tmp_path / "screen.mkv"
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(stream.encode(None))
    assert refused(path) == "no_audio_stream"


def test_a_cut_file_is_truncated(tmp_path: Path) -> None:
    """Half of an MP3 and half of a WAV are truncated: both headers promise more."""
    for path in (
        write_audio(tmp_path / "a.mp3", [0.5, 0.4], 10),
        write_audio(tmp_path / "a.wav", [0.5], 10, codec="pcm_s16le"),
    ):
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        assert refused(path) == "truncated"


def test_garbage_inside_is_damage(tmp_path: Path) -> None:
    """A good beginning followed by noise bytes is damaged."""
    path = write_audio(tmp_path / "a.mp3", [0.5, 0.4], 10)
    data = path.read_bytes()
    path.write_bytes(data[:1500] + random.Random(3).randbytes(len(data) - 1500))
    assert refused(path) == "damaged"


def test_two_recordings_glued_together_are_damage(tmp_path: Path) -> None:
    """A file that turns from mono to stereo cannot be described to a recogniser."""
    mono = write_audio(tmp_path / "mono.mp3", [0.5], 3).read_bytes()
    stereo = write_audio(tmp_path / "stereo.mp3", [0.5, 0.5], 3).read_bytes()
    (tmp_path / "both.mp3").write_bytes(mono + stereo)
    assert refused(tmp_path / "both.mp3") == "damaged"
