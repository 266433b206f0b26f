"""The VoiceKit client against the strict sandbox service, over real gRPC and HTTP."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from dialog_assets.sandbox.voicekit import Behaviour
from dialog_assets.sandbox.voicekit_operations import Operations
from dialog_assets.speech.errors import (
    OperationExpired,
    RecogniserBusy,
    RecogniserRefused,
    RecogniserUnavailable,
    RecordingRejected,
    SpeechError,
    UnexpectedAnswer,
)
from dialog_assets.speech.port import Done, Failed, Label, Options, Pending, Phrase, Recogniser
from dialog_assets.speech.tinkoff.cloud.longrunning.v1 import longrunning_pb2, longrunning_pb2_grpc
from dialog_assets.speech.tinkoff.cloud.stt.v1 import stt_pb2, stt_pb2_grpc
from dialog_assets.speech.voicekit import CONTENT_LIMIT, LOOKS, VoiceKit, _Memory
from dialog_assets.speech.voicekit_config import recognition_config
from dialog_assets_tests.audio.files import write_audio
from dialog_assets_tests.speech.account import API_KEY, AUDIO, SECRET_KEY, TURNS, Account, account, end
from dialog_assets_tests.speech.built import build_dialog

GROUP = "okna_sever-2026-03-02"
LABEL = Label("call-1", GROUP)


@asynccontextmanager
async def started(server: grpc.aio.Server) -> AsyncIterator[str]:
    """Its plaintext address; never a port that clients take for TLS."""
    port = server.add_insecure_port("127.0.0.1:0")
    while port % 1000 == 443:
        port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def fault(kind: str, match: str = "", **more: Any) -> dict[str, Any]:
    return {"service": "voicekit", "kind": kind, "match": match, **more}


async def start(client: VoiceKit, path: Path, request_id: str = "call-1") -> str:
    uri = await client.upload(path, f"okna_sever/{request_id}.mp3")
    return await client.submit(uri, AUDIO, Options(("Окна Север",)), Label(request_id, GROUP))


def submitting(path: Path, *faults: dict[str, Any], **arguments: Any) -> tuple[str | SpeechError, dict[str, int]]:
    """Submit one recording under faults: the operation id or the error, and what the service was asked."""

    async def run() -> tuple[str | SpeechError, dict[str, int]]:
        async with account([path]) as services, services.client(**arguments) as client:
            services.faults.set(list(faults))
            try:
                result: str | SpeechError = await start(client, path)
            except SpeechError as error:
                result = error
            return result, services.counts()

    return asyncio.run(run())


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_audio(tmp_path_factory.mktemp("audio") / "call.mp3", [0.5, 0.4], 6.0)


def test_a_recording_becomes_its_dialog(recording: Path) -> None:
    """Upload, submit, poll, read: the words of the script come back in order, with roles, for the price of one."""

    async def run() -> None:
        async with account([recording]) as services, services.client() as client:
            recogniser: Recogniser = client
            operation = await start(client, recording)
            answer = await end(client, operation)
            assert isinstance(answer, Done)
            stored = json.loads(json.dumps(await recogniser.fetch(answer)))
            turns = build_dialog(recogniser.phrases(stored), channels=2, operator_channel=0)
            assert [turn.role for turn in turns] == ["operator", "client", "operator"]
            heard = [[word.text for word in turn.words] for turn in turns]
            assert heard == [turn.heard.split() for turn in TURNS]
            assert [turn.start_ms for turn in turns] == [300, 1800, 3600]
            assert services.counts()["submitted"] == 1

    asyncio.run(run())


def test_what_is_in_the_storage_is_not_sent_again(recording: Path, tmp_path: Path) -> None:
    """The same name and size is sent once; another size under the same name is sent."""

    content = recording.read_bytes()
    other = tmp_path / "other"
    other.write_bytes(b"other")

    async def run() -> None:
        async with account() as services, services.client() as client:
            uris = {await client.upload(recording, "okna_sever/1.mp3") for _ in range(3)}
            assert uris == {"storage://s3.api.tinkoff.ai/inbound/okna_sever/1.mp3"}
            assert services.counts()["uploads"] == 1
            assert services.storage.objects["okna_sever/1.mp3"] == content
            await client.upload(other, "okna_sever/1.mp3")
            assert services.counts()["uploads"] == 2

    asyncio.run(run())


def test_an_object_near_its_end_is_sent_again(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that the storage will drop before recognition may end is not relied upon."""
    from datetime import timedelta

    monkeypatch.setattr("dialog_assets.speech.inbound.REUSE_FOR", timedelta(seconds=-10))

    async def run() -> None:
        async with account() as services, services.client() as client:
            await client.upload(recording, "1.mp3")
            await client.upload(recording, "1.mp3")
            assert services.counts()["uploads"] == 2

    asyncio.run(run())


@pytest.mark.parametrize("name", ["звонок.mp3", "a b.mp3", "a+b.mp3", "", "/a.mp3"])
def test_object_names_are_plain_ascii(recording: Path, name: str) -> None:
    """The URI holds the raw name, so a name that would need escaping is a mistake of the caller."""

    async def run() -> None:
        async with VoiceKit("127.0.0.1:1", API_KEY, SECRET_KEY) as client:
            with pytest.raises(ValueError, match="ASCII"):
                await client.upload(recording, name)

    asyncio.run(run())


def test_storage_faults_are_retried_then_typed(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short outage of the storage passes unseen; a long one is RecogniserBusy; nobody there is RecogniserUnavailable.

    So it is for what is too large to go without the storage.
    """

    async def run() -> None:
        async with account() as services, services.client(attempts=2) as client:
            services.faults.set([fault("storage_unavailable", "PutObject", times=1)])
            await client.upload(recording, "1.mp3")
            monkeypatch.setattr("dialog_assets.speech.voicekit.CONTENT_LIMIT", 100)
            services.faults.set([fault("storage_unavailable")])
            with pytest.raises(RecogniserBusy):
                await client.upload(recording, "2.mp3")
            async with services.client(storage_url="http://127.0.0.1:1", attempts=1) as lost:
                with pytest.raises(RecogniserUnavailable) as caught:
                    await lost.upload(recording, "1.mp3")
                assert caught.value.__context__ is None

    asyncio.run(run())


def test_a_storage_that_is_down_is_done_without(recording: Path) -> None:
    """What fits into a message goes in the submission itself; for a minute the storage is not even asked."""

    async def run() -> None:
        async with account([recording]) as services, services.client(attempts=1) as client:
            services.faults.set([fault("storage_unavailable")])
            for number in range(3):
                found = await client.upload(recording, f"{number}.mp3")
                assert found == recording
            assert services.counts()["HeadObject"] == 1
            operation = await client.submit(found, AUDIO, Options(), LABEL)
            answer = await end(client, operation)
            assert isinstance(answer, Done)
            assert client.phrases(await client.fetch(answer))

    asyncio.run(run())


def test_a_setting_does_without_the_storage(recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for, a small recording goes in the message; a larger one goes to the storage all the same."""
    larger = tmp_path / "larger"
    larger.write_bytes(recording.read_bytes() * 2)
    monkeypatch.setattr("dialog_assets.speech.voicekit.CONTENT_LIMIT", recording.stat().st_size)

    async def run() -> None:
        async with account([recording]) as services, services.client() as client:
            assert await client.upload(recording, "1.mp3", in_message=True) == recording
            assert "uploads" not in services.counts()
            assert isinstance(await client.upload(larger, "2.mp3", in_message=True), str)
            assert services.counts()["uploads"] == 1

    asyncio.run(run())


def test_the_largest_recording_fits_its_message(tmp_path: Path) -> None:
    """The limit leaves room for vocabulary and label; the service refuses the audio, and not the message."""
    largest = tmp_path / "largest"
    with largest.open("wb") as file:
        file.truncate(CONTENT_LIMIT)
    options = Options(tuple(f"слово номер {number} длинной речи" for number in range(1000)))

    async def run() -> None:
        async with account() as services, services.client() as client:
            assert await client.upload(largest, "1.mp3", in_message=True) == largest
            with pytest.raises(RecordingRejected) as caught:
                await client.submit(largest, AUDIO, options, LABEL)
            assert caught.value.reason == "refused_by_recogniser"

    asyncio.run(run())


def test_recordings_in_messages_are_few_in_memory() -> None:
    """However many want to go, those in memory at once are at most one message in size."""
    most = 0

    async def run() -> None:
        memory, used = _Memory(100), 0

        async def one(size: int) -> None:
            nonlocal used, most
            async with memory.room(size):
                used += size
                most = max(most, used)
                await asyncio.sleep(0)
                used -= size

        await asyncio.gather(*(one(size) for size in (60, 30, 30, 10, 100, 50, 50, 120, 1, 1)))

    asyncio.run(run())
    assert most == 120, "the one that is larger than all goes alone"


def test_a_long_recording_is_uploaded_in_parts(tmp_path: Path) -> None:
    """Above 32 MB the storage gets it part by part, whole in the end, and a part that fails is sent again alone."""
    long = tmp_path / "long"
    pieces = [bytes([number]) * (8 << 20) for number in range(5)]
    long.write_bytes(b"".join(pieces))

    async def run() -> None:
        async with account() as services, services.client() as client:
            services.faults.set([fault("storage_unavailable", "UploadPart", times=1, after=1)])
            uri = await client.upload(long, "long.mp3")
            assert uri == "storage://s3.api.tinkoff.ai/inbound/long.mp3"
            counts = services.counts()
            assert (counts["UploadPart"], counts.get("PutObject", 0)) == (4, 0)
            await client.upload(long, "long.mp3")
            assert services.counts()["UploadPart"] == 4

    asyncio.run(run())


def test_recognised_at_once(recording: Path) -> None:
    """Recognize gives the same answer in one call; over a full quota it is asked again, an answer that is lost is not."""

    async def run() -> None:
        async with account([recording]) as services, services.client() as client:
            assert client.takes_at_once(CONTENT_LIMIT, 204.9)
            assert not client.takes_at_once(CONTENT_LIMIT + 1, 10)
            assert not client.takes_at_once(1, 205)
            services.faults.set([fault("exhausted", "Recognize", times=2)])
            at_once = await client.recognise_at_once(recording, AUDIO, Options(), LABEL)
            answer = await end(client, await start(client, recording))
            assert isinstance(answer, Done)
            assert await client.fetch(answer) == at_once
            services.books.reset()
            services.faults.set([fault("unavailable_after", "Recognize", times=1)])
            with pytest.raises(RecogniserUnavailable):
                await client.recognise_at_once(recording, AUDIO, Options(), LABEL)
            assert services.counts()["submitted"] == 1

    asyncio.run(run())


def test_another_keys_operation_is_not_ours(recording: Path) -> None:
    """Ids are counted per key: what has our id under a new key is a stranger's, and is not taken for our result."""

    async def run() -> None:
        async with account([recording]) as services, services.client() as client:
            operation = await start(client, recording, "of-the-other-portal")
            with pytest.raises(OperationExpired, match="VOICEKIT_API_KEY was changed"):
                await client.poll(operation, LABEL)
            answer = await end(client, operation)
            assert isinstance(answer, Done), "whether it has ended may be asked of anyone's"

    asyncio.run(run())


def test_accounts_are_told_apart_without_their_keys() -> None:
    """Both processes of a key give the same name, another key another one, and none holds the key."""
    one, again, other = (
        VoiceKit("127.0.0.1:1", key, SECRET_KEY).account for key in (API_KEY, f" {API_KEY}\n", "other")
    )
    assert one == again != other
    assert API_KEY not in one


def test_an_operation_can_be_cancelled(recording: Path) -> None:
    """It ends as failed with code 1; cancelling what has ended or never was does nothing."""

    async def run() -> None:
        async with account([recording]) as services, services.client() as client:
            services.faults.set([fault("stuck", "LongRunningRecognize", times=1)])
            operation = await start(client, recording)
            assert isinstance(await client.poll(operation, LABEL), Pending)
            await client.cancel(operation)
            answer = await end(client, operation)
            assert isinstance(answer, Failed)
            assert (answer.code, answer.transient) == (1, False)
            await client.cancel(operation)
            await client.cancel("7000")

    asyncio.run(run())


def test_options_are_told_to_the_service() -> None:
    """Phrases lower-case and once, the filter, and the pauses where they are given; without them the service's own."""
    options = Options(("Окна  Север", "окна север", "Стеклопакет"), True, 0.8, None)
    config = recognition_config(AUDIO, options)
    (context,) = config.speech_contexts
    assert [(phrase.text, phrase.score) for phrase in context.phrases] == [("окна север", 1.0), ("стеклопакет", 1.0)]
    assert config.profanity_filter
    assert config.vad_config.silence_duration_threshold == pytest.approx(0.8)
    assert not config.vad_config.silence_prob_threshold
    plain = recognition_config(AUDIO, Options())
    assert (plain.WhichOneof("vad"), list(plain.speech_contexts), plain.profanity_filter) == (None, [], False)
    assert (plain.enable_automatic_punctuation, plain.enable_denormalization, plain.max_alternatives) == (True, True, 1)


def test_a_doubtful_vocabulary_is_told() -> None:
    """What the vendor advises against is named: short phrases, and those that are not Russian."""
    client = VoiceKit("127.0.0.1:1", API_KEY, SECRET_KEY)
    assert client.advice(["стеклопакет", "Окна Север"]) is None
    advice = client.advice(["стеклопакет", "шов", "Rehau окна", "отлив"])
    assert advice is not None
    assert advice.endswith(": шов, rehau окна")


@pytest.mark.parametrize(
    ("code", "details", "kind", "reason"),
    [
        (8, "Max open connection limit exceeded, please retry later", RecogniserBusy, None),
        (8, "Received message larger than max (33000000 vs. 32000000)", RecordingRejected, "message_too_large"),
        (8, "message is too large", RecordingRejected, "message_too_large"),
        (3, "config.encoding is not supported", RecordingRejected, "refused_by_recogniser"),
        (3, "scope tinkoff.cloud.stt is not supported", RecogniserRefused, None),
        (16, "signature validation failed", RecogniserRefused, None),
        (7, "no right", RecogniserRefused, None),
        (12, "NOT_IMPLEMENTED", RecogniserRefused, None),
        (5, "no such object", RecordingRejected, "missing_in_storage"),
        *((code, "fault", RecogniserUnavailable, None) for code in (1, 2, 4, 10, 13, 14)),
        (9, "unheard of", RecordingRejected, "refused_by_recogniser"),
    ],
)
def test_what_refusals_mean(
    recording: Path, code: int, details: str, kind: type[SpeechError], reason: str | None
) -> None:
    """Section 3.6 of the facts: what waits, what is this recording's, what stops the step."""
    answering = next(one for one in grpc.StatusCode if one.value[0] == code)

    class Refusing(stt_pb2_grpc.SpeechToTextServicer):
        async def Recognize(self, request: Any, context: Any) -> Any:  # noqa: N802
            await context.abort(answering, details)

    async def run() -> None:
        server = grpc.aio.server()
        stt_pb2_grpc.add_SpeechToTextServicer_to_server(Refusing(), server)  # type: ignore[no-untyped-call]
        async with started(server) as endpoint, VoiceKit(endpoint, API_KEY, SECRET_KEY, attempts=1) as client:
            with pytest.raises(kind) as caught:
                await client.recognise_at_once(recording, AUDIO, Options(), LABEL)
        assert type(caught.value) is kind
        assert getattr(caught.value, "reason", None) == reason

    asyncio.run(run())


def test_a_wrong_key_stops_the_step(recording: Path) -> None:
    """Storage and service both answer a wrong secret with RecogniserRefused, after at most one new token."""

    async def run() -> None:
        wrong = base64.b64encode(b"another secret, as long as the right one").decode()
        async with account([recording]) as services, services.client(secret_key=wrong) as client:
            with pytest.raises(RecogniserRefused, match="VOICEKIT_SECRET_KEY"):
                await client.upload(recording, "1.mp3")
            with pytest.raises(RecogniserRefused, match="signature validation failed") as caught:
                await client.submit("storage://x", AUDIO, Options(), LABEL)
            assert services.counts()["LongRunningRecognize"] == 2
            assert not any(secret in repr(caught.value) for secret in (wrong, API_KEY, "eyJ"))

    asyncio.run(run())


def test_one_refused_token_is_replaced(recording: Path) -> None:
    """A token that the service refuses once is made anew and the work goes on."""
    result, counts = submitting(recording, fault("unauthenticated", "LongRunningRecognize", times=1))
    assert isinstance(result, str)
    assert (counts["LongRunningRecognize"], counts["submitted"]) == (2, 1)


def test_a_full_quota_is_waited_out(recording: Path) -> None:
    """Refusals over quota are repeated without a search, since nothing was taken; for ever full is RecogniserBusy."""
    result, counts = submitting(recording, fault("exhausted", "LongRunningRecognize", times=3))
    assert isinstance(result, str)
    assert counts["submitted"] == 1
    assert "ListOperations" not in counts
    result, counts = submitting(recording, fault("exhausted", "LongRunningRecognize"))
    assert isinstance(result, RecogniserBusy)
    assert "submitted" not in counts


def test_a_submission_that_was_taken_is_found_not_repeated(recording: Path) -> None:
    """14 after the work was done: the operation is found by its request id and paid for once."""
    result, counts = submitting(recording, fault("unavailable_after", "LongRunningRecognize", times=1))
    assert result == "101"
    assert (counts["LongRunningRecognize"], counts["submitted"]) == (1, 1)


def test_a_late_answer_is_found_not_repeated(recording: Path) -> None:
    """A deadline that passes is as unclear as 14: look first."""
    silent = fault("silent_after", "LongRunningRecognize", times=1, value=600)
    result, counts = submitting(recording, silent, deadline_s=8)
    assert result == "101"
    assert (counts["LongRunningRecognize"], counts["submitted"]) == (1, 1)


@pytest.mark.parametrize("kind", ["unavailable_before", "internal", "aborted"])
def test_a_submission_that_was_not_taken_is_repeated(recording: Path, kind: str) -> None:
    """After an unclear failure the service is asked, several times; it knows nothing, so the recording is submitted again."""
    result, counts = submitting(recording, fault(kind, "LongRunningRecognize", times=1))
    assert isinstance(result, str)
    assert (counts["ListOperations"], counts["LongRunningRecognize"], counts["submitted"]) == (LOOKS, 2, 1)


def test_a_listing_that_is_behind_is_waited_for(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operation that is listed only after a moment is found all the same, and paid for once."""
    looks: list[str] = []
    page = Operations.page

    def behind(operations: Operations, api_key: str, request: Any) -> longrunning_pb2.ListOperationsResponse:
        looks.append(api_key)
        return page(operations, api_key, request) if len(looks) == 3 else longrunning_pb2.ListOperationsResponse()

    monkeypatch.setattr(Operations, "page", behind)
    result, counts = submitting(recording, fault("unavailable_after", "LongRunningRecognize", times=1))
    assert result == "101"
    assert counts["ListOperations"] == 3
    assert (counts["LongRunningRecognize"], counts["submitted"]) == (1, 1)


def test_an_outcome_that_stays_unclear_says_so(recording: Path) -> None:
    """If the search fails as well, the submission is not repeated and the error is that of an unclear outcome."""
    result, counts = submitting(
        recording, fault("unavailable_after", "LongRunningRecognize"), fault("unavailable_before", "ListOperations")
    )
    assert isinstance(result, RecogniserUnavailable)
    assert (counts["LongRunningRecognize"], counts["submitted"]) == (1, 1)


@pytest.mark.parametrize("then", ["exhausted", "unauthenticated"])
def test_a_clear_refusal_does_not_end_the_doubt(recording: Path, then: str) -> None:
    """The first try may be at the service, unlisted as yet: what a second one is answered says nothing of it."""
    result, counts = submitting(
        recording,
        fault("unavailable_after", "LongRunningRecognize", times=1),
        fault("late_listing", "LongRunningRecognize", times=1, value=60),
        fault(then, "LongRunningRecognize", after=1),
    )
    assert isinstance(result, RecogniserUnavailable)
    assert counts["submitted"] == 1


def test_find_reads_every_page(recording: Path) -> None:
    """The operation is found on the third page; another group and an unknown request give None."""

    async def run() -> None:
        async with account([recording]) as services, services.client() as client:
            uri = await client.upload(recording, "1.mp3")
            for number in range(60):
                last = await client.submit(uri, AUDIO, Options(), Label(f"call-{number}", GROUP))
            assert await client.find(Label("call-59", GROUP)) == last
            assert await client.find(Label("call-60", GROUP)) is None
            assert await client.find(Label("call-59", "another")) is None

    asyncio.run(run())


def test_find_prefers_what_has_not_failed(recording: Path) -> None:
    """Of two operations of one request the one that did not fail is the one to wait for."""

    async def run() -> None:
        async with account([recording]) as services, services.client() as client:
            services.faults.set([fault("failed", times=1)])
            failed = await start(client, recording)
            answer = await end(client, failed)
            assert isinstance(answer, Failed)
            assert (answer.code, answer.transient) == (13, True)
            assert await client.find(Label("call-1", GROUP)) == failed
            good = await start(client, recording)
            assert await client.find(Label("call-1", GROUP)) == good

    asyncio.run(run())


def test_polls_outlive_faults_and_tell_expiry(recording: Path) -> None:
    """Faults, quota and a refused token do not disturb a poll; a forgotten operation is OperationExpired."""

    async def run() -> None:
        async with account([recording]) as services, services.client() as client:
            operation = await start(client, recording)
            for kind in ("unavailable_before", "internal", "exhausted", "unauthenticated", "aborted"):
                services.faults.set([fault(kind, "GetOperation", times=1)])
                assert isinstance(await client.poll(operation, LABEL), Pending | Done)
            services.faults.set([fault("unavailable_before", "GetOperation")])
            with pytest.raises(RecogniserUnavailable):
                await client.poll(operation, LABEL)
            services.faults.set([fault("expired", "GetOperation")])
            with pytest.raises(OperationExpired):
                await client.poll(operation, LABEL)

    asyncio.run(run())


def test_no_speech_is_a_result(recording: Path) -> None:
    """An answer without results, or with blank ones, is recognised and has no phrases to show."""

    async def run() -> None:
        async with account([recording]) as services, services.client() as client:
            services.faults.set([fault("empty")])
            empty = await end(client, await start(client, recording))
            assert isinstance(empty, Done)
            raw = await client.fetch(empty)
            assert (raw, client.phrases(raw)) == ({"results": []}, [])
            services.faults.set([fault("blank")])
            blank = await end(client, await start(client, recording, "call-2"))
            assert isinstance(blank, Done)
            assert len(build_dialog(client.phrases(await client.fetch(blank)), channels=2, operator_channel=0)) == 3

    asyncio.run(run())


def test_audio_that_is_not_as_described(recording: Path) -> None:
    """Refused at once or later as a failed operation, it is one recording's matter; a missing object says: upload."""

    async def run(services: Account, *, later: bool) -> None:
        async with services.client() as client:
            uri = await client.upload(recording, "1.mp3")
            wrong = replace(AUDIO, sample_rate=16000)
            if later:
                operation = await client.submit(uri, wrong, Options(), LABEL)
                answer = await end(client, operation)
                assert isinstance(answer, Failed)
                assert (answer.code, answer.transient) == (3, False)
                return
            for audio, where, reason in (
                (wrong, uri, "refused_by_recogniser"),
                (AUDIO, f"{uri}x", "missing_in_storage"),
                (replace(AUDIO, sample_rate=7000), uri, "unsupported_audio"),
                (replace(AUDIO, channels=3), uri, "unsupported_audio"),
            ):
                with pytest.raises(RecordingRejected) as caught:
                    await client.submit(where, audio, Options(), LABEL)
                assert caught.value.reason == reason

    async def both() -> None:
        async with account([recording]) as services:
            await run(services, later=False)
        behaviour = Behaviour(queued_s=0, processing_s=0, bad_audio="failed")
        async with account([recording], behaviour=behaviour) as services:
            await run(services, later=True)

    asyncio.run(both())


def test_nobody_there_is_unavailable() -> None:
    """A closed port is an error that a later run may not meet, not a crash."""

    async def run() -> None:
        async with VoiceKit("127.0.0.1:1", API_KEY, SECRET_KEY, attempts=2, backoff_s=0.01, deadline_s=2) as client:
            with pytest.raises(RecogniserUnavailable):
                await client.poll("1", LABEL)

    asyncio.run(run())


@pytest.mark.parametrize("endpoint", ["api.tinkoff.ai", "https://api.tinkoff.ai:443", "", "host:port"])
def test_an_address_without_a_port_is_refused(endpoint: str) -> None:
    """Tokens never go out in plaintext because a port was forgotten."""
    with pytest.raises(RecogniserRefused, match="VOICEKIT_ENDPOINT"):
        VoiceKit(endpoint, API_KEY, SECRET_KEY)


class _Odd(longrunning_pb2_grpc.OperationsServicer, stt_pb2_grpc.SpeechToTextServicer):
    """A service that breaks the contract in ways that the sandbox does not."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def GetOperation(self, request: Any, context: Any) -> longrunning_pb2.Operation:  # noqa: N802
        self.asked.append(request.id)
        answer = longrunning_pb2.Operation(id=request.id, group=GROUP, state=longrunning_pb2.DONE)
        if request.id == "wrong type":
            answer.response.Pack(longrunning_pb2.GetOperationRequest())
        if request.id == "echo":
            token = dict(context.invocation_metadata())["authorization"]
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"bad: {token} {API_KEY} {SECRET_KEY}")
        if request.id == "large":
            answer.response.Pack(stt_pb2.RecognizeResponse())
            answer.metadata.value = bytes(33 * 1024 * 1024)
        if request.id == "5 MB":
            result = stt_pb2.SpeechRecognitionResult(alternatives=[stt_pb2.SpeechRecognitionAlternative()])
            result.alternatives[0].transcript = "а" * 2_500_000
            answer.response.Pack(stt_pb2.RecognizeResponse(results=[result]))
        return answer

    async def ListOperations(self, request: Any, context: Any) -> longrunning_pb2.ListOperationsResponse:  # noqa: N802
        return longrunning_pb2.ListOperationsResponse(next_page_token="again")


class _Particular(longrunning_pb2_grpc.OperationsServicer):
    """A service that does not like the first token it sees."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def GetOperation(self, request: Any, context: Any) -> longrunning_pb2.Operation:  # noqa: N802
        self.seen.append(dict(context.invocation_metadata())["authorization"])
        if self.seen[-1] == self.seen[0]:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "token is expired")
        return longrunning_pb2.Operation(id=request.id, group=GROUP)


def test_the_token_after_a_refusal_is_another() -> None:
    """The refused token is not sent again."""

    async def run() -> None:
        server = grpc.aio.server()
        service = _Particular()
        longrunning_pb2_grpc.add_OperationsServicer_to_server(service, server)  # type: ignore[no-untyped-call]
        ticking = itertools.count(1_800_000_000.0)
        async with (
            started(server) as endpoint,
            VoiceKit(endpoint, API_KEY, SECRET_KEY, now=lambda: next(ticking)) as client,
        ):
            assert await client.poll("1", LABEL) == Pending("enqueued")
            assert await client.poll("1", LABEL) == Pending("enqueued")
        assert len(service.seen) == 3
        assert service.seen[1] == service.seen[2]

    asyncio.run(run())


def test_answers_outside_the_contract() -> None:
    """No answer, a wrong one, an endless list, a token echoed, a message too large: typed, and without the secrets."""

    async def run() -> None:
        server = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
        odd = _Odd()
        longrunning_pb2_grpc.add_OperationsServicer_to_server(odd, server)  # type: ignore[no-untyped-call]
        stt_pb2_grpc.add_SpeechToTextServicer_to_server(odd, server)  # type: ignore[no-untyped-call]
        async with started(server) as endpoint, VoiceKit(endpoint, API_KEY, SECRET_KEY, backoff_s=0.01) as client:
            for operation in ("none", "wrong type"):
                with pytest.raises(UnexpectedAnswer):
                    await client.poll(operation, LABEL)
            with pytest.raises(UnexpectedAnswer):
                await client.find(Label("1", GROUP))
            with pytest.raises(RecogniserRefused, match="VOICEKIT_ENDPOINT"):
                await client.submit("storage://x", AUDIO, Options(), LABEL)
            with pytest.raises(RecordingRejected) as echoed:
                await client.poll("echo", LABEL)
            assert not any(secret in str(echoed.value) for secret in ("eyJ", API_KEY, SECRET_KEY))
            assert echoed.value.__context__ is None
            with pytest.raises(RecordingRejected) as large:
                await client.poll("large", LABEL)
            assert large.value.reason == "message_too_large"
            assert odd.asked.count("large") == 1
            assert isinstance(await client.poll("5 MB", LABEL), Done)

    asyncio.run(run())


def test_the_example_of_the_reference_is_read() -> None:
    """Best alternative, channel 0 where JSON left it out, times to the millisecond, negative confidence ignored."""
    raw = {
        "results": [
            {
                "channel": 1,
                "start_time": "0.840s",
                "end_time": "2.310s",
                "alternatives": [
                    {
                        "transcript": "Добрый день.",
                        "confidence": -2.37,
                        "words": [{"word": "добрый", "start_time": "1.680s", "end_time": "1.950s", "confidence": 0.9}],
                    },
                    {"transcript": "соперник"},
                ],
            },
            {"end_time": "3s", "alternatives": [{"transcript": "Да."}]},
            {"start_time": "4s", "alternatives": []},
        ]
    }
    client = VoiceKit("127.0.0.1:1", API_KEY, SECRET_KEY)
    first, second = client.phrases(raw)
    assert (first.channel, first.start_ms, first.end_ms, first.text) == (1, 840, 2310, "Добрый день.")
    assert [(word.text, word.start_ms, word.end_ms) for word in first.words] == [("добрый", 1680, 1950)]
    assert second == Phrase(0, 0, 3000, "Да.")


def test_a_client_shows_no_secret() -> None:
    """Neither repr nor str of a client names a key."""
    shown = repr(VoiceKit("127.0.0.1:1", API_KEY, SECRET_KEY))
    assert shown == "VoiceKit(127.0.0.1:1)"
