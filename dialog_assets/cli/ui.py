"""`make ui`: Dagster's webserver, daemon and code server as child processes, on the data that the commands use.

Here: what is started, in which order, and what becomes of it. Not here: the processes themselves (ui_process.py), which
requests the webserver takes (guard.py).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import click
from filelock import FileLock, Timeout

from dialog_assets.cli import instance
from dialog_assets.cli.ui_process import write_workspace
from dialog_assets.cli.world import PLAYED, pointed_at, sandbox_process
from dialog_assets.errors import DialogAssetsError
from dialog_assets.folders import data_folder, data_part
from dialog_assets.portals import Portal
from dialog_assets.store import schema

HOST = "127.0.0.1"
LOCATION = "dialog_assets"
"""As in workspace.yaml, so that runs of both belong to one location."""
STOP_S = 10.0


class UiFailed(DialogAssetsError):
    """The UI cannot be served."""


def serve_ui(portals: Sequence[Portal], port: int) -> int:
    """Serve until Ctrl-C, or until one of the processes ends; returns the exit code. Raises UiFailed."""
    with ExitStack() as stack:
        _only_one(stack)
        _check_port(port)
        try:
            return _serve(stack, portals, port)
        except KeyboardInterrupt:
            click.echo("Stopping.", err=True)
            return 0


def _serve(stack: ExitStack, portals: Sequence[Portal], port: int) -> int:
    if {portal.portal for portal in portals} <= set(PLAYED) and not os.environ.get("DATABASE_URL"):
        click.echo("Only the fictional portals are configured: the sandbox serves.")
        sandbox = stack.enter_context(sandbox_process(state=data_part("sandbox")))
        stack.enter_context(pointed_at(sandbox))
    schema.setup_portals(instance.prepare(), portals)
    code_port = _free_port()
    workspace = Path(os.environ["DAGSTER_HOME"]) / "ui_workspace.yaml"
    write_workspace(workspace, code_port, LOCATION)
    processes = {"code-server": _start(stack, "code-server", str(code_port), LOCATION)}
    # The others would complain of it until it has loaded the definitions.
    while not _listens(code_port) and processes["code-server"].poll() is None:
        time.sleep(0.2)
    processes["webserver"] = _start(stack, "webserver", str(port), str(workspace))
    processes["daemon"] = _start(stack, "daemon", str(workspace))
    click.echo(f"Dagster UI: http://{HOST}:{port} (up in some seconds). Stop it with Ctrl-C.")
    return _wait(processes)


def _only_one(stack: ExitStack) -> None:
    """Two daemons on one state would take each other's work. Raises UiFailed."""
    lock = FileLock(data_folder() / "ui.lock", timeout=0)
    try:
        stack.enter_context(lock)
    except Timeout:
        raise UiFailed(
            f"The UI is served already on the data in {data_folder()}: stop that one first, two daemons on one state would "
            "take each other's work."
        ) from None


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UiFailed(
                f"Port {port} cannot be had on {HOST} ({error.strerror}): stop what listens there, or choose another with "
                "--port (make ui PORT=…)."
            ) from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _start(stack: ExitStack, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    # In a session of its own: Ctrl-C reaches this process, which stops them in order and once.
    process = subprocess.Popen(
        [sys.executable, "-m", "dialog_assets.cli.ui_process", name, *arguments], start_new_session=True
    )
    stack.callback(_stop, process)
    return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait(processes: Mapping[str, subprocess.Popen[bytes]]) -> int:
    """Until one ends, which is an error and told."""
    while True:
        for name, process in processes.items():
            code = process.poll()
            if code is not None:
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
                click.echo(f"Error: The {name} of the UI {how}, and the UI stops with it: start it again.", err=True)
                return 1
        time.sleep(0.5)
