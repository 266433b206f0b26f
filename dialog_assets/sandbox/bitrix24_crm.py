"""crm.{contact,lead,company,deal}.{list,get} of the stand-in and a deal's contacts (facts/bitrix24.md 5.1 to 5.3).

Here: the classic family with its select rules. Not here: the universal crm.item.*, activities, writing.
Unknown fields of a filter are ignored: facts 11.8 leaves it open, and silence is what a client must survive.
"""

from __future__ import annotations

from collections.abc import Callable

from dialog_assets.sandbox.bitrix24_calling import CRM_TYPES, Answer, Method, MethodCall, MethodError
from dialog_assets.sandbox.bitrix24_filter import CRM_OPERATORS, Kind, read_filter
from dialog_assets.sandbox.bitrix24_php import as_list, as_map, to_int
from dialog_assets.sandbox.bitrix24_rows import MULTIFIELDS, Select
from dialog_assets.sandbox.bitrix24_table import Sort, Table

_KINDS: dict[str, Kind] = {
    **dict.fromkeys(MULTIFIELDS, "multifield"),
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


def crm_kind(field: str) -> Kind:
    """How a classic field is compared."""
    return _KINDS.get(field, "text")


def crm_fields(name: str, table: Table) -> frozenset[str]:
    """The classic fields of a type."""
    return table.fields.union(_ALL.split(), _OWN[name].split())


def classic_page(
    call: MethodCall, table: Table, known: frozenset[str], kind: Callable[[str], Kind], hidden: tuple[str, ...]
) -> Answer:
    """A page of a classic list: `filter`, `order`, `select` and `start`; `hidden` fields come only when named."""
    zone = call.state.zone
    tests = read_filter(
        call.param("FILTER"), CRM_OPERATORS, lambda field: kind(field) if field in known else None, zone
    )
    order = [
        Sort(field, kind(field), zone, str(direction).upper() == "DESC")
        for field, direction in as_map(call.param("ORDER")).items()
        if field in known and field not in hidden
    ]
    names = frozenset(str(field) for field in as_list(call.param("SELECT"))) or frozenset("*")
    select = Select(names, "*" in names, "UF_*" in names, frozenset(hidden))
    return Answer.page(table.find(tests, order, call.start), lambda number: table.text(number, select))


def _lister(name: str) -> Callable[[MethodCall], Answer]:
    def run(call: MethodCall) -> Answer:
        table = call.state.crm[name]
        return classic_page(call, table, crm_fields(name, table), crm_kind, MULTIFIELDS)

    return run


def _getter(name: str) -> Callable[[MethodCall], Answer]:
    def run(call: MethodCall) -> Answer:
        number = to_int(call.param("ID"))
        if number <= 0:
            raise MethodError("", "ID is not defined or invalid.")
        row = call.state.crm[name].row(number)
        if row is None:
            raise MethodError("", "Not found")
        return Answer({field: value for field, value in row.items() if field not in MULTIFIELDS or value})

    return run


def _contacts_of_deal(call: MethodCall) -> Answer:
    number = to_int(call.param("ID"))
    row = call.state.crm["deal"].row(number)
    if row is None:
        raise MethodError("", "Not found" if number > 0 else "The parameter 'ownerEntityID' is invalid or not defined.")
    contact = to_int(row.get("CONTACT_ID"))
    entry = {"CONTACT_ID": contact, "SORT": 10, "ROLE_ID": 0, "IS_PRIMARY": "Y"}
    return Answer([entry] if contact else [])


METHODS = {
    **{f"crm.{name}.list": Method(("crm",), _lister(name)) for name in CRM_TYPES},
    **{f"crm.{name}.get": Method(("crm",), _getter(name)) for name in CRM_TYPES},
    "crm.deal.contact.items.get": Method(("crm",), _contacts_of_deal),
}
