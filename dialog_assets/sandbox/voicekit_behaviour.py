"""What is unknown or variable about the real VoiceKit, as switches, and its faults by script.

Here: the switches and kinds with their meaning, and how long an operation takes. Not here: what they change; each is read
where it acts. Source: facts/voicekit.md; the section is named where the facts leave something open.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args, get_type_hints

import grpc

from dialog_assets.errors import DialogAssetsError
from dialog_assets.sandbox.faults import Fault
from dialog_assets.speech.tinkoff.cloud.longrunning.v1 import longrunning_pb2

Order = Literal["varied", "time", "channel", "shuffled"]

QUOTA_TEXT = "Max open connection limit exceeded, please retry later"
QUEUED_SHARE = 0.1
"""Of a drawn latency: the part in which the operation is ENQUEUED."""


class BehaviourError(DialogAssetsError):
    """A switch that does not exist, or a value that it does not take."""


@dataclass(frozen=True)
class Behaviour:
    """The switches; seconds are of the real clock. Of headerless audio nothing can be told: an untrue config gives garbage.

    | switch | meaning |
    |---|---|
    | queued_s, processing_s | how long an operation is ENQUEUED, then PROCESSING |
    | processing_per_audio_second_s | more PROCESSING for each second of audio |
    | recognition_s | (least, most) seconds until the result, drawn evenly for each submission; instead of the three above |
    | seed | of those draws: a recording's n-th submission takes the same time in every run, whatever the order of arrival |
    | time_scale | all these times are multiplied by it |
    | max_open_calls | open calls of one key and rpc above which it is refused with 8 (3.4: 50) |
    | max_operations | operations ENQUEUED or PROCESSING of one key above which a submission is refused with 8; None: any |
    | listing_delay_s | an accepted operation is missing in ListOperations and a watch's start until then; 0: at once |
    | bad_audio | a missing object, undecodable audio, untrue config: refused at submission, or FAILED later (3.6 [?]) |
    | missing_object | the code of a missing object, at submission or in the operation (3.6 [?]) |
    | untrue_config | wrong rate or channels: "told" as `bad_audio` says, or no error but silence or garbage (section 6, #8) |
    | order | of results (section 4 [?]); varied: one of the others by the audio |
    """

    queued_s: float = 0.2
    processing_s: float = 0.3
    processing_per_audio_second_s: float = 0.0
    recognition_s: tuple[float, float] | None = None
    seed: int = 0
    time_scale: float = 1.0
    max_open_calls: int = 50
    max_operations: int | None = None
    listing_delay_s: float = 0.0
    bad_audio: Literal["refused", "failed"] = "refused"
    missing_object: Literal["NOT_FOUND", "INVALID_ARGUMENT"] = "NOT_FOUND"
    untrue_config: Literal["told", "silence", "garbage"] = "told"
    order: Order = "varied"

    def times(self, recording: str, submission: int, audio_seconds: float) -> tuple[float, float]:
        """Seconds ENQUEUED and PROCESSING of a recording's n-th submission."""
        if self.recognition_s is None:
            processing_s = self.processing_s + self.processing_per_audio_second_s * audio_seconds
            return self.queued_s * self.time_scale, processing_s * self.time_scale
        drawn = random.Random(f"{self.seed} {recording} {submission}").uniform(*self.recognition_s) * self.time_scale
        return drawn * QUEUED_SHARE, drawn * (1 - QUEUED_SHARE)

    def changed(self, switches: dict[str, Any]) -> Behaviour:
        """A copy with `switches` (JSON values). Raises BehaviourError."""
        for name, value in switches.items():
            if name not in _TYPES:
                raise BehaviourError(f"VoiceKit has no switch {name!r}; it has {', '.join(_TYPES)}")
            if not _fits(value, _TYPES[name]):
                raise BehaviourError(f"VoiceKit's switch {name} does not take {value!r}")
        pairs: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in switches.items()
        }
        return replace(self, **pairs)


_HINTS = get_type_hints(Behaviour)
_TYPES = {one.name: _HINTS[one.name] for one in fields(Behaviour)}


def _fits(value: object, kind: Any) -> bool:
    if kind == tuple[float, float] | None:
        return value is None or (
            isinstance(value, list | tuple) and len(value) == 2 and all(_fits(one, float) for one in value)
        )
    if kind == int | None:
        return value is None or _fits(value, int)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return value in get_args(kind)


_UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "service is temporarily unavailable")
_DEADLINE = (grpc.StatusCode.DEADLINE_EXCEEDED, "no answer in time")
_INTERNAL = (grpc.StatusCode.INTERNAL, "internal error")
_ABORTED = (grpc.StatusCode.ABORTED, "call was cut by a service release")
_UNKNOWN = (grpc.StatusCode.UNKNOWN, "unknown error")

BEFORE: dict[str, tuple[grpc.StatusCode, str]] = {
    "unavailable_before": _UNAVAILABLE,
    "deadline_before": _DEADLINE,
    "internal": _INTERNAL,
    "aborted": _ABORTED,
    "unknown": _UNKNOWN,
    "exhausted": (grpc.StatusCode.RESOURCE_EXHAUSTED, QUOTA_TEXT),
    "unauthenticated": (grpc.StatusCode.UNAUTHENTICATED, "signature validation failed"),
    "permission_denied": (grpc.StatusCode.PERMISSION_DENIED, "scope is not supported by the api key"),
}
"""Faults that strike before anything was done (3.6)."""

AFTER: dict[str, tuple[grpc.StatusCode, str]] = {
    "unavailable_after": _UNAVAILABLE,
    "deadline_after": _DEADLINE,
    "internal_after": _INTERNAL,
    "aborted_after": _ABORTED,
    "unknown_after": _UNKNOWN,
}
"""Faults that strike although the call was carried out: the answer is lost."""

MANNERS = ("empty", "blank", "garbage", "no_words", "channels_swapped", "dual_mono", "negative_confidence", "order")
"""Faults of a result, not of its operation."""

_FAILURES = {
    grpc.StatusCode.INVALID_ARGUMENT: "audio cannot be decoded",
    grpc.StatusCode.NOT_FOUND: "audio.uri: no such object",
    grpc.StatusCode.UNAVAILABLE: "recogniser is temporarily unavailable",
}


def failure(fault: Fault) -> longrunning_pb2.Status:
    """The error of an operation that `failed` strikes; its value is a gRPC code as number or name, by default INTERNAL."""
    wanted = grpc.StatusCode.INTERNAL if fault.value is None else fault.value
    for code in grpc.StatusCode:
        if wanted in (code, code.value[0], code.name):
            return longrunning_pb2.Status(code=code.value[0], message=_FAILURES.get(code, "recognition failed"))
    raise BehaviourError(f"the fault failed of VoiceKit takes a gRPC code, not {fault.value!r}")
