"""What VoiceKit is told about a recording: encoding, rate, channels, words to expect (facts/voicekit.md 1.4 and 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

from dialog_assets.speech.errors import RecordingRejected
from dialog_assets.speech.port import AudioFormat, Encoding, Options
from dialog_assets.speech.tinkoff.cloud.stt.v1 import stt_pb2

SAMPLE_RATES = frozenset({8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 96000})
ENCODINGS: dict[Encoding, stt_pb2.AudioEncoding] = {
    "mp3": stt_pb2.MPEG_AUDIO,
    "pcm_s16le": stt_pb2.LINEAR16,
    "pcm_alaw": stt_pb2.ALAW,
    "pcm_mulaw": stt_pb2.MULAW,
    "aac_adts": stt_pb2.ADTS_AAC,
}
ADVISED_LENGTH = 5


def recognition_config(audio: AudioFormat, options: Options) -> stt_pb2.RecognitionConfig:
    """The message; RecordingRejected for what section 1.4 says is refused, before money is asked for."""
    if audio.channels not in (1, 2) or audio.sample_rate not in SAMPLE_RATES:
        raise RecordingRejected(
            "unsupported_audio",
            f"VoiceKit takes 1 or 2 channels at one of its sample rates, the recording has {audio.channels} "
            f"at {audio.sample_rate} Hz: convert it",
        )
    config = stt_pb2.RecognitionConfig(
        encoding=ENCODINGS[audio.encoding],
        sample_rate_hertz=audio.sample_rate,
        num_channels=audio.channels,
        language_code="ru-RU",
        max_alternatives=1,
        profanity_filter=options.profanity_filter,
        enable_automatic_punctuation=True,
        enable_denormalization=True,
    )
    if options.phrase_pause_s is not None:
        config.vad_config.silence_duration_threshold = options.phrase_pause_s
    if options.silence_probability is not None:
        config.vad_config.silence_prob_threshold = options.silence_probability
    phrases = spoken(options.vocabulary)
    if phrases:
        config.speech_contexts.add(phrases=[stt_pb2.SpeechContextPhrase(text=text, score=1.0) for text in phrases])
    return config


def spoken(vocabulary: Sequence[str]) -> list[str]:
    """The vocabulary as speech contexts want it: lower-case, single spaces, each phrase once."""
    return list(dict.fromkeys(" ".join(text.lower().split()) for text in vocabulary))


def doubtful(vocabulary: Sequence[str]) -> list[str]:
    """Phrases against the vendor's advice, which may do harm: shorter than five characters, or with Latin letters."""
    return [
        text
        for text in spoken(vocabulary)
        if len(text) < ADVISED_LENGTH or any(letter.isascii() and letter.isalpha() for letter in text)
    ]
