"""VoiceKit's switches and faults: quotas, lost answers, late listings, scripted times, spoilt results, books."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from dialog_assets.sandbox.voicekit import OPERATIONS, QUOTA_TEXT, STT
from dialog_assets.sandbox.voicekit_behaviour import AFTER, BEFORE, Behaviour, BehaviourError
from dialog_assets.speech.tinkoff.cloud.longrunning.v1 import longrunning_pb2 as lr
from dialog_assets.speech.tinkoff.cloud.stt.v1 import stt_pb2 as stt
from dialog_assets_tests.sandbox.voicekit_support import API_KEY, OTHER_KEY, Bench, bench, configured

CODE = grpc.StatusCode


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


def script(served: Bench, kind: str, match: str = "", **more: Any) -> None:
    served.faults.set([{"service": "voicekit", "kind": kind, "match": match, **more}])


async def listed(served: Bench, group: str) -> list[str]:
    request = lr.ListOperationsRequest(filter=lr.OperationFilter(exact_group=group))
    return [one.x_client_request_id for one in (await served.call(OPERATIONS, "ListOperations", request)).operations]


async def recognised(served: Bench, kind: str = "", value: Any = None) -> stt.RecognizeResponse:
    """The stereo recording at once, its result spoilt by a fault of `kind`."""
    script(served, kind or "none", value=value)
    request = stt.RecognizeRequest(config=configured(), audio=stt.RecognitionAudio(content=served.files[1]))
    answer = await served.call(STT, "Recognize", request)
    assert isinstance(answer, stt.RecognizeResponse)
    return answer


def test_quota_of_operations(tmp_path: Path) -> None:
    """Above N operations in progress of a key a submission is refused with 8 and costs nothing; an end frees its place."""

    async def run() -> None:
        async with bench(tmp_path, queued_s=30, max_operations=2) as served:
            first = await served.submit(1)
            await served.submit(1)
            assert await refused(served.submit(1)) == (CODE.RESOURCE_EXHAUSTED, QUOTA_TEXT)
            assert (await served.submit(1, key=OTHER_KEY)).id == "101"
            served.server.operations.forget(API_KEY, first.id)
            assert (await served.submit(1)).id == "103"
            books = served.books.as_dict()["voicekit"]
            assert books["items"]["peak_operations"] == {API_KEY: 2, OTHER_KEY: 1}
            assert (books["counts"]["over_quota"], books["counts"]["submitted"]) == (1, 4)

    asyncio.run(run())


def test_quota_follows_every_end(tmp_path: Path) -> None:
    """DONE, FAILED, cancelled and deleted operations are in progress no more."""

    async def run() -> None:
        async with bench(tmp_path) as served:
            await served.finish(await served.submit(1))
            script(served, "failed", times=1)
            failed = await served.submit(1)
            while failed.state != lr.FAILED:
                failed = await served.wait(failed.id, 0.2)
            assert served.server.operations.in_progress(API_KEY) == 0
            script(served, "stuck")
            stuck, gone = await served.submit(1), await served.submit(1)
            assert served.server.operations.in_progress(API_KEY) == 2
            wanted = lr.CancelOperationRequest(filter=lr.OperationFilter(exact_id=stuck.id))
            await served.call(OPERATIONS, "CancelOperation", wanted)
            served.server.operations.forget(API_KEY, gone.id)
            while stuck.state != lr.FAILED:
                stuck = await served.wait(stuck.id, 0.2)
            assert served.server.operations.in_progress(API_KEY) == 0

    asyncio.run(run())


@pytest.mark.parametrize("kind", [*BEFORE, *AFTER])
def test_answers_lost(tmp_path: Path, kind: str) -> None:
    """A fault before leaves nothing, a fault after leaves an operation that listing finds by its request id."""

    async def run() -> None:
        async with bench(tmp_path) as served:
            script(served, kind, "LongRunningRecognize", times=1)
            refusal = await refused(served.submit(1, group="g", x_client_request_id="mine"))
            assert refusal == (BEFORE | AFTER)[kind]
            assert await listed(served, "g") == (["mine"] if kind in AFTER else [])

    asyncio.run(run())


@pytest.mark.parametrize(("kind", "accepted"), [("silent_before", 0), ("silent_after", 1)])
def test_silence_of_the_service(tmp_path: Path, kind: str, accepted: int) -> None:
    """A call that is never answered ends at the client's own deadline, and may have been carried out."""

    async def run() -> None:
        async with bench(tmp_path) as served:
            await served.submit(1, group="first")  # connecting and reading the recording take their time
            script(served, kind, "LongRunningRecognize", times=1)
            assert (await refused(served.submit(1, timeout=8.0)))[0] == CODE.DEADLINE_EXCEEDED
            assert served.counts()["LongRunningRecognize"] == 2, "it has heard of it"
            assert served.counts()["submitted"] == 1 + accepted

    asyncio.run(run())


def test_listing_comes_late(tmp_path: Path) -> None:
    """An accepted operation is known by its id at once, and in listings only after the delay; one may never be listed."""

    async def run() -> None:
        async with bench(tmp_path, listing_delay_s=1.5) as served:
            script(served, "late_listing", "never")
            began = asyncio.get_running_loop().time()
            late = await served.submit(1, group="g", x_client_request_id="late")
            await served.submit(1, group="g", x_client_request_id="never")
            assert (await served.get(late.id)).id == late.id
            assert await listed(served, "g") == [] or asyncio.get_running_loop().time() - began > 1.5
            while not (found := await listed(served, "g")):  # noqa: ASYNC110 - the service tells nobody
                await asyncio.sleep(0.05)
            assert found == ["late"]

    asyncio.run(run())


@pytest.mark.parametrize("code", [CODE.UNAVAILABLE, CODE.INVALID_ARGUMENT, CODE.NOT_FOUND])
@pytest.mark.parametrize("by", [lambda code: code.value[0], lambda code: code.name], ids=["number", "name"])
def test_failed_with_code(tmp_path: Path, code: grpc.StatusCode, by: Callable[[grpc.StatusCode], Any]) -> None:
    """One recording's operation ends FAILED with the code of the rule, passing or final; another's does not."""

    async def run() -> None:
        async with bench(tmp_path) as served:
            script(served, "failed", "call-7", value=by(code))
            await served.finish(await served.submit(1, x_client_request_id="call-8"))
            operation = await served.submit(1, x_client_request_id="call-7")
            while operation.state != lr.FAILED:
                operation = await served.wait(operation.id, 0.2)
            assert operation.error.code == code.value[0]
            assert operation.error.message

    asyncio.run(run())


def test_stuck(tmp_path: Path) -> None:
    """An operation that never ends stays PROCESSING, or never begins and stays ENQUEUED."""

    async def run() -> None:
        async with bench(tmp_path) as served:
            script(served, "stuck", times=1)
            processing = await served.submit(1)
            script(served, "stuck", times=1, value="enqueued")
            enqueued = await served.submit(1)
            await served.finish(await served.submit(1))
            assert (await served.get(processing.id)).state == lr.PROCESSING
            assert (await served.get(enqueued.id)).state == lr.ENQUEUED

    asyncio.run(run())


def test_times_are_drawn_by_seed() -> None:
    """A recording's n-th submission takes the same time in every run, between the bounds, scaled; another seed draws anew."""
    behaviour = Behaviour(recognition_s=(5, 60), time_scale=0.02)
    drawn = {(name, place): sum(behaviour.times(name, place, 0)) for name in "abcdefgh" for place in (1, 2)}
    assert len(set(drawn.values())) == len(drawn)
    assert all(0.1 <= one <= 1.2 for one in drawn.values())
    assert max(drawn.values()) > 2 * min(drawn.values())
    again = Behaviour(recognition_s=(5, 60), time_scale=0.02)
    assert all(sum(again.times(*key, 0)) == one for key, one in drawn.items())
    other = Behaviour(recognition_s=(5, 60), time_scale=0.02, seed=1)
    assert sum(other.times("a", 1, 0)) != drawn["a", 1]


def test_planned_time_is_booked(tmp_path: Path) -> None:
    """The books hold the sum of the times that accepted operations take."""

    async def run() -> None:
        async with bench(tmp_path, recognition_s=(1, 3), time_scale=0.01) as served:
            for _ in range(3):
                await served.finish(await served.submit(1))
            assert 30 <= served.counts()["planned_ms"] <= 90

    asyncio.run(run())


def test_spoilt_results(tmp_path: Path) -> None:
    """Results can come empty, blank, without words, on swapped or both channels, doubtful, or in another order."""

    async def run() -> None:
        async with bench(tmp_path, order="time") as served:
            plain = list((await recognised(served)).results)
            assert not (await recognised(served, "empty")).results
            blank = (await recognised(served, "blank")).results
            assert [len(one.alternatives) for one in blank[-2:]] == [0, 1]
            assert not blank[-1].alternatives[0].transcript.strip()
            bare = (await recognised(served, "no_words")).results
            assert [one.alternatives[0].transcript for one in bare] == [one.alternatives[0].transcript for one in plain]
            assert not any(one.alternatives[0].words for one in bare)
            swapped = (await recognised(served, "channels_swapped")).results
            assert [one.channel for one in swapped] == [1 - one.channel for one in plain]
            doubled = (await recognised(served, "dual_mono")).results
            assert [(one.channel, one.start_time) for one in doubled] == [
                (channel, one.start_time) for one in plain for channel in (0, 1)
            ]
            doubtful = (await recognised(served, "negative_confidence")).results
            assert all(one.alternatives[0].confidence < 0 for one in doubtful)
            assert all(word.confidence < 0 for one in doubtful for word in one.alternatives[0].words)
            grouped = [one.channel for one in (await recognised(served, "order", "channel")).results]
            assert grouped == sorted(grouped, reverse=True) != [one.channel for one in plain]

    asyncio.run(run())


@pytest.mark.parametrize("untrue", [{"rate": 16000}, {"channels": 1}])
def test_untrue_config_is_not_told(tmp_path: Path, untrue: dict[str, int]) -> None:
    """With the switch a wrong rate or channel count is no error: nothing is heard, or nothing that was said."""

    async def run() -> None:
        async with bench(tmp_path, untrue_config="silence") as served:
            assert not (await served.finish(await served.submit(1, config=configured(**untrue)))).results
            served.server.behaviour = served.server.behaviour.changed({"untrue_config": "garbage"})
            heard = (await served.finish(await served.submit(1, config=configured(**untrue)))).results
            said = {word.word for one in (await recognised(served)).results for word in one.alternatives[0].words}
            assert heard
            assert not said & {word.word for one in heard for word in one.alternatives[0].words}
            assert {one.channel for one in heard} <= set(range(untrue.get("channels", 2)))

    asyncio.run(run())


def test_books_of_submissions(tmp_path: Path) -> None:
    """Books tell each submission's request id with its recording, and the most calls of an rpc that were open at once."""

    async def run() -> None:
        async with bench(tmp_path) as served:
            async with served.server._recogniser._lock:  # no call ends
                calls = [asyncio.create_task(served.submit(1, x_client_request_id="r1")) for _ in range(3)]
                while served.counts().get("LongRunningRecognize", 0) < 3:  # noqa: ASYNC110 - the service tells nobody
                    await asyncio.sleep(0.01)
            await asyncio.gather(*calls)
            items = served.books.as_dict()["voicekit"]["items"]
            (recording,) = items["recording"]
            assert items["submission"] == {f"r1 {recording}": 3}
            assert items["config"] == {"MPEG_AUDIO 8000 2": 3}
            assert items["peak_open_calls"] == {"LongRunningRecognize": 3}
            await served.submit(1)
            assert served.books.as_dict()["voicekit"]["items"]["peak_open_calls"] == {"LongRunningRecognize": 3}

    asyncio.run(run())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("speed", 1),
        ("queued_s", "1"),
        ("queued_s", -1),
        ("recognition_s", [5]),
        ("max_operations", 2.5),
        ("order", "random"),
    ],
)
def test_bad_switches(name: str, value: Any) -> None:
    """A switch that is not there, or a value that it does not take, is named."""
    with pytest.raises(BehaviourError, match=name):
        Behaviour().changed({name: value})


def test_switches_are_described() -> None:
    """Every switch has a line in the table, and its default can be given back."""
    for one in fields(Behaviour):
        assert one.name in (Behaviour.__doc__ or "")
        assert Behaviour().changed({one.name: getattr(Behaviour(), one.name)}) == Behaviour()
    assert Behaviour().changed({"recognition_s": [5, 60]}).recognition_s == (5, 60)
