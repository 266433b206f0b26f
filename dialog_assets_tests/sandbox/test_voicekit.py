"""VoiceKit over real gRPC: tokens, refusals, results, faults and books."""

from __future__ import annotations

import asyncio
import random
import struct
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from dialog_assets.sandbox.voicekit import OPERATIONS, QUOTA_TEXT, STT, URI_PREFIX
from dialog_assets.sandbox.voicekit_auth import RefusedError, check_token
from dialog_assets.sandbox.voicekit_recognition import Audio, Content, Recogniser
from dialog_assets.sandbox.world import load_world
from dialog_assets.sandbox.world.model import Call, Recording, SandboxPortal, Script, ScriptTurn, World
from dialog_assets.speech.tinkoff.cloud.longrunning.v1 import longrunning_pb2 as lr
from dialog_assets.speech.tinkoff.cloud.stt.v1 import stt_pb2 as stt
from dialog_assets_tests.sandbox.voicekit_support import (
    API_KEY,
    OTHER_KEY,
    SECRET,
    START,
    Bench,
    bench,
    configured,
    script,
    token,
)

CODE = grpc.StatusCode


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("audience", ["tinkoff.cloud.stt", "tinkoff.cloud.stt.v1", STT, [STT]])
def test_token_accepted(audience: Any, *, padded: bool) -> None:
    """Padded and unpadded tokens for the service or a dotted prefix of it are accepted; the scheme's case does not matter."""
    given = f"bEARER {token(audience, padded=padded, iss='??????')}"
    assert check_token(given, STT, {API_KEY: SECRET}, now=0) == API_KEY


def test_times_of_a_token() -> None:
    """Times may be fractions of a second, and each is held to the moment."""
    given = f"Bearer {token('tinkoff.cloud.stt', exp=1000.5, nbf=990.5)}"
    for now, accepted in ((990.4, False), (990.5, True), (1000.4, True), (1000.5, False)):
        if accepted:
            assert check_token(given, STT, {API_KEY: SECRET}, now=now) == API_KEY
        else:
            with pytest.raises(RefusedError):
                check_token(given, STT, {API_KEY: SECRET}, now=now)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (None, "no bearer token"),
        ("Basic abc", "no bearer token"),
        ("Bearer a.b", "three segments"),
        ("Bearer ё.b.c", "base64url JSON"),
        (f"Bearer {token('tinkoff.cloud.stt', key='unknown')}", "unknown api key"),
        (f"Bearer {token('tinkoff.cloud.stt', secret=SECRET.encode())}", "signature validation failed"),
        (f"Bearer {token('tinkoff.cloud.stt', expires_in=-1)}", "expired"),
        (f"Bearer {token('tinkoff.cloud.stt', exp='soon')}", "no exp"),
        (f"Bearer {token('tinkoff.cloud.stt', exp=float('nan'))}", "no exp"),
        (f"Bearer {token('tinkoff.cloud.stt', nbf=time.time() + 86_400)}", "not valid yet"),
        (f"Bearer {token('tinkoff.cloud.stt', nbf='now')}", "not valid yet"),
        (f"Bearer {token('tinkoff.cloud.stt')}==", "signature validation failed"),
        (f"Bearer {token('tinkoff.cloud.stt', iss='??????', altchars=b'+/')}", "base64url JSON"),
        (f"Bearer {token('tinkoff.cloud.stt.v1.SpeechToTex')}", "aud"),
        (f"Bearer {token('tinkoff.cloud.stt.')}", "aud"),
        (f"Bearer {token([])}", "aud"),
        (f"Bearer {token('tinkoff.cloud.longrunning')}", "aud"),
        (f"Bearer {token('tinkoff.cloud')}", "aud"),
        (f"Bearer {token('tinkoff.cloud.s')}", "aud"),
    ],
    ids=range(19),  # a token differs at every collection
)
def test_token_refused(given: str | None, text: str) -> None:
    """A token that is missing, mangled, signed with the secret's text, expired or of another service is refused with 16."""
    with pytest.raises(RefusedError, match=text) as caught:
        check_token(given, STT, {API_KEY: SECRET}, now=time.time())
    assert caught.value.code == CODE.UNAUTHENTICATED


def test_stereo_recognised(tmp_path: Path) -> None:
    """A stereo call by URI comes back as its script's words, on the right channels, at the recording's times."""

    async def run() -> None:
        async with bench(tmp_path) as served:
            operation = await served.submit(1, group="day", x_client_request_id="mine")
            assert (operation.id, operation.group, operation.x_client_request_id) == ("101", "day", "mine")
            assert operation.state == lr.ENQUEUED
            response = await served.finish(operation)
            turns = script("stereo").turns
            assert len(response.results) > len(turns)
            for channel, side in ((0, "client"), (1, "operator")):
                mine = sorted((one for one in response.results if one.channel == channel), key=start_ms)
                words = [word.word for one in mine for word in one.alternatives[0].words]
                assert words == " ".join(turn.heard for turn in turns if turn.speaker == side).split()
                assert " ".join(one.alternatives[0].transcript for one in mine).split() == words
            times = [start_ms(one) for one in response.results]
            assert min(times) == turns[0].start_ms + 40
            assert all(time % 10 == 0 for time in times)
            assert any(one.alternatives[0].confidence < 0 for one in response.results)

    asyncio.run(run())


def start_ms(result: stt.SpeechRecognitionResult) -> int:
    return result.start_time.ToMilliseconds()


def test_mono_recognised(tmp_path: Path) -> None:
    """A mono recording comes back on channel 0 only, both sides on it."""

    async def run() -> None:
        async with bench(tmp_path) as served:
            results = (await served.finish(await served.submit(2))).results
            assert {one.channel for one in results} == {0}
            assert sum(len(one.alternatives[0].words) for one in results) == 12 * 8

    asyncio.run(run())


def test_nothing_heard(tmp_path: Path) -> None:
    """Silence, audio that the world does not know, and MP3 called PCM are DONE without results; a voicemail is one channel's."""

    async def run() -> None:
        async with bench(tmp_path) as served:
            assert not (await served.finish(await served.submit(3))).results
            unknown = stt.RecognitionAudio(content=served.files[1] + b"\0")
            assert not (await served.finish(await served.submit_audio(unknown, config=configured()))).results
            pcm = configured(encoding=stt.LINEAR16)
            assert not (await served.finish(await served.submit(1, config=pcm))).results
            assert {one.channel for one in (await served.finish(await served.submit(5))).results} == {0}

    asyncio.run(run())


@pytest.mark.parametrize("order", ["time", "channel", "shuffled"])
def test_orders(tmp_path: Path, order: str) -> None:
    """Results come ordered by time, grouped by channel, or shuffled: the same phrases each time."""

    async def run() -> None:
        async with bench(tmp_path, order=order) as served:
            request = stt.RecognizeRequest(config=configured(), audio=stt.RecognitionAudio(content=served.files[1]))
            results = (await served.call(STT, "Recognize", request)).results
            by_time = sorted(results, key=start_ms)
            grouped = sorted(by_time, key=lambda one: -one.channel)
            assert (list(results) == by_time) == (order == "time")
            assert (list(results) == grouped) == (order == "channel")

    asyncio.run(run())


def test_alternatives_and_whole_phrase(tmp_path: Path) -> None:
    """Alternatives are as many as asked, the first punctuated; without VAD each channel is one phrase."""

    async def run() -> None:
        async with bench(tmp_path) as served:
            config = configured(
                max_alternatives=3,
                do_not_perform_vad=True,
                enable_automatic_punctuation=True,
                enable_gender_identification=True,
            )
            results = (await served.finish(await served.submit(1, config=config))).results
            assert sorted(one.channel for one in results) == [0, 1]
            assert all(len(one.alternatives) == 3 for one in results)
            assert all(one.alternatives[0].transcript.startswith("Слово") for one in results)
            assert all(one.HasField("gender_identification_result") for one in results)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("config", "audio"),
    [
        (configured(encoding=0), {"content": b"x"}),
        (configured(encoding=2), {"content": b"x"}),
        (configured(encoding=stt.RAW_AAC_LC), {"content": b"x"}),
        (configured(rate=8001), {"content": b"x"}),
        (configured(channels=0), {"content": b"x"}),
        (configured(channels=3), {"content": b"x"}),
        (configured(), {}),
        (configured(), {"content": b""}),
        (configured(), {"uri": " "}),
        (configured(), {"uri": "https://example.org/a.mp3"}),
        (configured(), {"uri": "s3://inbound/a.mp3"}),
        (configured(), {"uri": URI_PREFIX}),
        (configured(), {"uri": "storage://s3.api.tinkoff.ai/other/a.mp3"}),
    ],
)
def test_malformed_refused(tmp_path: Path, config: stt.RecognitionConfig, audio: dict[str, Any]) -> None:
    """Config and audio source that the service never accepts are refused with 3, and nothing is written down as accepted."""

    async def run() -> None:
        async with bench(tmp_path, bad_audio="failed") as served:
            code, _ = await refused(served.submit_audio(stt.RecognitionAudio(**audio), config=config))
            assert code == CODE.INVALID_ARGUMENT
            assert "submitted" not in served.counts()

    asyncio.run(run())


def bad_audio(served: Bench) -> list[tuple[Any, Any]]:
    """(submission, code) of audio that is not what the request says."""
    missing = stt.RecognitionAudio(uri=f"{URI_PREFIX}none.mp3")
    return [
        (served.submit(4), CODE.INVALID_ARGUMENT),
        (served.submit(1, config=configured(rate=16000)), CODE.INVALID_ARGUMENT),
        (served.submit(1, config=configured(channels=1)), CODE.INVALID_ARGUMENT),
        (served.submit(1, config=configured(encoding=stt.ADTS_AAC)), CODE.INVALID_ARGUMENT),
        (served.submit_audio(missing, config=configured()), CODE.NOT_FOUND),
    ]


def test_bad_audio_refused(tmp_path: Path) -> None:
    """By default a missing or damaged object and an untrue config are refused at submission."""

    async def run() -> None:
        async with bench(tmp_path) as served:
            for submission, expected in bad_audio(served):
                code, text = await refused(submission)
                assert code == expected
                assert text
            assert "submitted" not in served.counts()

    asyncio.run(run())


def test_bad_audio_failed(tmp_path: Path) -> None:
    """With the switch the same requests are accepted and their operations end FAILED with code and text."""

    async def run() -> None:
        async with bench(tmp_path, bad_audio="failed") as served:
            for submission, expected in bad_audio(served):
                operation = await submission
                while operation.state != lr.FAILED:
                    operation = await served.wait(operation.id, 0.2)
                assert operation.error.code == expected.value[0]
                assert operation.error.message

    asyncio.run(run())


@pytest.mark.parametrize("bad_audio", ["refused", "failed"])
def test_code_of_a_missing_object(tmp_path: Path, bad_audio: str) -> None:
    """A missing object may also be an invalid argument, at once or later."""

    async def run() -> None:
        async with bench(tmp_path, bad_audio=bad_audio, missing_object="INVALID_ARGUMENT") as served:
            missing = served.submit_audio(stt.RecognitionAudio(uri=f"{URI_PREFIX}none.mp3"), config=configured())
            if bad_audio == "refused":
                assert (await refused(missing))[0] == CODE.INVALID_ARGUMENT
                return
            operation = await missing
            while operation.state != lr.FAILED:
                operation = await served.wait(operation.id, 0.2)
            assert operation.error.code == CODE.INVALID_ARGUMENT.value[0]

    asyncio.run(run())


def test_object_of_another_account_or_five_days_old(tmp_path: Path) -> None:
    """An object is there for the account that uploaded it, under its raw name, for five days of the sandbox's clock."""

    async def run() -> None:
        async with bench(tmp_path) as served:
            served.clock.now = START
            served.inbound.store("a b%20c.mp3", served.files[1])
            audio = stt.RecognitionAudio(uri=f"{URI_PREFIX}a b%20c.mp3")
            escaped = stt.RecognitionAudio(uri=f"{URI_PREFIX}a%20b%2520c.mp3")
            config = configured()
            assert (await served.submit_audio(audio, config=config)).id == "101"
            assert (await refused(served.submit_audio(escaped, config=config)))[0] == CODE.NOT_FOUND
            assert (await refused(served.submit_audio(audio, config=config, key=OTHER_KEY)))[0] == CODE.NOT_FOUND
            served.clock.now = START + timedelta(days=5)
            assert (await served.submit_audio(audio, config=config)).id == "102"
            served.clock.now += timedelta(seconds=1)
            assert (await refused(served.submit_audio(audio, config=config)))[0] == CODE.NOT_FOUND

    asyncio.run(run())


def wav(path: Path, samples: bytes, *, tag: int = 1, width: int = 2, rate: int = 8000) -> Path:
    """A stereo WAV file of any sample format, with a chunk before its samples."""
    shape = struct.pack("<4sIHHIIHH", b"fmt ", 16, tag, 2, rate, rate * 2 * width, 2 * width, 8 * width)
    chunks = shape + struct.pack("<4sI", b"LIST", 3) + b"abc\0" + struct.pack("<4sI", b"data", len(samples)) + samples
    path.write_bytes(struct.pack("<4sI4s", b"RIFF", 4 + len(chunks), b"WAVE") + chunks)
    return path


@pytest.mark.parametrize(
    ("encoding", "tag", "width"),
    [(stt.LINEAR16, 1, 2), (stt.ALAW, 6, 1), (stt.MULAW, 7, 1)],
    ids=["pcm", "alaw", "mulaw"],
)
def test_headerless_audio(tmp_path: Path, encoding: Any, tag: int, width: int) -> None:
    """The samples of a WAV recording are heard with or without its header; a wrong rate, count or encoding is not told."""

    async def run() -> None:
        samples = random.Random(width).randbytes(25 * 8000 * 2 * width)
        path = wav(tmp_path / "call.wav", samples, tag=tag, width=width)
        recording = Recording(1, path, path.name, "speech", 2, 1, script("wav"), START)
        call = Call(1, START, {}, recording)
        portal = SandboxPortal("p", 1, "secret", "UTC", {}, {}, {}, {}, {}, (call,), "P_WEBHOOK")
        recogniser = Recogniser(World({"p": portal}))
        for data in (samples, path.read_bytes()):
            true = configured(encoding=encoding)
            audio = await recogniser.examine(true, Content(data))
            assert (audio.problem, audio.untrue, int(audio.seconds)) == (None, None, 25)
            assert sum(len(one.alternatives[0].words) for one in recogniser.recognise(true, audio).results) == 12 * 8
        other = stt.MULAW if encoding == stt.ALAW else stt.ALAW
        for untrue, pace in (({"rate": 16000}, 0.5), ({"channels": 1}, 2), ({"encoding": other}, width)):
            audio = await recogniser.examine(configured(**{"encoding": encoding, **untrue}), Content(samples))
            assert (audio.problem, audio.untrue) == (None, pace)

    asyncio.run(run())


def test_profanity_filter() -> None:
    """With the filter the first letter of a profane word is left, in the first alternative only."""
    turns = (ScriptTurn("client", "Вот чёрт!", "вот чёрт какой дурак", 0, 2000),)
    spoken = Script("profane", "p", turns, (), (), 2000)
    recording = Recording(1, Path("none.mp3"), "none.mp3", "speech", 2, 1, spoken, START)
    audio = Audio("00" * 32, 2.0, recording, None)
    recogniser = Recogniser(World({}))
    first, second = (
        recogniser.recognise(configured(max_alternatives=2, profanity_filter=True), audio).results[0].alternatives
    )
    assert first.transcript == "вот ч*** какой д****"
    assert [one.word for one in first.words] == first.transcript.split()
    assert second.transcript == "вот чёрт какой"


def test_recognize_refuses_uri(tmp_path: Path) -> None:
    """Recognize takes bytes only."""

    async def run() -> None:
        async with bench(tmp_path) as served:
            request = stt.RecognizeRequest(config=configured(), audio=stt.RecognitionAudio(uri=f"{URI_PREFIX}1.mp3"))
            assert (await refused(served.call(STT, "Recognize", request)))[0] == CODE.INVALID_ARGUMENT

    asyncio.run(run())


def test_streaming(tmp_path: Path) -> None:
    """Both streaming methods take the config first, then audio, and answer after the client has finished."""

    async def run() -> None:
        async with bench(tmp_path) as served:
            data = served.files[1]
            parts = [data[start : start + 20_000] for start in range(0, len(data), 20_000)]
            unary = served.channel.stream_unary(
                f"/{STT}/StreamingUnaryRecognize",
                request_serializer=stt.StreamingUnaryRecognizeRequest.SerializeToString,
                response_deserializer=stt.RecognizeResponse.FromString,
            )
            asked = [stt.StreamingUnaryRecognizeRequest(config=configured())]
            asked += [stt.StreamingUnaryRecognizeRequest(audio_content=part) for part in parts]
            response = await unary(iter(asked), metadata=served.metadata(STT))
            stream = served.channel.stream_stream(
                f"/{STT}/StreamingRecognize",
                request_serializer=stt.StreamingRecognizeRequest.SerializeToString,
                response_deserializer=stt.StreamingRecognizeResponse.FromString,
            )
            config = stt.StreamingRecognitionConfig(config=configured())
            sent = [stt.StreamingRecognizeRequest(streaming_config=config)]
            sent += [stt.StreamingRecognizeRequest(audio_content=part) for part in parts]
            answers = [one async for one in stream(iter(sent), metadata=served.metadata(STT))]
            assert [one.results[0].recognition_result for one in answers] == list(response.results)
            assert len(answers) > 12

    asyncio.run(run())


def test_request_id_and_keys(tmp_path: Path) -> None:
    """Every call answers with x-request-id, refused ones too; tokens are per service; x-api-key must agree."""

    async def run() -> None:
        async with bench(tmp_path) as served:
            get: Any = served.channel.unary_unary(f"/{OPERATIONS}/GetOperation")
            call = get(b"", metadata=served.metadata(STT))
            assert dict(await call.initial_metadata())["x-request-id"]
            assert (await refused(call))[0] == CODE.UNAUTHENTICATED
            assert (await refused(served.submit(1, x_api_key="another")))[0] == CODE.UNAUTHENTICATED
            assert (await served.submit(1, x_api_key=API_KEY)).id == "101"

    asyncio.run(run())


def test_accounts_are_apart(tmp_path: Path) -> None:
    """Ids count per API key, and one key never sees another's operations."""

    async def run() -> None:
        async with bench(tmp_path) as served:
            mine = [(await served.submit(1)).id for _ in range(2)]
            assert mine == ["101", "102"]
            assert (await served.submit(1, key=OTHER_KEY)).id == "101"
            assert (await refused(served.get("102", key=OTHER_KEY)))[0] == CODE.NOT_FOUND

    asyncio.run(run())


@pytest.mark.parametrize(
    ("kind", "code", "accepted"),
    [
        ("unavailable_before", CODE.UNAVAILABLE, 0),
        ("unavailable_after", CODE.UNAVAILABLE, 1),
        ("exhausted", CODE.RESOURCE_EXHAUSTED, 0),
        ("internal", CODE.INTERNAL, 0),
        ("aborted", CODE.ABORTED, 0),
        ("unauthenticated", CODE.UNAUTHENTICATED, 0),
    ],
)
def test_call_faults(tmp_path: Path, kind: str, code: grpc.StatusCode, accepted: int) -> None:
    """A call fault strikes the call that it names, and only `unavailable_after` leaves an accepted operation behind."""

    async def run() -> None:
        async with bench(tmp_path) as served:
            served.faults.set([{"service": "voicekit", "kind": kind, "match": "LongRunningRecognize", "times": 1}])
            assert (await refused(served.submit(1)))[0] == code
            assert served.counts().get("submitted", 0) == accepted
            assert (await served.submit(1)).id == str(101 + accepted)

    asyncio.run(run())


def test_operation_faults(tmp_path: Path) -> None:
    """Scripted operations: empty, blank, FAILED, slow, and expired ones that answer 5."""

    async def run() -> None:
        async with bench(tmp_path) as served:

            async def submitted(kind: str, value: Any = None) -> lr.Operation:
                served.faults.set([{"service": "voicekit", "kind": kind, "times": 1, "value": value}])
                return await served.submit(1)

            assert not (await served.finish(await submitted("empty"))).results
            blank = await served.finish(await submitted("blank"))
            assert [one for one in blank.results if not one.alternatives]
            failed = await submitted("failed")
            while failed.state != lr.FAILED:
                failed = await served.wait(failed.id, 0.2)
            slow = await submitted("slow_operation", 30)
            await asyncio.sleep(0.1)
            assert (await served.get(slow.id)).state == lr.PROCESSING
            served.faults.set([{"service": "voicekit", "kind": "expired", "times": 1}])
            assert (await refused(served.get(slow.id)))[0] == CODE.NOT_FOUND
            assert (await refused(served.get(slow.id)))[0] == CODE.NOT_FOUND

    asyncio.run(run())


def test_quota(tmp_path: Path) -> None:
    """More open calls of an rpc than the quota allows are refused with 8 and the vendor's text; later ones go through."""

    async def run() -> None:
        async with bench(tmp_path, max_open_calls=2) as served:
            async with served.server._recogniser._lock:  # none that was let in ends
                calls = [asyncio.create_task(served.submit(1)) for _ in range(5)]
                while sum(call.done() for call in calls) < 3:  # noqa: ASYNC110 - which of them is not known
                    await asyncio.sleep(0.01)
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            refusals = [one for one in outcomes if isinstance(one, grpc.aio.AioRpcError)]
            assert {(one.code(), one.details()) for one in refusals} == {(CODE.RESOURCE_EXHAUSTED, QUOTA_TEXT)}
            assert len(refusals) == 3
            assert (await served.submit(1)).state == lr.ENQUEUED

    asyncio.run(run())


def test_books(tmp_path: Path) -> None:
    """Books count submissions by recording and request id, and charge 0.003 RUB a started second."""

    async def run() -> None:
        async with bench(tmp_path) as served:
            for _ in range(2):
                await served.submit(1, x_client_request_id="r1")
            books = served.books.as_dict()["voicekit"]
            assert books["counts"]["submitted"] == books["counts"]["LongRunningRecognize"] == 2
            assert list(books["items"]["recording"].values()) == [2]
            assert books["items"]["request_id"] == {"r1": 2}
            assert books["counts"]["audio_seconds"] == 2 * 25
            assert books["cost"] == {"RUB": "0.150"}

    asyncio.run(run())


def test_message_limit(tmp_path: Path) -> None:
    """A message above 32 MB is refused."""

    async def run() -> None:
        async with bench(tmp_path) as served:
            audio = stt.RecognitionAudio(content=bytes(32_000_001))
            code, _ = await refused(served.submit_audio(audio, config=configured(encoding=stt.LINEAR16)))
            assert code == CODE.RESOURCE_EXHAUSTED

    asyncio.run(run())


def test_whole_world_is_heard() -> None:
    """Every recording of the package's world is recognised as what it is, within its length; damaged ones are refused."""

    async def run() -> None:
        world = load_world()
        recogniser = Recogniser(world)
        recordings = {
            call.recording.path: call.recording
            for portal in world.portals.values()
            for call in portal.calls
            if call.recording
        }
        assert recordings
        for path, recording in recordings.items():
            config = configured(channels=recording.channels)
            audio = await recogniser.examine(config, Content(path.read_bytes()))
            if recording.content == "damaged":
                assert audio.problem, path
                continue
            assert audio.problem is None, path
            results = recogniser.recognise(config, audio).results
            heard = sorted(word.word for one in results for word in one.alternatives[0].words)
            assert heard == sorted(" ".join(turn.heard for turn in recording.turns).split()), path
            assert all(one.end_time.ToMilliseconds() <= audio.seconds * 1000 for one in results), path
            assert bool(results) == (recording.content in ("speech", "voicemail")), path

    asyncio.run(run())
