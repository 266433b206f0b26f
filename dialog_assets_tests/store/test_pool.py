"""The lock that keeps two runs off one step, however its holder ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from dialog_assets.store.pool import step_lock
from dialog_assets_tests.store.rows import PORTAL

HOLDER = """
import asyncio, sys
from dialog_assets.store.pool import step_lock

async def hold():
    async with step_lock(sys.argv[1], sys.argv[2], "transcripts"):
        print("held", flush=True)
        await asyncio.sleep(120)

asyncio.run(hold())
"""


async def taken(url: str, portal: str = PORTAL, step: str = "transcripts") -> bool:
    """Whether somebody else holds the lock: it is not had within a second."""
    try:
        async with asyncio.timeout(1), step_lock(url, portal, step):
            return False
    except TimeoutError:
        return True


async def free(url: str, portal: str = PORTAL, step: str = "transcripts") -> bool:
    """Whether the lock is had in a time that a busy machine needs to connect."""
    try:
        async with asyncio.timeout(20), step_lock(url, portal, step):
            return True
    except TimeoutError:
        return False


def test_a_second_run_waits_for_the_first(database: str) -> None:
    """Two runs of one step go one after the other; other steps and other portals are not held up."""
    order: list[str] = []

    async def run() -> None:
        async def second() -> None:
            async with step_lock(database, PORTAL, "transcripts"):
                order.append("second")

        async with step_lock(database, PORTAL, "transcripts"):
            waiting = asyncio.create_task(second())
            assert await taken(database)
            assert await free(database, step="fixed_dialogs")
            assert await free(database, portal="avto_ural")
            order.append("first")
        await asyncio.wait_for(waiting, 10)
        assert await free(database)

    asyncio.run(run())
    assert order == ["first", "second"]


def test_an_error_frees_the_lock(database: str) -> None:
    """A step that fails does not stand in the way of its next run."""

    async def run() -> None:
        with pytest.raises(ZeroDivisionError):
            async with step_lock(database, PORTAL, "transcripts"):
                raise ZeroDivisionError
        assert await free(database)

    asyncio.run(run())


def test_the_lock_ends_with_its_holder(database: str) -> None:
    """After `kill -9` of the run that holds it, the next run begins."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, database, PORTAL], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert asyncio.run(taken(database))
    finally:
        holder.kill()
        holder.wait(10)
    assert asyncio.run(free(database))
    holder.stdout.close()
