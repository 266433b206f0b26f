"""The sandbox as a child process of a command: started with it, pointed to by its environment, ended with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from dialog_assets.errors import DialogAssetsError


class SandboxFailed(DialogAssetsError):
    """The sandbox did not start."""


class SandboxProcess:
    """A running sandbox: its environment, and its control port."""

    def __init__(self, process: subprocess.Popen[str], told: dict[str, Any]) -> None:
        self.process = process
        self.environment: dict[str, str] = told["environment"]
        self._control = httpx2.Client(base_url=told["addresses"]["control"], timeout=10)

    def books(self) -> dict[str, Any]:
        """What the sandbox was asked since its start or the last reset."""
        books: dict[str, Any] = self._control.get("/books").raise_for_status().json()
        return books

    def post(self, path: str, body: Any = None) -> None:
        """POST /clock, /faults, /reset or /books/reset."""
        self._control.post(path, json=body).raise_for_status()


@contextmanager
def sandbox_process(*arguments: str, state: Path | None = None) -> Iterator[SandboxProcess]:
    """Start `dialog-assets sandbox` with free ports, and stop it at the end. Raises SandboxFailed."""
    command = [sys.executable, "-m", "dialog_assets.cli", "sandbox", "--json", *arguments]
    if state is not None:
        command += ["--state", str(state)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            raise SandboxFailed(
                f"The sandbox ended with code {process.wait()} before it was up; its error stands above."
            )
        yield SandboxProcess(process, json.loads(line))
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def pointed_at(sandbox: SandboxProcess) -> Iterator[None]:
    """This process's environment points at the sandbox."""
    before = {name: os.environ.get(name) for name in sandbox.environment}
    os.environ.update(sandbox.environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
