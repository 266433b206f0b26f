"""Events that a portal posts to a handler: read, and proved to come from it (facts/bitrix24.md 7).

Here: the urlencoded body as values. Not here: a server. An event is a hint that something happened: there is no
redelivery, so the daily read stays the truth.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Any

from dialog_assets.bitrix24.errors import Bitrix24DataError
from dialog_assets.bitrix24.paging import php_params
from dialog_assets.bitrix24.wire import Fields


@dataclass(frozen=True, slots=True)
class Event:
    """`name` such as ONVOXIMPLANTCALLEND, its data as sent, the portal's stable key, and the token that proves it."""

    name: str
    data: dict[str, Any] = field(repr=False)
    member_id: str | None
    application_token: str | None = field(repr=False)

    def is_from(self, application_token: str) -> bool:
        """Whether it carries the token that the portal gave this application; compared in constant time."""
        return hmac.compare_digest((self.application_token or "").encode(), application_token.encode())


@dataclass(frozen=True, slots=True)
class CallEnd:
    """Data of ONVOXIMPLANTCALLEND; the recording is usually not attached yet."""

    vendor_call_id: str
    user_id: int | None
    duration_s: int
    failed_code: str | None
    activity_id: int | None


def event_of(body: str) -> Event:
    """The event of a posted form. Raises Bitrix24DataError when it is none."""
    form = php_params(body)
    name, data, auth = form.get("event"), form.get("data", {}), form.get("auth", {})
    if not isinstance(name, str) or not name or not isinstance(data, dict) or not isinstance(auth, dict):
        raise Bitrix24DataError("no_event", description="the posted form is no event")
    return Event(name.upper(), data, auth.get("member_id"), auth.get("application_token"))


def call_end(event: Event) -> CallEnd:
    """The call that ended. Raises Bitrix24DataError (RowError for an unreadable field)."""
    fields = Fields(event.name, event.data)
    vendor_call_id = fields.text("CALL_ID")
    if event.name != "ONVOXIMPLANTCALLEND" or vendor_call_id is None:
        raise Bitrix24DataError("no_call", method=event.name, description="the event is not a call's end")
    return CallEnd(
        vendor_call_id=vendor_call_id,
        user_id=fields.reference("PORTAL_USER_ID"),
        duration_s=fields.number("CALL_DURATION") or 0,
        failed_code=fields.text("CALL_FAILED_CODE"),
        activity_id=fields.reference("CRM_ACTIVITY_ID"),
    )
