"""voximplant.statistic.get of the stand-in, with its silences (facts/bitrix24.md 3.1 and 3.2).

Unknown fields and operators of FILTER, lower-case `filter`, SORT without ORDER or as an object: ignored without a word,
so that a client's slip returns the whole portal here as it does there.
"""

from __future__ import annotations

from typing import Any

from dialog_assets.sandbox.bitrix24_calling import Answer, Method, MethodCall, page
from dialog_assets.sandbox.bitrix24_filter import STATISTIC_OPERATORS, Kind, read_filter, sort_rows
from dialog_assets.sandbox.clock import Clock
from dialog_assets.sandbox.world.model import Call

_NUMBERS = (
    "ID PORTAL_USER_ID CALL_TYPE CALL_DURATION CALL_VOTE COST CRM_ENTITY_ID CRM_ACTIVITY_ID REST_APP_ID TRANSCRIPT_ID "
    "SESSION_ID REDIAL_ATTEMPT RECORD_DURATION"
)
_TEXTS = (
    "CALL_ID EXTERNAL_CALL_ID CALL_CATEGORY PORTAL_NUMBER PHONE_NUMBER CALL_LOG CALL_RECORD_URL COST_CURRENCY "
    "CALL_FAILED_CODE CALL_FAILED_REASON CRM_ENTITY_TYPE REST_APP_NAME TRANSCRIPT_PENDING COMMENT"
)
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(_NUMBERS.split(), "number"),
    **dict.fromkeys(_TEXTS.split(), "text"),
    "CALL_START_DATE": "date",
}
_LATE = {"RECORD_FILE_ID": None, "RECORD_DURATION": None}


def _row(call: Call, clock: Clock) -> dict[str, Any]:
    """The row as it is now: the record comes minutes after the call."""
    if call.recording is not None and not clock.has_come(call.recording.ready_at):
        return {**call.fields, **_LATE}
    return call.fields


def _statistic(call: MethodCall) -> Answer:
    state = call.state
    conditions = read_filter(call.params.get("FILTER"), STATISTIC_OPERATORS, _KINDS.get, state.zone)
    present = (_row(one, state.clock) for one in state.unordered_calls if state.clock.has_come(one.start))
    rows = [row for row in present if all(condition.holds(row) for condition in conditions)]
    field, order = call.params.get("SORT"), call.params.get("ORDER")
    if isinstance(field, str) and field in _KINDS and field != "CALL_TYPE" and order in ("ASC", "DESC"):
        rows = sort_rows(rows, field, _KINDS[field], state.zone, descending=order == "DESC")
    return page(rows, call.start)


METHODS = {"voximplant.statistic.get": Method(("telephony",), _statistic)}
