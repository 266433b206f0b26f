"""fast_bitrix24 as its manual says: get_all, get_by_ID, call with a list. `slow` is the manual's way round limits."""

from __future__ import annotations

import warnings

from fast_bitrix24 import Bitrix
from measured import Job, Tally, main

STATISTIC = "voximplant.statistic.get"


def _client(job: Job) -> Bitrix:
    warnings.simplefilter("ignore")
    return Bitrix(f"{job['http']}/rest/{job['webhook']}/", verbose=False)


def _window(job: Job) -> dict[str, dict[str, str]]:
    return {"FILTER": {">=CALL_START_DATE": job["start"], "<CALL_START_DATE": job["end"]}}


def _calls(job: Job, tally: Tally) -> None:
    tally.add(int(row["ID"]) for row in _client(job).get_all(STATISTIC, _window(job)))


def _calls_slowly(job: Job, tally: Tally) -> None:
    client = _client(job)
    with client.slow(1):
        tally.add(int(row["ID"]) for row in client.get_all(STATISTIC, _window(job)))


def _contacts(job: Job, tally: Tally) -> None:
    client = _client(job)
    tally.add(int(number) for number in client.get_by_ID("crm.contact.get", job["ids"]))
    asked = [{"filter": {"CONTACT_ID": number}, "select": ["*", "UF_*"]} for number in job["ids"]]
    answers = client.call("crm.deal.list", asked)
    # One answer that has one row comes as that row.
    tally.related = sum(len(some) if isinstance(some, list | tuple) else 1 for some in answers if some)


def _users(job: Job, tally: Tally) -> None:
    tally.add(int(row["ID"]) for row in _client(job).get_all("user.get"))


if __name__ == "__main__":
    main({"calls": _calls, "calls_slowly": _calls_slowly, "contacts": _contacts, "users": _users})
