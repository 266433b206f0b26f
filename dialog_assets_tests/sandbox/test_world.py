"""The fictional world: its numbers, its special cases, and that recordings sound as the turn times say."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from array import array
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import av
import pytest

from dialog_assets.portals import Portal, load_portals
from dialog_assets.sandbox.world import WorldError, check_against_portals, load_world, loader, speak
from dialog_assets.sandbox.world.model import Call, Judgement, Recording, Script, World

PORTALS = Path(__file__).parents[2] / "portals"
WORLD = load_world()
CALLS = [(portal, call) for portal in WORLD.portals.values() for call in portal.calls]
RECORDINGS = [call.recording for _, call in CALLS if call.recording is not None]
AUDIBLE = [recording for recording in RECORDINGS if recording.content != "damaged"]
SPOKEN = [recording for recording in RECORDINGS if recording.content == "speech"]


def _name(recording: Recording) -> str:
    return recording.path.stem


@pytest.fixture(scope="module")
def portals() -> list[Portal]:
    return load_portals(PORTALS)


def test_portals_are_the_two_of_the_world(portals: list[Portal]) -> None:
    """The portal files load, and agree with the world on zone, webhook variable and the operator's channel."""
    assert [portal.portal for portal in portals] == ["avto_ural", "okna_sever"] == sorted(WORLD.portals)
    for portal in portals:
        sandbox = WORLD.portals[portal.portal]
        assert (portal.time_zone, portal.bitrix24.webhook) == (sandbox.time_zone, sandbox.webhook_env)
        assert portal.start_date == date(2026, 3, 2)
        assert 4 <= len(portal.categories) <= 5
        assert 6 <= len(portal.criteria) <= 9
        assert 2 <= sum(criterion.include_in_entity_description for criterion in portal.criteria) <= 4
        sides = {call.recording.operator_channel for call in sandbox.calls if call.recording is not None}
        assert sides == {portal.channels.operator, None}


def test_numbers() -> None:
    """At least 34 calls on five days in both portals, 26 of them spoken, from at least 16 dialogs of 30-120 s."""
    assert len(CALLS) >= 34
    assert len(SPOKEN) >= 26
    for sandbox in WORLD.portals.values():
        assert {call.start.date() for call in sandbox.calls} == {date(2026, 3, day) for day in range(2, 7)}
    used = {recording.script.name for recording in SPOKEN if recording.script is not None}
    dialogs = [script for script in WORLD.scripts.values() if script.name in used]
    assert len(dialogs) >= 16
    assert all(30_000 <= script.duration_ms <= 120_000 for script in dialogs)
    assert len({tuple(turn.text for turn in script.turns) for script in dialogs}) == len(dialogs)
    assert used == {script.name for script in WORLD.scripts.values() if len(script.turns) > 1}


def test_every_category_and_criterion_is_met(portals: list[Portal]) -> None:
    """Each criterion is answered somewhere with a score; each category but avto_ural's `other` has a dialog."""
    scored = {
        (script.portal, judgement.criterion) for script in WORLD.scripts.values() for judgement in script.judgements
    }
    chosen = {(script.portal, kind) for script in WORLD.scripts.values() for kind, _, _ in script.categories}
    assert scored == {(portal.portal, criterion.name) for portal in portals for criterion in portal.criteria}
    every = {(portal.portal, category.name) for portal in portals for category in portal.categories}
    assert every - chosen == {("avto_ural", "other")}
    assert any(judgement.score is None for script in WORLD.scripts.values() for judgement in script.judgements)


def test_judgements_fit_the_portals(portals: list[Portal]) -> None:
    """Categories exist, each criterion that they select is answered within its scale, and nothing else is."""
    check_against_portals(WORLD, portals)


@pytest.mark.parametrize(
    ("judgements", "message"),
    [((), "missing"), ((Judgement("greeting", 11, "", ()), Judgement("courtesy", 5, "", ())), "scale is 0 to 10")],
)
def test_unfit_judgements_are_refused(portals: list[Portal], judgements: tuple[Judgement, ...], message: str) -> None:
    """A missing answer or a score outside the scale is named in one sentence."""
    script = Script("bad", "okna_sever", (), (("off_topic", 90, ""),), judgements, 0)
    with pytest.raises(WorldError, match=message):
        check_against_portals(World({}, {"bad": script}), portals)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"turns": [{"o": "Да.", "c": "Нет."}]}, "turn 0"),
        ({"turns": [{"o": "Да.", "heard": "Да."}]}, "lower-case"),
        ({"judgements": {"greeting": {"score": 5, "text": "", "quotes": [[0, "нет"]]}}}, "does not say 'нет'"),
        ({"judgements": {"greeting": {"score": 5, "text": ""}}}, "at least one quote"),
        ({"categories": {"off_topic": [101, ""]}}, "not within 0-100"),
    ],
)
def test_broken_scripts_are_refused(change: dict[str, object], message: str) -> None:
    """A script that contradicts itself is refused with its file, its name and the reason."""
    data = {"name": "x", "portal": "okna_sever", "voices": ["f2", "m3"], "turns": [{"o": "Да."}], **change}
    with pytest.raises(WorldError, match=message) as caught:
        loader._script("file.yaml", data)
    assert "file.yaml: script x" in str(caught.value)


def test_quotes_are_verbatim() -> None:
    """Every applicable score has quotes, copied from the turn they point to; every script has categories with reasons."""
    for script in WORLD.scripts.values():
        for judgement in script.judgements:
            assert judgement.text
            assert (judgement.score is None) == (not judgement.quotes)
            assert all(words in script.turns[turn].text for turn, words in judgement.quotes)
        assert all(reason for _, _, reason in script.categories)


def test_the_recogniser_errs_sometimes() -> None:
    """Some turns of each dialog are misheard, most are not, and what is heard has neither capitals nor punctuation."""
    for script in WORLD.scripts.values():
        wrong = [turn for turn in script.turns if turn.heard != loader.heard_plainly(turn.text)]
        assert len(wrong) <= len(script.turns) / 1.8
        assert wrong or len(script.turns) == 1
        assert all(turn.heard == loader.heard_plainly(turn.heard) for turn in script.turns)


def _codes() -> Counter[str]:
    return Counter(call.fields["CALL_FAILED_CODE"] for _, call in CALLS)


def _late(call: Call) -> bool:
    recording = call.recording
    return recording is not None and recording.ready_at - call.start > timedelta(hours=20)


def test_special_calls() -> None:
    """Missed, busy and cancelled calls, a late record, every way of calling, both sides of midnight, CRM and user gaps."""
    assert {"200", "304", "486", "603-S"} == set(_codes())
    assert all((call.recording is None) == (call.fields["CALL_FAILED_CODE"] != "200") for _, call in CALLS)
    assert [call.id for _, call in CALLS if _late(call)] == [5011]
    assert {call.fields["CALL_TYPE"] for _, call in CALLS} == {"1", "2", "3", "4"}
    assert any((call.start.hour, call.start.minute) >= (23, 50) and call.recording for _, call in CALLS)
    assert sum(call.start.hour == 0 and call.start.minute < 10 for _, call in CALLS) >= 2
    assert any(call.fields["CRM_ENTITY_TYPE"] is None and call.recording for _, call in CALLS)
    gone = [
        call.id
        for sandbox, call in CALLS
        if call.fields["CRM_ENTITY_TYPE"] == "CONTACT" and int(call.fields["CRM_ENTITY_ID"]) not in sandbox.contacts
    ]
    assert gone == [5016]
    strangers = {
        call.fields["PORTAL_USER_ID"]
        for sandbox, call in CALLS
        if int(call.fields["PORTAL_USER_ID"]) not in sandbox.users
    }
    assert strangers == {"14", "29"}
    dismissed = {
        user["ID"] for sandbox in WORLD.portals.values() for user in sandbox.users.values() if not user["ACTIVE"]
    }
    assert dismissed <= {call.fields["PORTAL_USER_ID"] for _, call in CALLS}
    assert dismissed


def test_special_recordings() -> None:
    """Voicemails, silence, a damaged file, mono dialogs; recordings of one script have their own bytes and times."""
    kinds = Counter(recording.content for recording in RECORDINGS)
    assert kinds["voicemail"] >= 1
    assert kinds["silence"] == kinds["damaged"] == 1
    assert sum(recording.channels == 1 for recording in SPOKEN) >= 2
    hashes = {hashlib.sha256(recording.path.read_bytes()).hexdigest() for recording in RECORDINGS}
    assert len(hashes) == len(RECORDINGS)
    assert sum(recording.path.stat().st_size for recording in RECORDINGS) < 6_000_000
    assert {recording.path for recording in RECORDINGS} == set(loader.AUDIO.glob("*.mp3"))
    for recording in RECORDINGS:
        if recording.content == "voicemail":
            assert {turn.speaker for turn in recording.turns} == {"client"}
        if recording.script is not None:
            shifts = {(a.start_ms - b.start_ms) for a, b in zip(recording.turns, recording.script.turns, strict=True)}
            assert shifts == {recording.lead_ms}


def test_a_client_calls_on_several_days() -> None:
    """One contact with several deals calls on three days; leads and companies call as well."""
    days = {call.start.date() for _, call in CALLS if call.fields["CRM_ENTITY_ID"] == "101"}
    assert len(days) == 3
    deals = WORLD.portals["okna_sever"].deals.values()
    assert sum(deal["CONTACT_ID"] == "101" for deal in deals) == 2
    assert {call.fields["CRM_ENTITY_TYPE"] for _, call in CALLS} == {"CONTACT", "LEAD", "COMPANY", None}


def test_wire_types() -> None:
    """Call rows have the 29 fields of the statistics with their wire types; ids of rows are the keys; people are invented."""
    for sandbox, call in CALLS:
        fields = call.fields
        assert len(fields) == 29
        assert fields["ID"] == str(call.id)
        assert all(value is None or isinstance(value, str) for key, value in fields.items() if key != "RECORD_FILE_ID")
        assert fields["RECORD_FILE_ID"] == (call.recording.file_id if call.recording else None)
        assert fields["CALL_START_DATE"] == call.start.isoformat()
        assert fields["PHONE_NUMBER"].lstrip("+").startswith("70000000")
        if call.recording is not None and call.recording.duration_ms:
            assert 0 <= int(fields["CALL_DURATION"]) * 1000 - call.recording.duration_ms < 1000
        assert [c.id for c in sandbox.calls] == sorted(c.id for c in sandbox.calls)
        assert [c.start for c in sandbox.calls] == sorted(c.start for c in sandbox.calls)
    for sandbox in WORLD.portals.values():
        for rows in (sandbox.users, sandbox.contacts, sandbox.leads, sandbox.companies, sandbox.deals):
            assert all(row["ID"] == str(key) for key, row in rows.items())
        for rows in (sandbox.contacts, sandbox.leads, sandbox.companies):
            for row in rows.values():
                assert all(phone["VALUE"].lstrip("+").startswith("70000000") for phone in row.get("PHONE", ()))
                assert all(mail["VALUE"].endswith(".example") for mail in row.get("EMAIL", ()))


def test_turn_times_are_in_order() -> None:
    """Turns begin one after another and end within the script; a few overlap."""
    overlaps = 0
    for script in WORLD.scripts.values():
        starts = [turn.start_ms for turn in script.turns]
        assert starts == sorted(starts)
        assert all(turn.start_ms < turn.end_ms < script.duration_ms for turn in script.turns)
        overlaps += sum(b.start_ms < a.end_ms for a, b in zip(script.turns, script.turns[1:], strict=False))
    assert 3 <= overlaps <= 20


def _decode(path: Path) -> tuple[list[array[int]], int]:
    """Samples by channel, and the rate."""
    channels: list[array[int]] = []
    with av.open(str(path), "r") as container:
        rate = container.streams.audio[0].rate
        count = container.streams.audio[0].channels
        channels = [array("h") for _ in range(count)]
        resampler = av.AudioResampler(format="s16p", layout="mono" if count == 1 else "stereo", rate=rate)
        for frame in container.decode(audio=0):
            for part in resampler.resample(frame):
                for channel, plane in zip(channels, part.planes, strict=True):
                    channel.frombytes(bytes(plane)[: part.samples * 2])
    return channels, rate


def _energy(samples: array[int], rate: int, start_ms: int, end_ms: int) -> float:
    part = samples[start_ms * rate // 1000 : end_ms * rate // 1000]
    return sum(sample * sample for sample in part) / max(1, len(part))


@pytest.mark.parametrize("recording", AUDIBLE, ids=_name)
def test_recordings_sound_as_written(recording: Recording) -> None:
    """MP3 8 kHz, right channels and length; each turn is loud on its speaker's channel and quiet on the other one."""
    channels, rate = _decode(recording.path)
    assert rate == 8000
    assert len(channels) == recording.channels
    assert abs(len(channels[0]) * 1000 / rate - recording.duration_ms) < 500
    if recording.content == "silence":
        assert all(_energy(channel, rate, 0, recording.duration_ms) < 100 for channel in channels)
        return
    overlapped = {
        index
        for index, (a, b) in enumerate(zip(recording.turns, recording.turns[1:], strict=False))
        if b.start_ms < a.end_ms
    }
    for index, turn in enumerate(recording.turns):
        if index in overlapped or index - 1 in overlapped:
            continue
        energies = [_energy(channel, rate, turn.start_ms, turn.end_ms) for channel in channels]
        if recording.operator_channel is None:
            assert energies[0] > 10_000
        else:
            own = recording.operator_channel if turn.speaker == "operator" else 1 - recording.operator_channel
            assert energies[own] > 10_000
            assert energies[own] > 50 * energies[1 - own]


def test_damaged_recording_is_no_audio() -> None:
    """The damaged file opens as no audio at all."""
    (damaged,) = [recording for recording in RECORDINGS if recording.content == "damaged"]
    with pytest.raises(av.error.FFmpegError):
        _decode(damaged.path)


def test_loading_needs_little() -> None:
    """The whole world loads without audio libraries, pydantic or Dagster."""
    code = "import sys; from dialog_assets.sandbox.world import load_world; load_world(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"av", "pydantic", "dagster"}.isdisjoint(done.stdout.split())


def test_speaking_without_espeak(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Without espeak-ng one clear sentence says what to install, and no recording is touched."""
    monkeypatch.setenv("PATH", str(tmp_path))
    before = sorted(loader.AUDIO.iterdir())
    assert speak.main() == 1
    assert capsys.readouterr().err.startswith("espeak-ng is not installed: install the package espeak-ng")
    assert sorted(loader.AUDIO.iterdir()) == before
