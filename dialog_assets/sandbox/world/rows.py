"""Wire rows of the portals' users, CRM objects and calls, from the short form of the YAML files.

Here: names, types and null habits of facts/bitrix24.md sections 3.2, 5 and 6, as classic REST methods send them.
Not here: what a method selects or filters, and the crm.item form of the same objects.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

Row = dict[str, Any]

_LINE_RUB_PER_MINUTE_KOPECKS = 126
_CREATED = "2026-02-24T12:00:00"

_FAILURES = {
    "200": "",
    "304": "Call missed",
    "486": "Busy",
    "603-S": "Decline self",
}

_ADDRESS: Row = dict.fromkeys(
    (
        "ADDRESS",
        "ADDRESS_2",
        "ADDRESS_CITY",
        "ADDRESS_POSTAL_CODE",
        "ADDRESS_REGION",
        "ADDRESS_PROVINCE",
        "ADDRESS_COUNTRY",
    )
)
_UTM: Row = dict.fromkeys(("UTM_SOURCE", "UTM_MEDIUM", "UTM_CAMPAIGN", "UTM_CONTENT", "UTM_TERM"))


def user(data: Row, offset: str) -> Row:
    """A row of user.get; ACTIVE is a bool, TIMESTAMP_X the empty object that PHP makes of a date."""
    return {
        "ID": str(data["id"]),
        "ACTIVE": data.get("active", True),
        "NAME": data["name"],
        "LAST_NAME": data["last_name"],
        "SECOND_NAME": data.get("second_name", ""),
        "EMAIL": data["email"],
        "LAST_LOGIN": data.get("last_login", "2026-03-06T08:55:12") + offset,
        "DATE_REGISTER": "2025-09-01T00:00:00" + offset,
        "TIME_ZONE": "",
        "IS_ONLINE": "N",
        "TIMESTAMP_X": {},
        "LAST_ACTIVITY_DATE": {},
        "PERSONAL_GENDER": data.get("gender", ""),
        "PERSONAL_BIRTHDAY": "",
        "PERSONAL_MOBILE": data.get("mobile", ""),
        "WORK_PHONE": data.get("work_phone", ""),
        "WORK_POSITION": data["position"],
        "UF_DEPARTMENT": [data["department"]],
        "UF_PHONE_INNER": data.get("extension", ""),
        "USER_TYPE": "employee",
    }


def contact(data: Row, offset: str) -> Row:
    """A row of crm.contact.get; PHONE and EMAIL are there only when not empty."""
    return {
        **_common(data, offset),
        "POST": data.get("post"),
        "HONORIFIC": None,
        "NAME": data["name"],
        "SECOND_NAME": data.get("second_name"),
        "LAST_NAME": data.get("last_name"),
        "PHOTO": None,
        "BIRTHDATE": "",
        "TYPE_ID": "CLIENT",
        "LEAD_ID": None,
        "COMPANY_ID": _id(data.get("company")),
        "EXPORT": "Y",
        **_ADDRESS,
        **_UTM,
        **_multifields(data, "3"),
    }


def lead(data: Row, offset: str) -> Row:
    """A row of crm.lead.get."""
    status = data.get("status", "IN_PROCESS")
    return {
        **_common(data, offset),
        "TITLE": data["title"],
        "HONORIFIC": None,
        "NAME": data.get("name", ""),
        "SECOND_NAME": None,
        "LAST_NAME": data.get("last_name"),
        "COMPANY_TITLE": None,
        "COMPANY_ID": None,
        "CONTACT_ID": _id(data.get("contact")),
        "IS_RETURN_CUSTOMER": "N",
        "BIRTHDATE": "",
        "STATUS_ID": status,
        "STATUS_SEMANTIC_ID": {"CONVERTED": "S", "JUNK": "F"}.get(status, "P"),
        "STATUS_DESCRIPTION": None,
        "POST": None,
        "CURRENCY_ID": "RUB",
        "OPPORTUNITY": data.get("amount", "0.00"),
        "IS_MANUAL_OPPORTUNITY": "N",
        "DATE_CLOSED": "",
        **_ADDRESS,
        **_UTM,
        **_multifields(data, "1"),
    }


def company(data: Row, offset: str) -> Row:
    """A row of crm.company.get."""
    return {
        **_common(data, offset),
        "TITLE": data["title"],
        "COMPANY_TYPE": "CUSTOMER",
        "LOGO": None,
        "LEAD_ID": None,
        "BANKING_DETAILS": None,
        "INDUSTRY": data.get("industry", "OTHER"),
        "REVENUE": "0",
        "CURRENCY_ID": "RUB",
        "EMPLOYEES": "EMPLOYEES_1",
        "IS_MY_COMPANY": "N",
        **_ADDRESS,
        **_UTM,
        **_multifields(data, "4"),
    }


def deal(data: Row, offset: str) -> Row:
    """A row of crm.deal.get."""
    stage = data.get("stage", "NEW")
    semantic = {"WON": "S", "LOSE": "F"}.get(stage, "P")
    row = _common(data, offset)
    for flag in ("HAS_PHONE", "HAS_EMAIL", "HAS_IMOL"):
        del row[flag]
    return {
        **row,
        "TITLE": data["title"],
        "TYPE_ID": "SALE",
        "CATEGORY_ID": "0",
        "STAGE_ID": stage,
        "STAGE_SEMANTIC_ID": semantic,
        "PROBABILITY": None,
        "CURRENCY_ID": "RUB",
        "OPPORTUNITY": data["amount"],
        "IS_MANUAL_OPPORTUNITY": "Y",
        "LEAD_ID": _id(data.get("lead")),
        "COMPANY_ID": _id(data.get("company")) or "0",
        "CONTACT_ID": _id(data.get("contact")),
        "BEGINDATE": "2026-02-25T03:00:00" + offset,
        "CLOSEDATE": "2026-03-31T03:00:00" + offset,
        "CLOSED": "N" if semantic == "P" else "Y",
        **_UTM,
    }


def call(portal: Row, data: Row, start: datetime, seconds: int, recording: Any) -> Row:
    """A row of voximplant.statistic.get. A portal with its own lines pays by the minute; one with a PBX does not."""
    code = str(data.get("code", "200"))
    entity_type, entity_id = data.get("entity", (None, None))
    own_lines = portal["line"].startswith("reg")
    stamp = int(start.timestamp())
    digest = hashlib.sha256(f"{portal['portal']} {data['id']}".encode()).hexdigest()
    kopecks = -(-seconds // 60) * _LINE_RUB_PER_MINUTE_KOPECKS if own_lines else 0
    return {
        "ID": str(data["id"]),
        "PORTAL_USER_ID": str(data["user"]),
        "PORTAL_NUMBER": portal["line"],
        "PHONE_NUMBER": data["phone"],
        "CALL_ID": f"{digest[:16].upper()}.{stamp}.{data['id']}"
        if own_lines
        else f"externalCall.{digest[:32]}.{stamp}",
        "EXTERNAL_CALL_ID": None,
        "CALL_CATEGORY": "external",
        "CALL_LOG": None,
        "CALL_DURATION": str(seconds),
        "CALL_START_DATE": start.isoformat(),
        "CALL_RECORD_URL": "" if own_lines else None,
        "CALL_VOTE": None if "vote" not in data else str(data["vote"]),
        "COST": f"{kopecks // 100}.{kopecks % 100:02d}00",
        "COST_CURRENCY": "RUR" if own_lines else "",
        "CALL_FAILED_CODE": code,
        "CALL_FAILED_REASON": _FAILURES[code],
        "CRM_ENTITY_TYPE": entity_type,
        "CRM_ENTITY_ID": _id(entity_id),
        "CRM_ACTIVITY_ID": None if entity_id is None else str(40000 + data["id"]),
        "REST_APP_ID": None if own_lines else "3",
        "REST_APP_NAME": None if own_lines else "АТС Пример",
        "TRANSCRIPT_ID": None,
        "TRANSCRIPT_PENDING": "N",
        "SESSION_ID": str(stamp) if own_lines else None,
        "REDIAL_ATTEMPT": None,
        "COMMENT": None,
        "RECORD_DURATION": str(seconds) if own_lines and recording is not None else None,
        "RECORD_FILE_ID": None if recording is None else recording.file_id,
        "CALL_TYPE": str(data["type"]),
    }


def _common(data: Row, offset: str) -> Row:
    created = data.get("created", _CREATED) + offset
    responsible = str(data["responsible"])
    return {
        "ID": str(data["id"]),
        "ASSIGNED_BY_ID": responsible,
        "CREATED_BY_ID": responsible,
        "MODIFY_BY_ID": responsible,
        "DATE_CREATE": created,
        "DATE_MODIFY": created,
        "OPENED": "Y",
        "COMMENTS": data.get("comments"),
        "SOURCE_ID": data.get("source", "CALL"),
        "SOURCE_DESCRIPTION": None,
        "ORIGINATOR_ID": None,
        "ORIGIN_ID": None,
        "HAS_PHONE": "Y" if data.get("phones") else "N",
        "HAS_EMAIL": "Y" if data.get("emails") else "N",
        "HAS_IMOL": "N",
        "LAST_ACTIVITY_TIME": created,
        "LAST_ACTIVITY_BY": responsible,
    }


def _multifields(data: Row, owner: str) -> Row:
    fields: Row = {}
    for key, kind, first in (("phones", "PHONE", 0), ("emails", "EMAIL", 5)):
        if data.get(key):
            fields[kind] = [
                {"ID": f"{owner}{data['id']}{first + place}", "VALUE_TYPE": "WORK", "VALUE": value, "TYPE_ID": kind}
                for place, value in enumerate(data[key])
            ]
    return fields


def _id(value: int | None) -> str | None:
    return None if value is None else str(value)
