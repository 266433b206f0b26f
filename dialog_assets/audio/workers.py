"""Reading of untrusted recordings in processes of their own, with limits on time and memory for each file.

A crash, an endless loop or a bomb in a recording costs that recording and one worker process, which is replaced; the run
and the other recordings go on. Here: the processes, their limits, their end. Not here: what they do (worker, probe,
convert), and how it is said (lines).

Plain subprocesses, not a pool of multiprocessing: there a dead process breaks the pool for all, a slow one cannot be ended
alone, answers are pickles, and the fork servers outlive a killed run. A thread for each waits for its answer; killing the
process ends the wait, so cancelling is sure.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen
from types import TracebackType
from typing import Self

from pydantic import ValidationError

from dialog_assets.audio.errors import AudioError, Reason, WorkersUnavailable
from dialog_assets.audio.lines import Answer, Request
from dialog_assets.audio.values import AudioProbe, Form, Prepared

FILES_A_WORKER = 500
"""A worker is replaced after so many files: what libraries leak does not add up."""

OUT_OF_MEMORY: tuple[Reason, str] = ("too_large", "out of memory")
"""After this a worker is replaced too: little memory may be left in one piece."""

_PROGRAM: tuple[str, ...] = ("-m", "dialog_assets.audio.worker")
_LONGEST_ANSWER = 1 << 20
_MEGABYTE = 1 << 20
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "TMP")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may take."""

    seconds: float = 120.0
    """Wall time, plus `seconds_per_megabyte` of the file."""
    seconds_per_megabyte: float = 2.0
    memory_megabytes: int = 512
    """Address space on top of what the worker's libraries take. Kept on Linux."""
    file_megabytes: int = 4096
    """The longest file that a conversion may write."""


class Inspectors:
    """An async context manager: up to `workers` processes, started when first needed, gone when the context ends.

    They end with the context, with its cancellation, and with the death of this process, in the middle of their work too.
    """

    def __init__(self, workers: int = 1, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._slots = asyncio.Semaphore(workers)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="inspector")
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in list(self._all):
            self._end(worker)
        self._threads.shutdown(wait=False)  # from here on it refuses work

    async def check(self) -> None:
        """Start a worker, which reads one tiny recording before it takes others. Raises WorkersUnavailable."""
        async with self._slots:
            self._idle.append(self._idle.pop() if self._idle else await self._start())

    async def inspect(self, path: Path) -> AudioProbe:
        """`probe.probe(path)` in a worker.

        Raises AudioError with the reasons of `probe` and too_slow, too_large, parser_crashed; OSError if the file cannot be
        read; WorkersUnavailable.
        """
        answer = await self._ask(Request(path=path))
        if answer.found is None:
            raise AudioError("parser_crashed", "its worker answers without values")
        return answer.found

    async def prepare(self, path: Path, form: Form, target: Path) -> Prepared:
        """`convert.prepare(path, form, target)` in a worker. Raises like `inspect`."""
        answer = await self._ask(Request(path=path, form=form, target=target))
        if answer.prepared is None or answer.prepared.path not in (path, target):
            raise AudioError("parser_crashed", "its worker answers without a file")
        return answer.prepared

    async def _ask(self, request: Request) -> Answer:
        megabytes = request.path.stat().st_size / _MEGABYTE
        limit_s = self._limits.seconds + self._limits.seconds_per_megabyte * megabytes
        async with self._slots:
            worker = self._idle.pop() if self._idle else await self._start()
            answer = None
            try:
                async with asyncio.timeout(limit_s):
                    answer = await self._in_thread(worker, request)
            except TimeoutError:
                raise AudioError("too_slow", f"more than {limit_s:.0f} s") from None
            finally:
                if answer is None or worker.served >= FILES_A_WORKER or answer.refused == OUT_OF_MEMORY:
                    self._end(worker)
                else:
                    self._idle.append(worker)
        if answer.refused is not None:
            raise AudioError(*answer.refused)
        if answer.errno is not None:
            raise OSError(answer.errno, os.strerror(answer.errno))
        return answer

    async def _start(self) -> _Worker:
        worker = _Worker(self._limits)
        self._all.add(worker)
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, worker.wait_until_ready)
        except BaseException:
            self._end(worker)
            raise
        return worker

    async def _in_thread(self, worker: _Worker, request: Request) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._threads, worker.ask, request)

    def _end(self, worker: _Worker) -> None:
        self._all.discard(worker)
        worker.end()


class _Worker:
    """One process. Its methods block."""

    def __init__(self, limits: Limits) -> None:
        self._process = Popen(
            [
                *(sys.executable, "-P", *_PROGRAM),
                str(limits.memory_megabytes),
                str(limits.file_megabytes),
            ],
            stdin=PIPE,
            stdout=PIPE,
            env=_environment(),
            start_new_session=True,  # a Ctrl-C is the run's to handle
        )
        assert self._process.stdin and self._process.stdout  # noqa: S101 -- they are pipes
        self._requests, self._answers = self._process.stdin, self._process.stdout
        self.served = 0

    def wait_until_ready(self) -> None:
        """Raises WorkersUnavailable."""
        line = self._answers.readline(_LONGEST_ANSWER)
        if line.startswith(b"unable: "):
            raise WorkersUnavailable(
                f"No recording can be read here: the tiny one that every worker tries first failed "
                f"({line[8:].decode(errors='replace').strip()}): repair the installation, make clean install."
            )
        if not line:
            raise WorkersUnavailable(
                f"The process that reads recordings ended with code {self._process.wait()} before it began; "
                "its error stands above: repair the installation."
            )

    def ask(self, request: Request) -> Answer:
        """Raises AudioError if the worker dies of it."""
        self.served += 1
        try:
            self._requests.write(request.model_dump_json().encode() + b"\n")
            self._requests.flush()
            line = self._answers.readline(_LONGEST_ANSWER)
            if line:
                return Answer.model_validate_json(line)
        except (OSError, ValidationError) as error:
            raise AudioError("parser_crashed", type(error).__name__) from None
        raise AudioError("parser_crashed", _ending(self._process.wait()))

    def end(self) -> None:
        """At once, whatever it does. Who waits for its answer gets none."""
        self._process.kill()
        with self._process:  # closes the pipes and waits
            pass


def _ending(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"


def _environment() -> dict[str, str]:
    """What a worker needs, and no secret: one thread for NumPy, one arena for C's memory, and where this package lies."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    path = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path)
    return kept | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
