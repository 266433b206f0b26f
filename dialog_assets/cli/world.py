"""The sandbox as a child process of a command: started with it, pointed to by its environment, ended with it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx2

from dialog_assets.errors import DialogAssetsError

PLAYED = ("okna_sever", "avto_ural")
"""The portals of the sandbox's world."""


_PROXIES = {"http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "no_proxy", "no_grpc_proxy"}
_NEEDED = re.compile(
    r"PATH|HOME|LANG|LC_\w+|TZ|TMPDIR|TEMP|TMP|SYSTEMROOT|(PYTHON|COVERAGE_|VIRTUAL_)\w+", re.IGNORECASE
)
"""What the sandbox may know of this process's environment: no secret, and no proxy."""


class SandboxFailed(DialogAssetsError):
    """The sandbox did not start."""


OURS = "# Written by dialog-assets sandbox: addresses and test credentials of a fictional world."


class ForeignFile(DialogAssetsError):
    """A file of settings that the sandbox did not write, and so does not replace."""


def check_environment_file(path: Path) -> None:
    """Raises ForeignFile where writing would replace somebody's own settings."""
    if path.exists() and not path.read_bytes().startswith(OURS.encode()):
        raise ForeignFile(f"{path} is there and was not written by the sandbox: choose another file, or remove it.")


def write_environment(path: Path, environment: Mapping[str, str]) -> None:
    """Write `environment` in the form of .env, for its owner only. Raises ForeignFile where it cannot be written."""
    lines = [OURS, *(f"{variable}='{value}'" for variable, value in environment.items())]
    try:
        path.unlink(missing_ok=True)
        with open(path, "x", encoding="utf-8", opener=partial(os.open, mode=0o600)) as file:
            file.write("\n".join(lines) + "\n")
    except OSError as error:
        raise ForeignFile(f"{path} cannot be written ({error.strerror}): choose another file.") from None


_PACKAGES = ("flask_cors", "moto", "python_multipart", "starlette", "uvicorn")


def check_packages() -> None:
    """Raises SandboxFailed where the sandbox's packages, an extra of this one, are not installed."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise SandboxFailed(
            f"The sandbox's packages are not installed ({', '.join(missing)}): pip install 'dialog-assets[sandbox]'."
        )


class SandboxProcess:
    """A sandbox that is starting: the first question to it waits until it is up. Raises SandboxFailed then."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    @cached_property
    def _told(self) -> dict[str, Any]:
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            raise SandboxFailed(
                f"The sandbox ended with code {self.process.wait()} before it was up; its error stands above."
            )
        told: dict[str, Any] = json.loads(line)
        return told

    @cached_property
    def _control(self) -> httpx2.Client:
        return httpx2.Client(base_url=self._told["addresses"]["control"], timeout=60, trust_env=False)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that point clients at the sandbox."""
        environment: dict[str, str] = self._told["environment"]
        return environment

    @property
    def week(self) -> tuple[date, date]:
        """The first and the last day with a call."""
        first, last = (date.fromisoformat(day) for day in self._told["week"])
        return first, last

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
    check_packages()
    command = [sys.executable, "-m", "dialog_assets.cli", "sandbox", "--json", *arguments]
    if state is not None:
        command += ["--state", str(state)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, encoding="utf-8", start_new_session=True, env=_without_secrets()
    )
    try:
        yield SandboxProcess(process)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def pointed_at(sandbox: SandboxProcess) -> Iterator[None]:
    """This process's environment points at the sandbox, and at no proxy: loopback is not reached through one."""
    proxies = [name for name in os.environ if name.lower() in _PROXIES]
    before = {name: os.environ.get(name) for name in (*proxies, *sandbox.environment)}
    for name in proxies:
        del os.environ[name]
    os.environ.update(sandbox.environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _without_secrets() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if _NEEDED.fullmatch(name)}
