"""The stopwatch and scales of a client's process. Standard library only: the peers' environment has nothing of ours.

A client's script calls `main` with its cases; a case gets the job and a Tally to put ids into as rows come.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from array import array
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

Job = Mapping[str, Any]
"""What to do: case, http and https addresses, webhook, window, ids, concurrency …"""


class Tally:
    """Ids of rows in the order in which they came, eight bytes each, and when the first one came."""

    def __init__(self) -> None:
        self.begun = time.perf_counter()
        self.first_s: float | None = None
        self.ids = array("q")
        self.bytes = 0
        self.related = 0
        self.seen: list[tuple[float, int]] = []
        self.more: dict[str, Any] = {}

    def add(self, ids: Iterable[int]) -> None:
        """Count rows."""
        self.ids.extend(ids)
        if self.first_s is None and self.ids:
            self.first_s = time.perf_counter() - self.begun


def fingerprint(ids: Iterable[int]) -> str:
    """The identity of a set of ids."""
    return hashlib.sha256(array("q", sorted(set(ids))).tobytes()).hexdigest()[:16]


def main(cases: Mapping[str, Callable[[Job, Tally], None]], ready: Callable[[], None] = lambda: None) -> None:
    """Do the job that stdin describes, and write what it took to stdout. What is imported, and `ready`, is not measured."""
    job = json.load(sys.stdin)
    ready()
    idle = _memory_mb("VmRSS")
    begun_at = time.time()
    tally = Tally()
    outcome = "ok"
    cpu = time.process_time()
    try:
        cases[job["case"]](job, tally)
    except Exception as error:  # noqa: BLE001 -- how a client fails is a result
        outcome = " ".join(filter(None, (type(error).__name__, str(getattr(error, "code", "") or ""))))
    wall = time.perf_counter() - tally.begun
    peak = _memory_mb("VmHWM")
    distinct = set(tally.ids)
    # What appeared while the client read, or went away, may have been read or not.
    unique = {one for one in distinct if one <= job.get("top", one)} - set(job.get("gone", ()))
    sys.stdout.write(
        json.dumps(
            {
                **tally.more,
                "outcome": outcome,
                "begun_at": begun_at,
                "wall_s": wall,
                "cpu_s": time.process_time() - cpu,
                "first_s": tally.first_s,
                "rows": len(tally.ids),
                "distinct": len(distinct),
                "unique": len(unique),
                "fingerprint": fingerprint(unique),
                "ascending": all(low < high for low, high in zip(tally.ids, tally.ids[1:], strict=False)),
                "bytes": tally.bytes,
                "related": tally.related,
                "idle_mb": idle,
                "peak_mb": peak,
            }
        )
    )


def _memory_mb(name: str) -> float:
    """Resident memory of this process, now (VmRSS) or at its highest (VmHWM); elsewhere than on Linux its highest for both.

    Not ru_maxrss on Linux: that begins with what the parent had when it started this process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        kilobytes = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith(name))
        return int(kilobytes) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
