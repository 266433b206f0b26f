"""How single values arrive from Bitrix24, read into Python types (facts/bitrix24.md 1.2).

Here: the rows of an answer, one reader of one row's fields. Not here: which fields a row has (rows.py).
PHP sends numbers as texts, and "nothing" as null, "", [], {} or "0"; which of them is a habit of the method.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from dialog_assets.bitrix24.errors import Bitrix24DataError, RowError


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

    def number(self, name: str) -> int | None:
        """A whole number, None when empty."""
        value = self._value(name)
        if value is None:
            return None
        number = self.decimal(name)
        if number is None or number != number.to_integral_value() or abs(number) >= 2**63:
            raise self.unreadable(name, "a whole number")
        return int(number)

    def reference(self, name: str) -> int | None:
        """The id of another object, None when empty or 0."""
        return self.number(name) or None

    def decimal(self, name: str) -> Decimal | None:
        """An amount, None when empty."""
        value = self._value(name)
        if value is None:
            return None
        try:
            amount = Decimal(str(value).strip()) if isinstance(value, str | int | float) else Decimal("NaN")
        except InvalidOperation:
            amount = Decimal("NaN")
        if not amount.is_finite() or isinstance(value, bool):
            raise self.unreadable(name, "a number")
        return amount

    def text(self, name: str) -> str | None:
        """A text without surrounding blanks, None when empty."""
        value = self._value(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self.unreadable(name, "a text")
        return str(value).strip() or None

    def moment(self, name: str) -> datetime:
        """An ISO-8601 moment with offset."""
        value = self._value(name)
        try:
            moment = datetime.fromisoformat(value.strip()) if isinstance(value, str) else None
        except ValueError:
            moment = None
        if moment is None or moment.utcoffset() is None:
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
        try:
            return [int(entry) for entry in values if entry not in (None, "", False)]
        except (TypeError, ValueError):
            failure = self.unreadable(name, "a list of whole numbers")
        raise failure

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


def row_id(method: str, row: Mapping[str, Any]) -> int:
    """The id of a row, of either crm family; RowError when it has none."""
    value = row.get("ID", row.get("id"))
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return Fields(method, row).id


def rows_of(method: str, result: object) -> list[dict[str, Any]]:
    """The rows of a list method's result; PHP sends a list with gaps as a map, crm.item.list has its rows in `items`."""
    if isinstance(result, Mapping) and "items" in result:
        result = result["items"]
    rows = list(result.values()) if isinstance(result, Mapping) else result
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Bitrix24DataError("no_rows", method=method, description="the answer is not a list of rows")
    return rows
