"""What the pipeline reads from a portal: calls of a window, users, CRM objects, their deals, files of the Disk.

Here: which methods with which parameters, and the proof that the answer is the one asked for. Not here: what the rows mean
(rows.py), the transport (client.py), the bytes of a recording (downloads.py).
Bitrix24 drops filters that it does not know without a word (facts/bitrix24.md 3.1), so every reader checks what comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dialog_assets.bitrix24.client import Answer, Bitrix24Client
from dialog_assets.bitrix24.errors import (
    Bitrix24AccessError,
    Bitrix24DataError,
    Bitrix24Error,
    Bitrix24RequestError,
    RecordingUnavailableError,
)
from dialog_assets.bitrix24.history import calls
from dialog_assets.bitrix24.paging import COMMANDS, PAGE, Command, chunks
from dialog_assets.bitrix24.rows import CrmKind, DiskFile, EntityType, disk_file
from dialog_assets.bitrix24.wire import Fields, rows_of

__all__ = ["DiskFile", "calls", "crm", "deals", "files", "users"]


async def users(client: Bitrix24Client, ids: Iterable[int]) -> dict[int, dict[str, Any]]:
    """Rows of user.get by id, dismissed users included; ids that the portal does not show are absent (section 6)."""

    def command(some: list[int]) -> Command:
        return "user.get", {"FILTER": {"ID": some}, "sort": "ID", "order": "ASC", "start": -1}

    return await _by_id(client, command, ids)


async def crm(client: Bitrix24Client, kind: EntityType, ids: Iterable[int]) -> dict[int, dict[str, Any]]:
    """Rows of crm.{kind}.list by id, own fields, phones and e-mails included; missing ids are absent (section 5.3)."""

    def command(some: list[int]) -> Command:
        return f"crm.{kind}.list", {
            "filter": {"@ID": some},
            "select": ["*", "UF_*", "PHONE", "EMAIL"],
            "order": {"ID": "ASC"},
            "start": -1,
        }

    return await _by_id(client, command, ids)


async def deals(client: Bitrix24Client, kind: CrmKind, ids: Iterable[int]) -> dict[int, list[dict[str, Any]]]:
    """Rows of crm.deal.list by the contact, lead or company that they belong to, all pages, by id (section 5.3).

    Every asked id is a key. One command an entity, because a deal of several contacts shows only its first one.
    """
    readers = {str(entity): _Deals(kind, entity) for entity in dict.fromkeys(ids)}
    open_readers = dict(readers)
    while open_readers:
        outcomes = await client.batch({key: reader.command() for key, reader in open_readers.items()})
        for key, outcome in outcomes.items():
            if not open_readers[key].take(_answer(outcome)):
                del open_readers[key]
    return {reader.entity: list(reader.rows.values()) for reader in readers.values()}


async def files(client: Bitrix24Client, ids: Iterable[int]) -> dict[int, DiskFile | Bitrix24Error]:
    """The Disk's files by id, each with a fresh download URL, or the reason why that one cannot be had (section 4.2).

    Raises Bitrix24AccessError when the credential may not use disk.file.get at all.
    """
    wanted = dict.fromkeys(ids)
    outcomes = await client.batch({str(file_id): ("disk.file.get", {"id": file_id}) for file_id in wanted})
    return {file_id: _file(file_id, outcomes[str(file_id)]) for file_id in wanted}


def _file(file_id: int, outcome: Answer | Bitrix24Error) -> DiskFile | Bitrix24Error:
    if isinstance(outcome, Bitrix24Error):
        if outcome.code.upper() == "ACCESS_DENIED" or (outcome.code == "" and isinstance(outcome, Bitrix24AccessError)):
            return RecordingUnavailableError("refused", file_id, description=outcome.code)
        if isinstance(outcome, Bitrix24AccessError):
            raise outcome
        if isinstance(outcome, Bitrix24RequestError) and (
            "NOT_FOUND" in outcome.code.upper() or "not found" in outcome.description.lower()
        ):
            return RecordingUnavailableError("gone", file_id, description=outcome.code)
        return outcome
    try:
        file = disk_file(outcome.result)
    except Bitrix24Error as error:
        return error
    if file.id != file_id:
        return Bitrix24DataError(
            "other_file", method="disk.file.get", description=f"asked for {file_id}, got {file.id}"
        )
    return file


def _answer(outcome: Answer | Bitrix24Error) -> Answer:
    if isinstance(outcome, Bitrix24Error):
        raise outcome
    return outcome


async def _by_id(
    client: Bitrix24Client, command: Callable[[list[int]], Command], ids: Iterable[int]
) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    asked = {f"ids{number}": some for number, some in enumerate(chunks(dict.fromkeys(ids), PAGE))}
    for keys in chunks(asked, COMMANDS):
        commands: dict[str, Command] = {key: command(asked[key]) for key in keys}
        for key, outcome in (await client.batch(commands)).items():
            method = commands[key][0]
            for row in rows_of(method, _answer(outcome).result):
                row_id = Fields(method, row).id
                if row_id not in asked[key]:
                    raise Bitrix24DataError(
                        "filter_dropped",
                        method=method,
                        description=f"row {row_id} was not asked for",
                        advice="the portal ignored the filter by id; nothing of this answer is used",
                    )
                found[row_id] = row
    return found


@dataclass
class _Deals:
    """The paging state of one entity's deals."""

    kind: CrmKind
    entity: int
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    after: int = 0
    start: int = -1

    def command(self) -> Command:
        return "crm.deal.list", {
            "filter": {f"{self.kind.upper()}_ID": self.entity, ">ID": self.after},
            "select": ["*", "UF_*"],
            "order": {"ID": "ASC"},
            "start": self.start,
        }

    def take(self, answer: Answer) -> bool:
        """Add a page; whether another one may follow."""
        page = {Fields("crm.deal.list", row).id: row for row in rows_of("crm.deal.list", answer.result)}
        for deal, row in page.items():
            if deal <= self.after or not self._owned(row):
                raise Bitrix24DataError(
                    "filter_dropped",
                    method="crm.deal.list",
                    description=f"deal {deal} does not fit the filter by {self.kind} {self.entity}",
                    advice="the portal ignored the filter; nothing of this answer is used",
                )
        self.rows |= page
        if answer.next is not None:
            # This portal counts although asked not to: its offsets lead on under the same filter.
            if answer.next <= self.start:
                raise Bitrix24DataError(
                    "no_progress", method="crm.deal.list", description="the next page is an earlier one"
                )
            self.start = answer.next
            return True
        if self.start > 0 or len(page) < PAGE:
            return False
        self.after = max(page)
        return True

    def _owned(self, row: Mapping[str, Any]) -> bool:
        # A contact's deal may show another contact, its first one; a company and a lead are single.
        name = f"{self.kind.upper()}_ID"
        return self.kind == "contact" or name not in row or Fields("crm.deal.list", row).number(name) == self.entity
