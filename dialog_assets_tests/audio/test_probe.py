"""Probing recordings: true values, typed refusals, silence."""

from __future__ import annotations

import hashlib
import random
import shutil
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from dialog_assets.audio.convert import prepare
from dialog_assets.audio.errors import AudioError, Reason
from dialog_assets.audio.gate import gate
from dialog_assets.audio.probe import DECODERS, probe, probe_header
from dialog_assets_tests.audio import ffprobe_values, odd_files
from dialog_assets_tests.audio.files import SHARED, form_of, write_audio

VENDOR_FILES = sorted(ffprobe_values.shared_files().values())
LONG = {"mp3_one_hour.mp3"}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return odd_files.make(tmp_path_factory.mktemp("odd"))


def refused(path: Path) -> Reason:
    with pytest.raises(AudioError) as caught:
        probe(path)
    assert path.name not in str(caught.value)
    return caught.value.reason


def compared(files: dict[str, Path], stored: dict[str, Any], version: int) -> int:
    """How many files were compared; encoders of another version than the stored values' make other bytes."""
    count = 0
    for name, path in files.items():
        told = stored.get(name)
        if told is not None and ffprobe_values.sha256(path) == told["sha256"]:
            assert {name: ffprobe_values.differences(path, probe_header(path), told, version)} == {name: {}}
            if name not in LONG:
                assert {name: ffprobe_values.differences(path, probe(path), told, version)} == {name: {}}
            count += 1
    return count


def test_values_are_those_of_ffprobe(odd: dict[str, Path]) -> None:
    """Container, codec, rate, channels, bit rate, stated length, size and tags: of odd files, the world's and the samples."""
    stored = ffprobe_values.stored()
    assert compared(odd, stored["odd"], stored["ffprobe"]) >= 20
    world = ffprobe_values.world_files()
    few = {name: path for name, path in world.items() if name.endswith(("6.mp3", "8.mp3"))}
    assert compared(few, stored["world"], stored["ffprobe"]) == len(few)
    compared(ffprobe_values.shared_files(), stored["shared"], stored["ffprobe"])


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
def test_values_are_those_of_the_ffprobe_that_is_here(odd: dict[str, Path]) -> None:
    """The stored values are not ours: the installed ffprobe tells the same as the header read here."""
    version = ffprobe_values.version()
    for path in odd.values():
        told = ffprobe_values.values(path)
        assert told is not None
        assert {path.name: ffprobe_values.differences(path, probe_header(path), told, version)} == {path.name: {}}


def test_what_is_no_recording_has_no_header_either(tmp_path: Path) -> None:
    """The quick reading refuses with the same reasons."""
    (tmp_path / "none.mp3").touch()
    (tmp_path / "page.mp3").write_text("<html>404</html>")
    for name, reason in (("none.mp3", "empty"), ("page.mp3", "not_audio")):
        with pytest.raises(AudioError) as caught:
            probe_header(tmp_path / name)
        assert caught.value.reason == reason


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{other}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {other}\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
    ],
    ids=["hls", "concat", "sdp"],
)
def test_a_file_cannot_have_another_one_opened(tmp_path: Path, text: str) -> None:
    """Playlists and stream descriptions, which make FFmpeg read other files or the network, are no recordings."""
    write_audio(tmp_path / "other.wav", [0.5], codec="pcm_s16le")
    for name in ("call.mp3", "call.m3u8", "call.ffconcat", "call.sdp", "call"):
        (tmp_path / name).write_text(text.format(other="other.wav"))
        assert refused(tmp_path / name) == "not_audio"


def test_pictures_inside_are_not_decoded(tmp_path: Path) -> None:
    """A recording with a cover is read for its sound; no decoder of pictures is let near it."""
    assert not {name for name in DECODERS.split(",") if av.Codec(name, "r").type != "audio"}
    sound = odd_files.WORLD.read_bytes()
    picture = b"\0image/png\0\3\0" + b"\x89PNG\r\n\x1a\n" + random.Random(1).randbytes(400)
    path = tmp_path / "cover.mp3"
    path.write_bytes(odd_files.id3(APIC=picture) + sound)
    assert probe(path).codec == "mp3"


def test_tags_are_bounded(tmp_path: Path) -> None:
    """A tag of a megabyte is cut, and of a thousand tags a hundred are kept."""
    path = tmp_path / "tags.mp3"
    many = {f"T{number:03d}": "x" for number in range(999)}
    path.write_bytes(odd_files.id3(TIT2="Звонок" * 100_000, **many) + odd_files.WORLD.read_bytes())
    tags = probe(path).tags
    assert tags["title"] == ("Звонок" * 167)[:1000]
    assert len(tags) == 100


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


def test_vbr_without_header_has_its_true_length(odd: dict[str, Path]) -> None:
    """Without a Xing header FFmpeg guesses a VBR file's length from the bit rate; the probe counts what it decodes."""
    found = probe(odd["mp3_vbr_without_header.mp3"])
    assert abs(found.duration_s - 20.0) < 0.2
    assert abs(found.stated_duration_s - 20.0) > 1


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


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp3", "mp3"), ("a.wav", "pcm_s16le"), ("a.mkv", "pcm_s16le"), ("a.flac", "flac")]
)
def test_what_a_cut_file_lacks_is_told(tmp_path: Path, name: str, codec: str) -> None:
    """Half of a recording is what there is; the header promises more, and the difference is known."""
    path = write_audio(tmp_path / name, [0.5, 0.4], 10, codec=codec)
    assert probe(path).measures.missing_s == 0
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    found = probe(path)
    assert found.duration_s == pytest.approx(5, abs=0.6)
    assert found.measures.missing_s == pytest.approx(10 - found.duration_s, abs=0.3)
    assert "truncated" in gate(found).marks


@pytest.mark.parametrize("more", [2, 8, 44, 0xFFFFFFFF, None])
def test_a_size_field_that_is_a_little_wrong(tmp_path: Path, more: int | None) -> None:
    """Writers that count the header in, or that stream and never learn the size, leave whole recordings."""
    path = write_audio(tmp_path / "a.wav", [0.5], 10, codec="pcm_s16le")
    data = bytearray(path.read_bytes())
    told = {None: 0, 0xFFFFFFFF: 0xFFFFFFFF}.get(more, len(data) - 8 + (more or 0))
    data[4:8] = told.to_bytes(4, "little")
    path.write_bytes(data)
    assert (probe(path).duration_s, probe(path).measures.missing_s) == (10, 0)


CANNOT_BE = [0x1DFFFFFF, 0x40000000, 0x7FFF0000, 0x7FFFF000, 0x7FFFFFDB, 0x7FFFFFFF, 0x80000000, 0xFFFFFFDB, 0xFFFFFFFE]


@pytest.mark.parametrize("size", CANNOT_BE, ids=hex)
@pytest.mark.parametrize("kind", ["wav", "wav_data_alone", "wav_riff_alone", "rf64", "au", "aiff"])
def test_a_size_that_cannot_be_true_is_no_promise(tmp_path: Path, kind: str, size: int) -> None:
    """A recorder that writes through a pipe puts anything where it does not know the size; the recording is whole."""
    sound = write_audio(tmp_path / "a.wav", [0.5], 2, codec="pcm_s16le").read_bytes()[-32_000:]
    whole = 36 + len(sound)
    fmt = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
    wide = size << 8
    files = {
        "wav": b"RIFF" + struct.pack("<I", min(size + 36, 2**32 - 1)) + b"WAVE" + fmt + b"data" + struct.pack("<I", size),
        "wav_data_alone": b"RIFF" + struct.pack("<I", whole) + b"WAVE" + fmt + b"data" + struct.pack("<I", size),
        "wav_riff_alone": b"RIFF" + struct.pack("<I", size) + b"WAVE" + fmt + b"data" + struct.pack("<I", len(sound)),
        "rf64": b"RF64\xff\xff\xff\xffWAVEds64" + struct.pack("<IQQQI", 28, wide, wide, wide // 2, 0) + fmt + b"data" + b"\xff" * 4,
        "au": b".snd" + struct.pack(">IIIII", 24, min(size, 2**31 - 1), 3, 8000, 1),
        "aiff": b"FORM" + struct.pack(">I", min(size, 2**31 - 1)) + b"AIFFCOMM"
        + struct.pack(">IhIh", 18, 1, min(size, 2**31 - 1), 16) + bytes.fromhex("400bfa00000000000000")
        + b"SSND" + struct.pack(">III", min(size, 2**31 - 9), 0, 0),
    }  # fmt: skip
    path = tmp_path / "call"
    path.write_bytes(files[kind] + sound)
    found = probe(path)
    assert (found.duration_s, found.measures.missing_s) == (2, 0)
    assert "truncated" not in gate(found).marks


@pytest.mark.parametrize("channels", [9, 12, 16, 64, 255])
def test_more_channels_than_can_be_read(tmp_path: Path, channels: int) -> None:
    """FFmpeg's planes end at eight, and PyAV falls over more of them."""
    (tmp_path / "call.wav").write_bytes(odd_files.wave(bytes(range(256)) * 200, channels=channels))
    assert refused(tmp_path / "call.wav") == "too_many_channels"


@pytest.mark.parametrize("channels", [3, 5, 7, 8])
def test_a_few_more_channels_are_read(tmp_path: Path, channels: int) -> None:
    """A recorder's many tracks are measured one by one, and become two for a recogniser."""
    silent = np.zeros((8000, channels), "<i2")
    silent[:, channels - 1] = 16384
    (tmp_path / "call.wav").write_bytes(odd_files.wave(silent.tobytes(), channels=channels))
    found = probe(tmp_path / "call.wav")
    assert found.peak_dbfs == (-120.0,) * (channels - 1) + (-6.02,)
    assert prepare(tmp_path / "call.wav", form_of(found), tmp_path / "out").channels == 2


@pytest.mark.parametrize("rate", [1, 100, 768_000, 2**31 - 1])
def test_a_rate_that_no_recording_has(tmp_path: Path, rate: int) -> None:
    """64 kB at 1 Hz would become a gigabyte for the recogniser; a rate above 32 bits of samples takes all memory."""
    form = struct.pack("<IHHIIHH", 16, 1, 2, rate, min(rate * 4, 2**32 - 1), 4, 16)
    (tmp_path / "call.wav").write_bytes(b"RIFF\0\0\0\0WAVEfmt " + form + b"data\0\0\0\0" + bytes(64_000))
    assert refused(tmp_path / "call.wav") == "impossible_rate"


@pytest.mark.parametrize("stated", [0, 1, 2**28, 2**31 - 1, 2**31, 2**32 - 1], ids=hex)
@pytest.mark.parametrize("name", ["adpcm.wav", "adpcm_ms.wav", "mp3_in_wav.wav"])
def test_a_byte_rate_that_cannot_be(odd: dict[str, Path], tmp_path: Path, name: str, stated: int) -> None:
    """The bit rate that is kept fits its column; what the file holds tells it better than such a header."""
    data = bytearray(odd[name].read_bytes())
    struct.pack_into("<I", data, data.index(b"fmt ") + 16, stated)
    (tmp_path / name).write_bytes(data)
    assert 0 < probe(tmp_path / name).bit_rate < 200_000_001


@pytest.mark.parametrize("size", [2**63 - 1, 2**63 + 500, 2**64 - 16], ids=hex)
@pytest.mark.parametrize(("name", "order"), [("pcm.caf", ">"), ("pcm.w64", "<")])
def test_long_sizes_with_the_high_bit(odd: dict[str, Path], tmp_path: Path, name: str, order: str, size: int) -> None:
    """A signed size leads before the file's beginning: the recording is read or refused, never a system error."""
    data = odd[name].read_bytes()
    for at in range(0, data.index(b"data") + 24, 4):
        broken = bytearray(data)
        struct.pack_into(f"{order}Q", broken, at, size)
        (tmp_path / name).write_bytes(broken)
        with suppress(AudioError):
            assert probe(tmp_path / name).duration_s > 0


@pytest.mark.parametrize("after", [b"", b"TAG" + bytes(125)], ids=["v2", "v2_and_v1"])
def test_a_tag_without_sound_is_empty(tmp_path: Path, after: bytes) -> None:
    """An MP3 whose recorder wrote who called whom, and then nothing."""
    (tmp_path / "call.mp3").write_bytes(odd_files.id3(TIT2="Звонок") + after)
    assert refused(tmp_path / "call.mp3") == "empty"


@pytest.mark.parametrize("front", [b"\xef\xbb\xbf", b"\xff\xfe", bytes(600), b"\xff" * 300, b"\r\n", b"<", b"{", None])
def test_what_stands_before_the_first_frame_is_passed_over(tmp_path: Path, front: bytes | None) -> None:
    """A BOM, zeros, a run of ones, a newline, or the second half of a frame."""
    whole = odd_files.WORLD.read_bytes()
    (tmp_path / "call.mp3").write_bytes(whole[1000:] if front is None else front + whole)
    assert probe(tmp_path / "call.mp3").duration_s == pytest.approx(probe(odd_files.WORLD).duration_s, abs=0.6)


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
