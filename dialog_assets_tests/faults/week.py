"""One run of a portal's real job as a process that can be killed: forked from a server that has imported everything.

Here: what happens in the child. Importing this module takes seconds, so a test process names it to the fork server and
never imports it. Nothing here opens a channel, a loop or a connection before the fork.
"""

from __future__ import annotations

import gc
import logging
import os
import tempfile
from contextlib import ExitStack
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path

import dagster as dg

import dialog_assets.audio.probe
import dialog_assets.llm.vendors.openai_chat  # noqa: F401 - in memory before the fork, like the one above
from dialog_assets.assets.jobs import job_name, range_tags
from dialog_assets.bitrix24 import retries
from dialog_assets.boto3_sessions import new_session
from dialog_assets.cli.running import _errors
from dialog_assets.definitions import build_defs
from dialog_assets.llm import router
from dialog_assets.portals import load_portals, portals_folder
from dialog_assets.speech import port
from dialog_assets.speech.voicekit_calls import Calls
from dialog_assets_tests.faults.support import narrow

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
PORTALS = [narrow(portal) for portal in load_portals(portals_folder())]
_REPOSITORY = build_defs(PORTALS).get_repository_def()
JOBS = {portal.portal: _REPOSITORY.get_job(job_name(portal.portal)) for portal in PORTALS}
new_session().client("s3", region_name="us-east-1")  # reads the service's description, which the forks then have


@dg.op
def _nothing() -> None:
    """Nothing."""


@dg.job(executor_def=dg.in_process_executor)
def _warm() -> None:
    """A run of nothing: it imports what Dagster imports on the way, its storage above all."""
    _nothing()


with dg.DagsterInstance.ephemeral() as _instance:
    _warm.execute_in_process(instance=_instance, run_config=QUIET)
gc.freeze()  # the forks' collections then leave the shared pages alone


def run(
    environment: dict[str, str],
    temporary: str,
    portal: str,
    first: date,
    last: date,
    *,
    records: str | None,
    told: Connection,
) -> None:
    """Run the job over the days in this process; sends what stopped it, one sentence a step, none when it was a success.

    `records`: a folder in which everything that is said is kept, Dagster's own storage too; None: nothing is said.
    """
    os.environ.update(environment)
    tempfile.tempdir = temporary
    hurry()
    with ExitStack() as stack:
        if records is None:
            logging.disable(logging.CRITICAL)
            instance = stack.enter_context(dg.DagsterInstance.ephemeral())
        else:
            _record_everything(Path(records))
            instance = stack.enter_context(dg.instance_for_test(temp_dir=records))
        result = JOBS[portal].execute_in_process(
            instance=instance,
            tags=range_tags(first, last),
            run_config=QUIET if records is None else None,
            raise_on_error=False,
        )
    told.send(tuple(_errors(result)))


def _record_everything(folder: Path) -> None:
    """What any logger says at any level, and what is printed, goes to files of `folder`."""
    for number, name in ((1, "stdout.txt"), (2, "stderr.txt")):
        with (folder / name).open("ab") as file:
            os.dup2(file.fileno(), number)
    handler = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    logging.basicConfig(level=logging.DEBUG, handlers=[handler], force=True)


def hurry() -> None:
    """Shorten the pauses between polls and before a request is repeated; how long they are, the rooms' own tests know."""
    port.poll_delays.__defaults__ = (0.15, 1.0, 0.15)
    retries.BUCKET_S = retries.BACKOFF_S = 0.02
    router._wait_s = lambda failure, attempt: 0.02
    pause = Calls.pause

    async def short(self: Calls, attempt: int) -> None:
        self._backoff_s = 0.02
        await pause(self, attempt)

    Calls.pause = short  # type: ignore[method-assign]
