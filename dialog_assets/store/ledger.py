"""Table ledger: every paid request, written before it is asked for and settled with the result it bought (rule 2).

`asked` (may be in flight) → `answered` (paid for, the answer is kept here) → `settled` (the result is stored, the answer
is forgotten). A request that came to nothing is `failed` until it is asked again. One that was paid for, or may have been,
and brought nothing is `settled` with its price and a `failure`; asking anew is a row of its own.

What language models are asked (rows with a `prompt`) is booked at its estimate from the start, `estimated`, until the
answer's own price is known: so a row that nobody could close, as its run was killed, is on the bill all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from psycopg.types.json import Jsonb

from dialog_assets.store.pool import Connection, Row


async def find(connection: Connection, portal: str, request_key: str) -> Row | None:
    """The open row (asked or answered) of a request, or None."""
    cursor = await connection.execute(
        "SELECT * FROM ledger WHERE portal = %s AND request_key = %s AND state IN ('asked', 'answered')",
        [portal, request_key],
    )
    return await cursor.fetchone()


async def ask(connection: Connection, portal: str, request_key: str, row: Row) -> Row:
    """Write down the intent to ask; returns id and attempts of the row, which together name this try.

    `row` has vendor, model, step, day, rub_rate and, as far as they apply, call_id, entity_type, entity_id, prompt,
    prompt_version, audio_seconds, estimate and currency. A row of the same key that is not settled is used again, one
    attempt more.
    """
    cursor = await connection.execute(
        """
        INSERT INTO ledger (portal, request_key, state, vendor, model, step, day, call_id, entity_type, entity_id,
            prompt, prompt_version, rub_rate, audio_seconds, currency, cost, cost_rub, estimated)
        VALUES (%(portal)s, %(request_key)s, 'asked', %(vendor)s, %(model)s, %(step)s, %(day)s, %(call_id)s, %(entity_type)s,
            %(entity_id)s, %(prompt)s, %(prompt_version)s, %(rub_rate)s, %(audio_seconds)s, %(currency)s, %(estimate)s,
            round(%(estimate)s * %(rub_rate)s, 6), %(estimate)s IS NOT NULL)
        ON CONFLICT (portal, request_key) WHERE state <> 'settled'
        DO UPDATE SET state = 'asked', attempts = ledger.attempts + 1, asked_at = now(), failure = NULL,
            vendor_request_id = NULL, vendor = excluded.vendor, model = excluded.model, rub_rate = excluded.rub_rate,
            audio_seconds = excluded.audio_seconds, estimated = excluded.estimated,
            currency = coalesce(excluded.currency, ledger.currency), cost = coalesce(excluded.cost, ledger.cost),
            cost_rub = coalesce(excluded.cost_rub, ledger.cost_rub)
        RETURNING id, attempts
        """,
        {
            "call_id": None,
            "entity_type": None,
            "entity_id": None,
            "prompt": None,
            "prompt_version": None,
            "audio_seconds": None,
            "currency": None,
            "estimate": None,
            **row,
            "portal": portal,
            "request_key": request_key,
        },
    )
    written = await cursor.fetchone()
    assert written is not None  # noqa: S101 - an upsert without WHERE returns its row
    return written


async def accepted(
    connection: Connection,
    portal: str,
    request_key: str,
    vendor_request_id: str,
    *,
    cost: Decimal | None = None,
    currency: str | None = None,
    audio_seconds: Decimal | None = None,
) -> None:
    """Record the vendor's own id of a request that it works on, and the price if it is known, before waiting for the answer."""
    await connection.execute(
        """
        UPDATE ledger SET vendor_request_id = %(vendor_request_id)s, audio_seconds = %(audio_seconds)s,
            currency = %(currency)s, cost = %(cost)s, cost_rub = round(%(cost)s * rub_rate, 6)
        WHERE portal = %(portal)s AND request_key = %(request_key)s AND state = 'asked'
        """,
        {
            "portal": portal,
            "request_key": request_key,
            "vendor_request_id": vendor_request_id,
            "audio_seconds": audio_seconds,
            "currency": currency,
            "cost": cost,
        },
    )


async def unheard(connection: Connection, portal: str, step: str) -> list[Row]:
    """The requests of a step that were asked, or were about to be, and that the vendor has given no id for.

    Where the length of what was asked for was not written down, audio_seconds is that of the call's recording now.
    """
    cursor = await connection.execute(
        """
        SELECT l.*, coalesce(l.audio_seconds, a.duration_s, 0) AS audio_seconds
        FROM ledger l LEFT JOIN audio_files a ON a.portal = l.portal AND a.call_id = l.call_id
        WHERE l.portal = %s AND l.step = %s AND l.state = 'asked' AND l.vendor_request_id IS NULL
        """,
        [portal, step],
    )
    return await cursor.fetchall()


async def asked_again(connection: Connection, portal: str, request_key: str) -> None:
    """Note that a request that did not arrive is sent once more under the name that it has: its time begins anew."""
    await connection.execute(
        "UPDATE ledger SET asked_at = now() WHERE portal = %s AND request_key = %s AND state = 'asked'",
        [portal, request_key],
    )


async def not_taken(connection: Connection, portal: str, request_key: str, reason: str) -> None:
    """Record that the last try was refused before anything was done: it counts as no attempt, and its name is free again."""
    await connection.execute(
        """
        UPDATE ledger SET state = 'failed', failure = %s, attempts = attempts - 1, estimated = false,
            currency = NULL, cost = NULL, cost_rub = NULL
        WHERE portal = %s AND request_key = %s AND state = 'asked'
        """,
        [reason, portal, request_key],
    )


async def close(
    connection: Connection,
    portal: str,
    request_key: str,
    failure: str,
    *,
    cost: Decimal,
    currency: str,
    audio_seconds: Decimal | None = None,
) -> None:
    """Close a request that has brought nothing and is on the bill all the same: it was paid for, or may have been."""
    await connection.execute(
        """
        UPDATE ledger SET state = 'settled', settled_at = now(), failure = %(failure)s, audio_seconds = %(audio_seconds)s,
            currency = %(currency)s, cost = %(cost)s, cost_rub = round(%(cost)s * rub_rate, 6)
        WHERE portal = %(portal)s AND request_key = %(request_key)s AND state IN ('asked', 'answered')
        """,
        {
            "portal": portal,
            "request_key": request_key,
            "failure": failure,
            "audio_seconds": audio_seconds,
            "currency": currency,
            "cost": cost,
        },
    )


async def lost(connection: Connection, portal: str, request_key: str, kept_for: timedelta) -> None:
    """Close a request that the vendor took, perhaps answered, and no longer knows.

    The failure is `expired` if it keeps answers no longer, else `vanished`.
    """
    await connection.execute(
        """
        UPDATE ledger SET state = 'settled', settled_at = now(),
            failure = CASE WHEN asked_at < now() - %s THEN 'expired' ELSE 'vanished' END
        WHERE portal = %s AND request_key = %s AND state IN ('asked', 'answered')
        """,
        [kept_for, portal, request_key],
    )


async def closed(connection: Connection, portal: str, request_key: str, failures: Sequence[str]) -> int:
    """How often a request was paid for and brought nothing, for one of these reasons."""
    cursor = await connection.execute(
        """
        SELECT count(*) AS number FROM ledger
        WHERE portal = %s AND request_key = %s AND state = 'settled' AND failure = ANY(%s)
        """,
        [portal, request_key, list(failures)],
    )
    row = await cursor.fetchone()
    return int(row["number"]) if row else 0


async def answered(
    connection: Connection,
    portal: str,
    request_key: str,
    *,
    cost: Decimal,
    currency: str,
    vendor_request_id: str,
    answer: str | None = None,
    model_returned: str | None = None,
    usage: dict[str, Any] | None = None,
    audio_seconds: Decimal | None = None,
    latency_ms: int | None = None,
    estimated: bool = False,
) -> None:
    """Record what was bought and for how much, before it is used."""
    await connection.execute(
        """
        UPDATE ledger SET state = 'answered', answered_at = now(), answer = %(answer)s, model_returned = %(model_returned)s,
            vendor_request_id = %(vendor_request_id)s, usage = %(usage)s, audio_seconds = %(audio_seconds)s,
            latency_ms = %(latency_ms)s, currency = %(currency)s, cost = %(cost)s, estimated = %(estimated)s,
            cost_rub = round(%(cost)s * rub_rate, 6)
        WHERE portal = %(portal)s AND request_key = %(request_key)s AND state = 'asked'
        """,
        {
            "portal": portal,
            "request_key": request_key,
            "answer": answer,
            "model_returned": model_returned,
            "vendor_request_id": vendor_request_id,
            "usage": None if usage is None else Jsonb(usage),
            "audio_seconds": audio_seconds,
            "latency_ms": latency_ms,
            "estimated": estimated,
            "currency": currency,
            "cost": cost,
        },
    )


async def failed(connection: Connection, portal: str, request_key: str, reason: str) -> None:
    """Record that the last try brought no answer, and so costs nothing."""
    await connection.execute(
        """
        UPDATE ledger SET state = 'failed', failure = %s, audio_seconds = NULL, currency = NULL, cost = NULL, cost_rub = NULL
        WHERE portal = %s AND request_key = %s AND state = 'asked'
        """,
        [reason, portal, request_key],
    )


async def settle(
    connection: Connection, portal: str, request_keys: Sequence[str], *, failure: str | None = None
) -> None:
    """Close answered requests whose result is stored; call it in the transaction that stores the result.

    `failure`: they were paid for and gave no result, for this reason (what language models answered; the recogniser's
    purchases have their own).
    """
    await connection.execute(
        """
        UPDATE ledger SET state = 'settled', settled_at = now(), answer = NULL,
            failure = CASE WHEN prompt IS NULL THEN failure ELSE %s END
        WHERE portal = %s AND request_key = ANY(%s) AND state = 'answered'
        """,
        [failure, portal, list(request_keys)],
    )


async def close_unused(connection: Connection, portal: str, used: Sequence[str]) -> None:
    """Close the answers of language models that nobody will take: those to other questions about what `used` are about.

    They were bought before a setting changed the question. Call it before `used` are settled, once their result is final.
    """
    await connection.execute(
        """
        UPDATE ledger l SET state = 'settled', settled_at = now(), answer = NULL, failure = 'not_used'
        FROM (
            SELECT DISTINCT step, call_id, entity_type, entity_id FROM ledger
            WHERE portal = %(portal)s AND request_key = ANY(%(used)s) AND state = 'answered' AND prompt IS NOT NULL
        ) done
        WHERE l.portal = %(portal)s AND l.state = 'answered' AND l.prompt IS NOT NULL AND l.request_key <> ALL(%(used)s)
            AND (l.step, l.call_id, l.entity_type, l.entity_id)
                IS NOT DISTINCT FROM (done.step, done.call_id, done.entity_type, done.entity_id)
        """,
        {"portal": portal, "used": list(used)},
    )


async def perhaps_paid(connection: Connection, portal: str, request_key: str, failure: str) -> None:
    """Close a question to a language model that brought no answer and may be on the bill: it stays, at its estimate."""
    await connection.execute(
        """
        UPDATE ledger SET state = 'settled', settled_at = now(), failure = %s
        WHERE portal = %s AND request_key = %s AND state = 'asked' AND prompt IS NOT NULL
        """,
        [failure, portal, request_key],
    )


async def set_aside(connection: Connection, portal: str, request_key: str, failure: str) -> None:
    """Close an answer that nobody can or will use: it is forgotten, and its price stays."""
    await connection.execute(
        """
        UPDATE ledger SET state = 'settled', settled_at = now(), answer = NULL, failure = %s
        WHERE portal = %s AND request_key = %s AND state = 'answered'
        """,
        [failure, portal, request_key],
    )


NO_ANSWER = "no_answer"
"""The failure of a question that was asked by a run which ended before it was answered."""


async def close_left_behind(connection: Connection, portal: str, step: str, kept_for: timedelta) -> int:
    """Close what runs that have ended left of a step of language models; returns how many questions were never answered.

    Call it while no other run works on the step. A question without an answer may be on the bill, and stays there at its
    estimate. An answer that nobody has taken for `kept_for` is forgotten, as it repeats people's words; its price stays.
    """
    await connection.execute(
        """
        UPDATE ledger SET state = 'settled', settled_at = now(), answer = NULL, failure = 'not_used'
        WHERE portal = %s AND step = %s AND state = 'answered' AND prompt IS NOT NULL AND answered_at < now() - %s
        """,
        [portal, step, kept_for],
    )
    cursor = await connection.execute(
        """
        UPDATE ledger SET state = 'settled', settled_at = now(), failure = %s
        WHERE portal = %s AND step = %s AND state = 'asked' AND prompt IS NOT NULL
        """,
        [NO_ANSWER, portal, step],
    )
    return cursor.rowcount


async def fruitless(
    connection: Connection,
    portal: str,
    step: str,
    *,
    call_id: int | None = None,
    entity_type: str | None = None,
    entity_id: int | None = None,
) -> tuple[int, Decimal]:
    """What language models were paid, or may have been, for a call or an entity at a step since its last result.

    Purchases that brought nothing, and roubles, those of answers in hand included.
    """
    about = (
        "call_id = %(call_id)s"
        if call_id is not None
        else "entity_type = %(entity_type)s AND entity_id = %(entity_id)s"
    )
    cursor = await connection.execute(
        f"""
        WITH mine AS MATERIALIZED (
            SELECT id, state, failure, cost_rub, pardoned FROM ledger
            WHERE portal = %(portal)s AND step = %(step)s AND {about} AND prompt IS NOT NULL
        )
        SELECT count(*) FILTER (WHERE state = 'settled') AS tries, coalesce(sum(cost_rub), 0) AS cost_rub FROM mine
        WHERE NOT pardoned
            AND id > coalesce((SELECT max(id) FROM mine WHERE state = 'settled' AND failure IS NULL), 0)
        """,  # noqa: S608 - two constants
        {"portal": portal, "step": step, "call_id": call_id, "entity_type": entity_type, "entity_id": entity_id},
    )
    row = await cursor.fetchone()
    return (row["tries"], row["cost_rub"]) if row else (0, Decimal(0))


async def pardon(connection: Connection, portal: str, steps: Sequence[str], first: date, last: date) -> None:
    """Let the fruitless purchases of the days not count any more: a person wants the steps to try again."""
    await connection.execute(
        """
        UPDATE ledger SET pardoned = true
        WHERE portal = %s AND step = ANY(%s) AND day BETWEEN %s AND %s AND state = 'settled' AND failure IS NOT NULL
            AND prompt IS NOT NULL AND NOT pardoned
        """,
        [portal, list(steps), first, last],
    )


async def cost_by_day(connection: Connection, portal: str, step: str, first: date, last: date) -> dict[date, Decimal]:
    """Roubles spent on a step by day."""
    cursor = await connection.execute(
        """
        SELECT day, sum(cost_rub) AS cost_rub FROM ledger
        WHERE portal = %s AND step = %s AND day BETWEEN %s AND %s AND cost_rub IS NOT NULL GROUP BY 1
        """,
        [portal, step, first, last],
    )
    return {row["day"]: row["cost_rub"] for row in await cursor.fetchall()}


async def bought_since(connection: Connection, portal: str, since: datetime | None) -> Row:
    """What the portal has bought since a moment of the database's clock: recognitions, requests, cost_rub; and `now` there.

    Without a moment nothing is counted.
    """
    cursor = await connection.execute(
        """
        SELECT now() AS now, count(*) FILTER (WHERE step = 'transcripts') AS recognitions,
               count(*) FILTER (WHERE step <> 'transcripts') AS requests, coalesce(sum(cost_rub), 0) AS cost_rub
        FROM ledger WHERE portal = %s AND asked_at >= %s AND cost_rub IS NOT NULL
        """,
        [portal, since],
    )
    row = await cursor.fetchone()
    assert row is not None  # noqa: S101 - an aggregate returns a row
    return row


async def costs(
    connection: Connection, portals: Sequence[str], first: date | None, last: date | None, *, by_purchase: bool = False
) -> list[Row]:
    """What was bought for the calls of the days asked, by portal, step and model.

    `by_purchase`: the days are those on which it was asked for, in the portal's time zone, as a vendor's bill counts them.

    Rows portal, step, vendor, model, requests, attempts, tokens_in, tokens_out, audio_seconds, cost_rub, and the parts of
    it that may not be on the bill (estimated_rub) and that brought nothing (fruitless_rub).
    """
    cursor = await connection.execute(
        """
        SELECT portal, step, vendor, model, count(*) FILTER (WHERE attempts > 0) AS requests, sum(attempts) AS attempts,
               sum((usage ->> 'input')::bigint + (usage ->> 'cache_read')::bigint + (usage ->> 'cache_write')::bigint
                   + (usage ->> 'cache_write_long')::bigint) AS tokens_in,
               sum((usage ->> 'output')::bigint) AS tokens_out,
               sum(audio_seconds) AS audio_seconds, coalesce(sum(cost_rub), 0) AS cost_rub,
               coalesce(sum(cost_rub) FILTER (WHERE estimated), 0) AS estimated_rub,
               coalesce(sum(cost_rub) FILTER (WHERE state = 'settled' AND failure IS NOT NULL), 0) AS fruitless_rub
        FROM (
            SELECT l.*, CASE WHEN %(by_purchase)s THEN (l.asked_at AT TIME ZONE coalesce(p.time_zone, 'UTC'))::date
                        ELSE l.day END AS on_day
            FROM ledger l LEFT JOIN portals p USING (portal) WHERE l.portal = ANY(%(portals)s)
        ) bought
        WHERE on_day >= coalesce(%(first)s, '-infinity'::date) AND on_day <= coalesce(%(last)s, 'infinity'::date)
        GROUP BY 1, 2, 3, 4 ORDER BY 1, min(id), 3, 4
        """,
        {"portals": list(portals), "first": first, "last": last, "by_purchase": by_purchase},
    )
    return await cursor.fetchall()
