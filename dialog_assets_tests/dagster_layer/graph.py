"""The definitions as a text to review: `asset_graph.txt` beside this file.

After a wanted change renew it, in the project's folder, with `.venv/bin/python -m dialog_assets_tests.dagster_layer.graph`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from dialog_assets.definitions import build_defs
from dialog_assets.portals import load_portals

SNAPSHOT = Path(__file__).with_name("asset_graph.txt")
PORTALS = Path(__file__).parents[2] / "portals"


def describe(definitions: dg.Definitions) -> str:
    """Assets with dependencies, group, kinds, partitions, backfill policy and checks; jobs; schedules with cron, zone; sensors."""
    parts = (_assets, _jobs, _schedules, _sensors)
    return "\n".join(line for part in parts for line in part(definitions)) + "\n"


def _assets(definitions: dg.Definitions) -> Iterator[str]:
    for asset in definitions.assets or ():
        assert isinstance(asset, dg.AssetsDefinition)
        for spec in asset.specs:
            yield f"asset {spec.key.to_user_string()}"
            yield f"  after       {', '.join(sorted(dep.asset_key.to_user_string() for dep in spec.deps)) or '-'}"
            yield f"  group       {spec.group_name}"
            yield f"  kinds       {', '.join(sorted(spec.kinds))}"
            yield f"  partitions  {_partitions(spec.partitions_def)}"
            yield f"  backfill    {_policy(asset.backfill_policy)}"
            yield f"  table       {spec.metadata['dagster/table_name']}"
            yield f"  checks      {', '.join(sorted(check.name for check in asset.check_specs))}"
            yield f"  says        {spec.description}"


def _partitions(partitions: dg.PartitionsDefinition[str] | None) -> str:
    assert isinstance(partitions, dg.TimeWindowPartitionsDefinition)
    return f"{partitions.cron_schedule} from {partitions.start:%Y-%m-%d} in {partitions.timezone}"


def _policy(policy: dg.BackfillPolicy | None) -> str:
    assert policy is not None
    size = policy.max_partitions_per_run
    return "the whole range in one run" if size is None else f"{size} days a run"


def _jobs(definitions: dg.Definitions) -> Iterator[str]:
    repository = definitions.get_repository_def()
    for name in sorted(repository.job_names):
        if name.startswith("__"):
            continue
        job = repository.get_job(name)
        tags = ", ".join(f"{key}={value}" for key, value in sorted((job.run_tags or {}).items()))
        yield f"job {name}"
        yield f"  assets      {', '.join(sorted(key.to_user_string() for key in job.asset_layer.executable_asset_keys))}"
        yield f"  tags        {tags}"
        yield f"  executor    {job.executor_def.name}"
        yield f"  says        {job.description}"


def _schedules(definitions: dg.Definitions) -> Iterator[str]:
    for schedule in sorted(definitions.get_repository_def().schedule_defs, key=lambda found: found.name):
        yield f"schedule {schedule.name}"
        yield f"  job         {schedule.job_name}"
        yield f"  cron        {schedule.cron_schedule} in {schedule.execution_timezone}"
        yield f"  at first    {schedule.default_status.value.lower()}"
        yield f"  says        {schedule.description}"


def _sensors(definitions: dg.Definitions) -> Iterator[str]:
    for sensor in sorted(definitions.get_repository_def().sensor_defs, key=lambda found: found.name):
        yield f"sensor {sensor.name}"
        yield f"  job         {sensor.job_name}"
        yield f"  every       {sensor.minimum_interval_seconds} s"
        yield f"  at first    {sensor.default_status.value.lower()}"
        yield f"  says        {sensor.description}"


if __name__ == "__main__":
    SNAPSHOT.write_text(describe(build_defs(load_portals(PORTALS))), encoding="utf-8")
