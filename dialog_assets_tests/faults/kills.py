"""A run that kills itself with -9 at a moment that the sandbox's books show.

It watches from inside the run's own process: a machine that stalls the run then holds up its death as well, and a kill
never comes when the work is over.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx2

Books = dict[str, Any]


def _count(service: str, what: str) -> Callable[[Books], int]:
    return lambda books: int(books.get(service, {}).get("counts", {}).get(what, 0))


def _answered(vendor: str, step: str) -> Callable[[Books], int]:
    def read(books: Books) -> int:
        labels = books.get(vendor, {}).get("items", {}).get("answered", {})
        return sum(number for label, number in labels.items() if label.startswith(f"{step}:"))

    return read


MARKS: dict[str, Callable[[Books], int]] = {
    "audio_files: recordings downloaded": _count("bitrix24", "downloads"),
    "audio_files: recordings archived": _count("s3", "PutObject"),
    "transcripts: recordings uploaded": _count("voicekit", "uploads"),
    "transcripts: recordings submitted": _count("voicekit", "submitted"),
    "transcripts: operations asked for": _count("voicekit", "GetOperation"),
    "fixed_dialogs: answers": _answered("deepseek", "edits"),
    "classifications: answers": _answered("openai", "categories"),
    "criteria_scores: answers": _answered("openai", "scores"),
    "entity_summaries: answers": _answered("openai", "text"),
}
"""What the books count while a run works on a step, in the order of the graph."""


@dataclass(frozen=True)
class Moment:
    """`delay_s` after the books of the sandbox, whose control is at that address, count `goal` of `mark`."""

    mark: str
    goal: int
    delay_s: float
    control: str


def die_at(moment: Moment) -> None:
    """This process is killed at that moment, if it is still there."""
    threading.Thread(target=_watch, args=(moment,), daemon=True).start()


def die_after(delay_s: float) -> None:
    """This process is killed so much later, if it is still there; 0: here and now."""
    if delay_s:
        threading.Thread(target=_wait, args=(delay_s,), daemon=True).start()
    else:
        _wait(0)


def _watch(moment: Moment) -> None:
    with httpx2.Client(base_url=moment.control, timeout=60) as control:
        while MARKS[moment.mark](control.get("/books").json()) < moment.goal:
            time.sleep(0.02)
    _wait(moment.delay_s)


def _wait(delay_s: float) -> None:
    time.sleep(delay_s)
    os.kill(os.getpid(), signal.SIGKILL)
