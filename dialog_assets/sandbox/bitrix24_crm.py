"""crm.{contact,lead,company,deal}.{list,get} of the stand-in (facts/bitrix24.md 5.1 to 5.3).

Here: the classic family with its select rules. Not here: the universal crm.item.*, activities, writing.
Unknown fields of a filter are ignored: facts 11.8 leaves it open, and silence is what a client must survive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dialog_assets.sandbox.bitrix24_calling import Answer, Method, MethodCall, MethodError, PortalState, page
from dialog_assets.sandbox.bitrix24_filter import CRM_OPERATORS, Kind, read_filter, sort_rows
from dialog_assets.sandbox.bitrix24_php import as_list, as_map, to_int

_MULTIFIELDS = ("PHONE", "EMAIL", "WEB", "IM")
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(_MULTIFIELDS, "multifield"),
    **dict.fromkeys(("ID", "CONTACT_ID", "COMPANY_ID", "LEAD_ID", "CATEGORY_ID", "OPPORTUNITY", "REVENUE"), "number"),
    **dict.fromkeys(("ASSIGNED_BY_ID", "CREATED_BY_ID", "MODIFY_BY_ID", "LAST_ACTIVITY_BY"), "number"),
    **dict.fromkeys(("DATE_CREATE", "DATE_MODIFY", "DATE_CLOSED", "LAST_ACTIVITY_TIME", "MOVED_TIME"), "date"),
    **dict.fromkeys(("BEGINDATE", "CLOSEDATE", "BIRTHDATE"), "date"),
}

# Fields that a filter knows even where no row of the world has them (facts 5.2).
_ALL = (
    "ID ASSIGNED_BY_ID CREATED_BY_ID MODIFY_BY_ID DATE_CREATE DATE_MODIFY OPENED COMMENTS SOURCE_ID ORIGINATOR_ID "
    "ORIGIN_ID LAST_ACTIVITY_TIME LAST_ACTIVITY_BY"
)
_OWN = {
    "contact": "NAME SECOND_NAME LAST_NAME POST TYPE_ID COMPANY_ID LEAD_ID BIRTHDATE HAS_PHONE HAS_EMAIL PHONE EMAIL",
    "lead": "TITLE NAME SECOND_NAME LAST_NAME COMPANY_TITLE STATUS_ID STATUS_SEMANTIC_ID OPPORTUNITY CURRENCY_ID "
    "CONTACT_ID COMPANY_ID HAS_PHONE HAS_EMAIL PHONE EMAIL",
    "company": "TITLE COMPANY_TYPE INDUSTRY EMPLOYEES REVENUE CURRENCY_ID LEAD_ID HAS_PHONE HAS_EMAIL PHONE EMAIL",
    "deal": "TITLE TYPE_ID CATEGORY_ID STAGE_ID STAGE_SEMANTIC_ID OPPORTUNITY CURRENCY_ID COMPANY_ID CONTACT_ID "
    "LEAD_ID CLOSED BEGINDATE CLOSEDATE",
}

Rows = Callable[[PortalState], dict[int, dict[str, Any]]]


def _kind(field: str) -> Kind:
    return _KINDS.get(field, "text")


def _lister(name: str, rows_of: Rows) -> Callable[[MethodCall], Answer]:
    def run(call: MethodCall) -> Answer:
        table = rows_of(call.state)
        known = {*_ALL.split(), *_OWN[name].split(), *(field for row in table.values() for field in row)}
        zone = call.state.zone
        conditions = read_filter(
            call.param("FILTER"), CRM_OPERATORS, lambda field: _kind(field) if field in known else None, zone
        )
        rows = [row for _, row in sorted(table.items()) if all(condition.holds(row) for condition in conditions)]
        for field, direction in reversed(as_map(call.param("ORDER")).items()):
            if field in known and field not in _MULTIFIELDS:
                rows = sort_rows(rows, field, _kind(field), zone, descending=str(direction).upper() == "DESC")
        answer = page(rows, call.start)
        select = [str(field) for field in as_list(call.param("SELECT"))] or ["*"]
        return replace(answer, result=[_select(row, select) for row in answer.result])

    return run


def _select(row: dict[str, Any], select: list[str]) -> dict[str, Any]:
    """`*` is every standard field, `UF_*` every custom one; PHONE and its like come only when named."""

    def wanted(field: str) -> bool:
        if field in select or field == "ID":
            return True
        return field not in _MULTIFIELDS and ("UF_*" if field.startswith("UF_") else "*") in select

    return {field: value for field, value in row.items() if wanted(field)}


def _getter(rows_of: Rows) -> Callable[[MethodCall], Answer]:
    def run(call: MethodCall) -> Answer:
        number = to_int(call.param("ID"))
        if number <= 0:
            raise MethodError("", "ID is not defined or invalid.")
        row = rows_of(call.state).get(number)
        if row is None:
            raise MethodError("", "Not found")
        return Answer({field: value for field, value in row.items() if field not in _MULTIFIELDS or value})

    return run


_TABLES: dict[str, Rows] = {
    "contact": lambda state: state.portal.contacts,
    "lead": lambda state: state.portal.leads,
    "company": lambda state: state.portal.companies,
    "deal": lambda state: state.portal.deals,
}

METHODS = {
    **{f"crm.{name}.list": Method(("crm",), _lister(name, rows_of)) for name, rows_of in _TABLES.items()},
    **{f"crm.{name}.get": Method(("crm",), _getter(rows_of)) for name, rows_of in _TABLES.items()},
}
