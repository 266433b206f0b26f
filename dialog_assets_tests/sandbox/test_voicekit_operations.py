"""VoiceKit's operations over real gRPC: life cycle, waiting, watching, filters, paging, retention, state."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.empty_pb2 import Empty
from hypothesis import given
from hypothesis import strategies as st

from dialog_assets.sandbox import voicekit_operations
from dialog_assets.sandbox.clock import Clock
from dialog_assets.sandbox.voicekit import OPERATIONS
from dialog_assets.sandbox.voicekit_auth import RefusedError
from dialog_assets.sandbox.voicekit_operations import Operations
from dialog_assets.speech.tinkoff.cloud.longrunning.v1 import longrunning_pb2 as lr
from dialog_assets.speech.tinkoff.cloud.stt.v1 import stt_pb2 as stt
from dialog_assets_tests.sandbox.voicekit_support import API_KEY, OTHER_KEY, START, Bench, bench

NEVER: dict[str, Any] = {"queued_s": math.inf, "processing_s": math.inf}  # a test says when
ANY: dict[str, Any] = {"any_service_id": Empty(), "any_id": Empty(), "any_group": Empty()}


async def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


async def changed(served: Bench, operation: lr.Operation, state: lr.OperationState) -> lr.Operation:
    """What a WaitOperation that is under way answers when the operation comes to a state."""
    waiting = asyncio.create_task(served.wait(operation.id))
    await served.listened_to()
    served.becomes(operation, state)
    return await waiting


async def watch(served: Bench, wanted: lr.OperationFilter, *, listen: bool, until: int = 0) -> list[Any]:
    """The messages of a watch: all, or the first `until`."""
    stream = served.channel.unary_stream(
        f"/{OPERATIONS}/WatchOperations",
        request_serializer=lr.WatchOperationsRequest.SerializeToString,
        response_deserializer=lr.WatchOperationsResponse.FromString,
    )
    request = lr.WatchOperationsRequest(filter=wanted, listen_for_updates=listen)
    call = stream(request, metadata=served.metadata(OPERATIONS), timeout=60)
    got: list[Any] = []
    async for message in call:
        got.append(message)
        if len(got) == until:
            call.cancel()
            break
    return got


def test_wait_returns_on_each_change(tmp_path: Path) -> None:
    """WaitOperation returns at the next change only, and unchanged at its timeout when there is none."""

    async def run() -> None:
        async with bench(tmp_path, **NEVER) as served:
            operation = await served.submit(1)
            assert (await served.wait(operation.id, 0.01)).state == lr.ENQUEUED
            assert (await changed(served, operation, lr.PROCESSING)).state == lr.PROCESSING
            assert (await changed(served, operation, lr.DONE)).state == lr.DONE
            assert (await served.wait(operation.id, 0.05)).state == lr.DONE
            assert await code_of(served.wait("999", 1)) == grpc.StatusCode.NOT_FOUND

    asyncio.run(run())


def test_processing_grows_with_audio(tmp_path: Path) -> None:
    """Processing may take time in proportion to the audio."""

    async def run() -> None:
        async with bench(tmp_path, processing_per_audio_second_s=1.0) as served:
            operation = await served.submit(1)
            await asyncio.sleep(0.2)
            assert (await served.get(operation.id)).state == lr.PROCESSING

    asyncio.run(run())


def test_cancel_and_delete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancel makes an unfinished operation FAILED a moment later and leaves a finished one; Delete makes it unknown."""
    monkeypatch.setattr(voicekit_operations, "CANCEL_S", 3600.0)

    async def run() -> None:
        async with bench(tmp_path, queued_s=30) as served:
            operation = await served.submit(1)
            wanted = lr.OperationFilter(exact_id=operation.id)
            await served.call(OPERATIONS, "CancelOperation", lr.CancelOperationRequest(filter=wanted))
            assert (await served.get(operation.id)).state == lr.ENQUEUED
            monkeypatch.setattr(voicekit_operations, "CANCEL_S", 0.0)
            await served.call(OPERATIONS, "CancelOperation", lr.CancelOperationRequest(filter=wanted))
            while (cancelled := await served.wait(operation.id, 0.2)).state != lr.FAILED:
                pass
            assert (cancelled.state, cancelled.error.code) == (lr.FAILED, 1)
            await served.call(OPERATIONS, "CancelOperation", lr.CancelOperationRequest(filter=wanted))
            await served.call(OPERATIONS, "DeleteOperation", lr.DeleteOperationRequest(filter=wanted))
            assert await code_of(served.get(operation.id)) == grpc.StatusCode.NOT_FOUND
            again = served.call(OPERATIONS, "DeleteOperation", lr.DeleteOperationRequest(filter=wanted))
            assert await code_of(again) == grpc.StatusCode.NOT_FOUND
            by_group = lr.DeleteOperationRequest(filter=lr.OperationFilter(exact_group="g"))
            refusal = await code_of(served.call(OPERATIONS, "DeleteOperation", by_group))
            assert refusal == grpc.StatusCode.INVALID_ARGUMENT

    asyncio.run(run())


def test_cancel_of_finished() -> None:
    """Cancelling has no effect on an operation that is DONE."""

    async def run() -> None:
        operations = Operations(Clock())
        made = submitted(operations)
        await all_ended(operations)
        operations.cancel("key", made)
        await asyncio.sleep(2 * voicekit_operations.CANCEL_S)
        assert operations.get("key", made).state == lr.DONE

    asyncio.run(run())


def test_watch_phases(tmp_path: Path) -> None:
    """A watch sends the present state, once the end of it, then updates of its filter only, if it listens."""

    async def run() -> None:
        async with bench(tmp_path, **NEVER) as served:
            mine = await served.submit(1, group="mine")
            other = await served.submit(1, group="other")
            wanted = lr.OperationFilter(exact_group="mine")
            phases = [one.WhichOneof("operations") for one in await watch(served, wanted, listen=False)]
            assert phases == ["initial_state", "init_finished"]
            watching = asyncio.create_task(watch(served, wanted, listen=True, until=4))
            await served.listened_to()
            for operation, state in ((mine, lr.PROCESSING), (other, lr.PROCESSING), (mine, lr.DONE)):
                served.becomes(operation, state)
            heard = await watching
            assert [one.WhichOneof("operations") for one in heard[1:]] == ["init_finished", "update", "update"]
            updates = [operation for one in heard[2:] for operation in one.update.operations]
            assert [(one.id, one.state) for one in updates] == [(mine.id, lr.PROCESSING), (mine.id, lr.DONE)]
            assert await code_of(watch(served, lr.OperationFilter(), listen=False)) == grpc.StatusCode.INVALID_ARGUMENT

    asyncio.run(run())


def test_watch_is_cut(tmp_path: Path) -> None:
    """A long idle watch can die as the real one does: INTERNAL with the text of a reset stream."""

    async def run() -> None:
        async with bench(tmp_path) as served:
            served.faults.set([{"service": "voicekit", "kind": "watch_cut", "value": 0.05}])
            with pytest.raises(grpc.aio.AioRpcError, match="RST_STREAM") as caught:
                await watch(served, lr.OperationFilter(exact_group="g"), listen=True)
            assert caught.value.code() == grpc.StatusCode.INTERNAL

    asyncio.run(run())


def test_large_answers(tmp_path: Path) -> None:
    """A page above 32 MB is refused with 8 and smaller pages give all; a watch parts what it knows into messages that fit."""

    async def run() -> None:
        async with bench(tmp_path) as served:
            text = "а" * 5_500_000
            result = stt.SpeechRecognitionResult(alternatives=[stt.SpeechRecognitionAlternative(transcript=text)])
            outcome = stt.RecognizeResponse(results=[result])
            ids = [submitted(served.server.operations, "g", outcome, key=API_KEY) for _ in range(3)]
            while served.server.operations.in_progress(API_KEY):
                await served.wait(ids[-1], 0.05)
            wanted = lr.OperationFilter(exact_group="g")
            whole = lr.ListOperationsRequest(filter=wanted)
            refusal = await code_of(served.call(OPERATIONS, "ListOperations", whole))
            assert refusal == grpc.StatusCode.RESOURCE_EXHAUSTED
            page = await served.call(OPERATIONS, "ListOperations", lr.ListOperationsRequest(filter=wanted, page_size=2))
            assert [one.id for one in page.operations] == ids[:2]
            *parts, end = await watch(served, wanted, listen=False)
            assert [operation.id for part in parts for operation in part.initial_state.operations] == ids
            assert len(parts) > 1
            assert end.HasField("init_finished")

    asyncio.run(run())


def test_deleted_while_waited_for(tmp_path: Path) -> None:
    """Who waits for an operation is told when it is deleted."""

    async def run() -> None:
        async with bench(tmp_path, queued_s=30) as served:
            operation = await served.submit(1)
            waiting = asyncio.create_task(code_of(served.wait(operation.id)))
            while not served.counts().get("WaitOperation"):  # noqa: ASYNC110 - the service tells nobody
                await asyncio.sleep(0.01)
            served.server.operations.forget(API_KEY, operation.id)
            assert await waiting == grpc.StatusCode.NOT_FOUND

    asyncio.run(run())


def test_another_account_sees_nothing(tmp_path: Path) -> None:
    """Listing, watching, cancelling and deleting are of one key's operations only, though ids and groups are equal."""

    async def run() -> None:
        async with bench(tmp_path, queued_s=30) as served:
            mine = await served.submit(1, group="g")
            wanted = lr.OperationFilter(exact_group="g")
            other = {"key": OTHER_KEY}
            listed = await served.call(OPERATIONS, "ListOperations", lr.ListOperationsRequest(filter=wanted), **other)
            assert not listed.operations
            by_id = lr.OperationFilter(exact_id=mine.id)
            for rpc, request in (
                ("CancelOperation", lr.CancelOperationRequest(filter=by_id)),
                ("DeleteOperation", lr.DeleteOperationRequest(filter=by_id)),
                ("GetOperation", lr.GetOperationRequest(id=mine.id)),
                ("WaitOperation", lr.WaitOperationRequest(id=mine.id)),
            ):
                assert await code_of(served.call(OPERATIONS, rpc, request, **other)) == grpc.StatusCode.NOT_FOUND
            assert (await served.get(mine.id)).state == lr.ENQUEUED

    asyncio.run(run())


def test_list_finds_own_request(tmp_path: Path) -> None:
    """A lost submission is found again by group and x_client_request_id; the filter's state is ignored."""

    async def run() -> None:
        async with bench(tmp_path) as served:
            await served.submit(1, group="g", x_client_request_id="first")
            await served.submit(1, group="h", x_client_request_id="second")
            wanted = lr.OperationFilter(exact_group="g", state=[lr.FAILED])
            found = await served.call(OPERATIONS, "ListOperations", lr.ListOperationsRequest(filter=wanted))
            assert [one.x_client_request_id for one in found.operations] == ["first"]
            assert not found.next_page_token

    asyncio.run(run())


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"any_service_id": Empty()},
        {"exact_service_id": "stt", "any_id": Empty()},
        {"any_id": Empty(), "any_group": Empty()},
        {"any_group": Empty()},
    ],
)
def test_bad_filters(wanted: dict[str, Any]) -> None:
    """A filter that sets neither exact_id nor exact_group nor all three parts is refused with 3."""
    with pytest.raises(RefusedError) as caught:
        Operations(Clock()).select("key", lr.OperationFilter(**wanted))
    assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT


def submitted(operations: Operations, group: str = "", outcome: Any = None, key: str = "key") -> str:
    made = operations.submit(
        key,
        group=group,
        request_id="",
        outcome=outcome if outcome is not None else stt.RecognizeResponse(),
        queued_s=0,
        processing_s=0,
    )
    return made.id


async def all_ended(operations: Operations) -> None:
    """Until no operation of the key is in progress."""
    while operations.in_progress("key"):  # noqa: ASYNC110 - they tell nobody here
        await asyncio.sleep(0)


@given(count=st.integers(0, 25), size=st.integers(1, 10), deleting=st.booleans())
def test_paging_is_complete(count: int, size: int, *, deleting: bool) -> None:
    """Pages of any size give every operation once, oldest first, though new ones are added and old ones deleted meanwhile."""

    async def run() -> None:
        operations = Operations(Clock())
        ids = [submitted(operations, "g") for _ in range(count)]
        submitted(operations, "other")
        got: list[str] = []
        request = lr.ListOperationsRequest(filter=lr.OperationFilter(exact_group="g"), page_size=size)
        while True:
            page = operations.page("key", request)
            assert len(page.operations) <= size
            got += [one.id for one in page.operations]
            assert got == ids[: len(got)]
            if not page.next_page_token:
                break
            request = lr.ListOperationsRequest(page_token=page.next_page_token)
            if deleting:
                operations.forget("key", got[-1])
            submitted(operations, "other")
        assert got == ids
        operations.stop()

    asyncio.run(run())


@pytest.mark.parametrize("token", ["x", "W10=", "bnVsbA=="])
def test_bad_page_token(token: str) -> None:
    """A page token of someone's own making is refused with 3."""
    with pytest.raises(RefusedError, match="page_token"):
        Operations(Clock()).page("key", lr.ListOperationsRequest(page_token=token))


def test_results_are_kept_five_days() -> None:
    """A result is gone five days of the sandbox's clock after it was ready."""

    async def run() -> None:
        clock = Clock()
        clock.now = START
        operations = Operations(clock)
        made = submitted(operations)
        await all_ended(operations)
        clock.now = START + timedelta(days=5)
        assert operations.get("key", made).state == lr.DONE
        clock.now += timedelta(seconds=1)
        with pytest.raises(RefusedError, match="not found"):
            operations.get("key", made)

    asyncio.run(run())


def test_state_survives() -> None:
    """What is dumped can be loaded: outcomes, ids going on, unfinished operations finishing."""

    async def run() -> None:
        first = Operations(Clock())
        done = submitted(first, "g", stt.RecognizeResponse(results=[stt.SpeechRecognitionResult(channel=1)]))
        failed = submitted(first, "g", lr.Status(code=3, message="bad"))
        await all_ended(first)
        pending = submitted(first, "h")
        second = Operations(Clock())
        first.stop()
        second.load(first.dump())
        assert second.get("key", done) == first.get("key", done)
        assert second.get("key", failed).error.message == "bad"
        assert second.get("key", pending).state == lr.ENQUEUED
        await all_ended(second)
        assert second.get("key", pending).state == lr.DONE
        assert int(submitted(second)) == int(pending) + 1
        second.reset()
        assert not second.select("key", lr.OperationFilter(**ANY))
        second.stop()

    asyncio.run(run())
