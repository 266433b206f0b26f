"""Reading of untrusted recordings in processes of their own, with limits on time and memory for each file.

A crash, an endless loop or a bomb in a recording costs that recording and one worker process, which is replaced; the run
and the other recordings go on. Here: the processes, their limits, the talk with them. Not here: what they do (probe,
convert).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from dialog_assets.audio.values import AudioProbe, Prepared


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may take."""

    seconds: float = 120.0
    """Wall time, plus `seconds_per_megabyte` of the file."""
    seconds_per_megabyte: float = 2.0
    memory_megabytes: int = 512
    """Address space on top of what the worker's libraries take."""


class Inspectors:
    """An async context manager: worker processes, started when first needed, ended with the context whatever happens."""

    def __init__(self, workers: int = 1, limits: Limits | None = None) -> None:
        self._slots = asyncio.Semaphore(workers)
        self._limits = limits or Limits()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def inspect(self, path: Path) -> AudioProbe:
        """`probe.probe(path)` in a worker. Raises AudioError: probe's reasons, too_slow, too_large, parser_crashed."""
        from dialog_assets.audio.probe import probe

        async with self._slots:
            return await asyncio.to_thread(probe, path)

    async def prepare(self, path: Path, found: AudioProbe, target: Path) -> Prepared:
        """`convert.prepare(path, found, target)` in a worker. Raises AudioError like `inspect`."""
        from dialog_assets.audio.convert import prepare

        async with self._slots:
            return await asyncio.to_thread(prepare, path, found, target)
