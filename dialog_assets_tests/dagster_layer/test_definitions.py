"""The code location as Dagster loads it: from the portal files alone, cheaply, and with the graph that is written down."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from dialog_assets.assets.steps import UPSTREAM
from dialog_assets.definitions import build_defs
from dialog_assets.portals import Portal
from dialog_assets_tests.dagster_layer.graph import PORTALS, SNAPSHOT, describe

# Python runs this before everything else in a process that finds it on its path.
NO_NETWORK = """
import socket

def refused(*arguments, **keywords):
    raise AssertionError("loading the definitions went to the network")

socket.getaddrinfo = socket.socket.connect = socket.socket.connect_ex = refused
"""


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """An environment without secrets, without a database, and without a network."""
    (tmp_path / "sitecustomize.py").write_text(NO_NETWORK)
    home = tmp_path / "home"
    home.mkdir()
    return {"DAGSTER_HOME": str(home), "PYTHONPATH": str(tmp_path), "DIALOG_ASSETS_PORTALS": str(PORTALS)}


def python(bare: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter in that environment, away from the project's folder and so from its .env."""
    return subprocess.run(
        [sys.executable, *arguments], env=bare, cwd=bare["DAGSTER_HOME"], capture_output=True, text=True
    )


def test_definitions_validate_without_anything(bare: dict[str, str]) -> None:
    """`dagster definitions validate` passes with no secret, no database, no network."""
    answer = python(bare, "-m", "dagster", "definitions", "validate", "-m", "dialog_assets.definitions")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "All code locations passed validation" in answer.stdout + answer.stderr


def test_bare_environment_refuses_the_network(bare: dict[str, str]) -> None:
    """The proof above means something: in that environment a connection fails, and says so."""
    answer = python(bare, "-c", "import socket; socket.create_connection(('127.0.0.1', 9))")
    assert "went to the network" in answer.stderr


def test_definitions_load_no_heavy_library(bare: dict[str, str]) -> None:
    """Importing the definitions loads no vendor SDK, no gRPC, no codec, no SQLAlchemy and no sandbox."""
    answer = python(bare, "-c", "import json, sys, dialog_assets.definitions; print(json.dumps(list(sys.modules)))")
    assert answer.returncode == 0, answer.stderr
    loaded = set(json.loads(answer.stdout))
    assert "dialog_assets.assets.calls" in loaded
    assert loaded.isdisjoint({"openai", "anthropic", "moto", "grpc", "av", "sqlalchemy", "dialog_assets.sandbox"})


def test_malformed_portal_files_are_told(bare: dict[str, str], tmp_path: Path) -> None:
    """Broken portal files fail the load with one sentence a mistake, all of them at once."""
    folder = tmp_path / "portals"
    folder.mkdir()
    good = (PORTALS / "okna_sever.yaml").read_text(encoding="utf-8")
    broken = good.replace("time_zone: Europe/Moscow", "time_zone: Europe/Moskow").replace("operator: 0", "operator: 2")
    (folder / "okna_sever.yaml").write_text(broken, encoding="utf-8")
    (folder / "shop.yaml").write_text("portal: [shop", encoding="utf-8")
    answer = python(
        {**bare, "DIALOG_ASSETS_PORTALS": str(folder)},
        *("-m", "dagster", "definitions", "validate", "-m", "dialog_assets.definitions"),
    )
    assert answer.returncode != 0
    told = answer.stdout + answer.stderr
    line = 1 + broken[: broken.index("operator: 2")].count("\n")
    for mistake in ("okna_sever.yaml:6: time_zone: ", f"okna_sever.yaml:{line}: channels.operator: ", "shop.yaml:1: "):
        assert mistake in told
    assert "'Europe/Moskow'" in told
    assert "PortalsError" in told


def test_one_broken_file_does_not_stop_the_other_portals(bare: dict[str, str], tmp_path: Path) -> None:
    """The definitions load without the portal of the broken file, and the log says loudly which file and what is wrong."""
    folder = tmp_path / "portals"
    folder.mkdir()
    shutil.copy(PORTALS / "okna_sever.yaml", folder)
    (folder / "shop.yaml").write_text("portal: [shop", encoding="utf-8")
    answer = python(
        {**bare, "DIALOG_ASSETS_PORTALS": str(folder)},
        "-c",
        "from dialog_assets.definitions import defs; print(sorted(job.name for job in defs.jobs))",
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == "['okna_sever_daily', 'okna_sever_unfinished', 'tell_broken_portal_files']"
    assert "shop.yaml:1: " in answer.stderr


def test_a_broken_file_is_a_red_run_each_morning(portals: list[Portal]) -> None:
    """Nobody overlooks it: an asset tells the mistakes, and a schedule that is on by itself makes it fail with them."""
    definitions = build_defs(portals, mistakes=["shop.yaml:1: not valid YAML", "shop.yaml:2: more"])
    dg.Definitions.validate_loadable(definitions)
    repository = definitions.get_repository_def()
    schedule = repository.get_schedule_def("tell_broken_portal_files")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    (asset,) = [spec for spec in definitions.resolve_all_asset_specs() if spec.group_name == "broken_portal_files"]
    assert "shop.yaml:2: more" in str(asset.description)
    result = repository.get_job(schedule.job_name).execute_in_process(raise_on_error=False)
    assert not result.success
    (failure,) = result.get_step_failure_events()
    told = failure.step_failure_data.user_failure_data
    assert told is not None
    assert "- shop.yaml:1: not valid YAML\n- shop.yaml:2: more" in str(told.description)
    names = {one.name for one in repository.schedule_defs}
    assert names == {"tell_broken_portal_files", "okna_sever_nightly", "avto_ural_nightly"}


def test_graph_is_as_written_down(portals: list[Portal]) -> None:
    """The graph is the one that was reviewed; graph.py says how to renew the text after a wanted change."""
    assert describe(build_defs(portals)) == SNAPSHOT.read_text(encoding="utf-8")


def test_nine_assets_for_each_portal(portals: list[Portal]) -> None:
    """Each portal has the nine assets in a group of its own, each after its upstream ones of the same portal and no other."""
    specs = {spec.key: spec for spec in build_defs(portals).resolve_all_asset_specs()}
    assert set(specs) == {dg.AssetKey([portal.portal, step]) for portal in portals for step in UPSTREAM}
    for key, spec in specs.items():
        portal, step = key.path
        assert {dep.asset_key for dep in spec.deps} == {dg.AssetKey([portal, name]) for name in UPSTREAM[step]}
        assert spec.group_name == portal


def test_definitions_of_other_portals(portals: list[Portal]) -> None:
    """`build_defs` takes any portals, and resources in place of its own."""
    one = portals[0].model_copy(update={"portal": "shop", "time_zone": "Asia/Kamchatka"})
    stub = dg.ResourceDefinition.hardcoded_resource("here")
    definitions = build_defs([one], {"archive": stub})
    dg.Definitions.validate_loadable(definitions)
    assert definitions.resources is not None
    assert definitions.resources["archive"] is stub
    schedule = definitions.get_repository_def().get_schedule_def("shop_nightly")
    assert (schedule.execution_timezone, schedule.job_name) == ("Asia/Kamchatka", "shop_daily")
