"""Running days of a portal: the Dagster job of definitions.py, executed in this process on the real instance."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from dialog_assets.assets.dead_runs import PROCESS_TAG, end_dead_runs
from dialog_assets.assets.jobs import job_name, missed_days, nightly_range, range_tags
from dialog_assets.assets.steps import UPSTREAM
from dialog_assets.errors import DialogAssetsError
from dialog_assets.interruption import told_to_stop
from dialog_assets.llm.prices import model_price
from dialog_assets.portals import Portal
from dialog_assets.resources.environment import required
from dialog_assets.resources.llm import access
from dialog_assets.store import call_steps, leases, ledger, server
from dialog_assets.store.pool import open_pool

WORKSPACE = Path("workspace.yaml")
MAX_RETRIES_TAG = "dagster/max_retries"


class Interrupted(DialogAssetsError):
    """A run was told to stop."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"Stopped; what run {run_id} had done stays, and the same command does the rest.")


class BadRequest(DialogAssetsError):
    """A portal, date or step that does not exist."""


@dataclass(frozen=True)
class RunResult:
    """What became of one Dagster run; `errors` holds one sentence for each step that stopped."""

    run_id: str
    success: bool
    errors: tuple[str, ...]


def find_portal(portals: Sequence[Portal], name: str) -> Portal:
    """The portal of that name; raises BadRequest."""
    for portal in portals:
        if portal.portal == name:
            return portal
    raise BadRequest(f"There is no portal {name!r}; known: {', '.join(portal.portal for portal in portals)}.")


def check_request(portal: Portal, first: date, last: date, steps: Sequence[str]) -> None:
    """Raises BadRequest for days that the portal does not have (yet), a range the wrong way round, or an unknown step."""
    unknown = [step for step in steps if step not in UPSTREAM]
    if unknown:
        raise BadRequest(f"There is no step {unknown[0]!r}; the steps are: {', '.join(UPSTREAM)}.")
    if first > last:
        raise BadRequest(f"The range ends ({last}) before it begins ({first}).")
    if first < portal.start_date:
        raise BadRequest(
            f"{portal.portal} begins on {portal.start_date} (start_date in its file); {first} is before that."
        )
    today = datetime.now(UTC).astimezone(portal.zone).date()
    if last >= today:
        raise BadRequest(
            f"{last} is not over yet in {portal.time_zone}; the last finished day is {today - timedelta(days=1)}."
        )


async def tonight(url: str, portal: Portal) -> tuple[date, date] | None:
    """What the portal's schedule would ask for tonight; None before its first day is over."""
    today = datetime.now(portal.zone).date()
    async with open_pool(url, size=1) as pool, pool.connection() as connection:
        return nightly_range(portal, today, await missed_days(connection, portal, today))


def chunks(portal: Portal, first: date, last: date) -> list[tuple[date, date]]:
    """The range in pieces of the portal's `days_per_run`, or whole."""
    size = portal.days_per_run or (last - first).days + 1
    out = []
    while first <= last:
        end = min(last, first + timedelta(days=size - 1))
        out.append((first, end))
        first = end + timedelta(days=1)
    return out


def check_credentials(portal: Portal, steps: Sequence[str]) -> None:
    """Raises MissingCredential for the first variable that the steps need and that is not set, before a run begins.

    And UnusableCredential for a key or an address of an LLM vendor of a form that cannot be right.
    """
    wanted = set(steps or UPSTREAM)
    if wanted & {"calls", "users", "entities", "audio_files"}:
        for name in portal.bitrix24.credentials:
            required(name, f"a credential of portal {portal.portal}")
    if wanted & {"audio_files", "transcripts"}:
        required("S3_BUCKET", "the name of the bucket that archives recordings")
    if "transcripts" in wanted:
        required("VOICEKIT_API_KEY", "the API key of T-Bank VoiceKit")
        required("VOICEKIT_SECRET_KEY", "the secret key of T-Bank VoiceKit")
    models = {
        "fixed_dialogs": portal.llm.correction,
        "classifications": portal.llm.classification,
        "criteria_scores": portal.llm.criteria,
        "entity_summaries": portal.llm.summary,
    }
    for step, choice in models.items():
        if step in wanted:
            access(choice)
            # Of a model without a price nothing is asked, which a run would find after the recognition is paid.
            model_price(choice.model)


async def retry_failed(url: str, portal: Portal, first: date, last: date, steps: Sequence[str]) -> None:
    """Let calls that failed for good be tried again: by all steps, or by those asked for."""
    async with open_pool(url, size=1) as pool, pool.connection() as connection:
        await call_steps.retry_failed(connection, portal.portal, steps or list(UPSTREAM), first, last)
        await ledger.pardon(connection, portal.portal, steps or list(UPSTREAM), first, last)


def run_days(
    definitions: dg.Definitions, portal: Portal, first: date, last: date, steps: Sequence[str] = ()
) -> list[RunResult]:
    """Run the portal's job over the days from `first` to `last`, in this process; all nine steps unless `steps` says which.

    Stops after the first run that fails. Raises BadRequest, and Interrupted when it was told to stop.
    """
    check_request(portal, first, last, steps)
    job = definitions.get_repository_def().get_job(job_name(portal.portal))
    results = []
    with _instance() as instance, told_to_stop() as is_to_stop:
        asyncio.run(end_dead_runs(instance, server.database_url(), portal.portal))
        for start, end in chunks(portal, first, last):
            results.append(_run(job, instance, portal, start, end, steps))
            if is_to_stop():
                raise Interrupted(results[-1].run_id)
            if not results[-1].success:
                break
    return results


def _instance() -> dg.DagsterInstance:
    from dagster._core.instance import InstanceRef

    # What a run prints goes to the command's own terminal. Dagster's way through files has helpers, and Ctrl-C in a terminal
    # reaches those too: each ends in a traceback.
    overrides = {
        "compute_logs": {
            "module": "dagster._core.storage.noop_compute_log_manager",
            "class": "NoOpComputeLogManager",
            "config": {},
        }
    }
    return dg.DagsterInstance.from_ref(InstanceRef.from_dir(os.environ["DAGSTER_HOME"], overrides=overrides))


def _run(
    job: dg.JobDefinition, instance: dg.DagsterInstance, portal: Portal, first: date, last: date, steps: Sequence[str]
) -> RunResult:
    # What execute_in_process does, for a run that has an origin: without one the UI lists it neither under its job nor in
    # the timeline (test_running.py shows that it does).
    from dagster._core.definitions.job_base import InMemoryJob
    from dagster._core.execution.api import execute_run

    days = {"dagster/partition": first.isoformat()} if first == last else range_tags(first, last)
    run = instance.create_run_for_job(
        job,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        # Whoever started it sees that it failed: the daemon does not start it again.
        tags={
            **job.run_tags,
            "portal": portal.portal,
            PROCESS_TAG: leases.this_process(),
            MAX_RETRIES_TAG: "0",
            **days,
        },
        asset_selection=frozenset(dg.AssetKey([portal.portal, step]) for step in steps) or None,
        remote_job_origin=_origin(job.name),
    )
    try:
        result = execute_run(InMemoryJob(job), run, instance)
    except KeyboardInterrupt:  # before Dagster listens for it, or after
        begun = instance.get_run_by_id(run.run_id)
        if begun is not None and not begun.is_finished:
            instance.report_run_canceled(begun)
        raise Interrupted(run.run_id) from None
    ended = instance.get_run_by_id(run.run_id)
    if ended is not None and ended.status in (dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.CANCELING):
        raise Interrupted(run.run_id)
    return RunResult(result.run_id, result.success, tuple(_errors(result)))


def _origin(job: str) -> Any:  # Dagster does not export its type
    """The job as the workspace of webserver and daemon names it; None where there is none."""
    from dagster._core.remote_origin import RemoteRepositoryOrigin
    from dagster._core.workspace.load_target import WorkspaceFileTarget

    if not WORKSPACE.exists():
        return None
    (location,) = WorkspaceFileTarget([str(WORKSPACE)]).create_origins()
    return RemoteRepositoryOrigin(location, "__repository__").get_job_origin(job)


def _errors(result: dg.JobExecutionResult | dg.ExecuteInProcessResult) -> list[str]:
    """What stopped each step: the sentence of a dg.Failure, else the innermost error."""
    errors = []
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            error = data.error
            while error is not None and error.cause is not None:
                error = error.cause
            told = data.user_failure_data.description if data.user_failure_data else None
            errors.append(told or (error.message.strip() if error else "unknown error"))
    return errors
