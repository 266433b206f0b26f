"""A portal of a few lines behind httpx2.MockTransport, for corners of the protocol; the real stand-in is the sandbox's."""

from __future__ import annotations

import json
import random
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import httpx2

from dialog_assets.bitrix24.client import Bitrix24Client
from dialog_assets.bitrix24.paging import php_params
from dialog_assets.bitrix24.reading import ById, Deals
from dialog_assets.bitrix24.wire import id_of

SECRET = "s3cr3tw3bh00kc0de"
WEBHOOK = f"https://portal.example/rest/7/{SECRET}/"
START = datetime(2026, 3, 2, tzinfo=timezone(timedelta(hours=3)))
END = START + timedelta(days=1)

Params = dict[str, Any]


class Freely:
    """A pacer that counts and never waits."""

    def __init__(self) -> None:
        self.taken = 0

    async def take(self) -> None:
        """Count."""
        self.taken += 1


class Naps:
    """A sleep that only notes how long it was asked to last."""

    def __init__(self) -> None:
        self.lengths: list[float] = []

    async def __call__(self, seconds: float) -> None:
        """Note the length."""
        self.lengths.append(seconds)


def client_of(
    handler: Callable[[httpx2.Request], httpx2.Response]
    | Callable[[httpx2.Request], Coroutine[None, None, httpx2.Response]],
    *,
    attempts: int = 5,
    pacer: Freely | None = None,
    sleep: Naps | None = None,
) -> Bitrix24Client:
    """A client whose requests go to `handler`, and that never really waits."""
    return Bitrix24Client(
        WEBHOOK,
        pacer=pacer or Freely(),
        attempts=attempts,
        sleep=sleep or Naps(),
        transport=httpx2.MockTransport(handler),
    )


async def by_id(stream: AsyncGenerator[ById]) -> tuple[dict[int, Params], list[int]]:
    """All rows and all missing ids of a stream, whose ids come once."""
    found: dict[int, Params] = {}
    missing: list[int] = []
    async for chunk in stream:
        assert not found.keys() & chunk.rows.keys()
        found |= chunk.rows
        missing += chunk.missing
    return found, missing


async def by_owner(deals: Deals) -> dict[int, list[Params]]:
    """The rows of deals by their owners, those without a readable ID last; the others come once, and each has an owner."""
    rows: list[Params] = []
    async for page in deals.pages():
        assert 0 < len(page) <= 2500
        rows += page
    found = {id_of(row): row for row in rows}
    assert len(found) == len(rows)
    assert found.keys() == {deal for some in deals.by_owner.values() for deal in some}
    return {
        owner: [*(found[deal] for deal in some), *deals.nameless.get(owner, ())]
        for owner, some in deals.by_owner.items()
    }


def asked(request: httpx2.Request) -> tuple[str, Params]:
    """Method and parameters of a request."""
    return request.url.path.rsplit("/", 1)[1].removesuffix(".json"), json.loads(request.content)


def good(result: Any, **more: Any) -> httpx2.Response:
    """A success."""
    return httpx2.Response(200, json={"result": result, **more, "time": {}})


def bad(status: int, code: Any, text: str = "") -> httpx2.Response:
    """An error in the v2 shape."""
    return httpx2.Response(status, json={"error": code, "error_description": text})


class Statistic:
    """voximplant.statistic.get over `ids`, honouring what it is told to honour; the links of a batch it does not know.

    The rows of `nameless` ids are shown without a readable ID, with the number as CALL_ID.
    """

    def __init__(
        self,
        ids: Iterable[int],
        *,
        counts: bool = False,
        orders: bool = True,
        filters_dates: bool = True,
        filters_ids: bool = True,
        on_page: Callable[[Statistic], None] | None = None,
        nameless: Collection[int] = (),
    ) -> None:
        self.rows = {call_id: self.row(call_id) for call_id in ids}
        self.counts, self.orders = counts, orders
        self.filters_dates, self.filters_ids = filters_dates, filters_ids
        self.on_page, self.nameless = on_page, nameless
        self.requests = 0
        self.pages = 0

    @staticmethod
    def row(call_id: int) -> Params:
        """A call inside the window."""
        return {"ID": str(call_id), "CALL_START_DATE": (START + timedelta(seconds=call_id % 80_000)).isoformat()}

    def shown(self, ids: Sequence[int]) -> list[Params]:
        """The rows as they are sent."""
        rows = [self.rows[call_id] for call_id in ids]
        return [{**row, "CALL_ID": row["ID"], "ID": {}} if int(row["ID"]) in self.nameless else row for row in rows]

    def add(self, call_id: int) -> None:
        """One more call."""
        self.rows[call_id] = self.row(call_id)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        """Answer a request."""
        self.requests += 1
        method, params = asked(request)
        if method != "batch":
            rows, more = self.page(params)
            return good(rows, **more)
        results: Params = {}
        totals: Params = {}
        nexts: Params = {}
        for key, text in params["cmd"].items():
            results[key], more = self.page(php_params(text.partition("?")[2]))
            if "total" in more:
                totals[key] = more["total"]
            if "next" in more:
                nexts[key] = more["next"]
        return good({"result": results, "result_error": [], "result_total": totals or [], "result_next": nexts or []})

    def page(self, params: Params) -> tuple[list[Params], Params]:
        """Rows of one page, and total and next where this portal counts."""
        self.pages += 1
        if self.on_page:
            self.on_page(self)
        asked_filter = params["FILTER"]
        if self.filters_dates:
            assert asked_filter[">=CALL_START_DATE"] == START.isoformat()
            assert asked_filter["<CALL_START_DATE"] == END.isoformat()
        low, high = int(asked_filter.get(">ID", 0)), float(asked_filter.get("<=ID", "inf"))
        ids = sorted(self.rows)
        if self.filters_ids:
            ids = ids[bisect_right(ids, low) : bisect_right(ids, high)]
        if not (self.orders and params.get("SORT") == "ID" and params.get("ORDER") in ("ASC", "DESC")):
            random.Random(len(ids)).shuffle(ids)
        elif params["ORDER"] == "DESC":
            ids.reverse()
        start = int(params.get("start", 0))
        if start == -1 and not self.counts:
            return self.shown(ids[:50]), {"total": 0}
        start = max(0, start)
        more: Params = {"total": len(ids)}
        if start + 50 < len(ids):
            more["next"] = start + 50
        return self.shown(ids[start : start + 50]), more


def by_method(answers: Mapping[str, Callable[[Params], Any]]) -> Callable[[httpx2.Request], httpx2.Response]:
    """A portal whose methods are functions of their parameters; each may return a result or an error body."""

    def handler(request: httpx2.Request) -> httpx2.Response:
        method, params = asked(request)
        assert method == "batch"
        results: Params = {}
        errors: Params = {}
        for key, text in params["cmd"].items():
            name, _, query = text.partition("?")
            answer = answers[name](php_params(query))
            if isinstance(answer, dict) and "error" in answer:
                errors[key] = answer
            else:
                results[key] = answer
        return good({"result": results or [], "result_error": errors or [], "result_total": [], "result_next": []})

    return handler
