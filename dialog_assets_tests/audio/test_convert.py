"""Recordings in the form that a recogniser takes."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from dialog_assets.audio.convert import prepare
from dialog_assets.audio.probe import probe
from dialog_assets_tests.audio.files import SHARED, form_of, write_audio


def decoded(path: Path, form: str, options: dict[str, str] | None = None) -> int:
    """Samples a channel that FFmpeg finds in a file of the given format."""
    with av.open(path, format=form, options=options or {}) as container:
        return sum(frame.samples for frame in container.decode(container.streams.audio[0]))


def test_mp3_goes_as_it_is(tmp_path: Path) -> None:
    """The usual recording is not touched and nothing is written."""
    path = write_audio(tmp_path / "a.mp3", [0.5, 0.4])
    prepared = prepare(path, form_of(probe(path)), tmp_path / "out")
    assert (prepared.path, prepared.encoding, prepared.sample_rate, prepared.channels) == (path, "mp3", 8000, 2)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("codec", "width"), [("pcm_s16le", 2), ("pcm_alaw", 1), ("pcm_mulaw", 1)])
def test_a_wav_loses_its_header_and_nothing_else(tmp_path: Path, codec: str, width: int) -> None:
    """VoiceKit takes PCM without a header: what is left is exactly the samples."""
    path = write_audio(tmp_path / "a.wav", [0.5, 0.4], 2.0, codec=codec)
    prepared = prepare(path, form_of(probe(path)), tmp_path / "out")
    raw = prepared.path.read_bytes()
    assert prepared.encoding == codec
    assert len(raw) == 2 * 8000 * 2 * width
    assert path.read_bytes().endswith(raw)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared sample audio is not here")
def test_the_vendors_own_pair_agrees(tmp_path: Path) -> None:
    """The vendor's WAV sample without its header is the vendor's raw sample."""
    path = SHARED / "sample_3.wav"
    assert (
        prepare(path, form_of(probe(path)), tmp_path / "out").path.read_bytes()
        == (SHARED / "sample_3.s16").read_bytes()
    )


def test_aac_in_mp4_becomes_adts(tmp_path: Path) -> None:
    """The same AAC packets, in the stream format that is accepted."""
    path = write_audio(tmp_path / "a.m4a", [0.5], 2.0, codec="aac", rate=16000)
    prepared = prepare(path, form_of(probe(path)), tmp_path / "out")
    assert (prepared.encoding, prepared.sample_rate) == ("aac_adts", 16000)
    again = probe(prepared.path)
    assert (again.container, again.codec) == ("aac", "aac")
    assert prepare(prepared.path, form_of(again), tmp_path / "out2").path == prepared.path


def test_other_codecs_become_pcm(tmp_path: Path) -> None:
    """FLAC is decoded to PCM of the same length and rate; a rate that is not offered becomes 16000."""
    path = write_audio(tmp_path / "a.flac", [0.5, 0.25], 2.0, codec="flac")
    prepared = prepare(path, form_of(probe(path)), tmp_path / "out")
    assert (prepared.encoding, prepared.sample_rate, prepared.channels) == ("pcm_s16le", 8000, 2)
    assert prepared.path.stat().st_size == 2 * 8000 * 2 * 2
    odd = write_audio(tmp_path / "odd.wav", [0.5], 2.0, codec="pcm_s16le", rate=9000)
    prepared = prepare(odd, form_of(probe(odd)), tmp_path / "out")
    assert prepared.sample_rate == 16000
    assert decoded(prepared.path, "s16le", {"sample_rate": "16000"}) == pytest.approx(32000, abs=50)


def test_a_packet_that_does_not_decode_is_left_out(tmp_path: Path) -> None:
    """What the probe lets pass is converted: the rest of the recording is not lost for one packet."""
    whole, path = write_audio(tmp_path / "a.ogg", [0.5], 10.0, codec="libopus", rate=48000), tmp_path / "bad.ogg"
    with av.open(whole) as reading, av.open(path, "w") as writing:
        stream = reading.streams.audio[0]
        copy = writing.add_stream_from_template(stream)
        for number, packet in enumerate(reading.demux(stream)):
            if packet.size:
                sent = av.Packet(b"\xff" * 3) if number == 50 else packet
                sent.pts, sent.dts, sent.time_base, sent.stream = packet.pts, packet.dts, packet.time_base, copy
                writing.mux(sent)
    found = probe(path)
    assert found.duration_s == pytest.approx(9.98, abs=0.02)
    prepared = prepare(path, form_of(found), tmp_path / "out")
    assert prepared.path.stat().st_size == pytest.approx(2 * found.duration_s * prepared.sample_rate, rel=0.001)


@pytest.mark.parametrize(
    ("name", "codec", "rate", "peaks"),
    [
        ("a.ogg", "libopus", 48000, [0.5, 0.4]),
        ("a.flac", "flac", 44100, [0.5]),
        ("odd.wav", "pcm_s16le", 9000, [0.5, 0.4]),
        ("a.wav", "pcm_s16le", 48000, [0.5, 0.4]),
        ("a.m4a", "aac", 16000, [0.5]),
        ("a.mkv", "mp3", 8000, [0.5]),
        ("a.mp3", "mp3", 8000, [0.5]),
    ],
)
def test_a_conversion_takes_no_more_than_is_told_beforehand(
    tmp_path: Path, name: str, codec: str, rate: int, peaks: list[float]
) -> None:
    """What is decoded has 16 kHz at most, and its size follows from the length."""
    path = write_audio(tmp_path / name, peaks, 10, codec=codec, rate=rate)
    found = probe(path)
    told = form_of(found).prepared_bytes(found.bytes, found.duration_s)
    prepared = prepare(path, form_of(found), tmp_path / "out")
    written = prepared.path.stat().st_size if prepared.path != path else 0
    assert written <= told <= max(10 * 16000 * 2 * len(peaks), found.bytes) + (1 << 20)
