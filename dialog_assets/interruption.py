"""How a run that is asked to end (Ctrl-C, SIGTERM, Terminate in the UI) ends its work before it ends itself.

Here: from a signal to whoever works, and back to the signal's usual handler once the work has ended. Not here: what is
ended how (worklist).

Dagster's handler raises wherever the main thread is, in the middle of the event loop, which then cancels every task at
once: answers that are being paid for at that moment would be lost. So while a loop runs here the first signal only asks
the work to end, the second one cancels it, and when it has ended the signal is given to the handler that it was for.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Listener:
    """Hears that the run is to end. `stop`: what is to be called then; without it the main task is cancelled."""

    def __init__(self) -> None:
        self.stop: Callable[[], None] | None = None
        self.heard: tuple[int, FrameType | None] | None = None

    def hear(self, main: asyncio.Task[Any], signum: int, frame: FrameType | None) -> None:
        first = self.heard is None
        self.heard = self.heard or (signum, frame)
        if first and self.stop is not None:
            self.stop()
        else:
            main.cancel()


_listener: ContextVar[_Listener | None] = ContextVar("listener", default=None)


@contextmanager
def told_to_stop() -> Iterator[Callable[[], bool]]:
    """While the block runs, a function that says whether a signal to end has come, whichever handler it went to.

    A run that Dagster executes may swallow one, or end as failed of it. Only the main thread hears any.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    came: set[int] = set()

    def has_come() -> bool:
        with suppress(BlockingIOError):
            came.update(os.read(reading, 4096))
        return not came.isdisjoint(SIGNALS)

    try:
        yield has_come
    finally:
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)


@contextmanager
def on_interruption(stop: Callable[[], None]) -> Iterator[None]:
    """While the block runs, call `stop` in its event loop when the run is asked to end for the first time."""
    listener = _listener.get()
    if listener is None:
        yield
        return
    before, listener.stop = listener.stop, stop
    try:
        yield
    finally:
        listener.stop = before


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, with signals as this module says. Only the main thread hears any.

    Raises what the signal's own handler raises, once the work has ended.
    """
    if threading.current_thread() is not threading.main_thread():
        return asyncio.run(main)
    listener = _Listener()

    async def heard() -> T:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None  # noqa: S101 - asyncio.run made it
        _listener.set(listener)

        def hear(signum: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(listener.hear, task, signum, frame)

        handlers = {number: signal.signal(number, hear) for number in SIGNALS}
        try:
            return await main
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    outcome: list[T] = []
    error: BaseException | None = None
    try:
        outcome.append(asyncio.run(heard()))
    except BaseException as raised:  # noqa: BLE001 - it is raised again, unless the signal's handler raises its own
        error = raised
    _hand_on(listener)
    if error is not None:
        raise error
    return outcome[0]


def _hand_on(listener: _Listener) -> None:
    """Give the signal that was heard to the handler that it was for."""
    if listener.heard is None:
        return
    signum, frame = listener.heard
    handler = signal.getsignal(signum)
    if callable(handler):
        handler(signum, frame)
    elif handler == signal.SIG_DFL:
        signal.raise_signal(signum)
