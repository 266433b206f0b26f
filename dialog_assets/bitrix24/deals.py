"""The deals of contacts, leads and companies: whose deal it is, with as few requests as the portal allows.

Here: owners in groups, pages of a group as links inside a batch, and the proof that a deal belongs to who asked.
Not here: the fields of a deal (rows.py). Source: facts/bitrix24.md 2.3, 2.4, 5.3.
A deal may have several contacts and in the classic family shows its first one only. So few contacts are asked one by one;
many are asked in groups, and as soon as a deal comes that shows a contact nobody of its group is, all are asked one by one.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

from dialog_assets.bitrix24.client import Answer, Bitrix24Client, Patience, not_run
from dialog_assets.bitrix24.errors import (
    Bitrix24AccessError,
    Bitrix24DataError,
    Bitrix24Error,
    Bitrix24RequestError,
    RowError,
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
from dialog_assets.bitrix24.side_by_side import Gate, Job, streamed
from dialog_assets.bitrix24.wire import Fields, id_of, rows_of

OWNERS = 200
"""Owners in a group. PHP reads no more than 1,000 parameters of a command; a group's last page is half empty."""

SINGLE_OWNERS = 500
"""Up to so many contacts are asked one by one: ten requests, and no deal's further contact is missed."""

Rows = list[Any]

log = logging.getLogger("dialog_assets")


class _OwnersUntoldError(Exception):
    """A row does not say whose of a group it is."""


@dataclass
class _Group:
    """Owners asked together, and how far their deals are read: `need` more pages, as far as is known.

    `patience` and `failures` are those of the next page.
    """

    owners: list[int]
    patience: Patience
    after: int = 0
    need: int = 1
    failures: int = 0
    counted: bool = False


_Batch = list[tuple[_Group, int]]
"""Groups and how many of their pages one request asks for."""

_Outcomes = dict[str, Answer | Bitrix24Error]


class Deals:
    """The deals of contacts, leads or companies: read `pages` to its end, then `by_owner` tells whose they are.

    `by_owner` has every asked id, with the ids of its deals ascending. Rows are not kept: only ids, and what was read last,
    but for the rows without a readable ID, which are in `nameless` by owner and not in `pages`. A row whose owner cannot be
    read belongs to who asked for it.
    """

    def __init__(
        self, client: Bitrix24Client, kind: CrmKind, owners: Iterable[int], *, family: CrmFamily = "classic"
    ) -> None:
        self._client = client
        self._kind = kind
        self._family = family
        self._method = list_method("deal", family)
        self._field = owner_field(kind, family)
        self._given: set[int] = set()
        self._stranger: tuple[int, int] | None = None
        self.by_owner: dict[int, list[int]] = {owner: [] for owner in owners}
        self.nameless: dict[int, list[Any]] = {}

    async def pages(self) -> AsyncGenerator[Rows]:
        """Rows of deals as they arrive, each deal once, at most 2,500 in a list.

        Raises Bitrix24DataError when a deal comes that belongs to none of those asked: then the portal dropped the
        filter. Close the iterator (contextlib.aclosing) when leaving it early.
        """
        single = (self._kind, self._family) == ("contact", "classic") and len(self.by_owner) <= SINGLE_OWNERS
        try:
            async with aclosing(self._read(1 if single else OWNERS)) as pages:
                async for page in pages:
                    yield page
        except _OwnersUntoldError:
            log.info("%s: deals do not tell all their owners; asking for each owner's", self._method)
            self.by_owner = {owner: [] for owner in self.by_owner}
            self.nameless = {}
            async with aclosing(self._read(1)) as pages:
                async for page in pages:
                    yield page

    async def _read(self, size: int) -> AsyncGenerator[Rows]:
        """The deals of groups of `size` owners. Raises _OwnersUntoldError for groups of more than one."""
        pending = [_Group(some, self._client.patience()) for some in chunks(self.by_owner, size)]
        proved = False
        while pending:
            failures: list[Bitrix24Error] = []
            async with aclosing(streamed(self._jobs(pending))) as results:
                async for batch, outcomes in results:
                    page: dict[int, Any] = {}
                    for number, (group, pages) in enumerate(batch):
                        answers = [outcomes.pop(_key(number, place), None) for place in range(pages)]
                        failure = self._take(group, answers, page)
                        failures += self._counted(group, failure)
                        del answers
                    if self._stranger is not None and not proved:
                        await self._prove(*self._stranger)
                        proved = True
                    if page:
                        self._given.update(page)
                        yield list(page.values())
                    del page
            pending = [group for group in pending if group.need]
            if failures:
                await self._client.rest(failures[0], max(group.failures for group in pending))

    def _jobs(self, groups: Sequence[_Group]) -> Callable[[int], Job[tuple[_Batch, _Outcomes]] | None]:
        batches = iter(_packed(groups))

        async def read(batch: _Batch, gate: Gate) -> tuple[_Batch, _Outcomes]:
            return batch, await self._client.linked(self._commands(batch), batch[0][0].patience, before_body=gate)

        def next_job(_: int) -> Job[tuple[_Batch, _Outcomes]] | None:
            batch = next(batches, None)
            return None if batch is None else partial(read, batch)

        return next_job

    def _commands(self, batch: _Batch) -> dict[str, Command]:
        commands: dict[str, Command] = {}
        for number, (group, pages) in enumerate(batch):
            for place in range(pages):
                after: int | str = last_id_link(_key(number, place - 1), self._family) if place else group.after
                # Counting is worth it where it tells how many linked pages the next request can hold.
                counts = not group.counted and (len(group.owners) > 1 or group.after > 0)
                commands[_key(number, place)] = list_command(
                    "deal",
                    self._family,
                    owner_filter(self._kind, self._family, group.owners),
                    after=after,
                    start=0 if counts else -1,
                )
        return commands

    def _counted(self, group: _Group, failure: Bitrix24Error | None) -> list[Bitrix24Error]:
        """The failure, if it is one of few that may pass; else it is raised."""
        if failure is None or is_operating(failure):
            # A blocked method is waited for by whoever asks it next.
            return []
        group.failures += 1
        if not failure.retryable or group.failures >= self._client.attempts:
            raise failure
        return [failure]

    def _take(
        self, group: _Group, outcomes: Sequence[Answer | Bitrix24Error | None], page: dict[int, Any]
    ) -> Bitrix24Error | None:
        """Add to `page` up to the first short or failed answer; what follows it ran with a broken link."""
        for place, outcome in enumerate(outcomes):
            if isinstance(outcome, Bitrix24Error):
                return outcome
            if outcome is None:
                return None if place else not_run(self._method)
            rows = rows_of(self._method, outcome.result)
            ids = [one for row in rows if (one := id_of(row)) is not None]
            if not all(low < high for low, high in zip([group.after, *ids], ids, strict=False)):
                if place:
                    # A link that this portal does not follow: the page is asked for by its number next time.
                    return None
                raise self._dropped(f"deal {ids[0]}", group.owners)
            if not self._add(group, rows, outcome.total, page):
                return None
        return None

    def _add(self, group: _Group, rows: Sequence[Any], total: int | None, page: dict[int, Any]) -> bool:
        """Take a page of the group over; whether the page after it, asked by a link, can be one of the group's too."""
        ids = [id_of(row) for row in rows]
        named = [one for one in ids if one is not None]
        full = len(rows) >= PAGE
        if full and not named:
            raise RowError(self._method, "ID", "a whole number")
        # A full page's rows behind its last readable id come again with what follows that id; no link leads there.
        count = ids.index(named[-1]) + 1 if full else len(rows)
        for deal, row in zip(ids[:count], rows[:count], strict=True):
            self._note(group, deal, row, page)
        group.failures, group.patience = 0, self._client.patience()
        if not full:
            group.need = 0
            return False
        group.after = named[-1]
        if count < len(rows):
            return False
        if group.counted:
            group.need -= 1
        elif total:
            group.counted = True
            group.need = ceil(max(0, total - PAGE) / PAGE)
        return group.need > 0

    def _note(self, group: _Group, deal: int | None, row: Any, page: dict[int, Any]) -> None:
        """Write down whose deal it is; one that was not given before goes into `page`."""
        for owner in self._owners_in(group, deal, row):
            if deal is None:
                self.nameless.setdefault(owner, []).append(row)
            else:
                self.by_owner[owner].append(deal)
        if deal is not None and deal not in self._given:
            page[deal] = row

    def _owners_in(self, group: _Group, deal: int | None, row: Any) -> Iterable[int]:
        """Those of the group whose deal it is. Raises when it is nobody's, or does not tell whose it is."""
        told = self._told(row)
        if len(group.owners) > 1:
            if found := told.intersection(group.owners):
                return found
            if not told or self._shows_first_only(row):
                raise _OwnersUntoldError
            raise self._dropped(f"deal {deal or 'without a readable ID'}", group.owners)
        if told and group.owners[0] not in told:
            if not self._shows_first_only(row):
                raise self._dropped(f"deal {deal or 'without a readable ID'}", group.owners)
            if deal is not None:
                self._stranger = (deal, group.owners[0])
        return group.owners

    def _told(self, row: object) -> set[int]:
        """The owners that the row names; none where they cannot be read."""
        try:
            fields = Fields(self._method, row)
            if self._kind == "contact" and isinstance(fields.row.get("contactIds"), list):
                return set(fields.numbers("contactIds"))
            owner = fields.reference(self._field)
        except RowError:
            return set()
        return set() if owner is None else {owner}

    def _shows_first_only(self, row: object) -> bool:
        many = row.get("contactIds") if isinstance(row, dict) else None
        return self._kind == "contact" and not isinstance(many, list)

    async def _prove(self, deal: int, contact: int) -> None:
        """Ask for all contacts of one deal that shows another contact than the asked one."""
        method = "crm.deal.contact.items.get"
        try:
            answer = await self._client.call(method, {"id": deal})
            contacts = {Fields(method, row).number("CONTACT_ID") for row in rows_of(method, answer.result)}
        except (Bitrix24AccessError, Bitrix24RequestError, RowError) as error:
            log.info("%s cannot tell the contacts of deal %d: %s", method, deal, error.code)
            return
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


def _key(group: int, page: int) -> str:
    return f"g{group}p{page}"


def _packed(groups: Sequence[_Group]) -> list[_Batch]:
    """The groups' next pages in as few batches as first-fit finds; linked pages stay in one batch."""
    batches: list[_Batch] = []
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
