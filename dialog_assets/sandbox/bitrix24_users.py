"""user.get, profile and scope of the stand-in (facts/bitrix24.md 6): who works here, and what the webhook may do."""

from __future__ import annotations

from datetime import datetime

from dialog_assets.sandbox.bitrix24_calling import Answer, Method, MethodCall, page
from dialog_assets.sandbox.bitrix24_filter import CRM_OPERATORS, Kind, read_filter, sort_rows


def _kind(field: str) -> Kind:
    if field == "ACTIVE":
        return "bool"
    return "number" if field == "ID" else "text"


def _users(call: MethodCall) -> Answer:
    """A missing user is just left out; a dismissed one comes with ACTIVE false."""
    table = call.state.portal.users
    known = {field for row in table.values() for field in row}
    zone = call.state.zone
    conditions = read_filter(
        call.param("FILTER"), CRM_OPERATORS, lambda field: _kind(field) if field in known else None, zone
    )
    rows = [row for _, row in sorted(table.items()) if all(condition.holds(row) for condition in conditions)]
    field = str(call.param("SORT") or "ID")
    if field in known:
        order = str(call.param("ORDER") or "ASC").upper()
        rows = sort_rows(rows, field, _kind(field), zone, descending=order == "DESC")
    return page(rows, call.start)


def _profile(call: MethodCall) -> Answer:
    """The user who made the webhook. It need not be among the portal's employees: a system user never is."""
    user = call.state.portal.webhook_user
    row = call.state.portal.users.get(user, {})
    offset = datetime.now(call.state.zone).utcoffset()
    return Answer(
        {
            "ID": str(user),
            "ADMIN": True,
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
