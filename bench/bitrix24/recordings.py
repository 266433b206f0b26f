"""Recordings: located in batches and fetched side by side, beside a plain loop; and with connections cut."""

from __future__ import annotations

from typing import Any

from bench.bitrix24.harness import Client, Run, in_turns, portal, run_once, told
from bench.report import Section

OURS = Client("**dialog_assets**", "ours", "recordings", ours=True)
LOOP = Client("sequential loop", "sequential", "recordings", ours=True, patient=True)
LATENCY_MS, REQUEST_MS, CONCURRENCY = 4.0, 50, 8
BUCKET, DRAIN = 100_000, 1000.0
CUT = 0.1


def measure(recordings: int, best_of: int) -> Section:
    """Fetch them all."""
    job: dict[str, Any] = {"expected": recordings, "concurrency": CONCURRENCY}
    slow = {"service": "bitrix24", "kind": "slow", "value": REQUEST_MS / 1000}
    cut = {"service": "bitrix24", "kind": "truncated", "match": "download", "probability": CUT, "seed": 1}
    with portal(
        calls=recordings * 2, recordings=recordings, latency_ms=LATENCY_MS, bucket_size=BUCKET, drain_per_second=DRAIN,
        request_ms=REQUEST_MS,
    ) as at:  # fmt: skip
        job["ids"] = at["recordings"]
        found: dict[str, Run] = in_turns(at, (OURS, LOOP), job, best_of=best_of)
        runs = {
            OURS.name: found[OURS.name],
            f"{OURS.name}, {CUT:.0%} of the connections cut in the middle": run_once(at, OURS, job, faults=[slow, cut]),
            LOOP.name: found[LOOP.name],
        }
    section = Section(
        f"Recordings: {recordings}",
        f"Every request takes {REQUEST_MS} ms, a command {LATENCY_MS:g} ms more; 120 kB a file, concurrency {CONCURRENCY}, and a "
        "bucket that holds them all (with 50/2 the bucket alone would decide). Neither peer fetches recordings concurrently, "
        "so beside ours stands a plain loop. sent: all that the portal sent.",
        ("client", "wall, s", "times faster", "requests", "sent, MB", "lost", "memory, MB", "exit"),
    )
    for name, run in runs.items():
        section.rows.append(
            (
                name,
                f"{run['wall_s']:.2f}",
                f"{found[LOOP.name]['wall_s'] / run['wall_s']:.1f}",
                str(run["requests"]),
                f"{run['sent_mb']:.1f}",
                f"{run['lost']:,}",
                f"{run['peak_mb'] - run['idle_mb']:.0f}",
                told(run),
            )
        )
    return section
