"""Asset `calls`: the portal's call statistics of the days."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import dagster as dg

from dialog_assets.assets import portal_counts
from dialog_assets.assets.portal_counts import DayCount
from dialog_assets.assets.steps import StepRun, run_step, step_asset
from dialog_assets.assets.storable import storable, storable_json
from dialog_assets.assets.unreadable import Rows, detail_of
from dialog_assets.bitrix24 import reading
from dialog_assets.bitrix24.client import Bitrix24Client
from dialog_assets.bitrix24.errors import Bitrix24Error, RowError
from dialog_assets.bitrix24.rows import CallRow, call_row, readable_part
from dialog_assets.bitrix24.wire import id_of
from dialog_assets.errors import DialogAssetsError
from dialog_assets.portals import Portal
from dialog_assets.redaction import host_only
from dialog_assets.resources.bitrix24 import Bitrix24Resource
from dialog_assets.resources.postgres import PostgresResource
from dialog_assets.store import call_steps, unreadable_rows
from dialog_assets.store import calls as table
from dialog_assets.store.unreadable_rows import UnreadableRow

log = logging.getLogger("dialog_assets")

LINKS = ("CALL_RECORD_URL", "CALL_LOG")


def build(portal: Portal) -> dg.AssetsDefinition:
    """The asset of one portal."""

    @step_asset(portal, "calls", checks={portal_counts.NAME: portal_counts.DESCRIPTION})
    def calls(
        context: dg.AssetExecutionContext, postgres: PostgresResource, bitrix24: Bitrix24Resource
    ) -> dg.MaterializeResult:
        """Phone calls of the days as the portal's statistics list them (voximplant.statistic.get)."""

        async def core(run: StepRun) -> None:
            await read_calls(run, bitrix24)

        return run_step(context, portal, "calls", postgres, core)

    return calls


@dataclass(frozen=True)
class _Page:
    """Some calls: rows of table calls, those of them that could only partly be read, what is wrong with these, the rest."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    partly: list[dict[str, Any]] = field(default_factory=list)
    details: dict[int, str] = field(default_factory=dict)
    apart: list[UnreadableRow] = field(default_factory=list)


class _Calls:
    """The calls of a run as they are read.

    `failed`, `apart`: ids of the calls that were failed at this step, and of those that were kept apart, before the run.
    `read` counts the calls of each day, `mended` are those that are kept apart no longer, `keys` the rows that are now.
    """

    def __init__(self, run: StepRun, failed: set[int], apart: set[int]) -> None:
        self.failed = failed
        self.read: Counter[date] = Counter()
        self.mended: set[int] = set()
        self._apart = apart
        self._portal = run.portal
        self._rows = Rows(run)
        self._findings = run.findings

    @property
    def keys(self) -> list[str]:
        """Of the rows that have no readable ID or start."""
        return [key for _, key in self._findings.unreadable]

    def sort(self, rows: Iterable[Any]) -> _Page:
        """Rows as they came, read. Raises StepStopped when no row can be."""
        page = _Page()
        for row in rows:
            try:
                page.rows.append(stored(call_row(row), self._portal))
            except RowError as error:
                self._sort_out(row, error, page)
        self._rows.well("call", len(page.rows))
        page.apart.extend(self._rows.take())
        for some in (page.rows, page.partly):
            self.read.update(row["day"] for row in some)
            self.mended |= self._apart.intersection(row["call_id"] for row in some)
        return page

    def _sort_out(self, row: Any, error: RowError, page: _Page) -> None:
        self._rows.unread("call", error)
        try:
            call, errors = readable_part(row)
        except RowError as lost:
            self._rows.keep(UnreadableRow("call", id_of(row), lost.method, lost.field, lost.expected, _raw(row)))
        else:
            page.partly.append(stored(call, self._portal))
            page.details[call.call_id] = detail_of(errors)


async def read_calls(run: StepRun, bitrix24: Bitrix24Resource) -> None:
    """Read the days' calls and write them while the next ones are read; then compare with what the portal counts.

    A call of which something cannot be read is stored as far as it can be, and failed. A row without a readable ID or
    start, which is a call of nobody knows which day, is kept apart. Raises StepStopped when no row can be read.
    """
    portal = run.portal.portal
    async with run.pool.connection() as connection:
        failed = await call_steps.failed(connection, portal, "calls", run.first, run.last)
        apart = await unreadable_rows.known(connection, portal, "call")
    found = _Calls(run, failed, apart)
    async with bitrix24.client(run.portal, run.pool) as client:
        counted = await _count(run, client, run.days)
        await _read(run, client, found)
        short = [day for day in run.days if found.read[day] < (counted[day] or 0)]
        if short:
            try:
                counted |= {
                    day: _least(counted[day], again) for day, again in (await _count(run, client, short)).items()
                }
            except Bitrix24Error as error:
                # The calls are read and stored: a comparison that cannot be repeated is no reason to stop the night.
                log.warning("%s/calls: days that came short cannot be counted again: %s", portal, error)
    async with run.pool.connection() as connection:
        await unreadable_rows.forget(connection, portal, "call", found.mended)
        await unreadable_rows.all_read(connection, portal, run.first, run.last, found.keys)
        stored_calls = await table.by_day(connection, portal, run.first, run.last)
    days = [DayCount(day, counted[day], found.read[day], stored_calls.get(day, 0)) for day in run.days]
    run.findings.numbers |= {one.day: {"counted_by_the_portal": one.counted} for one in days if one.counted is not None}
    run.findings.checks.append(portal_counts.result(days, len(found.keys)))


async def _count(run: StepRun, client: Bitrix24Client, days: Sequence[date]) -> dict[date, int | None]:
    counted = await reading.counts(client, [run.window_of(day) for day in days])
    return dict(zip(days, counted, strict=True))


def _least(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else min(one, other)


async def _read(run: StepRun, client: Bitrix24Client, found: _Calls) -> None:
    writing: asyncio.Task[None] | None = None
    async with aclosing(gathered(reading.calls(client, *run.window), table.WRITE_AT_ONCE)) as pages:
        try:
            async for page in pages:
                sorted_page = found.sort(page)
                if writing is not None:
                    await writing
                writing = asyncio.create_task(_write(run, sorted_page, found.failed))
        finally:
            if writing is not None:
                await writing


async def _write(run: StepRun, page: _Page, failed: Collection[int]) -> None:
    portal = run.portal.portal
    async with run.pool.connection() as connection:
        hosts = run.portal.bitrix24.record_hosts
        await table.write(connection, portal, page.rows, record_hosts=hosts, failed=failed)
        if page.partly:
            await table.write_partly(connection, portal, page.partly, page.details)
        if page.apart:
            await unreadable_rows.write(connection, portal, page.apart, (run.first, run.last))
            await table.fail(connection, portal, {row.row_id: row.detail for row in page.apart if row.row_id})


async def gathered(pages: AsyncIterator[list[dict[str, Any]]], rows: int) -> AsyncGenerator[list[dict[str, Any]], None]:
    """Pages put together until there are `rows` rows; what came before an error is given first, then the error."""
    waiting: list[dict[str, Any]] = []
    failure: DialogAssetsError | None = None
    try:
        async for page in pages:
            waiting += page
            if len(waiting) >= rows:
                yield waiting
                waiting = []
    except DialogAssetsError as error:
        failure = error
    finally:
        if isinstance(pages, AsyncGenerator):
            await pages.aclose()
    if waiting:
        yield waiting
    if failure is not None:
        raise failure


def stored(call: CallRow, portal: Portal) -> dict[str, Any]:
    """The row of table calls. Links to recordings are credentials (rule 5): of those only the host is kept."""
    row: dict[str, Any] = {name: getattr(call, name) for name in table.COLUMNS if name not in ("day", "raw")}
    kept: dict[str, Any] = storable_json(row)
    return {**kept, "raw": _raw(call.raw), "day": call.started_at.astimezone(portal.zone).date()}


def _raw(row: Any) -> Any:
    """A row as it may be kept; one that is no object may be a link as a whole."""
    if not isinstance(row, dict):
        return host_only(storable(row))
    links = {name: host_only(storable(row[name])) for name in LINKS if name in row}
    return storable_json(row) | links
