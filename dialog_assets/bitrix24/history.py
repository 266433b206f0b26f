"""The call history of a time window: voximplant.statistic.get, by id where the portal can, by offset where it cannot.

Here: paging through one method that changes under the reader and drops filters silently (facts/bitrix24.md 2.4, 3.1).
Not here: what a row means (rows.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any

from dialog_assets.bitrix24.client import Answer, Bitrix24Client
from dialog_assets.bitrix24.errors import Bitrix24DataError, Bitrix24Error, RowError
from dialog_assets.bitrix24.paging import COMMANDS, PAGE, chain, keyset
from dialog_assets.bitrix24.wire import Fields, rows_of

METHOD = "voximplant.statistic.get"

_FIRST_CHAIN = 4
"""Pages of the first batch. A chain's pages after the last row run with broken links and cost the portal's time for
nothing, so chains start short and grow fourfold: a usual day wastes few, a year's history is read in full batches."""

_OFFSET_PASSES = 3
"""How often a window is read by offset until as many rows came as the portal counts."""


async def calls(client: Bitrix24Client, start: datetime, end: datetime) -> AsyncIterator[list[dict[str, Any]]]:
    """Pages of calls with `start` <= CALL_START_DATE < `end` (both with offset), every id exactly once.

    By ascending id while the portal honours start=-1, FILTER[>ID] and the order; else by offset, in the portal's order.
    Raises Bitrix24DataError when rows outside the window come: then the portal dropped the filter.
    """
    if start.utcoffset() is None or end.utcoffset() is None:
        raise ValueError("the window's ends need a UTC offset")
    params = {"FILTER": {">=CALL_START_DATE": _wire(start), "<CALL_START_DATE": _wire(end)}}
    window = _Window(start, end)
    last = 0
    length = 0
    while True:
        if length == 0:
            answers: list[Answer] = [await client.call(METHOD, keyset(params, last))]
        else:
            answers = await _chain(client, params, last, length)
        for answer in answers:
            rows = rows_of(METHOD, answer.result)
            ids = [Fields(METHOD, row).id for row in rows]
            if not _honoured(answer, ids, last):
                async for page in _by_offset(client, params, window, last):
                    yield page
                return
            window.check(rows)
            if rows:
                yield rows
                last = ids[-1]
            if len(rows) < PAGE:
                return
        length = min(COMMANDS, length * 4 or _FIRST_CHAIN) if answers else 0


async def _chain(client: Bitrix24Client, params: Mapping[str, Any], last: int, length: int) -> list[Answer]:
    """The pages of one chain up to its first short page or error; none when already the first page failed.

    What follows a short page ran with a broken link, so it is not looked at, errors included.
    """
    outcomes = await client.chain(chain(METHOD, params, last, length))
    answers: list[Answer] = []
    for key in sorted(outcomes, key=lambda name: int(name[1:])):
        outcome = outcomes[key]
        if key != f"p{len(answers)}":
            break
        if isinstance(outcome, Bitrix24Error):
            if not outcome.retryable:
                raise outcome
            break
        answers.append(outcome)
        if len(rows_of(METHOD, outcome.result)) < PAGE:
            break
    return answers


def _honoured(answer: Answer, ids: list[int], last: int) -> bool:
    """Whether a page is what keyset paging promises: not counted, only ids after `last`, strictly ascending."""
    if answer.total or answer.next is not None:
        return False
    return all(low < high for low, high in zip([last, *ids], ids, strict=False))


async def _by_offset(
    client: Bitrix24Client, params: Mapping[str, Any], window: _Window, after: int
) -> AsyncIterator[list[dict[str, Any]]]:
    """All rows of the window with ids above `after`, by offset; the others have been read.

    Rows shift while a portal changes, so ids are remembered, and a pass that brought fewer rows than the portal counts is
    repeated; after that, Bitrix24DataError.
    """
    seen: set[int] = set()
    total = 0
    for _ in range(_OFFSET_PASSES):
        offset: int | None = 0
        while offset is not None:
            answer = await client.call(METHOD, {**params, "SORT": "ID", "ORDER": "ASC", "start": offset})
            rows = rows_of(METHOD, answer.result)
            window.check(rows)
            fresh: list[dict[str, Any]] = []
            for row in rows:
                call_id = Fields(METHOD, row).id
                if call_id not in seen and call_id > after:
                    fresh.append(row)
                seen.add(call_id)
            if fresh:
                yield fresh
            total = answer.total if answer.total is not None else 0
            if answer.next is not None and answer.next <= offset:
                raise Bitrix24DataError("no_progress", method=METHOD, description="the next page is an earlier one")
            offset = answer.next
        if len(seen) >= total:
            return
    raise Bitrix24DataError(
        "rows_missing",
        method=METHOD,
        description=f"the portal counts {total} calls but gave {len(seen)}",
        advice="run this window again when the portal is quiet",
    )


class _Window:
    """The asked time window, to see a dropped filter."""

    def __init__(self, start: datetime, end: datetime) -> None:
        self._start = start
        self._end = end

    def check(self, rows: list[dict[str, Any]]) -> None:
        """Raise when a row lies outside. A row whose date cannot be read is left to whoever reads the row."""
        for row in rows:
            fields = Fields(METHOD, row)
            try:
                inside = self._start <= fields.moment("CALL_START_DATE") < self._end
            except RowError:
                continue
            if not inside:
                raise Bitrix24DataError(
                    "filter_dropped",
                    method=METHOD,
                    description=f"call {fields.id} lies outside the asked time window",
                    advice="the portal ignored the filter by date; nothing of this answer is used",
                )


def _wire(moment: datetime) -> str:
    return moment.isoformat()
