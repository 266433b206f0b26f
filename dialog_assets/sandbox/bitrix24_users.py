"""user.get, profile and scope of the stand-in (facts/bitrix24.md 6): who works here, and what the webhook may do."""

from __future__ import annotations

from datetime import datetime

from dialog_assets.sandbox.bitrix24_calling import Answer, Method, MethodCall
from dialog_assets.sandbox.bitrix24_filter import CRM_OPERATORS, Kind, read_filter
from dialog_assets.sandbox.bitrix24_table import Sort


def _kind(field: str) -> Kind:
    if field == "ACTIVE":
        return "bool"
    return "number" if field == "ID" else "text"


def _users(call: MethodCall) -> Answer:
    """A missing user is just left out; a dismissed one comes with ACTIVE false."""
    table, zone = call.state.users, call.state.zone
    known = table.fields
    tests = read_filter(
        call.param("FILTER"), CRM_OPERATORS, lambda field: _kind(field) if field in known else None, zone
    )
    field = str(call.param("SORT") or "ID")
    descending = str(call.param("ORDER") or "ASC").upper() == "DESC"
    order = [Sort(field, _kind(field), zone, descending)] if field in known else []
    return Answer.page(table.find(tests, order, call.start), table.text)


def _profile(call: MethodCall) -> Answer:
    """The user who made the webhook, an administrator unless it may see the calls of some employees only.

    It need not be among the portal's employees: a system user never is.
    """
    user = call.access.user
    row = call.state.users.row(user) or {}
    offset = datetime.now(call.state.zone).utcoffset()
    return Answer(
        {
            "ID": str(user),
            "ADMIN": not call.state.habits.visible_users,
            "NAME": row.get("NAME", ""),
            "LAST_NAME": row.get("LAST_NAME", ""),
            "PERSONAL_GENDER": row.get("PERSONAL_GENDER", ""),
            "TIME_ZONE": call.state.portal.time_zone,
            "TIME_ZONE_OFFSET": int(offset.total_seconds()) if offset is not None else 0,
        }
    )


def _scope(call: MethodCall) -> Answer:
    return Answer(list(call.state.scopes))


METHODS = {
    "user.get": Method(("user", "user_basic", "user_brief"), _users),
    "profile": Method((), _profile),
    "scope": Method((), _scope),
}
