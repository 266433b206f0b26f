"""CRM fields of type file as portals show them: links with the caller's own credential in them (habit `file_fields`).

Here: one such field for each row of a CRM list. Not here: the files, which nobody fetches.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dialog_assets.sandbox.bitrix24_calling import Answer, MethodCall

FIELD = "UF_CRM_FILE"


def with_file_fields(method: str, call: MethodCall, answer: Answer) -> Answer:
    """The answer of crm.*.list with a file in each row; other answers as they are."""
    if not (method.startswith("crm.") and method.endswith(".list")):
        return answer
    token = call.access.token or call.state.portal.webhook_secret
    path = f"{call.base_url}/bitrix/components/bitrix/crm.contact.show/show_file.php"
    rows = answer.result["items"] if isinstance(answer.result, dict) else answer.result
    shown: list[Any] = [
        {
            **row,
            FIELD: {
                "id": 5,
                "showUrl": f"{path}?auth={token}&fileId=5",
                "downloadUrl": f"{path}?auth={token}&fileId=5&download=y",
                "urlMachine": f"{call.base_url}/rest/{call.access.user}/{token}/crm.controller.item.getFile/?fileId=5",
            },
        }
        for row in rows
    ]
    return replace(answer, result={"items": shown} if isinstance(answer.result, dict) else shown)
