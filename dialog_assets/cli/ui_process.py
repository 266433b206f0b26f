"""The processes of `make ui`: `python -m dialog_assets.cli.ui_process webserver|daemon|code-server …`.

Here: Dagster's own webserver behind the guard, its daemon and its code server, each ending with the command that started it.
Not here: which are started, and with what (ui.py).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

LOOK_S = 1.0


def end_with_parent() -> None:
    """This process is told to stop as soon as the one that started it is gone, however that ended."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="end_with_parent").start()


def webserver(port: str, workspace: str) -> None:
    """Dagster's webserver, guarded, on loopback."""
    import uvicorn
    from dagster import DagsterInstance
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import WorkspaceFileTarget
    from dagster_webserver.app import create_app_from_workspace_process_context
    from dagster_webserver.version import __version__

    from dialog_assets.cli.guard import Guard

    hosts = [name for name in os.environ.get("DIALOG_ASSETS_UI_HOSTS", "").split(",") if name.strip()]
    with (
        DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, WorkspaceFileTarget([workspace]), version=__version__) as context,
    ):
        app = Guard(create_app_from_workspace_process_context(context), hosts)
        uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", timeout_graceful_shutdown=3)


def daemon(workspace: str) -> None:
    """Dagster's daemon: schedules, sensors, the run queue."""
    from dagster._daemon.cli import cli

    cli(["run", "-w", workspace])


def code_server(port: str, location: str) -> None:
    """The definitions, for both: one server that lasts, and is loaded anew when somebody asks for it."""
    from dagster._cli.code_server import code_server_cli

    target = ["-m", "dialog_assets.definitions", "--location-name", location]
    code_server_cli(["start", "-h", "127.0.0.1", "-p", port, *target, "--log-level", "warning"])


def write_workspace(path: Path, port: int, location: str) -> None:
    """A workspace file that names the code server."""
    path.write_text(
        f"load_from:\n  - grpc_server: {{host: 127.0.0.1, port: {port}, location_name: {location}}}\n", encoding="utf-8"
    )


PROCESSES: dict[str, Callable[..., None]] = {"webserver": webserver, "daemon": daemon, "code-server": code_server}


def main(arguments: list[str]) -> None:
    """Become the process of that name."""
    end_with_parent()
    PROCESSES[arguments[0]](*arguments[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
