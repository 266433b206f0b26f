"""The commands as an engineer and a program use them: exit codes, JSON, and one clear sentence for every mistake.

Most run in this process, as each start of a process that imports Dagster takes seconds; a few are started as processes.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import sql

from dialog_assets.assets.jobs import nightly_range
from dialog_assets.cli import main
from dialog_assets.cli.world import SandboxProcess
from dialog_assets.portals import Portal
from dialog_assets.sandbox.world.model import World
from dialog_assets.sandbox.world.oracle import day_of
from dialog_assets.store import embedded, server
from dialog_assets_tests.conftest import ROOT
from dialog_assets_tests.databases import copy_of, database_is
from dialog_assets_tests.end_to_end.week import DAYS, RESULTS, STEPS, Week, rows, snapshot

pytestmark = pytest.mark.xdist_group("week")

TABLES = [*RESULTS, "call_steps", "ledger", "portals", "categories", "criteria", "entity_deals"]

Command = Callable[..., Result]


@pytest.fixture(scope="module")
def dagster_storage(postgres: str) -> Iterator[str]:
    """One storage for Dagster for all commands here, as making its tables takes a second."""
    with copy_of(server.with_database(postgres, "postgres")) as url:
        yield server.with_scheme(url, "postgresql+psycopg2")


@pytest.fixture
def project(tmp_path: Path, dagster_storage: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder without anybody's .env, which is also this process's; what commands put in the environment goes."""
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", dagster_storage)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def command(project: Path) -> Command:
    """Runs `dialog-assets …` in this process."""

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(main, arguments)

    return invoke


def as_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `dialog-assets …` as a process of its own, here."""
    return subprocess.run(
        [sys.executable, "-m", "dialog_assets.cli", *arguments], capture_output=True, text=True, check=False
    )


def parsed(result: Result) -> Any:
    """The JSON that a command that ended well printed, and nothing else with it."""
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return json.loads(result.stdout)


def complaint(result: Result, code: int = 1) -> str:
    """The one sentence of a command that was refused."""
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == code
    assert "Traceback" not in result.output
    lines = [line for line in result.stderr.splitlines() if not line.startswith(("Usage: ", "Try "))]
    (line,) = [line for line in lines if line.strip()]
    assert line.startswith("Error: ")
    return line.removeprefix("Error: ")


def days_command(name: str, *days: str) -> tuple[str, ...]:
    """Arguments of backfill for avto_ural."""
    return (name, "--portal", "avto_ural", "--from", days[0], "--to", days[1])


# What commands do


@pytest.mark.parametrize("name", sorted(main.commands))
def test_help(name: str) -> None:
    """Every command says what it does and explains each of its options."""
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    for parameter in main.commands[name].params:
        assert parameter.opts[0] in result.stdout
        assert getattr(parameter, "help", None)


def test_help_of_all_is_quick_and_needs_nothing(project: Path) -> None:
    """`dialog-assets --help` lists the commands without importing Dagster."""
    program = (
        "import sys; from dialog_assets.cli import main; main(['--help'], standalone_mode=False); "
        "print('dagster' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert all(f"  {name}" in done.stdout for name in main.commands)
    assert done.stdout.endswith("False\n")


def test_setup_portals_makes_the_database_and_its_tables(postgres: str, command: Command) -> None:
    """On a server without the database it is made, with tables for both portals; a second time finds all of it there."""
    name = f"set_up_{os.getpid()}"
    with database_is(server.with_database(postgres, name)):
        try:
            assert parsed(command("setup-portals", "--json")) == {
                "portals": ["avto_ural", "okna_sever"],
                "new": ["avto_ural", "okna_sever"],
            }
            assert parsed(command("setup-portals", "--json"))["new"] == []
            told = command("setup-portals").stdout
            assert "avto_ural: Авто Урал, Asia/Yekaterinburg, from 2026-03-02: tables were there" in told
            assert not any(entry["run"] for entry in parsed(command("coverage", "--json")))
            assert "2026-03-02 to " in command("coverage").stdout
            assert parsed(command("costs", "--json")) == []
        finally:
            with psycopg.connect(server.with_database(postgres, "postgres"), autocommit=True) as connection:
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def test_coverage_counts_the_world(week: Week, world: World, command: Command) -> None:
    """As JSON, one object for each portal, day and step whose states add up to the world's calls of that day."""
    with database_is(week.database):
        told = [entry for entry in parsed(command("coverage", "--json")) if entry["run"]]
        one = parsed(
            command("coverage", "--json", "--portal", "okna_sever", "--from", "2026-03-06", "--to", "2026-03-06")
        )
        shown = command("coverage").stdout
    played = world.portals.values()
    calls = {
        (portal.portal, day.isoformat()): sum(day_of(portal, call) == day for call in portal.calls)
        for portal in played
        for day in DAYS
    }
    assert {(entry["portal"], entry["day"], entry["step"]) for entry in told} == {
        (*place, step) for place in calls for step in STEPS
    }
    for entry in told:
        states = sum(entry[state] for state in ("done", "skipped", "failed", "waiting"))
        assert states == entry["calls"] == calls[entry["portal"], entry["day"]]
        assert sum(reason["calls"] for reason in entry["reasons"]) == states - entry["done"]
    assert one == [entry for entry in told if (entry["portal"], entry["day"]) == ("okna_sever", "2026-03-06")]
    (number,) = rows(week.database, "SELECT call_id FROM call_steps WHERE state = 'failed' AND step = 'audio_files'")
    assert "okna_sever/audio_files: 1 failed: recording_not_audio" in shown
    assert f"call {number['call_id']} of 2026-03-06: " in shown
    assert "okna_sever/audio_files: 2 marked mono" in shown
    assert "roles_disagree" not in shown


def test_coverage_tells_of_roles_that_the_words_contradict(week: Week, command: Command) -> None:
    """A wrong `channels` is seen where the first day is looked at, not only in the UI."""
    with copy_of(week.database) as url, database_is(url):
        with psycopg.connect(url) as connection:
            connection.execute(
                "UPDATE transcripts SET marks = '{roles_disagree}' WHERE portal = 'okna_sever' AND call_id = 5001"
            )
        shown = command("coverage", "--portal", "okna_sever", "--from", "2026-03-02", "--to", "2026-03-02").stdout
    assert "dialogs contradict `channels` of the portal's file: marked roles_disagree" in shown


@pytest.mark.parametrize("arguments", [("coverage",), ("costs",), ("doctor",)])
def test_a_database_without_tables(postgres: str, command: Command, arguments: tuple[str, ...]) -> None:
    """One sentence that says what to do, instead of Postgres' own."""
    name = f"bare_{os.getpid()}"
    with psycopg.connect(server.with_database(postgres, "postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            with database_is(server.with_database(postgres, name)):
                told = command(*arguments)
            assert told.exit_code == 1
            assert "run dialog-assets setup-portals" in told.output
            assert "Traceback" not in told.output
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_costs_add_up_to_the_ledger(week: Week, command: Command) -> None:
    """As JSON, decimal strings by portal, step and model that add up to the ledger; days can be chosen."""
    with database_is(week.database):
        told = parsed(command("costs", "--json"))
        monday = parsed(command("costs", "--json", "--from", "2026-03-02", "--to", "2026-03-02"))
        shown = command("costs").stdout
    (spent,) = rows(
        week.database,
        "SELECT sum(cost_rub) AS all, sum(cost_rub) FILTER (WHERE day = '2026-03-02') AS monday FROM ledger",
    )
    assert sum(Decimal(row["cost_rub"]) for row in told) == spent["all"]
    assert sum(Decimal(row["cost_rub"]) for row in monday) == spent["monday"]
    assert f"{spent['all']:.4f}" in shown


def test_backfill_tells_its_runs_and_days(week_copy: str, command: Command, sandbox_world: SandboxProcess) -> None:
    """A range is one run; its JSON has every day and step of the range; what is there is not bought again."""
    before = snapshot(week_copy, TABLES)
    steps = ("--step", "audio_files", "--step", "transcripts", "--step", "criteria_scores")
    told = parsed(command(*days_command("backfill", "2026-03-05", "2026-03-07"), *steps, "--json"))
    (run,) = told["runs"]
    assert (run["success"], run["errors"]) == (True, [])
    assert len(told["days"]) == 3 * len(STEPS)
    assert {entry["day"]: entry["calls"] for entry in told["days"]} == {
        "2026-03-05": 3,
        "2026-03-06": 2,
        "2026-03-07": 0,
    }
    assert snapshot(week_copy, TABLES) == before
    assert "submitted" not in sandbox_world.books().get("voicekit", {}).get("counts", {})


def test_a_long_backfill_is_cut_into_runs(week_copy: str, command: Command) -> None:
    """A portal's days_per_run bounds a run: nine days of avto_ural are two."""
    told = parsed(command(*days_command("backfill", "2026-03-02", "2026-03-10"), "--step", "calls", "--json"))
    assert [run["success"] for run in told["runs"]] == [True, True]


def test_run_without_a_date_does_the_nights_work(week_copy: str, command: Command, portals: list[Portal]) -> None:
    """`run` alone works on yesterday and the portal's trailing days."""
    portal = portals[0]
    told = parsed(command("run", "--portal", portal.portal, "--step", "calls", "--json"))
    days = nightly_range(portal, datetime.now(portal.zone).date())
    assert days is not None
    covered = sorted({entry["day"] for entry in told["days"]})
    assert len(covered) == portal.trailing_days + 1
    assert date.fromisoformat(covered[-1]) in (days[1], days[1] - timedelta(days=1))  # midnight may have passed


def test_what_failed_for_good_is_tried_again_on_demand(
    week_copy: str, command: Command, sandbox_world: SandboxProcess
) -> None:
    """`--retry-failed` fetches the damaged recording once more and touches nothing else; without it nothing is fetched."""
    friday = ("run", "--portal", "okna_sever", "--date", "2026-03-06", "--step", "audio_files", "--json")
    others = "SELECT * FROM call_steps WHERE (call_id, step) <> (5020, 'audio_files') ORDER BY portal, call_id, step"
    before, untouched = snapshot(week_copy, [*RESULTS, "ledger"]), rows(week_copy, others)
    for arguments, fetched in ((friday, 0), ((*friday, "--retry-failed"), 1), (friday, 1)):
        assert [run["success"] for run in parsed(command(*arguments))["runs"]] == [True]
        assert sandbox_world.books().get("bitrix24", {}).get("items", {}).get("record", {}) == (
            {"7020": 1} if fetched else {}
        )
        (row,) = rows(
            week_copy,
            "SELECT state, reason, attempts, next_try FROM call_steps WHERE call_id = 5020 AND step = 'audio_files'",
        )
        assert tuple(row.values()) == ("failed", "recording_not_audio", 1 + fetched, None)
    assert snapshot(week_copy, [*RESULTS, "ledger"]) == before
    assert rows(week_copy, others) == untouched


def test_a_failed_purchase_is_made_again_on_demand(
    week_copy: str, command: Command, sandbox_world: SandboxProcess
) -> None:
    """`backfill --retry-failed` of one step asks the model again for the failed dialog, and for no other."""
    with psycopg.connect(week_copy) as connection:
        connection.execute(
            "UPDATE call_steps SET state = 'failed', reason = 'llm_answer_invalid', output_key = NULL "
            "WHERE call_id = 5001 AND step = 'fixed_dialogs'"
        )
    monday = ("backfill", "--portal", "okna_sever", "--from", "2026-03-02", "--to", "2026-03-02")
    for arguments, asked in (((), 0), (("--retry-failed", "--step", "classifications"), 0), (("--retry-failed",), 1)):
        step = () if "--step" in arguments else ("--step", "fixed_dialogs")
        told = parsed(command(*monday, *step, *arguments, "--json"))
        assert told["runs"][0]["success"]
        assert sandbox_world.books().get("deepseek", {}).get("counts", {}).get("answered", 0) == asked
        (row,) = rows(week_copy, "SELECT state FROM call_steps WHERE call_id = 5001 AND step = 'fixed_dialogs'")
        assert row["state"] == ("done" if asked else "failed")


def test_a_run_as_a_process(week_copy: str, project: Path) -> None:
    """Started as a program, its output is JSON alone, on an empty day too, and its error stream stays empty."""
    done = as_process("run", "--portal", "okna_sever", "--date", "2026-03-07", "--step", "calls", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert [run["success"] for run in told["runs"]] == [True]
    assert {entry["calls"] for entry in told["days"]} == {0}


def test_a_step_of_days_that_were_never_read(week_copy: str, command: Command) -> None:
    """Nothing to do there is not the same as nothing to do."""
    result = command("run", "--portal", "okna_sever", "--date", "2026-03-08", "--step", "users")
    assert (result.exit_code, result.stderr) == (
        0,
        "No call of these days has been read yet: run them without --step first.\n",
    )


# What commands refuse


NOT_YET = "2099-01-01"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (
            ("run", "--portal", "nobody", "--date", "2026-03-02"),
            1,
            "There is no portal 'nobody'; known: avto_ural, okna_sever.",
        ),
        (("coverage", "--portal", "nobody"), 1, "There is no portal 'nobody'"),
        (("costs", "--portal", "nobody"), 1, "There is no portal 'nobody'"),
        (days_command("backfill", "2026-02-27", "2026-03-02"), 1, "avto_ural begins on 2026-03-02"),
        (days_command("backfill", "2026-03-02", NOT_YET), 1, f"{NOT_YET} is not over yet in Asia/Yekaterinburg"),
        (
            days_command("backfill", "2026-03-04", "2026-03-03"),
            1,
            "The range ends (2026-03-03) before it begins (2026-03-04).",
        ),
        (days_command("backfill", "2026-03-02", "2026-02-30"), 2, "2026-02-30"),
        (("run", "--portal", "avto_ural", "--date", "yesterday"), 2, "yesterday"),
        (
            ("run", "--portal", "avto_ural", "--date", "2026-03-02", "--step", "listen"),
            1,
            "There is no step 'listen'; the steps are: calls, ",
        ),
        (("run", "--date", "2026-03-02"), 2, "--portal"),
        (("sing",), 2, "sing"),
    ],
)
def test_what_does_not_exist_is_refused(
    week: Week, command: Command, arguments: tuple[str, ...], code: int, told: str
) -> None:
    """An unknown portal, step or command, and days that the portal does not have: one sentence, and nothing happens."""
    before = snapshot(week.database, TABLES)
    with database_is(week.database):
        assert told in complaint(command(*arguments), code)
    assert snapshot(week.database, TABLES) == before


@pytest.mark.parametrize(
    "arguments", [("setup-portals",), ("coverage",), ("run", "--portal", "a", "--date", "2026-03-02")]
)
def test_broken_portal_files_are_all_named(
    week: Week, command: Command, project: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """Each mistake of each file on a line of its own, with file and line; nothing is set up."""
    folder = project / "portals"
    folder.mkdir()
    text = (ROOT / "portals" / "avto_ural.yaml").read_text(encoding="utf-8")
    (folder / "avto_ural.yaml").write_text(
        text.replace("time_zone: Asia/Yekaterinburg", "time_zone: Ural").replace("operator: 1", "operator: 7"),
        encoding="utf-8",
    )
    (folder / "b.yaml").write_text("portal: [b\n", encoding="utf-8")
    monkeypatch.setenv("DIALOG_ASSETS_PORTALS", str(folder))
    before = snapshot(week.database, TABLES)
    with database_is(week.database):
        result = command(*arguments)
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 1
    lines = result.stderr.removeprefix("Error: ").splitlines()
    assert [line.split(": ")[0] for line in lines] == ["avto_ural.yaml:5", "avto_ural.yaml:14", "b.yaml:2"]
    assert "time_zone" in lines[0]
    assert "channels.operator" in lines[1]
    assert snapshot(week.database, TABLES) == before


def test_without_portal_files(command: Command, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is not there, and one without portal files, are named with what to do."""
    monkeypatch.setenv("DIALOG_ASSETS_PORTALS", str(project / "nowhere"))
    assert "set DIALOG_ASSETS_PORTALS" in complaint(command("coverage"))
    (project / "empty").mkdir()
    monkeypatch.setenv("DIALOG_ASSETS_PORTALS", str(project / "empty"))
    assert "holds no portal file" in complaint(command("coverage"))


@pytest.mark.parametrize(
    "arguments",
    [("coverage",), ("costs",), ("setup-portals",), ("run", "--portal", "avto_ural", "--date", "2026-03-02")],
)
@pytest.mark.parametrize(
    "url",
    ["postgresql://anna:tops3cret@127.0.0.1:1/calls", "tops3cret", "postgresql://anna:tops3cret@127.0.0.1:port/calls"],
)
def test_a_database_that_cannot_be_had(command: Command, url: str, arguments: tuple[str, ...]) -> None:
    """A closed port and an address that is none: one sentence that names DATABASE_URL and not the password."""
    with database_is(url):
        told = complaint(command(*arguments))
    assert "DATABASE_URL" in told
    assert "tops3cret" not in told


def test_outside_a_project(
    command: Command, week: Week, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A run started where no dagster.yaml is says where to start it."""
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    with database_is(week.database):
        assert "dagster.yaml" in complaint(command("run", "--portal", "avto_ural", "--date", "2026-03-02"))


@pytest.mark.parametrize("service", ["bitrix", "voicekit", "s3", "control"])
def test_a_sandbox_port_in_use(command: Command, service: str) -> None:
    """A taken port is named with its service; nothing is served."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} for {service}" in complaint(command("sandbox", f"--{service}-port", str(port)))


# Broken keys

AGAIN = 801
"""A call of avto_ural's Monday that is made to need a step again."""


def forget(url: str, step: str) -> None:
    """The step has not been done for the call."""
    with psycopg.connect(url) as connection:
        connection.execute("DELETE FROM call_steps WHERE call_id = %s AND step = %s", [AGAIN, step])


def run_step(command: Command, step: str) -> Result:
    """One step of the call's day."""
    return command("run", "--portal", "avto_ural", "--date", "2026-03-02", "--step", step)


@pytest.mark.parametrize(
    ("variable", "step"),
    [
        ("AVTO_URAL_WEBHOOK", "calls"),
        ("S3_BUCKET", "audio_files"),
        ("VOICEKIT_SECRET_KEY", "transcripts"),
        ("ANTHROPIC_API_KEY", "criteria_scores"),
    ],
)
def test_a_missing_credential(
    week_copy: str, command: Command, monkeypatch: pytest.MonkeyPatch, variable: str, step: str
) -> None:
    """A step whose credential is not set names the variable, also when it has nothing to do, and changes nothing."""
    before = snapshot(week_copy, TABLES)
    monkeypatch.delenv(variable)
    assert f"{variable} is not set" in complaint(run_step(command, step))
    assert snapshot(week_copy, TABLES) == before


@pytest.mark.parametrize(
    ("variable", "step", "told"),
    [
        ("AVTO_URAL_WEBHOOK", "calls", "webhook"),
        ("S3_BUCKET", "audio_files", "bucket wrong-value does not exist"),
        ("VOICEKIT_API_KEY", "transcripts", "VOICEKIT_API_KEY"),
        ("VOICEKIT_SECRET_KEY", "transcripts", "VOICEKIT_SECRET_KEY"),
        ("ANTHROPIC_API_KEY", "fixed_dialogs", "ANTHROPIC_API_KEY"),
    ],
)
def test_a_wrong_credential(
    week_copy: str, world: World, command: Command, monkeypatch: pytest.MonkeyPatch, variable: str, step: str, told: str
) -> None:
    """A refused key stops the step with one sentence that says which, and what was there stays as it was."""
    (recording,) = [call.recording for call in world.portals["avto_ural"].calls if call.id == AGAIN]
    assert recording is not None
    boto3.client("s3").upload_file(str(recording.path), os.environ["S3_BUCKET"], f"avto_ural/2026-03-02/{AGAIN}.mp3")
    forget(week_copy, step)
    before = snapshot(week_copy, [name for name in TABLES if name != "ledger"])
    settled = "SELECT * FROM ledger WHERE state = 'settled' OR cost IS NOT NULL ORDER BY portal, id"
    paid = rows(week_copy, settled)
    value = "wrong-value"
    if variable.endswith("WEBHOOK"):
        value = os.environ[variable].replace("sandbox0avto0ural0", "wrong0value0wrong0")
    monkeypatch.setenv(variable, value)
    sentence = complaint(run_step(command, step))
    assert told in sentence
    assert "wrong0value" not in sentence
    if variable != "S3_BUCKET":
        assert "wrong-value" not in sentence
    assert snapshot(week_copy, list(before)) == before
    assert rows(week_copy, settled) == paid


def test_a_broken_key_as_a_process(week_copy: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started as a program, a refused webhook is exit code 1 and one line on the error stream, without the secret."""
    secret = "wrong0value0wrong0"
    monkeypatch.setenv("OKNA_SEVER_WEBHOOK", os.environ["OKNA_SEVER_WEBHOOK"].replace("sandbox0okna0sever", secret))
    before = snapshot(week_copy, TABLES)
    done = as_process("backfill", "--portal", "okna_sever", "--from", "2026-03-02", "--to", "2026-03-03")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert secret not in done.stdout + done.stderr
    assert snapshot(week_copy, TABLES) == before


# Where the data are, and who gets at them


BACKFILL = days_command("backfill", "2026-03-02", "2026-03-03")


def test_a_data_folder_that_cannot_be(project: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    """A file in its place is one sentence of every command that needs one."""
    (project / "data").write_text("")
    monkeypatch.setenv("DIALOG_ASSETS_DATA", "data")
    monkeypatch.delenv("DATABASE_URL", raising=False)
    for arguments in (["setup-portals"], ["coverage"], ["costs"], ["psql"], BACKFILL):
        assert "is a file" in complaint(command(*arguments))


def test_psql_and_doctor_on_the_same_data(
    project: Path, monkeypatch: pytest.MonkeyPatch, command: Command, capfd: pytest.CaptureFixture[str]
) -> None:
    """psql knows the database and none of our secrets; the data's place is told by both, as is a .env that others may read."""
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("DIALOG_ASSETS_DATA", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted")
    monkeypatch.setenv("PGHOSTADDR", "10.0.0.1")
    monkeypatch.setenv("PGPORT", "1")
    (project / ".env").write_text("")
    try:
        result = command("psql", "-Atc", "SELECT current_database()", "-c", r"\! env")
        assert result.exit_code == 0
        assert result.stderr == f"Data: {project / '.data'}\n"
        told = capfd.readouterr().out
        assert told.startswith("dialog_assets\n")
        assert "planted" not in told
        findings = {finding["what"]: finding for finding in json.loads(command("doctor", "--json").stdout)}
    finally:
        embedded.let_go(project / ".data" / "postgres")
    assert str(project / ".data") in findings["data"]["sentence"]
    assert findings["other users"]["state"] == "ok", "the folders above are closed"


def test_a_terminal_without_cyrillic() -> None:
    """What it cannot show becomes question marks, not a stack trace."""
    program = """
from dialog_assets.cli import main
from dialog_assets.cli.tables import console
main.command("say")(lambda: console().print("Окна «Север»"))
main(["say"])
"""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "???? ???????\n", "")
