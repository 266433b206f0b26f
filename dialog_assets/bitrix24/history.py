"""The call history of a time window: voximplant.statistic.get, by ranges of ids, by offset where the portal ignores those.

Here: paging through one method that changes under the reader and drops filters silently (facts/bitrix24.md 2.4, 3.1), and
counting with it. Not here: how ids are cut into ranges (ranges.py), what a row means (rows.py).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import partial
from itertools import chain, pairwise
from typing import Any

from dialog_assets.bitrix24.client import Answer, Bitrix24Client
from dialog_assets.bitrix24.errors import Bitrix24DataError, Bitrix24Error
from dialog_assets.bitrix24.paging import COMMANDS, PAGE, Command
from dialog_assets.bitrix24.ranges import IdRange, NotHonouredError, Ranges, split
from dialog_assets.bitrix24.side_by_side import REQUESTS, Gate, Job, streamed
from dialog_assets.bitrix24.wire import id_of, moment_of, rows_of

METHOD = "voximplant.statistic.get"

_OFFSET_PASSES = 3
"""How often a window is read by offset until a pass is as long as the portal counts."""

log = logging.getLogger("dialog_assets")

Rows = list[Any]
"""Rows as they came: who reads one tells whether it can be read."""


async def calls(
    client: Bitrix24Client, start: datetime, end: datetime, *, at_once: int = REQUESTS
) -> AsyncGenerator[Rows]:
    """Calls with `start` <= CALL_START_DATE < `end` (both with offset), every id exactly once, at most 2,500 in a list.

    Lists come as they arrive: in no order, except that the one with the lowest ids is the first. Every row that was there
    at the beginning comes; of those that appear meanwhile, those with ids above all others do. A row whose ID cannot be
    read comes too, perhaps more than once where the portal must be read by offset.
    Raises Bitrix24DataError when rows outside the window come (the portal dropped the filter), and when fewer rows came
    than the portal counts. Close the iterator (contextlib.aclosing) when leaving it early.
    """
    if start.utcoffset() is None or end.utcoffset() is None:
        raise ValueError("the window's ends need a UTC offset")
    window = _Window(start, end)
    probe = await client.batch({"first": window.command(None, start=0), "last": window.command(None, order="DESC")})
    first, last = _answer(probe["first"]), _answer(probe["last"])
    ranges = Ranges(iter(()), None)
    try:
        ranges, rows = _begun(window.rows(first), window.rows(last), first.total)
        if rows:
            yield rows
        async with aclosing(_by_range(client, window, ranges, at_once)) as pages:
            async for page in pages:
                yield page
    except NotHonouredError:
        log.warning("%s: the portal ignores the order or the filter by ID; reading by offset, slower", METHOD)
        async with aclosing(_by_offset(client, window, ranges)) as pages:
            async for page in pages:
                yield page
    else:
        await _compare(client, window, ranges.rows, first.total or 0)


async def counts(client: Bitrix24Client, windows: Sequence[tuple[datetime, datetime]]) -> list[int | None]:
    """How many calls the portal counts in each window of `calls`, fifty windows a request; None where it does not count.

    It counts what the credential's user may see, and says nothing of the rest (section 3.1).
    Raises a Bitrix24Error when a window cannot be counted, or its filter is dropped.
    """
    asked = [_Window(start, end) for start, end in windows]
    outcomes = await client.batch({f"w{number}": one.command(None, start=0) for number, one in enumerate(asked)})
    answers = [(one, _answer(outcome)) for one, outcome in zip(asked, outcomes.values(), strict=True)]
    # A total of 0 above a page of rows is the answer of a portal that was asked not to count.
    return [None if window.rows(answer) and not answer.total else answer.total for window, answer in answers]


def _begun(first: Rows, last: Rows, total: int | None) -> tuple[Ranges, Rows]:
    """The rows of the first page and the last one, and the ranges that they leave to read.

    These are what lies between the two, then whatever appears above meanwhile: nothing when the pages meet. A last page
    that does not come down from the highest id, row by row, tells only how far ids go.
    """
    page = [id_of(row) for row in first]
    if len(page) < PAGE:
        ranges = Ranges(iter(()), total)
        return ranges, first[: ranges.note(IdRange(0, None), page)]
    ids = [one for one in page if one is not None]
    if not ids:
        raise NotHonouredError
    tail = [one for row in last if (one := id_of(row)) is not None]
    descends = 0 < len(tail) == len(last) and all(high > low for high, low in pairwise(tail))
    top = max([ids[-1], *tail])
    bottom = max(ids[-1], tail[-1] - 1) if descends else top
    ends = [row for row, one in zip(last, tail, strict=True) if one > ids[-1]][::-1] if descends else []
    if total:
        between: float = total - len(ids) - len(ends)
    else:
        between = (bottom - ids[-1]) * (len(ids) - 1) / (ids[-1] - ids[0] or 1)
    meet = descends and bottom == ids[-1]
    ranges = Ranges(iter(()) if meet else chain(split(ids[-1], bottom, between), [IdRange(top, None)]), total)
    count = ranges.note(IdRange(0, ids[-1]), page)
    ranges.note(IdRange(bottom, top), [id_of(row) for row in ends])
    return ranges, [*first[:count], *ends]


async def _by_range(client: Bitrix24Client, window: _Window, ranges: Ranges, at_once: int) -> AsyncGenerator[Rows]:
    async def read(some: list[IdRange], gate: Gate) -> tuple[list[IdRange], list[Answer]]:
        commands = {f"r{number}": window.command(one) for number, one in enumerate(some)}
        outcomes = await client.batch(commands, before_body=gate)
        return some, [_answer(outcome) for outcome in outcomes.values()]

    def next_job(running: int) -> Job[tuple[list[IdRange], list[Answer]]] | None:
        some = ranges.take(COMMANDS)
        if running and len(some) < COMMANDS:
            # What is under way may leave remainders, which fill this request up.
            ranges.give_back(some)
            return None
        return partial(read, some) if some else None

    async with aclosing(streamed(next_job, at_once=at_once)) as results:
        async for asked, answers in results:
            page, failure = _noted(window, ranges, asked, answers)
            answers.clear()
            if page:
                yield page
            if failure is not None:
                raise failure
            del page


def _noted(
    window: _Window, ranges: Ranges, asked: list[IdRange], answers: list[Answer]
) -> tuple[Rows, NotHonouredError | None]:
    """The rows of the answers up to the first one that is no page of its range: these count as read, so they are given."""
    found: Rows = []
    for one, answer in zip(asked, answers, strict=True):
        rows = window.rows(answer)
        try:
            found += rows[: ranges.note(one, [id_of(row) for row in rows])]
        except NotHonouredError as failure:
            return found, failure
    return found, None


async def _by_offset(client: Bitrix24Client, window: _Window, read: Ranges) -> AsyncGenerator[Rows]:
    """All rows of the window, by offset, without those that `read` has.

    Rows shift while a portal changes, so ids are remembered, and a pass in which rows went away or that brought fewer
    than the portal counts is repeated; after that, Bitrix24DataError.
    """
    seen: set[int] = set()
    total = 0
    for _ in range(_OFFSET_PASSES):
        offset: int | None = 0
        total, nameless, shrank = 0, 0, False
        while offset is not None:
            method, params = window.command(None, start=offset)
            answer = await client.call(method, params)
            rows = window.rows(answer)
            fresh = []
            for row in rows:
                one = id_of(row)
                if one is None:
                    nameless += 1
                    fresh.append(row)
                    continue
                if one not in seen and not read.has(one):
                    fresh.append(row)
                seen.add(one)
            if fresh:
                yield fresh
            shrank = shrank or (answer.total or 0) < total
            total = answer.total or 0
            if answer.next is not None and answer.next <= offset:
                raise Bitrix24DataError("no_progress", method=METHOD, description="the next page is an earlier one")
            offset = answer.next
        if len(seen) + nameless >= total and not shrank:
            return
    raise _missing(total, len(seen) + nameless)


async def _compare(client: Bitrix24Client, window: _Window, read: int, total: int) -> None:
    """Raise when fewer rows came than the portal counted, unless it counts fewer by now: rows were deleted."""
    if read >= total:
        return
    method, params = window.command(None, start=0)
    total = min(total, (await client.call(method, params)).total or 0)
    if read < total:
        raise _missing(total, read)


def _missing(total: int, read: int) -> Bitrix24DataError:
    return Bitrix24DataError(
        "rows_missing",
        method=METHOD,
        description=f"the portal counts {total} calls but gave {read}",
        advice="run this window again when the portal is quiet",
    )


def _answer(outcome: Answer | Bitrix24Error) -> Answer:
    if isinstance(outcome, Bitrix24Error):
        raise outcome
    return outcome


class _Window:
    """The asked time window: its commands, and the proof that an answer's rows lie in it."""

    def __init__(self, start: datetime, end: datetime) -> None:
        self._start = start
        self._end = end
        self._filter = {">=CALL_START_DATE": start.isoformat(), "<CALL_START_DATE": end.isoformat()}

    def command(self, ids: IdRange | None, *, order: str = "ASC", start: int = -1) -> Command:
        """A page by id; `start` -1 asks for no count."""
        asked: dict[str, Any] = dict(self._filter)
        if ids is not None:
            asked[">ID"] = ids.low
            if ids.high is not None:
                asked["<=ID"] = ids.high
        return METHOD, {"FILTER": asked, "SORT": "ID", "ORDER": order, "start": start}

    def rows(self, answer: Answer) -> Rows:
        """The answer's rows; raises when one lies outside. A date that cannot be read is left to who reads the row."""
        rows = rows_of(METHOD, answer.result)
        for row in rows:
            moment = moment_of(row.get("CALL_START_DATE")) if isinstance(row, dict) else None
            if moment is not None and not self._start <= moment < self._end:
                raise Bitrix24DataError(
                    "filter_dropped",
                    method=METHOD,
                    description=f"call {id_of(row)} lies outside the asked time window",
                    advice="the portal ignored the filter by date; nothing of this answer is used",
                )
        return rows
