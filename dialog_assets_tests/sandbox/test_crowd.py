"""Generated portals: reproducible, consistent in themselves, playable, quick at size."""

from __future__ import annotations

import io
import tracemalloc
from array import array
from collections import Counter
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import av
import pytest

from dialog_assets.sandbox.crowd import CrowdCalls, crowd_portal, crowd_world
from dialog_assets.sandbox.generated import MadeRecording
from dialog_assets.sandbox.world import load_world

from .bitrix24_portal import STATISTIC, Site, make_site


def site_of(calls: int, **options: Any) -> Site:
    return make_site(crowd_portal(calls, portal="demo", **options))


def ask(site: Site, method: str, **params: Any) -> Any:
    return site.send("POST", f"/rest/1/demo-secret/{method}", json=params).json()


def test_same_for_a_seed() -> None:
    """Equal seeds give equal rows, other seeds other ones; nothing of a row depends on the number of calls asked for."""
    first, again, other = (crowd_portal(300, seed=seed).calls for seed in (1, 1, 2))
    assert [call.fields for call in first] == [call.fields for call in again]
    assert [call.fields for call in first] != [call.fields for call in other]


def test_rows_have_the_written_world_s_fields() -> None:
    """A generated row has the fields, in the order and of the types, that a written one has."""
    written = load_world().portals["avto_ural"]
    made = crowd_portal(400, contacts=20)
    assert list(made.calls[0].fields) == list(written.calls[0].fields)
    assert {key for row in made.contacts.values() for key in row} <= {
        k for row in written.contacts.values() for k in row
    }
    assert {key for row in made.deals.values() for key in row} == {key for row in written.deals.values() for key in row}
    for call in made.calls:
        assert int(call.fields["ID"]) == call.id
        assert datetime.fromisoformat(call.fields["CALL_START_DATE"]) == call.start
        assert (call.fields["RECORD_FILE_ID"] is None) == (call.recording is None)
        contact = call.fields["CRM_ENTITY_ID"]
        assert (contact is None) == (call.fields["CRM_ENTITY_TYPE"] is None)
        assert contact is None or int(contact) in made.contacts
    for deal in made.deals.values():
        assert int(deal["CONTACT_ID"]) in made.contacts


def test_as_many_users_as_asked_for() -> None:
    """More users than make calls can be had: they only are there."""
    portal = crowd_portal(300, users=90)
    assert sorted(portal.users) == list(range(1, 91))
    assert {int(call.fields["PORTAL_USER_ID"]) for call in portal.calls} <= set(range(1, 41))


def test_ids_and_starts_are_nearly_in_order() -> None:
    """Ids grow, with gaps if asked; starts do not quite, as ids are given at the end of a call."""
    calls = crowd_portal(2000, days=2, gap=3).calls
    ids = [call.id for call in calls]
    assert ids == sorted(set(ids))
    assert ids[-1] > 2 * len(ids)
    starts = [call.start for call in calls]
    assert starts != sorted(starts)
    assert max(abs(a - b) for a, b in zip(starts, sorted(starts), strict=True)) < timedelta(hours=1)


def test_offsets_change_with_the_zone() -> None:
    """In a zone with summer time each row carries the offset of its moment."""
    zone = ZoneInfo("Europe/Berlin")
    first = datetime(2026, 3, 28, 12, tzinfo=zone)
    calls = crowd_portal(200, days=2, first=first, time_zone="Europe/Berlin").calls
    texts = [call.fields["CALL_START_DATE"] for call in calls]
    assert {text[-6:] for text in texts} == {"+01:00", "+02:00"}
    assert texts == [call.start.isoformat() for call in calls]


def test_recordings_are_audio_of_their_own() -> None:
    """A made recording is valid MP3 of its length, 8 kHz stereo; files and versions differ at every place."""
    moment = datetime(2026, 3, 2, tzinfo=ZoneInfo("Europe/Moscow"))
    made = MadeRecording.of(7, 100_000, moment)
    data = made.read(0, made.size)
    assert len(data) == made.size >= 100_000
    assert made.read(1000, 50) == data[1000:1050]
    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.audio[0]
        assert (stream.codec_context.sample_rate, stream.codec_context.channels) == (8000, 2)
        samples = sum(frame.samples for frame in container.decode(stream))
    assert abs(samples / 8 - made.duration_ms) < 200
    others = [MadeRecording.of(8, 100_000, moment), MadeRecording.of(7, 100_000, moment, 2)]
    assert len({data, *(other.read(0, other.size) for other in others)}) == 3


def test_deals_of_contacts() -> None:
    """Deals are found by @CONTACT_ID; each tenth contact has none."""
    site = site_of(10, contacts=30, deals_each=2)
    rows = ask(site, "crm.deal.list", filter={"@CONTACT_ID": [9, 10, 11]}, select=["ID", "CONTACT_ID"])["result"]
    assert rows == [{"ID": str(n), "CONTACT_ID": str(c)} for n, c in ((17, 9), (18, 9), (21, 11), (22, 11))]


def test_large_and_frugal(monkeypatch: pytest.MonkeyPatch) -> None:
    """100,000 calls: a few MB, and a keyset page, a day and an id range are found without a scan."""
    site_of(10)  # what is imported for the first site is not counted
    tracemalloc.start()
    site = site_of(100_000, contacts=1000, recordings=100)
    state = site.server.portals["demo"]
    assert len(state.calls.ids) == 100_000
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 20_000_000
    made: list[int] = []
    text = CrowdCalls.text

    def counted(calls: CrowdCalls, number: int, select: Any) -> str:
        made.append(number)
        return text(calls, number, select)

    monkeypatch.setattr(CrowdCalls, "text", counted)
    read = Counter[str]()

    class Read(array):  # type: ignore[type-arg]
        """Counts how much of it is looked at."""

        def __getitem__(self, place: Any) -> Any:
            found = super().__getitem__(place)
            read["all"] += len(found) if isinstance(place, slice) else 1
            return found

        def __iter__(self) -> Any:
            read["all"] += len(self)
            return super().__iter__()

    for name in ("ids", "_times", "_by_time"):
        values = getattr(state.calls, name)
        setattr(state.calls, name, Read(values.typecode, values))
    day = {">=CALL_START_DATE": "2025-06-01", "<CALL_START_DATE": "2025-06-02"}
    for filter_ in ({">ID": 70_000}, day, {**day, ">ID": 25_000}, {">ID": 500, "<=ID": 550}):
        commands = {
            f"p{n}": f"{STATISTIC}?SORT=ID&ORDER=ASC&start=-1&"
            + "&".join(f"FILTER[{k}]={v}" for k, v in filter_.items())
            for n in range(50)
        }
        commands = {key: command.replace(">", "%3E").replace("<", "%3C") for key, command in commands.items()}
        made.clear()
        read.clear()
        answer = ask(site, "batch", cmd=commands)
        assert {len(rows) for rows in answer["result"]["result"].values()} == {50}
        assert len(made) == 50 * 50
        assert 0 < read["all"] < 50 * 1000, "no more than a page, a day and the way there"


def test_calls_as_a_sequence() -> None:
    """Other services can go through the calls of a generated world; the recordings are known without that."""
    portal = crowd_world(50, recordings=5).portals["crowd"]
    assert len(portal.recordings) == 5
    assert [call.recording.file_id for call in portal.calls if call.recording] == list(portal.recordings)
    assert portal.calls[-1].id == portal.calls[49].id == [call.id for call in portal.calls][-1]
