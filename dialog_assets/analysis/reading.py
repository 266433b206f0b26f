"""What models write into the fields of an answer, read where its meaning is certain and refused where it is not.

Here: types of fields for answers, each with the plain JSON schema that the model is shown, and lists of which one bad
element does not spoil the others. Not here: which lines, names and scales there are (each step's module).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, PlainValidator, ValidationError, model_validator

from dialog_assets.analysis.lines import clean_text

M = TypeVar("M", bound=BaseModel)

_WHOLE = re.compile(r"([+-]?\d{1,9})(?:[.,]0{1,9})?")
_ONE_AS_SHARE = re.compile(r"\+?1[.,]0+")
_OUT_OF = re.compile(r"(\d{1,9})(?:[.,]0{1,9})? ?(?:/|из|out of) ?(\d{1,9})(?:[.,]0{1,9})?")
_PERCENT = re.compile(r"(\d{1,9})(?:[.,]0{1,9})? ?(?:%|проц(?:ент)?[а-я]*\.?)")
_NOTHING = frozenset(
    (
        *("", "-", "–", "—", "null", "none", "nil", "n/a", "na", "n.a.", "н/п", "н/д", "нет", "нет оценки"),
        *("неприменимо", "неприменим", "не применимо", "не применим", "not applicable"),
    )
)
_YES, _NO = frozenset(("true", "да", "yes", "истина")), frozenset(("false", "нет", "no", "ложь"))


class OutOf(int):
    """A score that names the top of its scale, as in `8/10`."""

    of: int

    def __new__(cls, value: int, of: int) -> OutOf:
        """`value` out of `of`."""
        made = super().__new__(cls, value)
        made.of = of
        return made


def plain(text: str) -> str:
    """One visible line in its plainest spelling, without quotes, backticks and bold marks around it."""
    return clean_text(unicodedata.normalize("NFKC", text)).strip("`'\"«»“”„*_ ")


def words(value: object) -> str:
    """A text; nothing else is taken for one."""
    if not isinstance(value, str):
        raise ValueError("нужна строка")
    return value


def flag(value: object) -> bool:
    """true or false, also as a word."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        word = plain(value).lower()
        if word in _YES or word in _NO:
            return word in _YES
    raise ValueError("нужно true или false")


def whole(value: object) -> int:
    """A whole number, also as a text or with zeros behind the point; never a truth value, a fraction or infinity."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e9:
        return int(value)
    if isinstance(value, str) and (match := _WHOLE.fullmatch(_digits(value))):
        return int(match[1])
    raise ValueError("нужно целое число")


def percent(value: object) -> int:
    """A whole number of percent, with or without its sign; not 1.0, which is all of it where others write 0.85."""
    if isinstance(value, str) and (match := _PERCENT.fullmatch(_digits(value).lower())):
        return int(match[1])
    if isinstance(value, float | str) and _ONE_AS_SHARE.fullmatch(plain(str(value))):
        raise ValueError("нужно целое число процентов")
    return whole(value)


def _digits(text: str) -> str:
    """`text` as `plain` spells it, but where that would make another number of it: 8² is not 82."""
    return "" if any(unicodedata.category(char) == "No" for char in text[:100]) else plain(text)


def score(value: object) -> int | None:
    """A whole number, also `8/10` (an OutOf), or None where a word says that there is none."""
    if value is None:
        return None
    if isinstance(value, str):
        word = plain(value).lower()
        if word in _NOTHING or clean_text(value).lower() in _NOTHING:
            return None
        if match := _OUT_OF.fullmatch(_digits(value).lower()):
            return OutOf(int(match[1]), int(match[2]))
    return whole(value)


Words = Annotated[str, PlainValidator(words, json_schema_input_type=str)]
Flag = Annotated[bool, PlainValidator(flag, json_schema_input_type=bool)]
Percent = Annotated[int, PlainValidator(percent, json_schema_input_type=int)]
Score = Annotated[int | None, PlainValidator(score, json_schema_input_type=int | None)]


class Part(BaseModel):
    """An object of an answer. Its keys may come in any case; the lists named in `may_lack` may be missing or null."""

    may_lack: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _keys_and_lists(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        found: dict[str, Any] = {}
        for key, value in data.items():
            name = plain(key).lower() if isinstance(key, str) else key
            if name in found and name in cls.model_fields and found[name] != value:
                raise ValueError(f"два значения у {name}")
            found[name] = value
        for name in cls.may_lack:
            if found.get(name) is None:
                found[name] = []
        return found


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An element of a list that does not have its shape: what it seems to be about, and what is wrong with it."""

    about: str
    complaint: str


def each(model: type[M], key: str) -> PlainValidator:
    """The elements of a list one by one: those of another shape as Unreadable, told apart by their `key`.

    One object that stands in place of a list is its only element.
    """

    def read(value: object) -> list[M | Unreadable]:
        items = [value] if isinstance(value, dict) else value
        if not isinstance(items, list):
            raise ValueError("нужен список")
        return [_one(model, key, item) for item in items]

    return PlainValidator(read, json_schema_input_type=list[model])  # type: ignore[valid-type]


def _one(model: type[M], key: str, item: object) -> M | Unreadable:
    try:
        return model.model_validate(item)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, problem["loc"]))
        said = clean_text(str(problem["input"])[:60])
        about = next((v for k, v in item.items() if plain(k).lower() == key), None) if isinstance(item, dict) else None
        return Unreadable(
            about if isinstance(about, str) else "", f"{place or 'объект'}: {problem['msg']}, найдено {said!r}"
        )
