"""crm.item.list and crm.item.get of the stand-in: the same CRM objects in the universal family (facts/bitrix24.md 5.1).

Here: names and types of the universal form, its filter with nested logic and its hard errors. Not here: the rows
themselves, other entity types than lead, deal, contact and company.
Filter and order take the classic spelling too (ID, CONTACT_ID): both peers of facts 10 send it, the official one always.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from dialog_assets.sandbox.bitrix24_calling import Answer, Method, MethodCall, MethodError
from dialog_assets.sandbox.bitrix24_crm import crm_fields, crm_kind
from dialog_assets.sandbox.bitrix24_filter import CRM_OPERATORS, RowTest, read_filter
from dialog_assets.sandbox.bitrix24_php import as_list, as_map, to_int, to_number
from dialog_assets.sandbox.bitrix24_rows import MULTIFIELDS, Row, row_text
from dialog_assets.sandbox.bitrix24_table import Sort, Table

ENTITY_TYPES = {1: "lead", 2: "deal", 3: "contact", 4: "company"}
_RENAMED = {
    "DATE_CREATE": "createdTime",
    "DATE_MODIFY": "updatedTime",
    "CREATED_BY_ID": "createdBy",
    "MODIFY_BY_ID": "updatedBy",
    "STATUS_ID": "stageId",
    "STATUS_SEMANTIC_ID": "stageSemanticId",
}
_ID_NAMES = "ID ASSIGNED_BY_ID CREATED_BY_ID MODIFY_BY_ID LAST_ACTIVITY_BY COMPANY_ID CONTACT_ID LEAD_ID CATEGORY_ID"
_IDS = frozenset(_ID_NAMES.split())
_AMOUNTS = frozenset(("OPPORTUNITY", "REVENUE"))
_LOGIC = {"AND": all, "OR": any}


@dataclass(frozen=True)
class _Group:
    """Conditions of a nested `logic`."""

    logic: str
    tests: tuple[RowTest, ...]

    def holds(self, row: dict[str, Any]) -> bool:
        """Whether the row passes all of them, or any."""
        return _LOGIC[self.logic](test.holds(row) for test in self.tests)


@cache
def item_name(field: str, *, original_uf: bool = False) -> str:
    """The universal name of a classic field."""
    if field in _RENAMED:
        return _RENAMED[field]
    if field.startswith("UF_") and original_uf:
        return field
    first, *others = field.lower().split("_")
    return first + "".join(f"_{word}" if word[:1].isdigit() else word.capitalize() for word in others)


def item(row: Row, type_id: int, *, original_uf: bool = False) -> dict[str, Any]:
    """A classic row in the universal form: camelCase, ids and amounts as numbers, phones in `fm`."""
    made: dict[str, Any] = {}
    for field, value in row.items():
        if field in MULTIFIELDS:
            continue
        name = item_name(field, original_uf=original_uf)
        if field in _IDS:
            made[name] = to_int(value)
        elif field in _AMOUNTS:
            amount = float(to_number(value))
            made[name] = int(amount) if amount.is_integer() else amount
        else:
            made[name] = value or None if field.endswith("DATE") else value
    if type_id != 3:
        made["contactIds"] = [made["contactId"]] if made.get("contactId") else []
    made["entityTypeId"] = type_id
    made["fm"] = [
        {
            "id": to_int(entry["ID"]),
            "typeId": entry["TYPE_ID"],
            "valueType": entry["VALUE_TYPE"],
            "value": entry["VALUE"],
        }
        for field in MULTIFIELDS
        for entry in row.get(field) or ()
    ]
    return made


def _table(call: MethodCall) -> tuple[int, str, Table]:
    type_id = to_int(call.param("ENTITYTYPEID"))
    name = ENTITY_TYPES.get(type_id)
    if name is None:
        raise MethodError("NOT_FOUND", "The entity type was not found")
    return type_id, name, call.state.crm[name]


def _list(call: MethodCall) -> Answer:
    type_id, name, table = _table(call)
    original_uf = call.param("USEORIGINALUFNAMES") in ("Y", True)
    fields = crm_fields(name, table)
    classic = {**{field: field for field in fields}, **{item_name(one, original_uf=original_uf): one for one in fields}}
    classic |= {"contactIds": "CONTACT_ID"} if type_id != 3 else {}
    zone = call.state.zone
    tests = _tests(call, call.param("FILTER"), classic)
    order = []
    for field, direction in as_map(call.param("ORDER")).items():
        if field not in classic:
            raise MethodError("INVALID_ARG_VALUE", f"Invalid order: field '{field}' is not allowed in order")
        order.append(Sort(classic[field], crm_kind(classic[field]), zone, str(direction).upper() == "DESC"))
    names = {str(field) for field in as_list(call.param("SELECT"))} or {"*"}

    def text(number: int) -> str:
        made = item(table.row(number) or {}, type_id, original_uf=original_uf)
        return row_text({key: value for key, value in made.items() if "*" in names or key in names or key == "id"})

    answer = Answer.page(table.find(tests, order, call.start), text)
    return Answer({"items": answer.result}, answer.total, answer.next, answer.counted, answer.skipped)


def _tests(call: MethodCall, filter_: Any, classic: Mapping[str, str]) -> list[RowTest]:
    found: list[RowTest] = []
    flat: dict[str, Any] = {}
    given = as_map(filter_)
    for key, value in given.items():
        if key.isdigit() and isinstance(value, dict | list):
            logic = str(as_map(value).get("logic", "AND")).upper()
            inner = {name: one for name, one in as_map(value).items() if name != "logic"}
            found.append(_Group(logic if logic in _LOGIC else "AND", tuple(_tests(call, inner, classic))))
        elif key != "logic":
            flat[_classic_key(key, classic)] = value
    return [*read_filter(flat, CRM_OPERATORS, crm_kind, call.state.zone), *found]


def _classic_key(key: str, classic: Mapping[str, str]) -> str:
    prefix = next((operator for operator in CRM_OPERATORS if key.startswith(operator)), "")
    field = classic.get(key[len(prefix) :])
    if field is None:
        raise MethodError("INVALID_ARG_VALUE", f"Invalid filter: field '{re.sub(r'[<>&]', '', key)}' is not allowed")
    return prefix + field


def _get(call: MethodCall) -> Answer:
    type_id, _, table = _table(call)
    row = table.row(to_int(call.param("ID")))
    if row is None:
        raise MethodError("NOT_FOUND", "Element was not found")
    return Answer({"item": item(row, type_id, original_uf=call.param("USEORIGINALUFNAMES") in ("Y", True))})


_RUN: dict[str, Callable[[MethodCall], Answer]] = {"crm.item.list": _list, "crm.item.get": _get}
METHODS = {name: Method(("crm",), run) for name, run in _RUN.items()}
