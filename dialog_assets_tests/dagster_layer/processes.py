"""Dagster as it is deployed: webserver and daemon as processes of their own over a Postgres instance, asked in GraphQL."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import psutil

ROOT = Path(__file__).parents[2]
WORKSPACE = ROOT / "workspace.yaml"
T = TypeVar("T")


@contextmanager
def dagster_process(name: str, *arguments: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`name` of the environment's bin folder, with its log in a file; ended with all its children, code servers and runs too."""
    command = [str(Path(sys.executable).parent / name), *arguments, "-w", str(WORKSPACE)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
        )
    try:
        yield process
    finally:
        end_group(process)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and its group: a polite signal, then, as code servers would stay for most of a minute, the other one."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    asked_at = time.monotonic()
    while alive := session(process.pid):
        asked_s = time.monotonic() - asked_at
        assert asked_s < 120, f"they do not end: {alive}"
        for member in alive:
            with suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGTERM if asked_s < 3 else signal.SIGKILL)
        time.sleep(0.1)


def session(leader: int) -> list[psutil.Process]:
    """The running processes of the session that `leader` began."""
    found = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getsid(process.pid) == leader and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        except ProcessLookupError:
            continue
    return found


def free_port() -> int:
    """A port that nobody listens on, of those that are given to nobody who asks for any port, as other tests do meanwhile."""
    while True:
        port = random.randint(20_000, 30_000)
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def wait_for(what: str, probe: Callable[[], T | None], *, seconds: float, log: Path) -> T:
    """The first answer of `probe` that is not None; fails after `seconds` with what was waited for and the end of the log."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = probe()
        if answer is not None:
            return answer
        time.sleep(1)
    raise AssertionError(f"waited {seconds:.0f} s in vain for {what}; its log ends:\n{log.read_text()[-4000:]}")


class UI:
    """The webserver's GraphQL, as the pages in a browser use it."""

    def __init__(self, port: int) -> None:
        self._client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)

    def is_up(self) -> bool | None:
        """True as soon as the code location is loaded."""
        try:
            self._client.get("/server_info")
            answer = self.ask("{ workspaceOrError { ... on Workspace { locationEntries { loadStatus } } } }")
        except httpx2.TransportError:
            return None
        entries = answer["workspaceOrError"]["locationEntries"]
        return True if [entry["loadStatus"] for entry in entries] == ["LOADED"] else None

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data that a query gives."""
        answer = self._client.post("/graphql", json={"query": query, "variables": variables}).json()
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    def backfill(self, **parameters: Any) -> str:
        """Launch a backfill and return its id."""
        answer = self.ask(
            """
            mutation ($parameters: LaunchBackfillParams!) {
              launchPartitionBackfill(backfillParams: $parameters) {
                __typename
                ... on LaunchBackfillSuccess { backfillId }
                ... on Error { message }
              }
            }
            """,
            parameters=parameters,
        )["launchPartitionBackfill"]
        assert answer["__typename"] == "LaunchBackfillSuccess", answer
        backfill_id: str = answer["backfillId"]
        return backfill_id

    def backfill_status(self, backfill_id: str) -> str:
        """REQUESTED … COMPLETED_SUCCESS."""
        status: str = self.ask(
            "query ($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }",
            id=backfill_id,
        )["partitionBackfillOrError"]["status"]
        return status
