"""The portals as configured: one YAML file each, read into pydantic models.

Here: the shape of a portal file, and errors that name file, line, path and what was expected, all of them at once.
Not here: credentials (a file holds only the names of environment variables), network, database, Dagster.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import date
from decimal import ROUND_DOWN, Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from dialog_assets.audio.gate import Thresholds
from dialog_assets.errors import DialogAssetsError
from dialog_assets.hosts import place_of


def _no_table(value: str) -> str:
    """`fixed` would give its view the name of table fixed_dialogs, and `x_fixed` that of a partition."""
    if value == "fixed" or value.endswith("_fixed"):
        raise ValueError(f"{value!r} cannot be a portal id: its tables would collide with fixed_dialogs")
    return value


Slug = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,30}$")]
PortalId = Annotated[Slug, AfterValidator(_no_table)]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]*$")]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
HostName = Annotated[str, StringConstraints(pattern=r"^[\w.-]+(:\d+)?$"), AfterValidator(place_of)]
WebAddress = Annotated[str, StringConstraints(pattern=r"^(https://|http://(127\.0\.0\.1|localhost)[:/])")]
Vendor = Literal["openai", "anthropic", "deepseek"]
Loc = tuple[int | str, ...]
"""Where in a portal file: keys and places in lists."""

VENDOR_API_KEYS: dict[Vendor, str] = {
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
}


class PortalsError(DialogAssetsError):
    """Portal files that cannot be used; `mistakes` holds one sentence a mistake."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        self.mistakes = list(mistakes)
        super().__init__("\n".join(self.mistakes))


LARGEST_NUMBER = 1_000_000_000
LONGEST_TEXT = 100_000
LARGEST_FILE = 500_000
"""Bytes of a portal file, and the values that its aliases may unfold to."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _can_be_used(cls, value: Any) -> Any:
        """What passes as text or number, and the database, a prompt or a multiplication would stumble over at night."""
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, str) and (len(one) > LONGEST_TEXT or not _is_text(one)):
                raise ValueError(f"expected text of at most {LONGEST_TEXT} characters, without control characters")
            if isinstance(one, int | float | Decimal) and not -LARGEST_NUMBER <= one <= LARGEST_NUMBER:
                raise ValueError(f"expected a number of at most {LARGEST_NUMBER}")
        return value


def _is_text(value: str) -> bool:
    return not any(unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t" for char in value)


class OAuthSettings(_Model):
    """An OAuth application of the portal: the environment variables that hold its secrets."""

    client_id: EnvName
    client_secret: EnvName
    refresh_token: EnvName = Field(description="the first one; those that follow are kept in the database, sealed")
    token_url: WebAddress | None = Field(None, description="empty: BITRIX24_TOKEN_URL, or the vendor's own")


class Bitrix24Settings(_Model):
    """How the portal's REST is reached, what its tariff allows, and where recordings may come from."""

    webhook: EnvName | None = Field(None, description="environment variable that holds the inbound webhook URL")
    oauth: OAuthSettings | None = Field(None, description="an OAuth application instead of the webhook")
    crm: Literal["classic", "item"] = Field(
        "classic", description="methods for entities: crm.contact.list … or crm.item.list"
    )
    bucket_size: int = Field(50, ge=1, description="requests above which the portal answers 503 (Enterprise: 250)")
    drain_per_second: float = Field(2.0, gt=0, description="requests that leave the bucket a second (Enterprise: 5)")
    operating_limit_s: float = Field(480.0, gt=0, description="seconds of work a method may use in ten minutes")
    downloads: int = Field(8, ge=1, le=32, description="recordings downloaded at once")
    downloads_count: bool = Field(True, description="whether downloads count as requests in the bucket")
    record_hosts: tuple[HostName, ...] = Field((), description="hosts whose CALL_RECORD_URL may be fetched, over https")
    link_hosts: tuple[HostName, ...] = Field(
        (),
        description="other names by which a self-hosted portal calls itself in its links, such as the inner server's",
    )
    plain_http: bool = Field(
        False, description="whether the webhook's URL may begin with http:// (its secret is readable)"
    )
    record_max_megabytes: int = Field(512, ge=1, description="larger recordings are refused")
    record_timeout_s: float = Field(900.0, gt=0, description="how long one recording may take")

    @model_validator(mode="after")
    def _one_credential(self) -> Self:
        if (self.webhook is None) == (self.oauth is None):
            raise ValueError(
                "expected exactly one of `webhook` (an environment variable's name) and `oauth` (a mapping)"
            )
        return self

    @property
    def credentials(self) -> tuple[str, ...]:
        """Names of the environment variables that hold the portal's credential."""
        if self.oauth is None:
            return (self.webhook,) if self.webhook else ()
        return (self.oauth.client_id, self.oauth.client_secret, self.oauth.refresh_token)


class Channels(_Model):
    """Which channel of a stereo recording is the operator; the other one is the client."""

    operator: Literal[0, 1]
    by_line: dict[str, Literal[0, 1]] = Field(
        {}, description="lines (PORTAL_NUMBER of the statistics) whose recordings have the operator elsewhere"
    )


class DialogSettings(_Model):
    """How recognised phrases become turns, and by which names callers hear the company greet them."""

    pause_ms: int = Field(1500, ge=0, le=10_000, description="the longest pause inside a turn")
    backchannel_ms: int = Field(
        1000, ge=0, le=5_000, description="an `угу` up to this long, said over the other side, does not end its turn"
    )
    company_names: tuple[Text, ...] = Field((), description="names that operators greet with, beside the title")


_GATE = Thresholds()


class AudioSettings(_Model):
    """What of a recording is worth recognising, and what is marked as odd about it. Changes apply to what is archived, too."""

    min_duration_s: float = Field(_GATE.min_duration_s, ge=0, description="a shorter recording is skipped: too_short")
    min_speech_s: float = Field(
        _GATE.min_speech_s,
        ge=0,
        description="where the channel that speaks most speaks less, it is skipped: no_speech or ringing_only",
    )
    silence_dbfs: float = Field(
        _GATE.silence_dbfs,
        ge=-120,
        le=0,
        description="a recording that never peaks above this is skipped: silent_recording",
    )
    dual_mono_correlation: float = Field(
        _GATE.dual_mono_correlation, gt=0, le=1, description="sides more alike than this are marked dual_mono"
    )
    dual_mono_level_db: float = Field(
        _GATE.dual_mono_level_db, ge=0, description="unless one is louder by more than this: a voice and its leaking"
    )
    dead_sound_share: float = Field(
        _GATE.dead_sound_share,
        ge=0,
        le=1,
        description="a side that does not speak is marked dead_channel_0 or _1 where less of it than this is sound, "
        "else no_speech_channel_0 or _1",
    )
    crosstalk_db: float = Field(
        _GATE.crosstalk_db, ge=-120, le=0, description="a side that is heard this loud in the other: marked crosstalk"
    )
    clipped_share: float = Field(
        _GATE.clipped_share, gt=0, le=1, description="share of samples at full scale from which it is marked clipped"
    )
    ringing_share: float = Field(
        _GATE.ringing_share, gt=0, le=1, description="share of the line's tones from which it is marked ringing"
    )

    @property
    def thresholds(self) -> Thresholds:
        """As the gate takes them."""
        return Thresholds(**self.model_dump())


Phrase = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]


class SpeechSettings(_Model):
    """How the portal's recordings are recognised, and at what price."""

    concurrency: int = Field(
        50, ge=1, le=1000, description="recordings at VoiceKit at once; what all portals share is VOICEKIT_STREAMS"
    )
    vocabulary: tuple[Phrase, ...] = Field((), max_length=1000, description="phrases that the recogniser is to expect")
    profanity_filter: bool = Field(False, description="whether VoiceKit hides obscene words, all but the first letter")
    phrase_pause_s: float | None = Field(
        None, gt=0, le=10, description="the pause that ends a phrase; empty: VoiceKit's own (0.6)"
    )
    silence_probability: float | None = Field(
        None, gt=0, lt=1, description="above it sound counts as silence; empty: VoiceKit's own (0.9)"
    )
    upload: Literal["storage", "message"] = Field(
        "storage", description="message: recordings of at most 32 MB go without VoiceKit's storage"
    )
    rub_per_minute: Decimal = Field(
        Decimal("0.18"), ge=0, description="price of deferred recognition, roubles a minute"
    )
    immediate_below_s: float = Field(
        0, ge=0, le=205, description="shorter recordings are recognised at once, at their own price; 0: none"
    )
    immediate_rub_per_minute: Decimal = Field(Decimal("0.48"), ge=0, description="price of recognition at once")
    patience_hours: float = Field(1.0, gt=0, description="how long one run waits for recognition")
    give_up_hours: float = Field(
        30.0,
        ge=24,
        le=96,
        description="an operation that has not ended by then is cancelled (VoiceKit promises 24 hours)",
    )


class ModelChoice(_Model):
    """The model that does one step of analysis."""

    vendor: Vendor
    model: Text
    api_key: EnvName | None = Field(None, description="environment variable that holds the key; default by vendor")
    max_output_tokens: int = Field(4000, ge=100)

    @property
    def api_key_env(self) -> str:
        """Name of the environment variable that holds this model's key."""
        return self.api_key or VENDOR_API_KEYS[self.vendor]


class Ceiling(_Model):
    """How much one call, or one entity, may cost at one step of the LLMs without a result; then it fails: ceiling_reached.

    Asked for again by a person (--retry-failed) it has as much once more.
    """

    tries: int = Field(
        12, ge=1, le=1000, description="purchases that brought nothing, those that may not be on the bill too"
    )
    rub: Decimal = Field(Decimal(100), gt=0, le=1_000_000, description="roubles since the last result")


class LLMSettings(_Model):
    """Models by step, and how their bills become roubles."""

    rub_per_usd: Decimal = Field(gt=0)
    concurrency: int = Field(8, ge=1, le=200, description="LLM requests of one step at once")
    correction: ModelChoice
    classification: ModelChoice
    criteria: ModelChoice
    summary: ModelChoice
    criteria_per_request: int = Field(6, ge=1, le=50)
    ceiling: Ceiling = Ceiling()

    def roubles(self, cost_usd: Decimal) -> Decimal:
        """Dollars in roubles, to six places."""
        return (cost_usd * self.rub_per_usd).quantize(Decimal("0.000001"))

    def shares(self, cost_usd: Decimal, parts: int) -> list[Decimal]:
        """The cost of one request in roubles, split over the results that it gave; the shares add up to the whole."""
        if parts == 0:
            return []
        whole = self.roubles(cost_usd)
        share = (whole / parts).quantize(Decimal("0.000001"), ROUND_DOWN)
        return [whole - share * (parts - 1), *[share] * (parts - 1)]


class Category(_Model):
    """A kind of dialog; a dialog may have several."""

    name: Slug
    title: Text
    description: Text
    criteria: tuple[Slug, ...]

    @property
    def version(self) -> str:
        """Changes with the text that the classifier sees."""
        return _version(self.title, self.description)

    @property
    def label(self) -> str:
        """name@version: this very wording."""
        return f"{self.name}@{self.version}"


class Scale(_Model):
    """Whole-number scores from `min` to `max`, both included."""

    min: int = 0
    max: int = 10

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min >= self.max:
            raise ValueError(f"min {self.min} must be below max {self.max}")
        return self


class Criterion(_Model):
    """One question to a dialog, answered with a score and a text."""

    name: Slug
    title: Text
    text: Text
    scale: Scale = Scale()
    include_in_entity_description: bool = False

    @property
    def label(self) -> str:
        """name@version: this very wording."""
        return f"{self.name}@{self.version}"

    @property
    def version(self) -> str:
        """A changed text or scale is a new version; the flag only chooses what a summary uses."""
        return _version(self.title, self.text, str(self.scale.min), str(self.scale.max))


class Portal(_Model):
    """One Bitrix24 portal: everything the nine assets need to know about it."""

    portal: PortalId
    title: Text
    domain: HostName
    time_zone: str
    start_date: date = Field(ge=date(2000, 1, 1))
    nightly_at: Annotated[str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] = "03:15"
    trailing_days: int = Field(3, ge=0, le=31, description="days before yesterday that each night reads again")
    catch_up_days: int = Field(
        31, ge=0, le=366, description="how far back a night takes up nights that did not run; 0: never"
    )
    days_per_run: int | None = Field(None, ge=1, description="a backfill's days per run; empty: the whole range in one")
    bitrix24: Bitrix24Settings
    channels: Channels
    audio: AudioSettings = AudioSettings()
    speech: SpeechSettings = SpeechSettings()
    dialogs: DialogSettings = DialogSettings()
    llm: LLMSettings
    summary_max_characters: int = Field(1500, ge=200, le=20000)
    categories: tuple[Category, ...] = Field(min_length=1)
    criteria: tuple[Criterion, ...] = Field(min_length=1)

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"expected an IANA time zone such as Europe/Moscow{_found(value)}") from error
        return value

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        mistakes = _disagreements(self.model_dump())
        if mistakes:
            raise ValueError("; ".join(_dotted(loc) + text for loc, text in mistakes))
        return self

    @property
    def zone(self) -> ZoneInfo:
        """The portal's time zone."""
        return ZoneInfo(self.time_zone)

    def criteria_of(self, categories: Iterable[str]) -> list[Criterion]:
        """The criteria that the named categories select, each once, in the file's order."""
        wanted = {
            name for category in self.categories if category.name in set(categories) for name in category.criteria
        }
        return [criterion for criterion in self.criteria if criterion.name in wanted]


def _version(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:12]


def portals_folder() -> Path:
    """Where the portal files are: DIALOG_ASSETS_PORTALS, by default `portals` in the working directory."""
    return Path(os.environ.get("DIALOG_ASSETS_PORTALS") or "portals")


def load_portals(folder: Path) -> list[Portal]:
    """Read every `*.yaml` of `folder`, sorted by portal id.

    Raises PortalsError with every mistake of every file: file, line, path, what was expected.
    """
    portals, mistakes = readable_portals(folder)
    if mistakes:
        raise PortalsError(mistakes)
    return portals


def readable_portals(folder: Path) -> tuple[list[Portal], list[str]]:
    """The portals of the files that can be used, sorted by portal id, and the mistakes of the others.

    Raises PortalsError if no file can be used.
    """
    if not folder.is_dir():
        raise PortalsError([f"{folder}: no such folder; set DIALOG_ASSETS_PORTALS to the folder of the portal files"])
    mistakes: list[str] = []
    portals: dict[str, Portal] = {}
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        portal, problems = read_portal(path)
        mistakes += problems
        if portal is not None and portal.portal in portals:
            mistakes.append(f"{path.name}: portal {portal.portal} has another file already; keep one of the two")
        elif portal is not None and (other := _same_portal(portal, portals.values())) is not None:
            mistakes.append(f"{path.name}: {other}; calls would be bought twice, under two names: keep one of the two")
        elif portal is not None:
            portals[portal.portal] = portal
    if not portals:
        raise PortalsError(
            mistakes or [f"{folder}: holds no portal file (*.yaml); copy portals/okna_sever.yaml of the project"]
        )
    return sorted(portals.values(), key=lambda portal: portal.portal), mistakes


def _same_portal(portal: Portal, others: Iterable[Portal]) -> str | None:
    """What shows that a portal is one of the `others` under another name: a credential, by its variable or its value, or the
    domain."""
    for other in others:
        names = zip(portal.bitrix24.credentials, other.bitrix24.credentials, strict=False)
        *_, (mine, its) = names
        if portal.bitrix24.oauth is not None and other.bitrix24.oauth is not None and mine == its:
            return f"bitrix24.oauth.refresh_token is {mine}, as for portal {other.portal}"
        if (portal.bitrix24.oauth is None) != (other.bitrix24.oauth is None):
            mine, its = "", "-"
        if mine == its:
            return f"bitrix24.webhook is {mine}, as for portal {other.portal}"
        value = os.environ.get(mine, "").strip().rstrip("/")
        if value and value == os.environ.get(its, "").strip().rstrip("/"):
            return f"{mine} holds the same credential as {its}, that of portal {other.portal}"
        if portal.domain == other.domain:
            return f"domain is {portal.domain}, as for portal {other.portal}"
    return None


def read_portal(path: Path) -> tuple[Portal | None, list[str]]:
    """Read one portal file: the portal, or None and one sentence a mistake."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            return None, [f"{path.name}: not a portal file: it is larger than {LARGEST_FILE // 1000} kB"]
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=_Loader)
        if _unfolded(node, {}) > LARGEST_FILE:
            return None, [f"{path.name}: not a portal file: it is nested without end"]
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
        doubles = _double_keys(node)
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
        return None, [_unreadable(path, error)]
    if not isinstance(data, dict):
        return None, [f"{path.name}: expected a mapping of settings, found {type(data).__name__}"]
    mistakes = [(line, f"key {key} is given twice") for key, line in doubles]
    found: list[tuple[Loc, str]] = _disagreements(data)
    portal: Portal | None = None
    try:
        portal = Portal.model_validate(data)
    except ValidationError as error:
        # What the names disagree in is found above, with its place and also where other settings are wrong.
        found += [
            (problem["loc"], _expected(dict(problem))) for problem in error.errors(include_url=False) if problem["loc"]
        ]
    name = data.get("portal")
    if isinstance(name, str) and name != path.stem:
        found.append((("portal",), f"expected the file's name {path.stem!r}{_found(name)}"))
    mistakes += [(_line(node, loc), _dotted(loc) + text) for loc, text in found]
    sentences = [f"{path.name}:{line}: {text}" for line, text in sorted(set(mistakes))]
    return (None, sentences) if sentences else (portal, [])


class _Loader(yaml.SafeLoader):
    """SafeLoader without dates: pydantic reads them, and says where a day does not exist instead of raising ValueError."""


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _disagreements(data: dict[str, Any]) -> list[tuple[Loc, str]]:
    """Names given twice, and selected criteria that the file does not have; parts of another shape are passed over."""
    found: list[tuple[Loc, str]] = []
    names: dict[str, list[object]] = {}
    for kind in ("categories", "criteria"):
        names[kind] = []
        for place, part in enumerate(_listed(data.get(kind))):
            name = part.get("name") if isinstance(part, dict) else None
            if name is not None and name in names[kind]:
                found.append(((kind, place, "name"), f"{kind} has the name {name} more than once"))
            names[kind].append(name)
    for place, category in enumerate(_listed(data.get("categories"))):
        selected = _listed(category.get("criteria")) if isinstance(category, dict) else ()
        found += [
            (("categories", place, "criteria", index), f"unknown criterion {name}; expected a name from `criteria`")
            for index, name in enumerate(selected)
            if isinstance(name, str) and name not in names["criteria"]
        ]
    return found


def _listed(value: object) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{path.name}:{error.problem_mark.line + 1}: not valid YAML: {error.problem}"
    if isinstance(error, UnicodeDecodeError):
        return f"{path.name}: not UTF-8 text: save the file in UTF-8"
    if isinstance(error, yaml.reader.ReaderError):
        return f"{path.name}: not valid YAML: character #x{error.character:02x} at position {error.position}"
    if isinstance(error, RecursionError):
        return f"{path.name}: not a portal file: it is nested without end"
    if isinstance(error, OSError):
        return f"{path.name}: cannot be read: {error.strerror}"
    return f"{path.name}: not valid YAML: a value does not fit its tag"


def _unfolded(node: yaml.Node | None, known: dict[int, float]) -> float:
    """How many values a node stands for once its aliases are followed; one that holds itself has no end."""
    if id(node) not in known:
        known[id(node)] = math.inf
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else ()
        if isinstance(node, yaml.SequenceNode):
            parts = node.value
        known[id(node)] = 1 + sum(_unfolded(part, known) for part in parts)
    return known[id(node)]


def _double_keys(node: yaml.Node | None) -> list[tuple[str, int]]:
    """Keys that a mapping has twice, of which YAML would keep the last; (key, line of the second)."""
    found: list[tuple[str, int]] = []
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                found.append((str(key.value), key.start_mark.line + 1))
            seen.add(key.value)
            found += _double_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            found += _double_keys(value)
    return found


def _line(node: yaml.Node | None, loc: Loc) -> int:
    """Line of the deepest node of `loc` that the file has."""
    line = 1 if node is None else node.start_mark.line + 1
    for step in loc:
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == str(step)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _dotted(loc: Loc) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc).lstrip(".")
    return f"{text}: " if text else ""


LONGEST_SHOWN = 20
_ENV_NAME = r"^[A-Z][A-Z0-9_]*$"
_ENV_NAMES = ("webhook", "api_key", "client_id", "client_secret", "refresh_token")
_PATTERNS = {
    r"^[a-z][a-z0-9_]{0,30}$": "expected lower-case Latin letters, digits and _, at most 31, starting with a letter",
    r"^[\w.-]+(:\d+)?$": "expected the portal's host name such as acme.bitrix24.ru, without https:// and path",
    r"^(https://|http://(127\.0\.0\.1|localhost)[:/])": "expected an address that begins with https://",
    _ENV_NAME: "expected the NAME of an environment variable (never the secret itself)",
    r"^([01]\d|2[0-3]):[0-5]\d$": "expected a time such as 03:15, in quotes",
}


def _expected(problem: dict[str, Any]) -> str:
    """Pydantic's message in the words of someone who edits YAML; the given value is not repeated where it may be secret."""
    kind = problem["type"]
    if kind == "missing":
        return "required, but missing"
    if kind == "extra_forbidden":
        return "unknown setting; check its spelling"
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(problem["ctx"]["pattern"], str(problem["msg"]))
    if problem["loc"][-1] in _ENV_NAMES:
        return _PATTERNS[_ENV_NAME]
    if kind in ("model_type", "dict_type"):
        return "expected a mapping of settings"
    if kind == "string_type":
        return f"expected text, in quotes where YAML takes it for something else{_found(problem.get('input'))}"
    if kind == "value_error":
        return re.sub(r"^Value error, ", "", problem["msg"])
    return f"{problem['msg'][0].lower()}{problem['msg'][1:]}{_found(problem.get('input'))}"


def _found(value: object) -> str:
    """The value given, if it is too short to be a credential that was put in the wrong place."""
    shown = isinstance(value, str | int | float | bool) and len(str(value)) <= LONGEST_SHOWN
    return f", found {str(value)!r}" if shown else ""
