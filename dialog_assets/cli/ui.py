"""`make ui`: Dagster's webserver and daemon as child processes, on the data that the commands use."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from dialog_assets.cli import instance
from dialog_assets.cli.world import PLAYED, pointed_at, sandbox_process
from dialog_assets.errors import DialogAssetsError
from dialog_assets.folders import data_part
from dialog_assets.portals import Portal
from dialog_assets.store import schema

HOST = "127.0.0.1"
BIN = Path(sys.executable).parent


class UiFailed(DialogAssetsError):
    """The UI cannot be served."""


def serve_ui(portals: Sequence[Portal], port: int) -> int:
    """Serve until Ctrl-C or until one of the two ends; returns the exit code. Raises UiFailed."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UiFailed(
                f"Port {port} cannot be had on {HOST} ({error.strerror}): stop what listens there, or choose another with --port."
            ) from None
    with ExitStack() as stack:
        if {portal.portal for portal in portals} <= set(PLAYED) and not os.environ.get("DATABASE_URL"):
            click.echo("Only the fictional portals are configured: the sandbox serves.")
            sandbox = stack.enter_context(sandbox_process(state=data_part("sandbox")))
            stack.enter_context(pointed_at(sandbox))
        schema.setup_portals(instance.prepare(), portals)
        webserver = ["dagster-webserver", "-h", HOST, "-p", str(port), "-w", "workspace.yaml"]
        processes = [
            _start(stack, command) for command in (webserver, ["dagster-daemon", "run", "-w", "workspace.yaml"])
        ]
        click.echo(f"Dagster UI: http://{HOST}:{port} (up in some seconds). Stop it with Ctrl-C.")
        return _wait(processes)


def _start(stack: ExitStack, command: list[str]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([str(BIN / command[0]), *command[1:]])
    stack.callback(_stop, process)
    return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    """Until one ends (an error), or until this process is told to stop."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        while all(process.poll() is None for process in processes):
            time.sleep(0.5)
    except KeyboardInterrupt:
        return 0
    return 1
