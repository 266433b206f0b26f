"""Rows of Bitrix24 as typed values, and the pure functions that read them (facts/bitrix24.md 3.2, 4.2, 5.2, 6).

Here: what a row means. Not here: fetching (reading.py), reading a single value (wire.py), tables (store/).
Each value keeps its whole row as `raw`, so a field that is unknown here is not lost. Fields with people's data stay out of
the repr. A row that cannot be read raises RowError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from dialog_assets.bitrix24.errors import RecordingUnavailableError, RowError
from dialog_assets.bitrix24.wire import Fields

CrmKind = Literal["contact", "lead", "company"]
EntityType = Literal["contact", "lead", "company", "deal"]
Direction = Literal["outgoing", "incoming", "redirected", "callback", "info", "unknown"]

_DIRECTIONS: dict[int | None, Direction] = {
    1: "outgoing",
    2: "incoming",
    3: "redirected",
    4: "callback",
    5: "info",
}

_WORD = 100
"""Characters of a code such as CRM_ENTITY_TYPE; what is looked up by it has no place for a novel."""


@dataclass(frozen=True, slots=True)
class CallRow:
    """A call of voximplant.statistic.get; durations in seconds, `entity_type` and `entity_id` are both there or both None."""

    call_id: int
    vendor_call_id: str | None
    started_at: datetime
    duration_s: int
    direction: Direction
    user_id: int | None
    phone: str | None = field(repr=False)
    line: str | None
    failed_code: str | None
    entity_type: str | None
    entity_id: int | None
    activity_id: int | None
    record_file_id: int | None
    record_url: str | None = field(repr=False)
    record_duration_s: int | None
    vote: int | None
    cost: Decimal
    cost_currency: str | None
    raw: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class UserRow:
    """An employee of user.get; `phone` is the first of work, mobile and extension."""

    user_id: int
    name: str = field(repr=False)
    email: str | None = field(repr=False)
    phone: str | None = field(repr=False)
    departments: list[int]
    position: str | None
    active: bool
    raw: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class EntityRow:
    """A contact, lead, company or deal of either crm family; `stage` and `amount` only where the kind has them."""

    entity_type: EntityType
    entity_id: int
    title: str = field(repr=False)
    phones: list[str] = field(repr=False)
    stage: str | None
    amount: Decimal | None
    currency: str | None
    responsible_id: int | None
    raw: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class DiskFile:
    """A file on the portal's Disk; `size` in bytes. `download_url` is a secret made for one use: do not store it."""

    id: int
    name: str = field(repr=False)
    size: int
    download_url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ActivityFile:
    """A file of a CRM activity; `url` is a secret: the token of an application stands in it."""

    id: int
    url: str = field(repr=False)


def call_row(row: Mapping[str, Any]) -> CallRow:
    """Read one row of voximplant.statistic.get."""
    fields = Fields("voximplant.statistic.get", row)
    entity_type, entity_id = fields.text("CRM_ENTITY_TYPE", longest=_WORD), fields.reference("CRM_ENTITY_ID")
    linked = entity_type is not None and entity_id is not None
    return CallRow(
        call_id=fields.id,
        vendor_call_id=fields.text("CALL_ID"),
        started_at=fields.moment("CALL_START_DATE"),
        duration_s=fields.number("CALL_DURATION", bits=32) or 0,
        direction=_DIRECTIONS.get(fields.number("CALL_TYPE"), "unknown"),
        user_id=fields.reference("PORTAL_USER_ID"),
        phone=fields.text("PHONE_NUMBER"),
        line=fields.text("PORTAL_NUMBER"),
        failed_code=fields.text("CALL_FAILED_CODE"),
        entity_type=entity_type.lower() if entity_type and linked else None,
        entity_id=entity_id if linked else None,
        activity_id=fields.reference("CRM_ACTIVITY_ID"),
        record_file_id=fields.reference("RECORD_FILE_ID"),
        record_url=fields.text("CALL_RECORD_URL"),
        record_duration_s=fields.number("RECORD_DURATION", bits=32),
        vote=fields.reference("CALL_VOTE", bits=32),
        cost=fields.decimal("COST") or Decimal(0),
        cost_currency=fields.text("COST_CURRENCY"),
        raw=fields.row,
    )


def readable_part(row: Mapping[str, Any]) -> tuple[CallRow, list[RowError]]:
    """What can be read of a row of voximplant.statistic.get: a field that cannot be read counts as empty, and is told.

    Raises RowError for a row whose ID or CALL_START_DATE cannot be read: such a call has no place anywhere.
    """
    told: dict[str, RowError] = {}
    fields = row
    while True:
        try:
            return replace(call_row(fields), raw=dict(row)), list(told.values())
        except RowError as error:
            if not isinstance(row, Mapping) or error.field in told:
                raise told.get(error.field, error) from None
            told[error.field] = error
            fields = {**fields, error.field: None}


def user_row(row: Mapping[str, Any]) -> UserRow:
    """Read one row of user.get."""
    fields = Fields("user.get", row)
    phones = (fields.text(name) for name in ("WORK_PHONE", "PERSONAL_MOBILE", "UF_PHONE_INNER"))
    return UserRow(
        user_id=fields.id,
        name=_joined(fields, "NAME", "LAST_NAME"),
        email=fields.text("EMAIL"),
        phone=next((phone for phone in phones if phone), None),
        departments=fields.numbers("UF_DEPARTMENT"),
        position=fields.text("WORK_POSITION"),
        active=fields.flag("ACTIVE", default=True),
        raw=fields.row,
    )


def entity_row(entity_type: EntityType, row: Mapping[str, Any]) -> EntityRow:
    """Read one row of crm.{entity_type}.list or .get, or an item of crm.item.list or .get."""
    universal = isinstance(row, Mapping) and "id" in row
    return _item_row(entity_type, row) if universal else _classic_row(entity_type, row)


def _classic_row(entity_type: EntityType, row: Mapping[str, Any]) -> EntityRow:
    fields = Fields(f"crm.{entity_type}.list", row)
    person = _joined(fields, "NAME", "SECOND_NAME", "LAST_NAME")
    title = person if entity_type == "contact" else fields.text("TITLE") or person
    stage = {"lead": "STATUS_ID", "deal": "STAGE_ID"}.get(entity_type)
    return EntityRow(
        entity_type=entity_type,
        entity_id=fields.id,
        title=title,
        phones=fields.multifield("PHONE"),
        stage=fields.text(stage) if stage else None,
        amount=fields.decimal("OPPORTUNITY") if stage else None,
        currency=fields.text("CURRENCY_ID"),
        responsible_id=fields.reference("ASSIGNED_BY_ID"),
        raw=fields.row,
    )


def _item_row(entity_type: EntityType, row: Mapping[str, Any]) -> EntityRow:
    fields = Fields("crm.item.list", row)
    person = _joined(fields, "name", "secondName", "lastName")
    has_stage = entity_type in ("lead", "deal")
    return EntityRow(
        entity_type=entity_type,
        entity_id=fields.id,
        title=person if entity_type == "contact" else fields.text("title") or person,
        phones=fields.typed("fm", "PHONE"),
        stage=fields.text("stageId") if has_stage else None,
        amount=fields.decimal("opportunity") if has_stage else None,
        currency=fields.text("currencyId"),
        responsible_id=fields.reference("assignedById"),
        raw=fields.row,
    )


def disk_file(row: Mapping[str, Any]) -> DiskFile:
    """Read the result of disk.file.get; raises RecordingUnavailableError (gone) for a file in the trash."""
    fields = Fields("disk.file.get", row)
    if fields.reference("DELETED_TYPE"):
        raise RecordingUnavailableError("gone", f"{fields.id} of the Disk", description="it is in the trash")
    size, url = fields.number("SIZE"), fields.text("DOWNLOAD_URL")
    if size is None or size < 0:
        raise fields.unreadable("SIZE", "a number of bytes")
    if url is None:
        raise fields.unreadable("DOWNLOAD_URL", "a URL")
    return DiskFile(fields.id, fields.text("NAME") or "", size, url)


def activity_files(row: Mapping[str, Any]) -> list[ActivityFile]:
    """FILES of a row of crm.activity.list; entries without a link are left out (section 4.5)."""
    entries = row.get("FILES") or []
    if isinstance(entries, Mapping):
        entries = list(entries.values())
    found = []
    for entry in entries if isinstance(entries, list) else []:
        fields = Fields("crm.activity.list", entry)
        if (url := fields.text("url")) is not None:
            found.append(ActivityFile(fields.id, url))
    return found


def _joined(fields: Fields, *names: str) -> str:
    return " ".join(text for name in names if (text := fields.text(name)))
