"""How one answer of VoiceKit differs from what was said: pure functions from response to response.

Here: blank, swapped, doubled, wordless, doubtful and garbled results. Not here: what is heard (`voicekit_recognition`), and
when an answer is altered (`voicekit`). Facts: facts/voicekit.md 4 and 6.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from google.protobuf.duration_pb2 import Duration

from dialog_assets.speech.tinkoff.cloud.stt.v1 import stt_pb2

Response = stt_pb2.RecognizeResponse


def empty(_response: Response) -> Response:
    """Nothing was heard."""
    return Response()


def blank(response: Response) -> Response:
    """One result more without alternatives, and one whose only text is a space."""
    changed = _copy(response)
    changed.results.add()
    changed.results.add().alternatives.add(transcript=" ", confidence=-1.0)
    return changed


def no_words(response: Response) -> Response:
    """Transcripts without `words`."""
    changed = _copy(response)
    for result in changed.results:
        for alternative in result.alternatives:
            del alternative.words[:]
    return changed


def channels_swapped(response: Response) -> Response:
    """What was heard left is said to be right, and the reverse."""
    changed = _copy(response)
    for result in changed.results:
        result.channel = 1 - result.channel
    return changed


def dual_mono(response: Response) -> Response:
    """Every phrase on both channels: a mono call saved as two identical ones."""
    changed = Response()
    for result in response.results:
        for channel in (0, 1):
            changed.results.append(result)
            changed.results[-1].channel = channel
    return changed


def negative_confidence(response: Response) -> Response:
    """All scores below zero, of words too."""
    changed = _copy(response)
    for result in changed.results:
        for alternative in result.alternatives:
            alternative.confidence = -1.5 - abs(alternative.confidence)
            for word in alternative.words:
                word.confidence = -0.01 - abs(word.confidence)
    return changed


def garbage(response: Response, *, pace: float = 1.5, channels: int = 2) -> Response:
    """What is heard at a wrong rate: a third of the phrases, made of syllables, `pace` times as late, on `channels` channels."""
    changed = Response()
    chance = random.Random(response.SerializeToString(deterministic=True))
    for result in response.results:
        if chance.random() > 1 / 3:
            continue
        changed.results.append(result)
        made = changed.results[-1]
        made.channel = min(made.channel, channels - 1)
        for when in (made.start_time, made.end_time):
            _stretch(when, pace)
        for alternative in made.alternatives:
            alternative.confidence = -9.0
            for word in alternative.words:
                word.word = "".join(chance.sample("абгеиоуы", min(len(word.word), 3)))
                for when in (word.start_time, word.end_time):
                    _stretch(when, pace)
            alternative.transcript = " ".join(word.word for word in alternative.words)
    return changed


def ordered(response: Response, order: str, chance: random.Random) -> Response:
    """Results in order of "time", by "channel" (the right one first), or "shuffled"."""
    results = sorted(response.results, key=lambda one: (one.start_time.ToMilliseconds(), one.channel))
    if order == "channel":
        results.sort(key=lambda one: -one.channel)
    if order == "shuffled":
        chance.shuffle(results)
    return Response(results=results)


CHANGES: Mapping[str, Callable[[Response], Response]] = {
    "empty": empty,
    "blank": blank,
    "garbage": garbage,
    "no_words": no_words,
    "channels_swapped": channels_swapped,
    "dual_mono": dual_mono,
    "negative_confidence": negative_confidence,
}
"""The changes that need nothing but the response, by the fault's kind."""


def _copy(response: Response) -> Response:
    changed = Response()
    changed.CopyFrom(response)
    return changed


def _stretch(when: Duration, pace: float) -> None:
    when.FromMilliseconds(round(when.ToMilliseconds() * pace / 10) * 10)
