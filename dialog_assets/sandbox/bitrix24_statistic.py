"""voximplant.statistic.get of the stand-in, with its silences (facts/bitrix24.md 3.1 and 3.2).

Unknown fields and operators of FILTER, lower-case `filter`, SORT without ORDER or as an object: ignored without a word,
so that a client's slip returns the whole portal here as it does there.
"""

from __future__ import annotations

from decimal import Decimal

from dialog_assets.sandbox.bitrix24_calling import Answer, Method, MethodCall, PortalState
from dialog_assets.sandbox.bitrix24_filter import STATISTIC_OPERATORS, Condition, Kind, RowTest, read_filter
from dialog_assets.sandbox.bitrix24_php import to_int
from dialog_assets.sandbox.bitrix24_rows import Row, row_text
from dialog_assets.sandbox.bitrix24_table import Sort

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


def seen_call(state: PortalState, number: int) -> Row:
    """The row as it is now: the record comes minutes after the call, and where to is the portal's habit."""
    row = state.calls.row(number)
    if row is None:
        raise KeyError(number)
    file_id = to_int(row.get("RECORD_FILE_ID"))
    file = state.files.get(file_id) if file_id else None
    if file is None:
        return row
    if not state.clock.has_come(file.recording.ready_at):
        return {**row, **_LATE}
    changes: Row = {}
    if state.habits.provider_urls:
        changes["CALL_RECORD_URL"] = f"{state.provider_url}/records/{state.portal.portal}/{file_id}.mp3"
    if not state.habits.disk_records:
        changes["RECORD_FILE_ID"] = None
    return {**row, **changes} if changes else row


def _statistic(call: MethodCall) -> Answer:
    state, habits = call.state, call.state.habits
    tests: list[RowTest] = list(read_filter(call.params.get("FILTER"), STATISTIC_OPERATORS, _KINDS.get, state.zone))
    if habits.visible_users:
        users = tuple(Decimal(user) for user in habits.visible_users)
        tests = [test for test in tests if not isinstance(test, Condition) or test.field != "PORTAL_USER_ID"]
        tests.append(Condition("PORTAL_USER_ID", "=", users, "number", state.zone))
    field, order = call.params.get("SORT"), call.params.get("ORDER")
    sorts = None
    if isinstance(field, str) and field in _KINDS and field != "CALL_TYPE" and order in ("ASC", "DESC"):
        sorts = [Sort(field, _KINDS[field], state.zone, order == "DESC")]
    start = call.start if habits.keyset else max(0, call.start or 0)
    now = state.clock.now
    found = state.calls.find(
        tests, sorts, start, until=now, seen=lambda number: seen_call(state, number), state=(now, habits)
    )
    if now is None and habits.disk_records and not habits.provider_urls:
        return Answer.page(found, state.calls.text)
    return Answer.page(found, lambda number: row_text(seen_call(state, number)))


METHODS = {"voximplant.statistic.get": Method(("telephony",), _statistic)}
