"""What the pipeline reads from a portal: calls of a window, users, CRM objects, their deals.

Here: which methods with which parameters, and the proof that the answer is the one asked for. Not here: what the rows mean
(rows.py), the transport (client.py), recordings (recordings.py).
Bitrix24 drops filters that it does not know without a word (facts/bitrix24.md 3.1), so every reader checks what comes back.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from functools import partial
from itertools import cycle
from typing import Any, NamedTuple

from dialog_assets.bitrix24.client import Answer, Bitrix24Client
from dialog_assets.bitrix24.deals import Deals
from dialog_assets.bitrix24.errors import Bitrix24DataError, Bitrix24Error
from dialog_assets.bitrix24.families import CrmFamily, id_filter, list_command
from dialog_assets.bitrix24.history import calls, counts
from dialog_assets.bitrix24.paging import COMMANDS, PAGE, Command, chunks
from dialog_assets.bitrix24.rows import EntityType
from dialog_assets.bitrix24.side_by_side import Gate, Job, streamed
from dialog_assets.bitrix24.wire import id_of, rows_of

__all__ = ["ById", "Deals", "calls", "counts", "crm", "users"]


class ById(NamedTuple):
    """What one request brought for at most 2,500 ids: rows by id, and the ids that the portal does not show.

    Where a row came without a readable ID, each id that was asked with it and did not come has such a row: it may be its.
    """

    rows: dict[int, Any]
    missing: list[int]


def users(client: Bitrix24Client, ids: Iterable[int]) -> AsyncGenerator[ById]:
    """Rows of user.get by id, dismissed users included; bots, integrators and others are missing (section 6).

    As they arrive, every id once. Close the iterator (contextlib.aclosing) when leaving it early.
    """

    def command(some: list[int]) -> Command:
        return "user.get", {"FILTER": {"ID": some}, "sort": "ID", "order": "ASC", "start": -1}

    return _by_id(client, command, ids)


def crm(
    client: Bitrix24Client, kind: EntityType, ids: Iterable[int], *, family: CrmFamily = "classic"
) -> AsyncGenerator[ById]:
    """Rows of CRM objects by id, own fields, phones and e-mails included (section 5.3); otherwise as `users`."""
    return _by_id(client, lambda some: list_command(kind, family, id_filter(family, some)), ids)


_Asked = list[tuple[list[int], Command]]
_Outcomes = dict[str, Answer | Bitrix24Error]


async def _by_id(
    client: Bitrix24Client, command: Callable[[list[int]], Command], ids: Iterable[int]
) -> AsyncGenerator[ById]:
    pages = ((some, command(some)) for some in chunks(dict.fromkeys(ids), PAGE))
    requests = chunks(pages, COMMANDS)

    async def read(asked: _Asked, gate: Gate) -> tuple[_Asked, _Outcomes]:
        commands = {f"ids{number}": one for number, (_, one) in enumerate(asked)}
        return asked, await client.batch(commands, before_body=gate)

    def next_job(_: int) -> Job[tuple[_Asked, _Outcomes]] | None:
        asked = next(requests, None)
        return None if asked is None else partial(read, asked)

    async with aclosing(streamed(next_job)) as results:
        async for asked, outcomes in results:
            found = _found(asked, list(outcomes.values()))
            outcomes.clear()
            yield found
            del found


def _found(asked: _Asked, outcomes: Sequence[Answer | Bitrix24Error]) -> ById:
    """The rows of the answers; raises when one failed, or brings a row that it was not asked for."""
    rows: dict[int, Any] = {}
    for (some, (method, _)), outcome in zip(asked, outcomes, strict=True):
        if isinstance(outcome, Bitrix24Error):
            raise outcome
        nameless = []
        for row in rows_of(method, outcome.result):
            one = id_of(row)
            if one is None:
                nameless.append(row)
            elif one in some:
                rows[one] = row
            else:
                raise _not_asked_for(method, one)
        if nameless:
            rows.update(zip([one for one in some if one not in rows], cycle(nameless), strict=False))
    return ById(rows, [one for some, _ in asked for one in some if one not in rows])


def _not_asked_for(method: str, one: int) -> Bitrix24DataError:
    return Bitrix24DataError(
        "filter_dropped",
        method=method,
        description=f"row {one} was not asked for",
        advice="the portal ignored the filter by id; nothing of this answer is used",
    )
