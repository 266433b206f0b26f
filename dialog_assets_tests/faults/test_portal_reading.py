"""A portal read while it fails, changes and moves: the rows and bytes of a calm reading, or one clear error."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

import pytest

from dialog_assets.bitrix24.errors import Bitrix24Error
from dialog_assets.bitrix24.families import CrmFamily
from dialog_assets_tests.faults import portal_scripts as scripts
from dialog_assets_tests.faults.portal import (
    CREDENTIALS,
    FAMILIES,
    NAME,
    PHASES,
    CredentialKind,
    Read,
    Site,
    read,
    site,
)


class Portal:
    """The stand-in in a loop of its own, which runs one test after another."""

    def __init__(self, runner: asyncio.Runner, found: Site) -> None:
        self.runner, self.site = runner, found
        self._calm: dict[tuple[str, CrmFamily], dict[Any, Any]] = {}

    def calm(self, phase: str, family: CrmFamily) -> dict[Any, Any]:
        """What an undisturbed reading gives."""
        if (phase, family) not in self._calm:
            self.site.reset()

            async def go() -> Read:
                async with self.site.client("webhook") as client:
                    return await read(phase, client, family)

            result = self.runner.run(go())
            assert result.error is None
            assert result.doubled == []
            self._calm[phase, family] = result.found
        return self._calm[phase, family]


@pytest.fixture(scope="module")
def portal() -> Iterator[Portal]:
    with asyncio.Runner() as runner:
        opened = site()
        yield Portal(runner, runner.run(opened.__aenter__()))
        runner.run(opened.__aexit__(None, None, None))


@pytest.mark.parametrize("seed", range(50))
def test_random(seed: int, portal: Portal) -> None:
    """Passing faults."""
    chance = random.Random(seed)
    kind: CredentialKind = chance.choice(CREDENTIALS)
    family: CrmFamily = chance.choice(FAMILIES)
    calm = {phase: portal.calm(phase, family) for phase in PHASES}
    found = portal.site
    found.reset()
    rename_at = chance.randint(1, 60)

    def on_take(number: int) -> None:
        if number == rename_at:
            found.server.set_habits({"renamed_to": found.renamed}, NAME)

    async def go() -> dict[str, Read]:
        results = {}
        async with found.client(kind, on_take) as client:
            for phase in PHASES:
                found.faults.set(scripts.passing(chance, phase, oauth=kind == "oauth"))
                results[phase] = await read(phase, client, family)
        return results

    for phase, result in portal.runner.run(go()).items():
        assert result.error is None, (phase, kind, family, result.error)
        assert result.doubled == []
        bad = {k: v for k, v in result.found.items() if isinstance(v, Bitrix24Error)}
        assert not bad, (phase, kind, bad)
        assert result.found == calm[phase], phase
