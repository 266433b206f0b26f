"""b24pysdk, over https because it knows no other scheme: call_list, call_list_fast, call_batches."""

from __future__ import annotations

import os
from typing import Any

from b24pysdk import BitrixWebhook
from measured import Job, Tally, main

STATISTIC = "voximplant.statistic.get"


def _client(job: Job) -> BitrixWebhook:
    os.environ["REQUESTS_CA_BUNDLE"] = job["certificate"]
    return BitrixWebhook(domain=job["https"].partition("://")[2], webhook_token=job["webhook"])


def _window(job: Job) -> dict[str, dict[str, str]]:
    return {"FILTER": {">=CALL_START_DATE": job["start"], "<CALL_START_DATE": job["end"]}}


def _calls(job: Job, tally: Tally) -> None:
    tally.add(int(row["ID"]) for row in _client(job).call_list(STATISTIC, _window(job))["result"])


def _calls_fast(job: Job, tally: Tally) -> None:
    for row in _client(job).call_list_fast(STATISTIC, _window(job))["result"]:
        tally.add([int(row["ID"])])


def _contacts(job: Job, tally: Tally) -> None:
    client, ids = _client(job), job["ids"]
    pages = [
        ("crm.contact.list", {"filter": {"@ID": ids[start : start + 50]}, "select": ["*", "UF_*", "PHONE", "EMAIL"]})
        for start in range(0, len(ids), 50)
    ]
    for rows in _results(client.call_batches(pages)):
        tally.add(int(row["ID"]) for row in rows)
    deals = [("crm.deal.list", {"filter": {"CONTACT_ID": number}, "select": ["*", "UF_*"]}) for number in ids]
    tally.related = sum(len(rows) for rows in _results(client.call_batches(deals)))


def _users(job: Job, tally: Tally) -> None:
    tally.add(int(row["ID"]) for row in _client(job).call_list("user.get", {})["result"])


def _results(answer: Any) -> list[list[dict[str, Any]]]:
    found = answer["result"]["result"]
    return list(found.values()) if isinstance(found, dict) else list(found)


if __name__ == "__main__":
    main({"calls": _calls, "calls_fast": _calls_fast, "contacts": _contacts, "users": _users})
