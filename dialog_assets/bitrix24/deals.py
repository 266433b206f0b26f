"""The deals of contacts, leads and companies: whose deal it is, with as few requests as the portal allows.

Here: owners in groups, pages of a group as links inside a batch, and the proof that a deal belongs to who asked.
Not here: the fields of a deal (rows.py). Source: facts/bitrix24.md 2.3, 2.4, 5.3.
A deal may have several contacts and in the classic family shows its first one only. So few contacts are asked one by one;
many are asked in groups, and as soon as a deal comes that shows a contact nobody of its group is, all are asked one by one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from dialog_assets.bitrix24.client import Answer, Bitrix24Client, Patience, not_run
from dialog_assets.bitrix24.errors import (
    Bitrix24AccessError,
    Bitrix24DataError,
    Bitrix24Error,
    Bitrix24RequestError,
    is_operating,
)
from dialog_assets.bitrix24.families import (
    CrmFamily,
    last_id_link,
    list_command,
    list_method,
    owner_field,
    owner_filter,
)
from dialog_assets.bitrix24.paging import COMMANDS, PAGE, Command, chunks
from dialog_assets.bitrix24.rows import CrmKind
from dialog_assets.bitrix24.side_by_side import all_of
from dialog_assets.bitrix24.wire import Fields, row_id, rows_of

OWNERS = 200
"""Owners in a group. PHP reads no more than 1,000 parameters of a command; a group's last page is half empty."""

SINGLE_OWNERS = 500
"""Up to so many contacts are asked one by one: ten requests, and no deal's further contact is missed."""

log = logging.getLogger("dialog_assets")


async def deals(
    client: Bitrix24Client, kind: CrmKind, ids: Iterable[int], *, family: CrmFamily = "classic"
) -> dict[int, list[dict[str, Any]]]:
    """Rows of deals by the contact, lead or company that they belong to, all pages, by id. Every asked id is a key.

    Raises Bitrix24DataError when a deal comes that belongs to none of those asked: then the portal dropped the filter.
    """
    owners = list(dict.fromkeys(ids))
    reading = _Reading(client, kind, family)
    size = 1 if (kind, family) == ("contact", "classic") and len(owners) <= SINGLE_OWNERS else OWNERS
    try:
        found = await reading.read(owners, size)
    except _OwnersUntoldError:
        log.info("%s: deals do not tell all their owners; asking for each owner's", list_method("deal", family))
        found = await reading.read(owners, 1)
    return {owner: found.get(owner, []) for owner in owners}


class _OwnersUntoldError(Exception):
    """A row does not say whose of a group it is."""


@dataclass
class _Group:
    """Owners asked together, and how far their deals are read: `need` more pages, as far as is known.

    `patience` and `failures` are those of the next page.
    """

    owners: list[int]
    patience: Patience
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    after: int = 0
    need: int = 1
    failures: int = 0
    counted: bool = False


class _Reading:
    def __init__(self, client: Bitrix24Client, kind: CrmKind, family: CrmFamily) -> None:
        self._client = client
        self._kind = kind
        self._family = family
        self._method = list_method("deal", family)
        self._field = owner_field(kind, family)

    async def read(self, owners: Sequence[int], size: int) -> dict[int, list[dict[str, Any]]]:
        """Deals by owner, of groups of `size`. Raises _OwnersUntoldError for groups of more than one."""
        groups = [_Group(some, self._client.patience()) for some in chunks(owners, size)]
        found: dict[int, list[dict[str, Any]]] = {}
        pending = groups
        while pending:
            await all_of(self._run(batch) for batch in _packed(pending))
            pending = [group for group in pending if group.need]
        stranger: tuple[int, int] | None = None
        for group in groups:
            for deal, row in sorted(group.rows.items()):
                told = self._owners(row)
                for owner in group.owners if len(group.owners) == 1 else told & set(group.owners):
                    found.setdefault(owner, []).append(row)
                if len(group.owners) == 1 and group.owners[0] not in (told or group.owners):
                    stranger = (deal, group.owners[0])
        if stranger is not None:
            await self._prove(*stranger)
        return found

    async def _run(self, batch: list[tuple[_Group, int]]) -> None:
        commands: dict[str, Command] = {}
        keys: list[list[str]] = []
        for number, (group, pages) in enumerate(batch):
            names = [f"g{number}p{page}" for page in range(pages)]
            keys.append(names)
            for page, name in enumerate(names):
                after: int | str = group.after if page == 0 else last_id_link(names[page - 1], self._family)
                # Counting is worth it where it tells how many linked pages the next request can hold.
                counts = not group.counted and (len(group.owners) > 1 or group.after > 0)
                commands[name] = list_command(
                    "deal",
                    self._family,
                    owner_filter(self._kind, self._family, group.owners),
                    after=after,
                    start=0 if counts else -1,
                )
        outcomes = await self._client.linked(commands, batch[0][0].patience)
        failures: list[Bitrix24Error] = []
        for names, (group, _) in zip(keys, batch, strict=True):
            failure = self._take(group, [outcomes.get(name) for name in names])
            # A blocked method is waited for by whoever asks it next.
            if failure is not None and not is_operating(failure):
                group.failures += 1
                if not failure.retryable or group.failures >= self._client.attempts:
                    raise failure
                failures.append(failure)
        if failures:
            await self._client.rest(failures[0], max(group.failures for group, _ in batch))

    def _take(self, group: _Group, outcomes: list[Answer | Bitrix24Error | None]) -> Bitrix24Error | None:
        """Add the pages up to the first short or failed one; what follows it ran with a broken link."""
        for place, outcome in enumerate(outcomes):
            if isinstance(outcome, Bitrix24Error):
                return outcome
            if outcome is None:
                return None if place else not_run(self._method)
            rows = rows_of(self._method, outcome.result)
            ids = [row_id(self._method, row) for row in rows]
            if not all(low < high for low, high in zip([group.after, *ids], ids, strict=False)):
                if place:
                    # A link that this portal does not follow: the page is asked for by its number next time.
                    return None
                raise self._dropped(f"deal {ids[0]}", group.owners)
            if stranger := next((one for one, row in zip(ids, rows, strict=True) if not self._fits(group, row)), None):
                raise self._dropped(f"deal {stranger}", group.owners)
            group.rows |= zip(ids, rows, strict=True)
            group.failures, group.patience = 0, self._client.patience()
            if len(rows) < PAGE:
                group.need = 0
                return None
            group.after = ids[-1]
            if group.counted:
                group.need -= 1
            elif outcome.total:
                group.counted = True
                group.need = ceil(max(0, outcome.total - PAGE) / PAGE)
            if not group.need:
                return None
        return None

    def _fits(self, group: _Group, row: Mapping[str, Any]) -> bool:
        told = self._owners(row)
        if len(group.owners) == 1:
            return not told or group.owners[0] in told or self._shows_first_only(row)
        if told & set(group.owners):
            return True
        if not told or self._shows_first_only(row):
            raise _OwnersUntoldError
        return False

    def _owners(self, row: Mapping[str, Any]) -> set[int]:
        fields = Fields(self._method, row)
        if self._kind == "contact" and isinstance(row.get("contactIds"), list):
            return set(fields.numbers("contactIds"))
        owner = fields.reference(self._field)
        return set() if owner is None else {owner}

    def _shows_first_only(self, row: Mapping[str, Any]) -> bool:
        return self._kind == "contact" and not isinstance(row.get("contactIds"), list)

    async def _prove(self, deal: int, contact: int) -> None:
        """Ask for all contacts of one deal that shows another contact than the asked one."""
        method = "crm.deal.contact.items.get"
        try:
            answer = await self._client.call(method, {"id": deal})
        except (Bitrix24AccessError, Bitrix24RequestError) as error:
            log.info("%s cannot tell the contacts of deal %d: %s", method, deal, error.code)
            return
        contacts = {Fields(method, {"ID": deal, **row}).number("CONTACT_ID") for row in rows_of(method, answer.result)}
        if contact not in contacts:
            raise self._dropped(f"deal {deal}", [contact])

    def _dropped(self, what: str, owners: Sequence[int]) -> Bitrix24DataError:
        whose = f"{self._kind} {owners[0]}" if len(owners) == 1 else f"{len(owners)} of kind {self._kind}"
        return Bitrix24DataError(
            "filter_dropped",
            method=self._method,
            description=f"{what} does not fit the filter by {whose}",
            advice="the portal ignored the filter; nothing of this answer is used",
        )


def _packed(groups: Sequence[_Group]) -> list[list[tuple[_Group, int]]]:
    """The groups' next pages in as few batches as first-fit finds; linked pages stay in one batch."""
    batches: list[list[tuple[_Group, int]]] = []
    free: list[int] = []
    for group in sorted(groups, key=lambda one: -one.need):
        pages = min(COMMANDS, group.need)
        place = next((place for place, left in enumerate(free) if left >= pages), None)
        if place is None:
            batches.append([])
            free.append(COMMANDS)
            place = len(batches) - 1
        batches[place].append((group, pages))
        free[place] -= pages
    return batches
