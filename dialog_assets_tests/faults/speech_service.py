"""A VoiceKit account as a process of its own, that a test may tell what goes wrong: gRPC, storage and books over a pipe."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from dialog_assets.sandbox.voicekit import Behaviour
from dialog_assets.sandbox.voicekit_operations import _FINISHED
from dialog_assets_tests.speech.account import API_KEY, Account, account

_spawning = multiprocessing.get_context("spawn")


class SpeechService:
    """The parent's end. `endpoint` and `storage_url` are its addresses."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.endpoint, self.storage_url = pipe.recv()

    def begin(self, faults: list[dict[str, Any]], behaviour: Behaviour) -> None:
        """Forget everything, and behave like this from now on."""
        self._ask("begin", faults, behaviour)

    def heal(self) -> None:
        """No more faults."""
        self._ask("heal")

    def books(self) -> dict[str, Any]:
        """The books of VoiceKit."""
        books: dict[str, Any] = self._ask("books")
        return books

    def operations(self) -> dict[str, str]:
        """The kind of outcome, error or response, of every operation that it knows, by request id."""
        operations: dict[str, str] = self._ask("operations")
        return operations

    def rest(self, *, until_operations_end: bool = False) -> None:
        """Until it works on no call any more, be it of a client that is gone; and if asked, on no operation that will ever end."""
        self._ask("rest", until_operations_end)

    def stop(self) -> None:
        """End it."""
        self._ask("stop")

    def _ask(self, *command: Any) -> Any:
        self._pipe.send(command)
        return self._pipe.recv()


@contextmanager
def speech_service(recordings: list[Path]) -> Iterator[SpeechService]:
    """A service whose world holds the recordings."""
    here, there = _spawning.Pipe()
    process = _spawning.Process(target=_serve, args=(there, recordings), daemon=True)
    process.start()
    there.close()
    service = SpeechService(here)
    try:
        yield service
    finally:
        service.stop()
        process.join(10)
        process.kill()


def _serve(pipe: Connection, recordings: list[Path]) -> None:
    asyncio.run(_answer(pipe, recordings))


async def _answer(pipe: Connection, recordings: list[Path]) -> None:
    async with account(recordings) as served:
        pipe.send((served.endpoint, served.storage_url))
        while True:
            name, *arguments = await asyncio.to_thread(pipe.recv)
            if name == "rest":
                await _rest(served, until_operations_end=arguments[0])
            pipe.send(_do(served, name, *arguments))
            if name == "stop":
                return


async def _rest(served: Account, *, until_operations_end: bool) -> None:
    operations = served.server.operations._account(API_KEY).operations
    at_rest = 0
    while at_rest < 3:  # what a client sent before it was gone may still lie in a socket
        await asyncio.sleep(0.01)
        calls = sum(served.server._gate._open.values())
        ending = [one for one in operations.values() if one.timer is not None and one.state not in _FINISHED]
        at_rest = 0 if calls or (until_operations_end and ending) else at_rest + 1


def _do(served: Account, name: str, *arguments: Any) -> Any:
    if name == "begin":
        faults, behaviour = arguments
        served.server.reset()
        served.storage.reset()
        served.books.reset()
        served.faults.set(faults)
        served.server.behaviour = behaviour
    elif name == "heal":
        served.faults.set([])
    elif name == "books":
        return served.books.as_dict().get("voicekit", {})
    elif name == "operations":
        accounts = served.server.operations.dump()
        known = accounts.get(API_KEY, {"operations": []})["operations"]
        return {one["request_id"]: "error" if "error" in one else "response" for one in known}
    return None
