"""How a client is measured: each is a process of its own; the portal is one process for all, with a strict bucket.

Here: the portal's and the clients' processes, and what a run gave. Not here: what is measured (the modules beside this),
the clients themselves (bench/clients).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

ROOT = Path(__file__).parents[2]
PEERS = ROOT / "bench" / ".venv"
BUCKET, DRAIN = 50, 2.0
ROWS_A_PAGE, COMMANDS, ROWS_A_REQUEST = 50, 50, 2500

ONCE_IS_ENOUGH_S = 5
"""A client that takes longer is not run again."""

LIMIT_S = 300
LEAST_S = 20
TIMES_OURS = 10
"""A peer that takes ten times as long as we do, and more than LEAST_S, is ended, and that is its result; so is, after
LIMIT_S, any other."""

Run = dict[str, Any]
"""What one run of a client gave: its own figures (bench/clients/measured.py) and the portal's."""


@dataclass(frozen=True)
class Client:
    """A client's name in the table, its script, and the case's name there. A `patient` one is never ended early."""

    name: str
    script: str
    case: str
    ours: bool = False
    patient: bool = False

    def command(self) -> list[str]:
        """How its process is started."""
        if self.ours:
            return [sys.executable, "-m", f"bench.clients.{self.script}"]
        return [str(PEERS / "bin" / "python"), str(ROOT / "bench" / "clients" / f"{self.script}.py")]


@contextmanager
def portal(
    *,
    calls: int = 100,
    contacts: int = 1000,
    users: int = 40,
    recordings: int = 10,
    latency_ms: float = 4.0,
    request_ms: float = 0.0,
    free: bool = False,
    bucket_size: int = BUCKET,
    drain_per_second: float = DRAIN,
) -> Iterator[dict[str, Any]]:
    """A portal of that size; gives what a client needs to know. `free`: counting rows and passing over rows cost nothing."""
    options = {
        "calls": calls,
        "contacts": contacts,
        "users": users,
        "recordings": recordings,
        "latency-ms": latency_ms,
        "request-ms": request_ms,
        "bucket-size": bucket_size,
        "drain-per-second": drain_per_second,
    }
    command = [sys.executable, "-m", "bench.portal", *(f"--{name}={value}" for name, value in options.items())]
    if free:
        command.append("--free")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            raise SystemExit(
                f"The stand-in portal ended with code {process.wait()} before it was up; its error stands above."
            )
        yield {"bucket_size": bucket_size, "drain_per_second": drain_per_second, **json.loads(line)}
    finally:
        process.terminate()
        process.wait(20)


def in_turns(
    at: Mapping[str, Any], clients: Sequence[Client], job: Mapping[str, Any], *, best_of: int
) -> dict[str, Run]:
    """Each client's best run by its name, the bucket empty each time: the fastest that read everything, else the fastest.

    `job` is what the case needs of `at`; `expected` rows must come, and their `fingerprint` where it is given.
    """
    runs: dict[str, list[Run]] = {client.name: [] for client in clients}
    for _ in range(best_of):
        for client in clients:
            if runs[client.name] and runs[client.name][-1]["wall_s"] > ONCE_IS_ENOUGH_S:
                continue
            first = runs[clients[0].name]
            limit = (
                LIMIT_S if client.patient or not first else min(LIMIT_S, max(LEAST_S, TIMES_OURS * first[-1]["wall_s"]))
            )
            run = run_once(at, client, job, limit_s=limit)
            runs[client.name].append(run)
            say(f"{client.case}, {client.name.strip('*')}: {run['wall_s']:.1f} s, {told(run)}")
    return {name: min(some, key=lambda run: (told(run) != "ok", run["wall_s"])) for name, some in runs.items()}


def run_once(
    at: Mapping[str, Any],
    client: Client,
    job: Mapping[str, Any],
    *,
    limit_s: float = LIMIT_S,
    faults: Sequence[Mapping[str, Any]] | None = None,
    events: Sequence[Mapping[str, Any]] = (),
) -> Run:
    """One run on a portal as it was at the start, with these faults (None: as they are) and events."""
    reset(at)
    if faults is not None:
        httpx2.post(f"{at['http']}/bench/faults", json=list(faults)).raise_for_status()
    if events:
        httpx2.post(f"{at['http']}/bench/events", json=list(events)).raise_for_status()
    run = finished(started(client, at, job), limit_s)
    return judged(run, job, books(at))


def reset(at: Mapping[str, Any]) -> None:
    """Empty bucket and books; data as they were."""
    httpx2.post(f"{at['http']}/bench/reset").raise_for_status()


def books(at: Mapping[str, Any]) -> dict[str, int]:
    """What the portal counted since `reset`."""
    counts: dict[str, int] = httpx2.get(f"{at['http']}/bench/books").raise_for_status().json()["counts"]
    return counts


def judged(run: Run, job: Mapping[str, Any], counts: Mapping[str, int]) -> Run:
    """The run with the portal's figures, and with what is lost, doubled or strange."""
    run |= {"requests": counts.get("requests", 0), "refused": counts.get("refused", 0)}
    run |= {"blocked": counts.get("blocked", 0), "sent_mb": counts.get("bytes", 0) / 1e6}
    run["lost"] = max(0, job["expected"] - run["unique"])
    run["doubled"] = run["rows"] - run["distinct"]
    run["strange"] = not run["lost"] and run["fingerprint"] != job.get("fingerprint", run["fingerprint"])
    return run


def told(run: Mapping[str, Any]) -> str:
    """How a run ended, as its caller sees it, and what that is worth."""
    if run["outcome"] == "ended":
        return f"ended after {run['wall_s']:.0f} s"
    if run["outcome"] != "ok":
        return f"error: {run['outcome']}"
    if run["lost"]:
        return "silent loss"
    return "ok, but other rows" if run["strange"] else "ok"


def started(client: Client, at: Mapping[str, Any], job: Mapping[str, Any]) -> subprocess.Popen[str]:
    """The client's process, at its work."""
    process = subprocess.Popen(
        client.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    # Only what the case needs goes through the client's memory.
    shared = {name: value for name, value in at.items() if not isinstance(value, list)}
    if process.stdin:
        process.stdin.write(json.dumps({**shared, **job, "case": client.case}))
        process.stdin.close()
        process.stdin = None
    return process


def finished(process: subprocess.Popen[str], limit_s: float) -> Run:
    """What it gave; it is ended after `limit_s` seconds."""
    begun = time.perf_counter()
    nothing = dict.fromkeys(("rows", "unique", "distinct", "related", "idle_mb", "peak_mb", "cpu_s", "bytes"), 0)
    failed: Run = {**nothing, "first_s": None, "ascending": False, "fingerprint": ""}
    try:
        out, err = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {**failed, "outcome": "ended", "wall_s": time.perf_counter() - begun}
    try:
        found: Run = json.loads(out.splitlines()[-1])
    except (ValueError, IndexError):
        say(err)
        return {**failed, "outcome": f"exit {process.returncode}", "wall_s": time.perf_counter() - begun}
    return found


def bound_s(requests: int) -> float:
    """Seconds below which nobody can send so many requests: the bucket takes 50 at once, then two a second."""
    return max(0.0, (requests - BUCKET) / DRAIN)


def say(line: str) -> None:
    """Progress: a whole run takes minutes."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def versions() -> str:
    """The peers'."""
    lines = (ROOT / "bench" / "requirements.in").read_text().split()
    return ", ".join(line.replace("==", " ") for line in lines)


def commit() -> str:
    """Ours."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    return done.stdout.strip() or "unknown"
