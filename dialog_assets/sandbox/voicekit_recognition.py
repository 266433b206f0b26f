"""What VoiceKit hears: audio bytes → the world's recording of that sha256 → phrases of its script.

Here: refusals of a config and of audio that it does not describe, and the RecognizeResponse. Not here: gRPC, operations.
Facts: facts/voicekit.md 1.3-1.5 and 4. Times are multiples of 10 ms; what varies is drawn from a generator of the sha256.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import BinaryIO, Protocol

import grpc
from google.protobuf.duration_pb2 import Duration

from dialog_assets.sandbox.voicekit_auth import RefusedError
from dialog_assets.sandbox.voicekit_behaviour import Order
from dialog_assets.sandbox.voicekit_pcm import Samples, samples_of
from dialog_assets.sandbox.world.model import Recording, World
from dialog_assets.speech.tinkoff.cloud.stt.v1 import stt_pb2

SAMPLE_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)
MAX_ALTERNATIVES = 15
STREAMING_ONLY = (stt_pb2.RAW_AAC_LC, stt_pb2.RAW_ER_AAC_LD)
CODECS: dict[int, tuple[str, ...]] = {stt_pb2.MPEG_AUDIO: ("mp3", "mp3float"), stt_pb2.ADTS_AAC: ("aac",)}
PROFANITIES = ("чёрт", "черт", "дурак", "идиот")
"""What the profanity filter's list is here: beginnings of words."""
SAMPLE_BYTES: dict[int, int] = {stt_pb2.LINEAR16: 2, stt_pb2.MULAW: 1, stt_pb2.ALAW: 1}


class Sound(Protocol):
    """Bytes to be recognised, wherever they are."""

    @property
    def sha256(self) -> str:
        """Their hash."""

    @property
    def size(self) -> int:
        """Their number."""

    def open(self) -> BinaryIO:
        """Them as a file."""


@dataclass(frozen=True)
class Content:
    """A sound in memory."""

    data: bytes

    @cached_property
    def sha256(self) -> str:
        """Its hash."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data)

    def open(self) -> BinaryIO:
        """It as a file."""
        return io.BytesIO(self.data)


@dataclass(frozen=True)
class Audio:
    """Audio as received. `seconds` is 0 where it cannot be known; `problem` says why it cannot be recognised.

    `untrue`: the config is not true of audio that can be decoded, and how many times too slow it is read; that is no
    `problem` where there is no header to tell it.
    """

    sha256: str
    seconds: float
    recording: Recording | None
    problem: str | None
    untrue: float | None = None


@dataclass(frozen=True)
class Phrase:
    """What one channel says between two pauses; `words` are (text, start_ms, end_ms)."""

    channel: int
    words: tuple[tuple[str, int, int], ...]

    @property
    def start_ms(self) -> int:
        """Start of the first word."""
        return self.words[0][1]

    @property
    def end_ms(self) -> int:
        """End of the last word."""
        return self.words[-1][2]


@dataclass(frozen=True)
class _Known:
    """A recording of the world; `samples` if it is a WAV file."""

    recording: Recording
    samples: Samples | None


@dataclass(frozen=True)
class _Probe:
    codec: str
    sample_rate: int
    channels: int
    seconds: float


def check_config(config: stt_pb2.RecognitionConfig, *, streaming: bool = False) -> None:
    """RefusedError (3) for a config that the service does not accept whatever the audio is."""
    known = stt_pb2.AudioEncoding.values()
    if config.encoding == stt_pb2.ENCODING_UNSPECIFIED or config.encoding not in known:
        raise _invalid("config.encoding is missing or not supported")
    if config.encoding in STREAMING_ONLY and not streaming:
        raise _invalid("config.encoding is supported by streaming methods only")
    if config.sample_rate_hertz not in SAMPLE_RATES:
        raise _invalid(f"config.sample_rate_hertz {config.sample_rate_hertz} is not supported")
    if config.num_channels not in (1, 2):
        raise _invalid(f"config.num_channels {config.num_channels} is not supported")


class Recogniser:
    """Knows the world's recordings by sha256."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._by_size: dict[int, deque[_Known]] | None = None
        self._recordings: dict[str, _Known] = {}
        self._probes: dict[str, _Probe | None] = {}
        self._lock = asyncio.Lock()

    async def examine(self, config: stt_pb2.RecognitionConfig, sound: Sound) -> Audio:
        """What `sound` is, and whether `config` tells the truth about it."""
        async with self._lock:
            return await asyncio.to_thread(self._examine, config, sound)

    def recognise(
        self, config: stt_pb2.RecognitionConfig, audio: Audio, order: Order = "varied"
    ) -> stt_pb2.RecognizeResponse:
        """What is heard in the audio; no results for silence and for audio that the world does not know."""
        recording = audio.recording
        if recording is None or recording.content in ("silence", "damaged"):
            return stt_pb2.RecognizeResponse()
        chance = random.Random(audio.sha256)
        phrases = _phrases(recording, chance)
        if config.do_not_perform_vad:
            phrases = _without_pauses(phrases)
        return stt_pb2.RecognizeResponse(
            results=[_result(config, phrase, chance) for phrase in _ordered(phrases, order, audio.sha256, chance)]
        )

    def _examine(self, config: stt_pb2.RecognitionConfig, sound: Sound) -> Audio:
        sha256 = sound.sha256
        known = self._known(sound)
        if config.encoding in SAMPLE_BYTES:
            return _headerless(config, sound, known)
        codecs = CODECS.get(config.encoding)
        if codecs is None:
            return Audio(sha256, 0.0, None, None)
        recording = known.recording if known is not None else None
        if sha256 not in self._probes:
            known_ms = recording.duration_ms if recording is not None else 0
            with sound.open() as file:
                self._probes[sha256] = _probe(file, known_ms / 1000)
        probe = self._probes[sha256]
        if probe is None or (recording is not None and recording.content == "damaged"):
            return Audio(sha256, 0.0, recording, "audio cannot be decoded")
        problem = _mismatch(config, probe, codecs)
        pace = probe.sample_rate * probe.channels / (config.sample_rate_hertz * config.num_channels)
        return Audio(sha256, probe.seconds, recording, problem, pace if problem else None)

    def _known(self, sound: Sound) -> _Known | None:
        """The world's recording of these bytes; of thousands only those of their size are read, till it is found."""
        if self._by_size is None:
            by_path = {
                recording.path: recording
                for portal in self._world.portals.values()
                for recording in portal.recordings.values()
            }
            self._by_size = {}
            for recording in by_path.values():
                known = _Known(recording, samples_of(recording.path))
                sizes = [recording.size or 0] if known.samples is None else [recording.size or 0, known.samples.length]
                for size in sizes:
                    self._by_size.setdefault(size, deque()).append(known)
        unread = self._by_size.get(sound.size, deque())
        while sound.sha256 not in self._recordings and unread:
            known = unread.popleft()
            places = [0] if known.samples is None else [0, known.samples.first]
            for first in places:
                data = known.recording.read(first, sound.size)
                self._recordings[hashlib.sha256(data).hexdigest()] = known
        return self._recordings.get(sound.sha256)


def _headerless(config: stt_pb2.RecognitionConfig, sound: Sound, known: _Known | None) -> Audio:
    """Samples say nothing about themselves, so an untrue config is no problem but heard as something else."""
    stated = config.sample_rate_hertz * config.num_channels * SAMPLE_BYTES[config.encoding]
    seconds = sound.size / stated
    samples = known.samples if known is not None else None
    if known is None or samples is None:
        return Audio(sound.sha256, seconds, None, None)
    true = samples.sample_rate * samples.channels * SAMPLE_BYTES[samples.encoding]
    is_true = (config.encoding, config.sample_rate_hertz, config.num_channels) == (
        samples.encoding,
        samples.sample_rate,
        samples.channels,
    )
    return Audio(sound.sha256, seconds, known.recording, None, None if is_true else true / stated)


def _ordered(phrases: Sequence[Phrase], order: Order, sha256: str, chance: random.Random) -> list[Phrase]:
    orders: tuple[Order, ...] = ("time", "channel", "shuffled")
    chosen = orders[int(sha256[:8], 16) % 3] if order == "varied" else order
    by_time = sorted(phrases, key=lambda phrase: (phrase.start_ms, phrase.channel))
    if chosen == "channel":
        return sorted(by_time, key=lambda phrase: -phrase.channel)
    if chosen == "shuffled":
        chance.shuffle(by_time)
    return by_time


def _mismatch(config: stt_pb2.RecognitionConfig, probe: _Probe, codecs: tuple[str, ...]) -> str | None:
    if probe.codec not in codecs:
        return f"audio is {probe.codec}, not what config.encoding says"
    if probe.sample_rate != config.sample_rate_hertz:
        return f"config.sample_rate_hertz {config.sample_rate_hertz} differs from the audio's {probe.sample_rate}"
    if probe.channels != config.num_channels:
        return f"config.num_channels {config.num_channels} differs from the audio's {probe.channels}"
    return None


def _probe(file: BinaryIO, seconds: float) -> _Probe | None:
    """Codec, rate, channels and length of a file; None if it is not audio that can be decoded.

    Only where the length is not known (0) all of the file is decoded, which takes a third of a millisecond a second.
    """
    import av

    try:
        with av.open(file, mode="r") as container:
            if not container.streams.audio:
                return None
            stream = container.streams.audio[0]
            frame = None
            samples = 0  # as decoded: packets' durations would count the encoder's padding too
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except av.FFmpegError:
                    if frame is None:
                        raise
                    continue
                for frame in frames:
                    samples += frame.samples
                if frame is not None and seconds:
                    break
            if frame is None:
                return None
            length = seconds or samples / frame.sample_rate
            return _Probe(stream.codec_context.name, frame.sample_rate, frame.layout.nb_channels, length)
    except (av.FFmpegError, ValueError):
        return None


def _phrases(recording: Recording, chance: random.Random) -> list[Phrase]:
    """Phrases of the recording, in no promised order; a long turn is now and then cut into two or three."""
    client = 0 if recording.operator_channel is None else 1 - recording.operator_channel
    channels = {"client": client, "operator": recording.operator_channel or 0}
    if recording.channels == 1:
        channels = {"client": 0, "operator": 0}
    phrases: list[Phrase] = []
    for turn in recording.turns:
        words = _spread(turn.heard.split(), turn.start_ms, turn.end_ms)
        phrases += [Phrase(channels[turn.speaker], part) for part in _cut(words, chance) if part]
    return phrases


def _spread(words: Sequence[str], start_ms: int, end_ms: int) -> tuple[tuple[str, int, int], ...]:
    step = (end_ms - start_ms) / max(len(words), 1)
    return tuple(
        (word, _tens(start_ms + step * place), _tens(start_ms + step * (place + 1))) for place, word in enumerate(words)
    )


def _tens(ms: float) -> int:
    return math.floor(ms / 10) * 10


def _cut(words: tuple[tuple[str, int, int], ...], chance: random.Random) -> list[tuple[tuple[str, int, int], ...]]:
    if len(words) < 6 or chance.random() < 0.5:
        return [words]
    cuts = sorted(chance.sample(range(2, len(words) - 1), chance.choice((1, 2))))
    return [words[start:end] for start, end in zip([0, *cuts], [*cuts, len(words)], strict=True)]


def _without_pauses(phrases: Sequence[Phrase]) -> list[Phrase]:
    whole: dict[int, Phrase] = {}
    for phrase in sorted(phrases, key=lambda one: one.start_ms):
        before = whole.get(phrase.channel)
        whole[phrase.channel] = replace(phrase, words=before.words + phrase.words) if before else phrase
    return list(whole.values())


def _result(
    config: stt_pb2.RecognitionConfig, phrase: Phrase, chance: random.Random
) -> stt_pb2.SpeechRecognitionResult:
    count = min(config.max_alternatives or 1, MAX_ALTERNATIVES, len(phrase.words))
    best = round(chance.uniform(-5.5, 1.0), 2)
    alternatives = []
    for place in range(count):
        words = phrase.words[: len(phrase.words) - place]
        if place == 0 and config.profanity_filter:
            words = tuple((_masked(word), start_ms, end_ms) for word, start_ms, end_ms in words)
        transcript = " ".join(word for word, _, _ in words)
        if place == 0 and config.enable_automatic_punctuation:
            transcript = f"{transcript[0].upper()}{transcript[1:]}."
        alternatives.append(
            stt_pb2.SpeechRecognitionAlternative(
                transcript=transcript, confidence=best - place, words=[_word(word, chance) for word in words]
            )
        )
    result = stt_pb2.SpeechRecognitionResult(
        alternatives=alternatives,
        channel=phrase.channel,
        start_time=_duration(phrase.start_ms),
        end_time=_duration(phrase.end_ms),
    )
    if config.enable_gender_identification:
        result.gender_identification_result.male_proba = 0.25
        result.gender_identification_result.female_proba = 0.75
    if config.enable_sentiment_analysis:
        result.sentiment_analysis_result.negative_prob_audio = 0.25
        result.sentiment_analysis_result.negative_prob_audio_text = 0.25
    return result


def _masked(word: str) -> str:
    return word[0] + "*" * (len(word) - 1) if word.lower().startswith(PROFANITIES) else word


def _word(word: tuple[str, int, int], chance: random.Random) -> stt_pb2.WordInfo:
    return stt_pb2.WordInfo(
        word=word[0],
        start_time=_duration(word[1]),
        end_time=_duration(word[2]),
        confidence=round(chance.uniform(-0.2, 1.0), 2),
    )


def _duration(ms: int) -> Duration:
    return Duration(seconds=ms // 1000, nanos=ms % 1000 * 1_000_000)


def _invalid(text: str) -> RefusedError:
    return RefusedError(grpc.StatusCode.INVALID_ARGUMENT, text)
