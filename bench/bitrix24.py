"""Our Bitrix24 client beside fast_bitrix24 and b24pysdk, against one stand-in portal in one run (facts/bitrix24.md 10.4).

Each client is a process of its own; the portal is one process for all, with a strict bucket and a price a command. A case
is run `best_of` times per client, in turns, the bucket empty each time; shown is the best run that read everything, else
the last one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import httpx2

from bench.report import Section

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "bench" / ".venv"
BUCKET, DRAIN = 50, 2.0
ROWS_A_REQUEST = 2500
ONCE_IS_ENOUGH_S = 60
LIMIT_S = 300
"""A client that takes longer is ended, and that is its result."""


@dataclass(frozen=True)
class Client:
    """A client's name in the table, its script, and the case's name there."""

    name: str
    script: str
    case: str
    ours: bool = False

    def command(self) -> list[str]:
        """How its process is started."""
        if self.ours:
            return [sys.executable, "-m", f"bench.clients.{self.script}"]
        return [str(PEERS / "bin" / "python"), str(ROOT / "bench" / "clients" / f"{self.script}.py")]


CALLS = (
    Client("**dialog_assets**", "ours", "calls", ours=True),
    Client("fast_bitrix24 get_all", "peer_fast_bitrix24", "calls"),
    Client("fast_bitrix24 slow(1)", "peer_fast_bitrix24", "calls_slowly"),
    Client("b24pysdk call_list", "peer_b24pysdk", "calls"),
    Client("b24pysdk call_list_fast", "peer_b24pysdk", "calls_fast"),
)
CONTACTS = (
    Client("**dialog_assets**", "ours", "contacts", ours=True),
    Client("fast_bitrix24", "peer_fast_bitrix24", "contacts"),
    Client("b24pysdk", "peer_b24pysdk", "contacts"),
)
RECORDINGS = (
    Client("**dialog_assets**", "ours", "recordings", ours=True),
    Client("sequential loop", "sequential", "recordings", ours=True),
)


@dataclass(frozen=True)
class Scale:
    """How large the measurement is. `latency_ms` is for the calls; the other cases have their own."""

    sizes: Sequence[int] = (20_000, 130_000, 200_000)
    latency_ms: float = 4.0
    contacts: int = 10_000
    recordings: int = 500
    best_of: int = 2
    slow_too: bool = True
    flat: bool = False


def measure(scale: Scale) -> tuple[list[Section], dict[str, str]]:
    """Sections, and the versions of what ran."""
    sections = [_calls(size, scale) for size in scale.sizes]
    if scale.contacts:
        sections.append(_contacts(scale))
    if scale.recordings:
        sections.append(_recordings(scale))
    return sections, {"peers": _versions(), "commit": _commit()}


def _calls(size: int, scale: Scale) -> Section:
    section = Section(
        f"Calls: {size:,}",
        f"voximplant.statistic.get of one window; bucket {BUCKET}/{DRAIN:g}, {scale.latency_ms:g} ms a command, counting rows and "
        f"passing over rows {'free' if scale.flat else f'{scale.latency_ms / 10:g} ms a thousand more'}. bound: "
        f"(own requests - {BUCKET}) / {DRAIN:g} s. Memory: peak above the idle process. exit: what the caller sees. "
        "b24pysdk's fast list sends `filter` and `order` "
        "in forms that this method ignores.",
        ("client", "wall, s", "× ours", "× bound", "requests", "503", "lost", "doubled", "in order", "memory, MB",
         "first row, s", "exit"),
    )  # fmt: skip
    clients = [one for one in CALLS if scale.slow_too or one.case != "calls_slowly"]
    with _portal(calls=size, latency_ms=scale.latency_ms, flat=scale.flat) as portal:
        found = _in_turns(
            portal, clients, scale.best_of, {"expected": portal["calls"], "fingerprint": portal["calls_fingerprint"]}
        )
    ours = found[clients[0].name]
    for client in clients:
        run = found[client.name]
        bound = (run["requests"] - BUCKET) / DRAIN
        section.rows.append(
            (
                client.name,
                f"{run['wall_s']:.2f}",
                f"{run['wall_s'] / ours['wall_s']:.2f}",
                f"{run['wall_s'] / bound:.2f}" if bound >= 1 and _told(run) == "ok" else "-",
                str(run["requests"]),
                str(run["refused"]),
                f"{run['lost']:,}",
                f"{run['doubled']:,}",
                "-" if not run["rows"] else "yes" if run["ascending"] else "no",
                f"{run['peak_mb'] - run['idle_mb']:.0f}",
                "-" if run["first_s"] is None else f"{run['first_s']:.2f}",
                _told(run),
            )
        )
    return section


def _contacts(scale: Scale) -> Section:
    latency = scale.latency_ms
    with _portal(calls=100, contacts=scale.contacts, latency_ms=latency) as portal:
        fewest = ceil(scale.contacts / ROWS_A_REQUEST) + ceil(portal["deals"] / ROWS_A_REQUEST)
        found = _in_turns(portal, CONTACTS, scale.best_of, {"ids": portal["contacts"], "expected": scale.contacts})
        deals = portal["deals"]
    section = Section(
        f"CRM: {scale.contacts:,} contacts by id with their {deals:,} deals",
        f"Bucket {BUCKET}/{DRAIN:g}, {latency:g} ms a command. The fewest possible requests are {fewest}: "
        f"{ROWS_A_REQUEST:,} rows each.",
        ("client", "wall, s", "× ours", "requests", "503", "contacts lost", "deals lost", "memory, MB", "exit"),
    )
    ours = found[CONTACTS[0].name]
    for client in CONTACTS:
        run = found[client.name]
        section.rows.append(
            (
                client.name,
                f"{run['wall_s']:.2f}",
                f"{run['wall_s'] / ours['wall_s']:.2f}",
                str(run["requests"]),
                str(run["refused"]),
                f"{run['lost']:,}",
                f"{deals - run['related']:,}",
                f"{run['peak_mb'] - run['idle_mb']:.0f}",
                _told(run),
            )
        )
    return section


def _recordings(scale: Scale) -> Section:
    section = Section(
        f"Recordings: {scale.recordings}",
        f"Every request takes 50 ms, a command {scale.latency_ms:g} ms more; 120 kB a file, concurrency 8, and a bucket that "
        "holds them all (with 50/2 the bucket alone would decide). Neither peer fetches "
        "recordings concurrently, so beside ours stands a plain loop.",
        ("client", "wall, s", "times faster", "requests", "lost", "memory, MB", "exit"),
    )
    size, drain = 100_000, 1000.0
    with _portal(
        calls=scale.recordings * 2,
        recordings=scale.recordings,
        latency_ms=scale.latency_ms,
        request_ms=50,
        bucket_size=size,
        drain_per_second=drain,
    ) as portal:
        job = {
            "ids": portal["recordings"],
            "expected": scale.recordings,
            "concurrency": 8,
            "bucket_size": size,
            "drain_per_second": drain,
        }
        found = _in_turns(portal, RECORDINGS, scale.best_of, job)
    loop = found[RECORDINGS[1].name]
    for client in RECORDINGS:
        run = found[client.name]
        section.rows.append(
            (
                client.name,
                f"{run['wall_s']:.2f}",
                f"{loop['wall_s'] / run['wall_s']:.1f}",
                str(run["requests"]),
                f"{run['lost']:,}",
                f"{run['peak_mb'] - run['idle_mb']:.0f}",
                _told(run),
            )
        )
    return section


def _told(run: Mapping[str, Any]) -> str:
    if run["outcome"] != "ok":
        return f"error: {run['outcome']}"
    if run["lost"]:
        return "ok, but rows are missing"
    return "ok, but other rows" if run["strange"] else "ok"


def _in_turns(
    portal: Mapping[str, Any], clients: Sequence[Client], best_of: int, job: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Each client's best run by its name."""
    runs: dict[str, list[dict[str, Any]]] = {client.name: [] for client in clients}
    shared = {"bucket_size": BUCKET, "drain_per_second": DRAIN, **portal, **job}
    # Only what the case needs goes through the client's memory.
    trimmed = {name: value for name, value in shared.items() if name not in ("contacts", "recordings")}
    for _ in range(best_of):
        for client in clients:
            if runs[client.name] and runs[client.name][-1]["wall_s"] > ONCE_IS_ENOUGH_S:
                continue
            httpx2.post(f"{portal['http']}/bench/reset").raise_for_status()
            run = _run(client, {**trimmed, "case": client.case})
            counts = httpx2.get(f"{portal['http']}/bench/books").raise_for_status().json()["counts"]
            run |= {"requests": counts.get("requests", 0), "refused": counts.get("refused", 0)}
            run["lost"] = max(0, job["expected"] - run["unique"])
            run["doubled"] = run["rows"] - run["unique"]
            run["strange"] = not run["lost"] and run["fingerprint"] != job.get("fingerprint", run["fingerprint"])
            runs[client.name].append(run)
            _say(f"{client.case}, {client.name.strip('*')}: {run['wall_s']:.1f} s, {_told(run)}")
    return {name: min(some, key=lambda run: (_told(run) != "ok", run["wall_s"])) for name, some in runs.items()}


def _say(line: str) -> None:
    """Progress: a whole run takes minutes."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _run(client: Client, job: Mapping[str, Any]) -> dict[str, Any]:
    begun = time.perf_counter()
    try:
        done = subprocess.run(
            client.command(),
            input=json.dumps(job),
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=LIMIT_S,
            check=True,
        )
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError, ValueError, IndexError) as error:
        nothing = dict.fromkeys(("rows", "unique", "related", "idle_mb", "peak_mb", "bytes"), 0)
        wall = time.perf_counter() - begun
        found = {
            **nothing,
            "outcome": type(error).__name__,
            "wall_s": wall,
            "first_s": None,
            "ascending": False,
            "fingerprint": "",
        }
    return found


@contextmanager
def _portal(
    *,
    calls: int,
    contacts: int = 1000,
    recordings: int = 10,
    latency_ms: float,
    request_ms: float = 0.0,
    flat: bool = False,
    bucket_size: int = BUCKET,
    drain_per_second: float = DRAIN,
) -> Iterator[dict[str, Any]]:
    options = {
        "calls": calls,
        "contacts": contacts,
        "recordings": recordings,
        "latency-ms": latency_ms,
        "request-ms": request_ms,
        "bucket-size": bucket_size,
        "drain-per-second": drain_per_second,
    }
    command = [sys.executable, "-m", "bench.portal", *(f"--{name}={value}" for name, value in options.items())]
    if flat:
        command.append("--flat")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            raise SystemExit(
                f"The stand-in portal ended with code {process.wait()} before it was up; its error stands above."
            )
        yield json.loads(line)
    finally:
        process.terminate()
        process.wait(20)


def _versions() -> str:
    lines = (ROOT / "bench" / "requirements.in").read_text().split()
    return ", ".join(line.replace("==", " ") for line in lines)


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    return done.stdout.strip() or "unknown"
