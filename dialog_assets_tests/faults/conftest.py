"""The undisturbed week that disturbed ones are compared with."""

from __future__ import annotations

import pytest

from dialog_assets.cli.world import SandboxProcess
from dialog_assets_tests.databases import copy_of
from dialog_assets_tests.faults.support import FRIDAY, MONDAY, PORTAL, Calm, Runs, snapshot


@pytest.fixture(scope="session")
def calm(postgres: str, sandbox_world: SandboxProcess, tmp_path_factory: pytest.TempPathFactory) -> Calm:
    """One undisturbed run of the portal's week."""
    sandbox_world.post("/reset")
    with copy_of(postgres) as url:
        Runs(sandbox_world, url, tmp_path_factory.mktemp("calm"), PORTAL, MONDAY, FRIDAY).complete()
        return Calm(snapshot(url, PORTAL), sandbox_world.books())
