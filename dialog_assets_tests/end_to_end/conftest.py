"""The sandbox's week, run once for all tests here; who changes something does so in a copy of its database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dialog_assets.cli.world import SandboxProcess, pointed_at
from dialog_assets.portals import Portal
from dialog_assets.sandbox.world import load_world
from dialog_assets.sandbox.world.model import World
from dialog_assets_tests.databases import copy_of, database_is
from dialog_assets_tests.end_to_end.week import RANGES, Week, archived, run_range


@pytest.fixture(scope="session")
def world() -> World:
    """The world as its files tell it."""
    return load_world()


@pytest.fixture(scope="session")
def week(postgres: str, portals: list[Portal], sandbox_world: SandboxProcess) -> Iterator[Week]:
    """Both portals' weeks, each as one run of its job; read only."""
    sandbox_world.post("/reset")
    with copy_of(postgres) as database:
        with database_is(database), pointed_at(sandbox_world):
            runs = {portal.portal: run_range(portal, *RANGES[portal.portal]) for portal in portals}
            found = Week(database, sandbox_world.books(), runs, archived())
        yield found


@pytest.fixture
def week_copy(week: Week, sandbox_world: SandboxProcess) -> Iterator[str]:
    """A database in which the week has been worked on; also this process's DATABASE_URL. The sandbox is at its start."""
    sandbox_world.post("/reset")
    with copy_of(week.database) as database, database_is(database), pointed_at(sandbox_world):
        yield database
