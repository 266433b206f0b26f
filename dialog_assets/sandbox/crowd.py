"""Portals as large as a benchmark needs: generated calls, contacts with deals, recordings, the same for a seed each time.

Here: `crowd_portal` and `crowd_world`. Nobody in it exists: people are «Пример Вымышленный», phones begin with +7 001,
a code that no one has. A row is made when it is asked for, as JSON at once; only ids and times are kept (about 16 MB
for 500,000 calls). Not here: the written world with its dialogs (world/), changes (bitrix24_events.py).
"""

from __future__ import annotations

import json
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

from dialog_assets.sandbox.bitrix24_rows import Row, Select, row_text
from dialog_assets.sandbox.generated import MadeRecording
from dialog_assets.sandbox.world import rows
from dialog_assets.sandbox.world.model import Call, Recording, SandboxPortal, World

FIRST_FILE = 1_000_000
FIRST_ACTIVITY = 10_000_000
USERS = 40
_OFFSET = "+03:00"
_QUARTER = 900
_RECORD_DELAY = 40
_MASK = 0xFFFFFFFFFFFFFFFF


class _Template:
    """Rows of one kind: an example row whose varying parts are `%(name)s`, as JSON formats by selection.

    `%(!name)s!` as the whole of a string stands for a JSON value that is not a string.
    """

    def __init__(self, example: Row) -> None:
        self._example = example
        self._formats: dict[Select | None, str] = {}

    @property
    def fields(self) -> frozenset[str]:
        return frozenset(self._example)

    def format(self, select: Select | None) -> str:
        """The selected part as a %-format with names."""
        if select not in self._formats:
            row = self._example if select is None else select.of(self._example)
            self._formats[select] = row_text(row).replace('"%(!', "%(").replace(')s!"', ")s")
        return self._formats[select]

    def positional(self) -> str:
        """The whole as a %-format that takes values in the order of the names."""
        return re.sub(r"%\(\w+\)s", "%s", self.format(None))


class _CrowdRows:
    """What generated tables have in common: text first, everything else from it."""

    def __init__(self, template: _Template, ids: array[int]) -> None:
        self._template = template
        self._ids = ids

    @property
    def fields(self) -> frozenset[str]:
        """Every field that some row has."""
        return self._template.fields

    def ids(self) -> array[int]:
        """Ascending."""
        return self._ids

    def row(self, number: int) -> Row:
        """One row as the wire has it; KeyError if there is none."""
        if not self._known(number):
            raise KeyError(number)
        row: Row = json.loads(self.text(number, None))
        return row

    def text(self, number: int, select: Select | None) -> str:
        """The selected part of one row as JSON."""
        raise NotImplementedError

    def column(self, field: str) -> Iterable[tuple[int, Any]]:
        """Id and one field of every row."""
        return ((number, self.row(number).get(field)) for number in self._ids)

    def _known(self, number: int) -> bool:
        place = bisect_left(self._ids, number)
        return place < len(self._ids) and self._ids[place] == number


class _CrowdMapping(_CrowdRows, Mapping[int, Row]):
    """A CRM table by id."""

    def moments(self) -> array[float]:
        """None: CRM rows are not found by time."""
        return array("d")

    def text(self, number: int, select: Select | None) -> str:
        """The selected part of one row as JSON."""
        return self._template.format(select) % self._values(number)

    def _values(self, number: int) -> dict[str, Any]:
        raise NotImplementedError

    def __getitem__(self, number: int) -> Row:
        return self.row(number)

    def __iter__(self) -> Iterator[int]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)


class CrowdContacts(_CrowdMapping):
    """Contacts 1 to `count`, each with a phone of its own."""

    def __init__(self, count: int) -> None:
        example = rows.contact(
            {
                "id": "%(id)s",
                "name": "Пример",
                "last_name": "Вымышленный-%(id)s",
                "phones": ["+700%(phone)s"],
                "responsible": "%(user)s",
            },
            _OFFSET,
        )
        super().__init__(_Template(example), array("q", range(1, count + 1)))

    def linked(self, field: str, value: int) -> Iterable[int]:  # noqa: ARG002 - the interface of Rows
        """Nothing: these contacts belong to no company or lead."""
        return ()

    def _values(self, number: int) -> dict[str, Any]:
        return {"id": number, "phone": 10_000_000 + number, "user": 1 + number % USERS}


class CrowdDeals(_CrowdMapping):
    """`each` deals of every contact but each tenth one, which has none; ids follow the contacts'."""

    def __init__(self, contacts: int, each: int) -> None:
        example = rows.deal(
            {
                "id": "%(id)s",
                "title": "Сделка %(id)s (вымышленная)",
                "amount": "%(amount)s",
                "responsible": "%(user)s",
                "contact": "%(contact)s",
            },
            _OFFSET,
        )
        self._each = each
        ids = (
            self._first(contact) + place for contact in range(1, contacts + 1) for place in range(self._has(contact))
        )
        super().__init__(_Template(example), array("q", ids))

    def linked(self, field: str, value: int) -> Iterable[int]:
        """By CONTACT_ID."""
        if field != "CONTACT_ID" or value < 1:
            return ()
        first = self._first(value)
        return (number for number in range(first, first + self._has(value)) if self._known(number))

    def _has(self, contact: int) -> int:
        return 0 if contact % 10 == 0 else self._each

    def _first(self, contact: int) -> int:
        return (contact - 1) * self._each + 1

    def _values(self, number: int) -> dict[str, Any]:
        contact = (number - 1) // self._each + 1 if self._each else 0
        return {
            "id": number,
            "contact": contact,
            "user": 1 + contact % USERS,
            "amount": f"{1000 + number % 90_000}.00",
        }


class CrowdCalls(_CrowdRows, Sequence[Call]):
    """Calls in the order of their ids; ids have gaps of up to `gap` - 1, starts go up to ten minutes against that order.

    A row is written when the call ends and its id given then, so ids and starts are nearly, not quite, in one order.
    """

    def __init__(
        self, portal: str, zone: ZoneInfo, first: datetime, days: float, count: int, contacts: int, recordings: int,
        recording_size: int, gap: int, seed: int,
    ) -> None:  # fmt: skip
        self._portal = portal
        self._zone = zone
        self._contacts = contacts
        self._gap = gap
        self._seed = seed * 0xD1342543DE82EF95 + 0x2545F4914F6CDD1D
        self._step = max(1, count // recordings) if recordings else 0
        self._recordings = min(recordings, count)
        self._size = recording_size
        self._quarters: dict[int, tuple[str, int, str]] = {}
        begin, width = first.timestamp(), days * 86_400 / max(1, count)
        self._starts = array(
            "d",
            (
                int(begin + place * width) + self._mix(place) % max(1, min(600, int(width * 20)))
                for place in range(count)
            ),
        )
        ids = (1 + place * gap + (self._mix(place) >> 40) % gap for place in range(count))
        template = _Template(_CALL)
        self._format = template.positional()
        super().__init__(template, array("q", ids))

    def moments(self) -> array[float]:
        """The calls' starts."""
        return self._starts

    def linked(self, field: str, value: int) -> Iterable[int]:  # noqa: ARG002 - the interface of Rows
        """Nothing: no field of calls is indexed."""
        return ()

    def column(self, field: str) -> Iterable[tuple[int, Any]]:
        """Id and one field of every row."""
        if field == "CRM_ACTIVITY_ID":
            return ((n, FIRST_ACTIVITY + n if self._contact(place) else None) for place, n in enumerate(self._ids))
        return super().column(field)

    @cached_property
    def recordings(self) -> dict[int, Recording]:
        """The recordings by Disk object id: spread evenly over the calls."""
        return {
            FIRST_FILE + number: MadeRecording.of(
                FIRST_FILE + number, self._size, self._start(number * self._step) + timedelta(seconds=_RECORD_DELAY)
            )
            for number in range(self._recordings)
        }

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        number = self._ids[place]
        file = self._file(place % len(self))
        recording = self.recordings[file] if file is not None else None
        return Call(number, self._start(place), self.row(number), recording)

    def _start(self, place: int) -> datetime:
        return datetime.fromtimestamp(self._starts[place], self._zone)

    def _file(self, place: int) -> int | None:
        if not self._step or place % self._step or place // self._step >= self._recordings:
            return None
        return FIRST_FILE + place // self._step

    def _contact(self, place: int) -> int:
        """Every fifth call is from nobody known."""
        mixed = self._mix(place)
        return 1 + (mixed >> 8) % self._contacts if self._contacts and mixed % 5 else 0

    def _mix(self, place: int) -> int:
        mixed = (place * 0x9E3779B97F4A7C15 + self._seed) & _MASK
        return ((mixed ^ (mixed >> 31)) * 0xBF58476D1CE4E5B9 & _MASK) >> 7

    def _iso(self, moment: int) -> str:
        """ISO 8601 in the portal's zone, without asking for the zone each time: offsets change by the quarter hour."""
        quarter, left = divmod(moment, _QUARTER)
        known = self._quarters.get(quarter)
        if known is None:
            local = datetime.fromtimestamp(quarter * _QUARTER, self._zone)
            known = self._quarters[quarter] = (f"{local:%Y-%m-%dT%H}", local.minute, local.isoformat()[19:])
        minute, second = divmod(left, 60)
        return f"{known[0]}:{known[1] + minute:02d}:{second:02d}{known[2]}"

    def text(self, number: int, select: Select | None) -> str:  # noqa: ARG002 - the interface of Rows
        """One call as JSON. The whole row always: the statistics have no select."""
        place = (number - 1) // self._gap
        mixed = (place * 0x9E3779B97F4A7C15 + self._seed) & _MASK
        mixed = ((mixed ^ (mixed >> 31)) * 0xBF58476D1CE4E5B9 & _MASK) >> 7  # as _mix, which costs a call
        contact = 1 + (mixed >> 8) % self._contacts if self._contacts and mixed % 5 else 0
        start = int(self._starts[place])
        file = self._file(place) if self._step and place % self._step == 0 else None
        missed = file is None and mixed % 7 == 0
        return self._format % (
            number,
            1 + mixed % USERS,
            10_000_000 + contact if contact else 19_000_000 + mixed % 1_000_000,
            mixed,
            start,
            0 if missed else 5 + mixed % 595,
            self._iso(start),
            "304" if missed else "200",
            "Call missed" if missed else "",
            '"CONTACT"' if contact else "null",
            f'"{contact}"' if contact else "null",
            f'"{FIRST_ACTIVITY + number}"' if contact else "null",
            "null" if file is None else file,
            1 + mixed % 2,
        )


_CALL: Row = {
    "ID": "%(id)s",
    "PORTAL_USER_ID": "%(user)s",
    "PORTAL_NUMBER": "3",
    "PHONE_NUMBER": "+700%(phone)s",
    "CALL_ID": "externalCall.5a4db0c5%(hash)s.%(stamp)s",
    "EXTERNAL_CALL_ID": None,
    "CALL_CATEGORY": "external",
    "CALL_LOG": None,
    "CALL_DURATION": "%(seconds)s",
    "CALL_START_DATE": "%(start)s",
    "CALL_RECORD_URL": None,
    "CALL_VOTE": None,
    "COST": "0.0000",
    "COST_CURRENCY": "",
    "CALL_FAILED_CODE": "%(code)s",
    "CALL_FAILED_REASON": "%(reason)s",
    "CRM_ENTITY_TYPE": "%(!entity_type)s!",
    "CRM_ENTITY_ID": "%(!entity)s!",
    "CRM_ACTIVITY_ID": "%(!activity)s!",
    "REST_APP_ID": "3",
    "REST_APP_NAME": "Example PBX",
    "TRANSCRIPT_ID": None,
    "TRANSCRIPT_PENDING": "N",
    "SESSION_ID": None,
    "REDIAL_ATTEMPT": None,
    "COMMENT": None,
    "RECORD_DURATION": None,
    "RECORD_FILE_ID": "%(!file)s!",
    "CALL_TYPE": "%(type)s",
}


def crowd_portal(
    calls: int = 500_000,
    *,
    contacts: int = 10_000,
    deals_each: int = 2,
    users: int = USERS,
    recordings: int = 500,
    recording_size: int = 120_000,
    days: float = 365,
    first: datetime | None = None,
    gap: int = 1,
    seed: int = 0,
    portal: str = "crowd",
    time_zone: str = "Europe/Moscow",
) -> SandboxPortal:
    """A portal with `calls` calls over `days` from `first` (2025-03-01 in its time zone).

    The webhook is user 1 with the secret "{portal}-secret", named in {PORTAL}_WEBHOOK. `gap` 3 leaves two ids of three
    unused, `recording_size` is in bytes. Of the `users` the first USERS make the calls.
    """
    zone = ZoneInfo(time_zone)
    begin = first or datetime(2025, 3, 1, tzinfo=zone)
    people = {
        number: rows.user(
            {
                "id": number,
                "name": "Сотрудник",
                "last_name": f"Вымышленный-{number}",
                "email": f"user{number}@{portal}.example",
                "position": "Оператор",
                "department": 1 + number % 3,
            },
            _OFFSET,
        )
        for number in range(1, users + 1)
    }
    return SandboxPortal(
        portal=portal,
        webhook_user=1,
        webhook_secret=f"{portal}-secret",
        time_zone=time_zone,
        users=people,
        contacts=CrowdContacts(contacts),
        leads={},
        companies={},
        deals=CrowdDeals(contacts, deals_each),
        calls=CrowdCalls(portal, zone, begin, days, calls, contacts, recordings, recording_size, gap, seed),
        webhook_env=f"{portal.upper()}_WEBHOOK",
    )


def crowd_world(calls: int = 500_000, **options: Any) -> World:
    """A world of one such portal; options as `crowd_portal` takes them."""
    portal = crowd_portal(calls, **options)
    return World({portal.portal: portal})
