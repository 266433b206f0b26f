"""What the pipeline reads from a portal: calls of a window, users, CRM objects, their deals.

Here: which methods with which parameters, and the proof that the answer is the one asked for. Not here: what the rows mean
(rows.py), the transport (client.py), recordings (recordings.py).
Bitrix24 drops filters that it does not know without a word (facts/bitrix24.md 3.1), so every reader checks what comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import cycle
from typing import Any

from dialog_assets.bitrix24.client import Answer, Bitrix24Client
from dialog_assets.bitrix24.deals import deals
from dialog_assets.bitrix24.errors import (
    Bitrix24DataError,
    Bitrix24Error,
)
from dialog_assets.bitrix24.families import CrmFamily, id_filter, list_command
from dialog_assets.bitrix24.history import calls, counts
from dialog_assets.bitrix24.paging import COMMANDS, PAGE, Command, chunks
from dialog_assets.bitrix24.rows import EntityType
from dialog_assets.bitrix24.side_by_side import all_of
from dialog_assets.bitrix24.wire import id_of, rows_of

__all__ = ["calls", "counts", "crm", "deals", "users"]


async def users(client: Bitrix24Client, ids: Iterable[int]) -> dict[int, dict[str, Any]]:
    """Rows of user.get by id, dismissed users included; ids that the portal does not show are absent (section 6).

    Where a row came without a readable ID, each id that was asked with it and did not come has such a row: it may be its.
    """

    def command(some: list[int]) -> Command:
        return "user.get", {"FILTER": {"ID": some}, "sort": "ID", "order": "ASC", "start": -1}

    return await _by_id(client, command, ids)


async def crm(
    client: Bitrix24Client, kind: EntityType, ids: Iterable[int], *, family: CrmFamily = "classic"
) -> dict[int, dict[str, Any]]:
    """Rows of CRM objects by id, own fields, phones and e-mails included; missing ids are absent (section 5.3).

    Rows without a readable ID are as in `users`.
    """
    return await _by_id(client, lambda some: list_command(kind, family, id_filter(family, some)), ids)


def _answer(outcome: Answer | Bitrix24Error) -> Answer:
    if isinstance(outcome, Bitrix24Error):
        raise outcome
    return outcome


async def _by_id(
    client: Bitrix24Client, command: Callable[[list[int]], Command], ids: Iterable[int]
) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    asked = chunks(chunks(dict.fromkeys(ids), PAGE), COMMANDS)

    async def read(some: list[list[int]]) -> None:
        commands = {f"ids{number}": command(few) for number, few in enumerate(some)}
        outcomes = await client.batch(commands)
        for few, (key, (method, _)) in zip(some, commands.items(), strict=True):
            nameless = []
            for row in rows_of(method, _answer(outcomes[key]).result):
                one = id_of(row)
                if one is None:
                    nameless.append(row)
                    continue
                if one not in few:
                    raise Bitrix24DataError(
                        "filter_dropped",
                        method=method,
                        description=f"row {one} was not asked for",
                        advice="the portal ignored the filter by id; nothing of this answer is used",
                    )
                found[one] = row
            if nameless:
                found.update(zip([one for one in few if one not in found], cycle(nameless), strict=False))

    await all_of(read(some) for some in asked)
    return found
