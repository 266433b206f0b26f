"""The three ways to a call's recording, in order of preference: the Disk, the call's activity, the provider's own copy.

Here: which way is open for which call, where each leads, and going on to the next when one is closed for good.
Not here: the bytes (downloads.py), outside hosts (outside.py). Source: facts/bitrix24.md 4.1, 4.2, 4.5.
A provider's link is read anew from the portal each time, because it is a credential that nobody stores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import parse_qs

from dialog_assets.bitrix24.client import Answer, Bitrix24Client
from dialog_assets.bitrix24.downloads import MAX_BYTES, TIMEOUT_S, Downloaded, Place, Way, download
from dialog_assets.bitrix24.errors import (
    Bitrix24AccessError,
    Bitrix24DataError,
    Bitrix24Error,
    Bitrix24RequestError,
    RecordingUnavailableError,
    RowError,
)
from dialog_assets.bitrix24.outside import OutsideHosts
from dialog_assets.bitrix24.paging import PAGE, chunks
from dialog_assets.bitrix24.rows import activity_files, disk_file
from dialog_assets.bitrix24.wire import id_of, rows_of

Found = Place | Bitrix24Error
"""Where a recording is, or why this way does not lead to it."""

_WAYS: Sequence[Way] = ("disk", "activity", "provider")

_CLOSED = ("gone", "refused", "elsewhere")
"""Reasons after which another way may still lead to the recording."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A call whose recording is wanted: its row's ID, and RECORD_FILE_ID and CRM_ACTIVITY_ID where it has them."""

    call_id: int
    file_id: int | None = None
    activity_id: int | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A recording that came: by which way, how many bytes, and whether it was told that it would be so many."""

    way: Way
    bytes: int
    told: bool = True


class Recordings:
    """Finds and fetches the recordings of one portal.

    `outside` names the hosts whose CALL_RECORD_URL may be used; without any the third way is closed. `max_bytes` and
    `timeout_s` bound one recording.
    """

    def __init__(
        self,
        client: Bitrix24Client,
        outside: OutsideHosts | None = None,
        *,
        max_bytes: int = MAX_BYTES,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._client = client
        self._outside = outside or OutsideHosts()
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def locate(self, wanted: Iterable[Wanted]) -> dict[int, Found]:
        """The first open way for each call, by call id: fifty calls cost one request, and one more for each further way.

        A failure of the asking itself is each call's. Raises Bitrix24AccessError when the credential is refused, or may not
        use the method of the only way that the portal's settings leave.
        """
        calls = {one.call_id: one for one in wanted}
        found: dict[int, Found] = {}
        for way in _WAYS:
            left = [one for one in calls.values() if _is_open(found.get(one.call_id))]
            for call_id, place in (await self._along(way, left)).items():
                # The first way's reason tells most; a later way's success tells all, and what may pass leaves hope.
                if call_id not in found or isinstance(place, Place) or place.retryable:
                    found[call_id] = place
        return {call_id: found.get(call_id) or _no_way(calls[call_id]) for call_id in calls}

    async def fetch(self, wanted: Wanted, found: Found, target: BinaryIO) -> Fetched:
        """Download from `found`, a fresh answer of `locate`; when that is gone or refused, by the ways that are left.

        Writes to `target` from its current position. Raises the first way's error when no way leads to the recording,
        and at once what is the portal's fault or the recording's own.
        """
        if isinstance(found, Bitrix24Error):
            raise found
        begin = target.tell()
        first: RecordingUnavailableError | None = None
        for way in _WAYS[_WAYS.index(found.way) :]:
            place = found if way == found.way else await self._one(wanted, way)
            if not isinstance(place, Place):
                if place is not None and place.retryable:
                    raise place
                continue
            try:
                came = await self._download(wanted, place, target)
                return Fetched(way, came.bytes, came.told)
            except RecordingUnavailableError as error:
                if error.reason not in _CLOSED:
                    raise
                first = first or error
            target.seek(begin)
            target.truncate()
        raise first or _no_way(wanted)

    async def _download(self, wanted: Wanted, place: Place, target: BinaryIO) -> Downloaded:
        async def again() -> Place:
            found = await self._one(wanted, place.way)
            if isinstance(found, Place):
                return found
            raise found or _no_way(wanted)

        return await download(
            self._client,
            place,
            target,
            outside=self._outside,
            again=again,
            max_bytes=self._max_bytes,
            timeout_s=self._timeout_s,
        )

    async def _one(self, wanted: Wanted, way: Way) -> Found | None:
        return (await self._along(way, [wanted])).get(wanted.call_id)

    async def _along(self, way: Way, wanted: Sequence[Wanted]) -> dict[int, Found]:
        """What `way` says of the calls for which it is open."""
        if way == "disk":
            ask, some = self._on_disk, [one for one in wanted if one.file_id is not None]
        elif way == "activity":
            ask, some = self._in_activities, [one for one in wanted if one.activity_id is not None]
        else:
            ask, some = self._at_provider, list(wanted)
        if not some or not self._is_allowed(way):
            return {}
        try:
            return await ask(some)
        except Bitrix24AccessError as error:
            return {one.call_id: self._refused(one, error) for one in some}
        except Bitrix24Error as error:
            return {one.call_id: error for one in some}

    def _refused(self, one: Wanted, error: Bitrix24AccessError) -> RecordingUnavailableError:
        """A way that the credential may not go is closed; raises the error where no other is left, or the key is refused."""
        if not error.of_method or sum(map(self._is_allowed, _WAYS)) == 1:
            raise error
        return RecordingUnavailableError("refused", f"of call {one.call_id}", description=error.code)

    def _is_allowed(self, way: Way) -> bool:
        """Whether the portal's settings leave this way. A webhook gets activities' links without a token: they lead nowhere."""
        return {"disk": True, "activity": self._client.is_application, "provider": bool(self._outside)}[way]

    async def _on_disk(self, wanted: Sequence[Wanted]) -> dict[int, Found]:
        outcomes = await self._client.batch(
            {str(one.call_id): ("disk.file.get", {"id": one.file_id}) for one in wanted}
        )
        found: dict[int, Found] = {}
        for one in wanted:
            try:
                found[one.call_id] = _disk_place(one.file_id or 0, outcomes[str(one.call_id)])
            except Bitrix24AccessError as error:
                found[one.call_id] = self._refused(one, error)
        return found

    async def _in_activities(self, wanted: Sequence[Wanted]) -> dict[int, Found]:
        method = "crm.activity.list"
        found: dict[int, Found] = {}
        for some in chunks(wanted, PAGE):
            params = {"filter": {"@ID": [one.activity_id for one in some]}, "select": ["ID", "FILES"], "start": -1}
            rows = await self._rows(method, params, [one.activity_id or 0 for one in some])
            for one in some:
                found[one.call_id] = self._activity_place(one, rows.get(one.activity_id or 0, {}))
        return found

    def _activity_place(self, one: Wanted, row: Mapping[str, Any] | RowError) -> Found:
        name = f"activity {one.activity_id}"
        try:
            files = [] if isinstance(row, RowError) else activity_files(row)
        except RowError as error:
            row = error
        if isinstance(row, RowError):
            return row
        file = next((file for file in files if file.id == one.file_id), files[0] if len(files) == 1 else None)
        if file is None:
            return RecordingUnavailableError("gone", name, description="the activity shows no such file")
        if not parse_qs(file.url.partition("?")[2].partition("#")[0]).get("auth"):
            return RecordingUnavailableError("refused", name, description="its link holds no token")
        return Place("activity", name, file.url)

    async def _at_provider(self, wanted: Sequence[Wanted]) -> dict[int, Found]:
        method = "voximplant.statistic.get"
        found: dict[int, Found] = {}
        for some in chunks(wanted, PAGE):
            params = {"FILTER": {"ID": [one.call_id for one in some]}, "SORT": "ID", "ORDER": "ASC", "start": -1}
            rows = await self._rows(method, params, [one.call_id for one in some])
            strangers = rows.keys() - {one.call_id for one in some}
            if strangers:
                raise Bitrix24DataError(
                    "filter_dropped", method=method, description=f"call {min(strangers)} was not asked for"
                )
            for one in some:
                row = rows.get(one.call_id, {})
                if isinstance(row, RowError):
                    found[one.call_id] = row
                    continue
                url = str(row.get("CALL_RECORD_URL") or "").strip()
                if self._outside.names(url):
                    found[one.call_id] = Place("provider", f"of call {one.call_id}", url)
        return found

    async def _rows(
        self, method: str, params: Mapping[str, Any], asked: Iterable[int]
    ) -> dict[int, dict[str, Any] | RowError]:
        """Rows by id; a row without a readable one may be that of any of `asked` that did not come."""
        rows = rows_of(method, (await self._client.call(method, params)).result)
        found: dict[int, dict[str, Any] | RowError] = {one: row for row in rows if (one := id_of(row)) is not None}
        if any(id_of(row) is None for row in rows):
            unread = RowError(method, "ID", "a whole number")
            return {**dict.fromkeys(asked, unread), **found}
        return found


def _disk_place(file_id: int, outcome: Answer | Bitrix24Error) -> Found:
    name = f"{file_id} of the Disk"
    if isinstance(outcome, Bitrix24Error):
        if outcome.code.upper() == "ACCESS_DENIED" or (outcome.code == "" and isinstance(outcome, Bitrix24AccessError)):
            return RecordingUnavailableError("refused", name, description=outcome.code)
        if isinstance(outcome, Bitrix24AccessError):
            raise outcome
        if isinstance(outcome, Bitrix24RequestError) and (
            "NOT_FOUND" in outcome.code.upper() or "not found" in outcome.description.lower()
        ):
            return RecordingUnavailableError("gone", name, description=outcome.code)
        return outcome
    try:
        file = disk_file(outcome.result)
    except Bitrix24Error as error:
        return error
    if file.id != file_id:
        return Bitrix24DataError(
            "other_file", method="disk.file.get", description=f"asked for {file_id}, got {file.id}"
        )
    return Place("disk", name, file.download_url, file.size)


def _is_open(found: Found | None) -> bool:
    """Whether a further way is worth asking: nothing is known yet, or the ways so far are closed for good."""
    return found is None or (isinstance(found, Bitrix24Error) and not found.retryable)


def _no_way(wanted: Wanted) -> RecordingUnavailableError:
    return RecordingUnavailableError("gone", f"of call {wanted.call_id}", description="no way leads to it")
