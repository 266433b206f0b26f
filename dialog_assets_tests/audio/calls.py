"""Recordings of calls made for tests, with the truth about them: who speaks when, on which line, through which codec.

Speech is of two kinds: the sandbox's own spoken turns, and voices of pulses and noise made here. Here too: what a telephone
line does to it (levels, noise, hum, leaking, codecs) and what is no speech (ringing, busy signal, music, comfort noise).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.codec.context import Flags

from dialog_assets.sandbox.world.loader import load_world

RATE = 8000
Sound = npt.NDArray[np.float32]
"""Samples at 8000 Hz, full scale is 1; one channel (n,) or several (channels, n)."""

Span = tuple[float, float]


@dataclass
class Line:
    """One channel while it is put together: sound, and the spans of speech in seconds."""

    seconds: float
    sound: Sound = field(init=False)
    speech: list[Span] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sound = np.zeros(round(self.seconds * RATE), np.float32)

    def put(self, start_s: float, clip: Sound, *, speech: bool = True) -> float:
        """Add a clip; returns where it ends."""
        first = round(start_s * RATE)
        clip = clip[: len(self.sound) - first]
        self.sound[first : first + len(clip)] += clip
        end_s = start_s + len(clip) / RATE
        if speech:
            self.speech.append((start_s, end_s))
        return end_s

    @property
    def speech_share(self) -> float:
        """Of the whole, overlaps counted once."""
        return float(mask(self.speech, self.seconds).mean())


def mask(spans: Sequence[Span], seconds: float) -> npt.NDArray[np.bool_]:
    """Milliseconds that lie in a span."""
    inside = np.zeros(round(seconds * 1000), np.bool_)
    for start, end in spans:
        inside[round(start * 1000) : round(end * 1000)] = True
    return inside


def at_level(sound: Sound, dbfs: float) -> Sound:
    """The sound with a root mean square of `dbfs`."""
    power = float(np.mean(sound**2))
    return sound * np.float32(10 ** (dbfs / 20) / max(power, 1e-12) ** 0.5)


@cache
def spoken_clips() -> tuple[Sound, ...]:
    """The turns of the sandbox's stereo recordings, cut out."""
    clips = []
    for portal in load_world().portals.values():
        for recording in portal.recordings.values():
            if recording.content not in ("speech", "voicemail") or recording.operator_channel is None:
                continue
            sound = read(recording.path)
            for turn in recording.turns:
                side = recording.operator_channel if turn.speaker == "operator" else 1 - recording.operator_channel
                clips.append(sound[side, turn.start_ms * 8 : turn.end_ms * 8])
    return tuple(clips)


def read(path: Path) -> Sound:
    """A file's samples, (channels, n), at 8000 Hz."""
    resampler = av.AudioResampler("fltp", rate=RATE)
    with av.open(path) as container:
        parts = [
            part.to_ndarray()
            for frame in [*container.decode(container.streams.audio[0]), None]
            for part in resampler.resample(frame)
        ]
    return np.concatenate(parts, axis=1).astype(np.float32)


@cache
def made_clips() -> tuple[Sound, ...]:
    """Thirty turns of made voices."""
    chance = np.random.default_rng(12)
    return tuple(voice(chance, float(chance.uniform(0.8, 5))) for _ in range(30))


def voice(chance: np.random.Generator, seconds: float) -> Sound:
    """Syllables of a made voice: pulses through formants, hissing consonants, short gaps between words."""
    sound = np.zeros(round(seconds * RATE), np.float32)
    pitch = chance.uniform(90, 220)
    place = 0.0
    while place < seconds - 0.08:
        length = min(chance.uniform(0.12, 0.28), seconds - place)
        syllable = _syllable(chance, pitch * chance.uniform(0.85, 1.2), length)
        first = round(place * RATE)
        sound[first : first + len(syllable)] += syllable[: len(sound) - first]
        place += length + (chance.uniform(0.08, 0.3) if chance.random() < 0.2 else chance.uniform(0, 0.05))
    return sound


def _syllable(chance: np.random.Generator, pitch: float, seconds: float) -> Sound:
    time = np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(pitch * (1 + chance.uniform(-0.15, 0.15) * time / seconds)) / RATE
    formants = (chance.uniform(300, 800), chance.uniform(900, 2200), chance.uniform(2300, 3000))
    sound = np.zeros(len(time))
    for number in range(1, int(3400 / pitch)):
        loud = sum(
            10 ** (-3 * order / 10) / (1 + ((number * pitch - at) / 90) ** 2) for order, at in enumerate(formants)
        )
        sound += loud * np.cos(number * phase + number**2)
    sound *= np.sin(np.pi * np.minimum(1, time / seconds * 1.05)) ** 0.5
    if chance.random() < 0.35:
        hiss = np.diff(chance.normal(size=round(chance.uniform(0.04, 0.09) * RATE)), append=0.0)[: len(sound)]
        sound[: len(hiss)] = sound[: len(hiss)] * 0.2 + hiss * 0.15 * np.abs(sound).max()
    loudest = max(1e-9, float(np.abs(sound).max()))
    return np.asarray(sound / loudest, dtype=np.float32)


@cache
def _noise_minute(slope: float) -> Sound:
    count = 1 << 19
    spectrum = np.fft.rfft(np.random.default_rng(11).normal(size=count))
    spectrum *= np.maximum(np.fft.rfftfreq(count, 1 / RATE), 50) ** (slope / 2)
    return at_level(np.fft.irfft(spectrum, count).astype(np.float32), 0)


def noise(chance: np.random.Generator, seconds: float, dbfs: float, *, slope: float = 0.0) -> Sound:
    """Steady noise; `slope` 0 is white, -1 pink."""
    minute = _noise_minute(slope)
    first = int(chance.integers(len(minute)))
    return np.resize(np.roll(minute, -first), round(seconds * RATE)) * np.float32(10 ** (dbfs / 20))


def hum(seconds: float, dbfs: float) -> Sound:
    """The mains: 50 Hz and its odd overtones."""
    time = np.arange(round(seconds * RATE)) / RATE
    return at_level(
        np.stack([np.sin(2 * np.pi * 50 * n * time) / n for n in (1, 3, 5, 7)]).sum(axis=0).astype(np.float32), dbfs
    )


def tone(seconds: float, dbfs: float, *hertz: float) -> Sound:
    """Steady frequencies with edges of 5 ms."""
    time = np.arange(round(seconds * RATE)) / RATE
    edge = np.minimum(1, np.minimum(time, time[::-1]) / 0.005)
    return at_level((edge * sum(np.sin(2 * np.pi * f * time) for f in hertz)).astype(np.float32), dbfs)


def cadence(seconds: float, on_s: float, off_s: float, dbfs: float, *hertz: float) -> Sound:
    """A tone that comes and goes: 425 Hz 1 s on and 4 s off is ringing in Russia, 0.35 and 0.35 busy."""
    line = Line(seconds)
    start = 0.0
    while start < seconds:
        line.put(start, tone(on_s, dbfs, *hertz))
        start += on_s + off_s
    return line.sound


def music(chance: np.random.Generator, seconds: float, dbfs: float) -> Sound:
    """Hold music: chords of harmonic notes."""
    line = Line(seconds)
    start, root = 0.0, chance.uniform(196, 294)
    while start < seconds - 0.1:
        length = float(chance.choice([0.25, 0.5, 0.5, 1.0]))
        time = np.arange(round(length * 1.4 * RATE)) / RATE
        chord = np.zeros(len(time))
        for step in chance.choice([0, 2, 4, 5, 7, 9, 11, 12], size=3, replace=False):
            pitch = root * 2 ** (step / 12)
            chord += sum(np.sin(2 * np.pi * pitch * n * time) / n**1.3 for n in range(1, 6))
        line.put(start, (chord * np.exp(-3 * time / length) * np.minimum(1, time / 0.01)).astype(np.float32))
        start += length
    return at_level(line.sound, dbfs)


def dialog(
    chance: np.random.Generator,
    seconds: float,
    clips: Sequence[Sound] = (),
    *,
    levels: tuple[float, float] = (-20, -20),
) -> tuple[Line, Line]:
    """Two lines that take turns, now and then at once."""
    lines = (Line(seconds), Line(seconds))
    now, side = chance.uniform(0.3, 1.5), int(chance.integers(2))
    while True:
        clip = clips[int(chance.integers(len(clips)))]
        end = now + len(clip) / RATE
        if end > seconds - 0.2:
            return lines
        lines[side].put(now, at_level(clip, levels[side]))
        side = 1 - side if chance.random() < 0.85 else side
        own_last = max((last for _, last in lines[side].speech), default=-1.0)
        now = max(end + (-0.4 if chance.random() < 0.15 else chance.uniform(0.2, 1.8)), own_last + 0.6)


def one_sound(chance: np.random.Generator, seconds: float, clips: tuple[Sound, ...]) -> list[Sound]:
    """Two channels with one sound: later, softer or turned over in the second, each with a noise of its own."""
    lines = dialog(chance, seconds, clips, levels=(float(chance.uniform(-30, -16)), float(chance.uniform(-30, -16))))
    if not any(line.speech for line in lines):  # the first clip was too long
        lines[0].put(1, at_level(clips[0], -20))
    mixed = lines[0].sound + lines[1].sound
    other = np.roll(mixed, int(chance.choice([0, 0, 160]))) * np.float32(chance.choice([1, 1, 0.5, -1]))
    floor = float(chance.uniform(-80, -50))
    return [mixed + noise(chance, seconds, floor), other + noise(chance, seconds, floor)]


def one_side(chance: np.random.Generator, seconds: float, clips: tuple[Sound, ...]) -> tuple[Sound, Sound]:
    """Who speaks, and a channel without a voice: nothing, noise, hum, comfort noise, clicks, an echo."""
    line = Line(seconds)
    end = 0.3
    while end < seconds - 1:
        clip = clips[int(chance.integers(len(clips)))][: 3 * RATE]
        end = line.put(end, at_level(clip, float(chance.uniform(-28, -16)))) + 0.7
    alive = line.sound + noise(chance, seconds, float(chance.uniform(-80, -55)))
    dead = np.zeros_like(alive)
    kind = chance.choice(["nothing", "noise", "hum", "comfort", "clicks", "echo"])
    if kind != "nothing":
        dead = noise(chance, seconds, float(chance.uniform(-80, -42)), slope=-float(chance.integers(2)))
    if kind == "hum":
        dead = dead + hum(seconds, float(chance.uniform(-50, -25)))
    elif kind == "comfort":
        dead[: len(dead) // 2] = 0
    elif kind == "clicks":
        for start in chance.integers(0, len(dead) - 80, 3):
            dead[start : start + 60] += chance.uniform(-0.3, 0.3, 60)
    elif kind == "echo":
        dead = dead + 10 ** (float(chance.uniform(-40, -18)) / 20) * np.roll(alive, int(chance.integers(400)))
    return alive, dead


def write(
    path: Path, channels: Sequence[Sound], *, codec: str = "libmp3lame", bit_rate: int = 32_000, joint: bool = True
) -> Path:
    """Encode the channels at 8000 Hz; the suffix is the container."""
    return encode(path, channels, codec, RATE, bit_rate, joint=joint)


def encode(path: Path, channels: Sequence[Sound], codec: str, rate: int, bit_rate: int, *, joint: bool = True) -> Path:
    """Encode one or two channels of 8000 Hz at another rate; without a bit rate the codec's own way."""
    layout = "stereo" if len(channels) == 2 else "mono"
    samples = np.clip(np.round(np.stack(list(channels)) * 32768), -32768, 32767).astype(np.int16)
    with av.open(path, "w", options={"fflags": "+bitexact"}) as container:
        options = {"joint_stereo": str(int(joint))} if codec == "libmp3lame" else {}
        stream = container.add_stream(codec, rate=rate, layout=layout, options=options)
        assert isinstance(stream, av.AudioStream)
        stream.codec_context.flags |= Flags.bitexact
        if bit_rate:
            stream.bit_rate = bit_rate
        container.start_encoding()
        resampler = av.AudioResampler(stream.format, layout, rate, frame_size=stream.frame_size or 1152)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "s16p", layout)
        frame.sample_rate = RATE
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux([packet for packet in stream.encode(part) if packet.size])
    return path
