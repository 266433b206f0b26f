"""A portal whose file is gone is named, its roubles stay counted, and a command removes it whole."""

from __future__ import annotations

import shutil
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import sql

from dialog_assets.cli import main
from dialog_assets.portals import load_portals
from dialog_assets.store import schema
from dialog_assets_tests.conftest import ROOT
from dialog_assets_tests.end_to_end.week import rows

pytestmark = pytest.mark.xdist_group("week")


@pytest.fixture
def one_file(week_copy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database with both portals, of which only okna_sever has a file; URL of the database."""
    shutil.copy(ROOT / "portals" / "okna_sever.yaml", tmp_path)
    monkeypatch.setenv("DIALOG_ASSETS_PORTALS", str(tmp_path))
    monkeypatch.chdir(ROOT)
    return week_copy


def command(*arguments: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(main, arguments, input=typed)


def everything(url: str) -> dict[str, int]:
    """Table → rows of okna_sever, of every table that knows portals."""
    with psycopg.connect(url) as connection:
        tables = [
            str(row[0])
            for row in connection.execute(
                "SELECT table_name FROM information_schema.columns JOIN information_schema.tables USING (table_name, table_schema) "
                "WHERE column_name = 'portal' AND table_schema = 'public' AND table_type = 'BASE TABLE'"
            )
        ]
        query = sql.SQL("SELECT count(*) FROM {} WHERE portal = 'okna_sever'")
        return {
            table: next(iter(connection.execute(query.format(sql.Identifier(table)))))[0]
            for table in tables
            if not table.startswith("avto_ural_")
        }


def test_it_is_named_and_counted(one_file: str) -> None:
    """coverage and doctor say what to do; costs has every rouble that was spent."""
    told = command("coverage", "--from", "2026-03-02", "--to", "2026-03-06")
    assert told.exit_code == 0
    assert "dialog-assets drop-portal --portal avto_ural" in told.stderr
    assert "drop-portal --portal avto_ural" in command("doctor").output
    [spent] = rows(one_file, "SELECT sum(cost_rub) AS all FROM ledger")
    assert f"all: {Decimal(spent['all']):.4f} RUB" in command("costs").output
    assert "avto_ural" in command("costs", "--portal", "avto_ural").output
    assert command("costs", "--portal", "nobody").exit_code == 1


def test_it_goes_whole_and_nothing_else(one_file: str) -> None:
    """No table, view or row of the portal is left; the other one keeps everything, also where a name begins alike."""
    portals = load_portals(ROOT / "portals")
    [avto] = [portal for portal in portals if portal.portal == "avto_ural"]
    schema.setup_portals(one_file, [avto.model_copy(update={"portal": "avto_ural_two"})])
    before = everything(one_file)
    assert command("drop-portal", "--portal", "avto_ural", typed="something else\n").exit_code == 1
    assert command("drop-portal", "--portal", "okna_sever", "--yes").exit_code == 1
    assert everything(one_file) == before
    with psycopg.connect(one_file, autocommit=True) as connection:
        connection.execute("CREATE VIEW avto_ural_mine AS SELECT 1 AS one")
        connection.execute("CREATE VIEW report AS SELECT day FROM avto_ural_dialogs")
        told = command("drop-portal", "--portal", "avto_ural", typed="avto_ural\n")
        assert told.exit_code == 1
        assert "view of somebody's own is built on what would go: drop that view first" in told.stderr
        assert everything(one_file) == before
        assert rows(one_file, "SELECT 1 AS there FROM portals WHERE portal = 'avto_ural'")
        connection.execute("DROP VIEW report")
        told = command("drop-portal", "--portal", "avto_ural", typed="avto_ural\n")
        assert told.exit_code == 0, told.output
        connection.execute("DROP VIEW avto_ural_mine")
    assert everything(one_file) == before
    assert rows(one_file, "SELECT portal FROM portals ORDER BY 1") == [
        {"portal": "avto_ural_two"},
        {"portal": "okna_sever"},
    ]
    left = rows(
        one_file,
        "SELECT relname FROM pg_class WHERE starts_with(relname, 'avto_ural') AND relkind IN ('r', 'v') ORDER BY 1",
    )
    assert left
    assert all(row["relname"].startswith("avto_ural_two_") for row in left)
    assert command("costs", "--portal", "avto_ural").exit_code == 1
