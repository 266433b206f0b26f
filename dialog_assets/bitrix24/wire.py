"""How single values arrive from Bitrix24, read into Python types (facts/bitrix24.md 1.2).

Here: the rows of an answer, one reader of one row's fields. Not here: which fields a row has (rows.py).
PHP sends numbers as texts, and "nothing" as null, "", [], {} or "0"; which of them is a habit of the method.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import MAXYEAR, MINYEAR, datetime
from decimal import Decimal
from typing import Any

from dialog_assets.bitrix24.errors import Bitrix24DataError, RowError

_PLACES = 32
"""Of a number that is worth reading; amounts of money and ids have fewer."""

_SURELY_SMALL = 10
"""Digits; fewer fit into 32 bits."""


class Fields:
    """The fields of one row of `method`; each reader raises RowError for a value that is neither readable nor empty."""

    def __init__(self, method: str, row: object) -> None:
        if not isinstance(row, Mapping):
            raise RowError(method, "(the row itself)", "an object")
        self.row: dict[str, Any] = dict(row)
        self._method = method
        self._id: int | None = None
        self._id = self.number("ID" if "ID" in row else "id")

    @property
    def id(self) -> int:
        """The row's ID; RowError when it has none."""
        if self._id is None:
            raise self.unreadable("ID", "a whole number")
        return self._id

    def unreadable(self, name: str, expected: str) -> RowError:
        """The error for field `name`, without its value."""
        return RowError(self._method, name, expected, self._id)

    def number(self, name: str, *, bits: int = 64) -> int | None:
        """A whole number of so many bits with its sign, None when empty."""
        value = self._value(name)
        if value is None:
            return None
        number = whole_number(value, bits)
        if number is None:
            raise self.unreadable(name, "a whole number" if bits == 64 else f"a whole number of at most {bits} bits")
        return number

    def reference(self, name: str, *, bits: int = 64) -> int | None:
        """The id of another object, None when empty or 0."""
        return self.number(name, bits=bits) or None

    def decimal(self, name: str) -> Decimal | None:
        """An amount, None when empty."""
        value = self._value(name)
        if value is None:
            return None
        amount = _amount(value)
        if amount is None:
            raise self.unreadable(name, f"a number of at most {_PLACES} places")
        return amount

    def text(self, name: str, *, longest: int | None = None) -> str | None:
        """A text without surrounding blanks, of at most `longest` characters, None when empty."""
        value = self._value(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self.unreadable(name, "a text")
        text = str(value).strip()
        if longest is not None and len(text) > longest:
            raise self.unreadable(name, f"a text of at most {longest} characters")
        return text or None

    def moment(self, name: str) -> datetime:
        """An ISO-8601 moment with offset."""
        moment = moment_of(self._value(name))
        if moment is None:
            raise self.unreadable(name, "a date and time with offset")
        return moment

    def flag(self, name: str, *, default: bool) -> bool:
        """A yes or no: true, "Y", "1", 1 and their opposites; `default` when empty."""
        value = self.row.get(name)
        if value in (True, "Y", "y", "1", "true"):
            return True
        if value in (False, "N", "n", "0", "false"):
            return False
        if self._value(name) is None:
            return default
        raise self.unreadable(name, "a yes or no")

    def numbers(self, name: str) -> list[int]:
        """Whole numbers of a list, of a map's values, or of a single value."""
        value = self._value(name)
        if value is None or value is False:
            return []
        values = list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else [value]
        numbers = []
        for entry in values:
            if entry not in (None, "", False):
                number = whole_number(entry, 64)
                if number is None:
                    raise self.unreadable(name, "a list of whole numbers")
                numbers.append(number)
        return numbers

    def typed(self, name: str, kind: str) -> list[str]:
        """The values of `fm` of the crm.item family that are of `kind` (PHONE, EMAIL …), each once, in order."""
        value = self._value(name)
        entries = list(value.values()) if isinstance(value, Mapping) else value or []
        if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
            raise self.unreadable(name, "a list of values")
        texts = (str(entry.get("value") or "").strip() for entry in entries if entry.get("typeId") == kind)
        return list(dict.fromkeys(text for text in texts if text))

    def multifield(self, name: str) -> list[str]:
        """The VALUEs of a multifield such as PHONE, each once, in the portal's order."""
        value = self._value(name)
        if value is None or value is False:
            return []
        entries = list(value.values()) if isinstance(value, Mapping) else value
        if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
            raise self.unreadable(name, "a list of values")
        texts = (str(entry.get("VALUE") or "").strip() for entry in entries)
        return list(dict.fromkeys(text for text in texts if text))

    def _value(self, name: str) -> Any:
        value = self.row.get(name)
        return None if value in ("", [], {}) or (isinstance(value, str) and not value.strip()) else value


def id_of(row: object) -> int | None:
    """The id of a row, of either crm family; None when it has none that can be read."""
    if not isinstance(row, dict):
        return None
    return whole_number(row["ID"] if "ID" in row else row.get("id"), 64)


def moment_of(value: object) -> datetime | None:
    """An ISO-8601 moment with offset; None for anything else, and at the ends of the calendar, where time zones fail."""
    try:
        moment = datetime.fromisoformat(value.strip()) if isinstance(value, str) else None
    except ValueError:
        return None
    if moment is None or moment.utcoffset() is None or not MINYEAR < moment.year < MAXYEAR:
        return None
    return moment


def _amount(value: object) -> Decimal | None:
    """A finite number of at most _PLACES places before the point and about as many after it; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        text = str(value).strip()
        amount = Decimal(text)
    except (ArithmeticError, ValueError):
        return None
    # Python reads other scripts' digits and 1_000 too. An exponent alone can ask for a gigabyte of digits.
    if not text.isascii() or "_" in text or not amount.is_finite():
        return None
    return amount if len(text) <= 2 * _PLACES and abs(amount.adjusted()) < _PLACES else None


def whole_number(value: object, bits: int = 64) -> int | None:
    """A whole number of so many bits with its sign; None for anything else."""
    if isinstance(value, str) and len(value) < _SURELY_SMALL and value.isdecimal() and value.isascii():
        return int(value)
    amount = _amount(value)
    if amount is None or amount != amount.to_integral_value():
        return None
    number = int(amount)
    return number if -(2 ** (bits - 1)) <= number < 2 ** (bits - 1) else None


def rows_of(method: str, result: object) -> list[Any]:
    """The rows of a list method's result, as they came: whether a row is an object is told by who reads it.

    PHP sends a list with gaps as a map, crm.item.list has its rows in `items`.
    """
    if isinstance(result, Mapping) and "items" in result:
        result = result["items"]
    if isinstance(result, Mapping) and all(isinstance(row, Mapping) for row in result.values()):
        result = list(result.values())
    if not isinstance(result, list):
        raise Bitrix24DataError("no_rows", method=method, description="the answer is not a list of rows")
    return result
