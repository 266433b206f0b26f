"""Reads the world's YAML into the values of `model`, and refuses data that contradicts itself.

Here: joining portals, scripts and the turn times that `speak` measured; wire shapes come from `rows`.
Not here: what the servers do with it, and audio bytes (a recording is only a path).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import yaml

from dialog_assets.errors import DialogAssetsError
from dialog_assets.sandbox.world import rows
from dialog_assets.sandbox.world.model import Call, Judgement, Recording, SandboxPortal, Script, ScriptTurn, World

if TYPE_CHECKING:
    from dialog_assets.portals import Portal

HERE = Path(__file__).parent
AUDIO = HERE / "audio"
TIMES = AUDIO / "times.json"
RECORD_DELAY = timedelta(seconds=40)
"""How long after a call's end its recording usually appears in the statistics."""

_SIDES: dict[str, Literal["operator", "client"]] = {"o": "operator", "c": "client"}
_YAML_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class WorldError(DialogAssetsError):
    """The world's data contradicts itself; the text names file and place."""


@dataclass(frozen=True)
class WrittenTurn:
    """One turn as its author wrote it; an `overlap` begins before the other side has finished."""

    speaker: Literal["operator", "client"]
    text: str
    heard: str
    overlap: bool


@dataclass(frozen=True)
class WrittenScript:
    """A script before it has been spoken: no times yet. `voices` are espeak-ng variants of operator and client."""

    name: str
    portal: str
    voices: tuple[str, str]
    turns: tuple[WrittenTurn, ...]
    categories: tuple[tuple[str, int, str], ...]
    judgements: tuple[Judgement, ...]


@dataclass(frozen=True)
class WrittenRecording:
    """A recording as a portal's file orders it."""

    portal: str
    file_id: int
    script: str | None
    content: Literal["speech", "voicemail", "silence", "damaged"]
    operator_channel: int | None
    lead_ms: int
    seconds: int  # of silence; the others take their length from the script

    @property
    def path(self) -> Path:
        """The file beside the package's data."""
        return AUDIO / f"{self.portal}_{self.file_id}.mp3"


def load_world() -> World:
    """The whole world. Raises WorldError if the data contradicts itself or a script has not been spoken yet."""
    written = written_scripts()
    times = _read_times()
    scripts = {name: _spoken(script, times) for name, script in written.items()}
    return World({path.stem: _portal(path.stem, scripts) for path in portal_files()}, scripts)


def portal_files() -> list[Path]:
    """The data files of the portals, one each."""
    return sorted((HERE / "portals").glob("*.yaml"))


def heard_plainly(text: str) -> str:
    """What a recogniser without mistakes makes of `text`: lower case, words only, no ё."""
    return " ".join(re.sub(r"[^\w\s-]|(?<!\w)-|-(?!\w)", " ", text.lower().replace("ё", "е")).split())


@cache
def written_scripts() -> dict[str, WrittenScript]:
    """Every script by name, checked; raises WorldError."""
    scripts: dict[str, WrittenScript] = {}
    for path in sorted((HERE / "scripts").glob("*.yaml")):
        for data in _read_yaml(path):
            script = _script(path.name, data)
            if script.name in scripts:
                raise WorldError(f"{path.name}: script {script.name} exists already; choose another name")
            scripts[script.name] = script
    return scripts


@cache
def read_portal(name: str) -> dict[str, Any]:
    """The raw data of one portal's file; treat it as read-only."""
    return cast("dict[str, Any]", _read_yaml(HERE / "portals" / f"{name}.yaml"))


def written_recording(portal: dict[str, Any], call: dict[str, Any]) -> WrittenRecording | None:
    """The recording that a call of a portal's file orders, or None."""
    if "record" not in call:
        return None
    record = call["record"]
    content = record.get("content", "speech")
    where = f"{portal['portal']}.yaml: call {call['id']}"
    if (content in ("speech", "voicemail")) != ("script" in record):
        raise WorldError(f"{where}: a {content} recording {'needs a' if 'script' not in record else 'has no'} script")
    return WrittenRecording(
        portal=portal["portal"],
        file_id=record["file"],
        script=record.get("script"),
        content=content,
        operator_channel=None if record.get("mono") else portal["operator_channel"],
        lead_ms=record.get("lead_ms", 0),
        seconds=record.get("seconds", 0),
    )


def check_against_portals(world: World, portals: Iterable[Portal]) -> None:
    """Raise WorldError unless every script uses its portal's categories and answers each criterion they select, in scale.

    Apart from `load_world`, because a user may add categories to a portal file without writing scripts for them.
    """
    by_name = {portal.portal: portal for portal in portals}
    for script in world.scripts.values():
        portal = by_name.get(script.portal)
        if portal is None:
            raise WorldError(f"script {script.name}: portal {script.portal} has no portal file")
        chosen = [name for name, _, _ in script.categories]
        unknown = sorted(set(chosen) - {category.name for category in portal.categories})
        if unknown:
            raise WorldError(f"script {script.name}: portal {script.portal} has no category {', '.join(unknown)}")
        wanted = {criterion.name: criterion for criterion in portal.criteria_of(chosen)}
        given = {judgement.criterion for judgement in script.judgements}
        if set(wanted) != given:
            raise WorldError(
                f"script {script.name}: judgements must answer exactly what its categories select; "
                f"missing {sorted(set(wanted) - given)}, too many {sorted(given - set(wanted))}"
            )
        for judgement in script.judgements:
            scale = wanted[judgement.criterion].scale
            if judgement.score is not None and not scale.min <= judgement.score <= scale.max:
                raise WorldError(
                    f"script {script.name}: {judgement.criterion} has the score {judgement.score}, "
                    f"its scale is {scale.min} to {scale.max}"
                )


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_YAML_LOADER)  # noqa: S506 (a safe loader)
    except (OSError, yaml.YAMLError) as error:
        raise WorldError(f"{path.name}: cannot be read: {error}") from error


def _read_times() -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", json.loads(TIMES.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise WorldError(f"{TIMES.name} cannot be read; run `python -m dialog_assets.sandbox.world.speak`") from error


def _script(file: str, data: dict[str, Any]) -> WrittenScript:
    name = data["name"]
    turns = tuple(_turn(f"{file}: script {name}, turn {index}", turn) for index, turn in enumerate(data["turns"]))
    judgements = tuple(
        Judgement(
            criterion=criterion,
            score=answer["score"],
            text=answer["text"],
            quotes=tuple((index, words) for index, words in answer.get("quotes", ())),
        )
        for criterion, answer in data.get("judgements", {}).items()
    )
    for judgement in judgements:
        where = f"{file}: script {name}, judgement {judgement.criterion}"
        if judgement.score is not None and not judgement.quotes:
            raise WorldError(f"{where}: a score needs at least one quote")
        for index, words in judgement.quotes:
            if not 0 <= index < len(turns) or words not in turns[index].text:
                raise WorldError(f"{where}: turn {index} does not say {words!r}")
    categories = tuple((kind, confidence, reason) for kind, (confidence, reason) in data.get("categories", {}).items())
    for kind, confidence, _ in categories:
        if not 0 <= confidence <= 100:
            raise WorldError(f"{file}: script {name}, category {kind}: confidence {confidence} is not within 0-100")
    return WrittenScript(name, data["portal"], tuple(data["voices"]), turns, categories, judgements)


def _turn(where: str, data: dict[str, Any]) -> WrittenTurn:
    sides = [side for side in _SIDES if side in data]
    if len(sides) != 1 or set(data) - {*_SIDES, "heard", "overlap"}:
        raise WorldError(f"{where}: expected `o:` or `c:` with the text, and perhaps `heard:` and `overlap:`")
    text = data[sides[0]]
    heard = data.get("heard", heard_plainly(text))
    if heard != heard_plainly(heard):
        raise WorldError(f"{where}: `heard` must be lower-case words without punctuation and ё")
    return WrittenTurn(_SIDES[sides[0]], text, heard, bool(data.get("overlap", False)))


def _spoken(script: WrittenScript, times: dict[str, Any]) -> Script:
    measured = times["scripts"].get(script.name)
    if measured is None or len(measured["turns"]) != len(script.turns):
        raise WorldError(f"script {script.name} is not spoken yet; run `python -m dialog_assets.sandbox.world.speak`")
    turns = tuple(
        ScriptTurn(turn.speaker, turn.text, turn.heard, start, end)
        for turn, (start, end) in zip(script.turns, measured["turns"], strict=True)
    )
    return Script(script.name, script.portal, turns, script.categories, script.judgements, measured["duration_ms"])


def _portal(name: str, scripts: dict[str, Script]) -> SandboxPortal:
    data = read_portal(name)
    if data["portal"] != name:
        raise WorldError(f"{name}.yaml: portal is {data['portal']!r}, expected the file's name")
    calls = tuple(_call(data, call, scripts) for call in data["calls"])
    files = [call.recording.file_id for call in calls if call.recording is not None]
    if len({call.id for call in calls}) != len(calls) or len(set(files)) != len(files):
        raise WorldError(f"{name}.yaml: call ids and file ids must be unique")
    offset = data["offset"]
    return SandboxPortal(
        portal=name,
        webhook_user=data["webhook_user"],
        webhook_secret=data["webhook_secret"],
        time_zone=data["time_zone"],
        users={row["id"]: rows.user(row, offset) for row in data["users"]},
        contacts={row["id"]: rows.contact(row, offset) for row in data["contacts"]},
        leads={row["id"]: rows.lead(row, offset) for row in data["leads"]},
        companies={row["id"]: rows.company(row, offset) for row in data["companies"]},
        deals={row["id"]: rows.deal(row, offset) for row in data["deals"]},
        calls=calls,
        webhook_env=data["webhook_env"],
    )


def _call(portal: dict[str, Any], data: dict[str, Any], scripts: dict[str, Script]) -> Call:
    start = datetime.fromisoformat(data["at"] + portal["offset"])
    written = written_recording(portal, data)
    recording = None if written is None else _recording(portal, data, written, scripts, start)
    seconds = data.get("seconds", 0) if recording is None else math.ceil(recording.duration_ms / 1000)
    if recording is not None and recording.content == "damaged":
        seconds = data["seconds"]
    return Call(data["id"], start, rows.call(portal, data, start, seconds, recording), recording)


def _recording(
    portal: dict[str, Any], data: dict[str, Any], written: WrittenRecording, scripts: dict[str, Script], start: datetime
) -> Recording:
    where = f"{portal['portal']}.yaml: call {data['id']}"
    script = None
    if written.script is not None:
        script = scripts.get(written.script)
        if script is None or script.portal != portal["portal"]:
            raise WorldError(f"{where}: portal {portal['portal']} has no script {written.script}")
    length = script.duration_ms if script is not None else written.seconds * 1000
    duration_ms = length + written.lead_ms if length else 0
    late = data["record"].get("ready_at")
    ready_at = (
        datetime.fromisoformat(late + portal["offset"])
        if late
        else start + timedelta(milliseconds=duration_ms) + RECORD_DELAY
    )
    return Recording(
        file_id=written.file_id,
        path=written.path,
        name=f"{start:%Y-%m-%d_%H-%M-%S}_{data['phone'].lstrip('+')}.mp3",
        content=written.content,
        channels=1 if written.operator_channel is None else 2,
        operator_channel=written.operator_channel,
        script=script,
        ready_at=ready_at,
        duration_ms=duration_ms,
        lead_ms=written.lead_ms,
    )
