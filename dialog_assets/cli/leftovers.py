"""Portals that the database knows and that have no file any more: they are named, their roubles counted, and dropped on demand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dialog_assets.cli.running import BadRequest
from dialog_assets.portals import Portal, portals_folder, readable_portals
from dialog_assets.store import removal, rules
from dialog_assets.store.pool import open_pool


async def sentences(url: str, portals: Sequence[Portal]) -> list[str]:
    """One for each portal of the database that is none of `portals`."""
    async with open_pool(url, size=1) as pool, pool.connection() as connection:
        known = await rules.portals(connection)
    return [without_file(name) for name in sorted(known - {portal.portal for portal in portals})]


def without_file(name: str) -> str:
    """What is wrong with a portal that has tables and no file, and what to do."""
    return (
        f"The database has tables of {name}, and there is no portal file of that name: put it back, or remove what is there "
        f"with dialog-assets drop-portal --portal {name}."
    )


async def chosen(url: str, known: Sequence[str], names: Sequence[str]) -> list[str]:
    """The portals asked for, with a file or only in the database; without names all of both. Raises BadRequest."""
    async with open_pool(url, size=1) as pool, pool.connection() as connection:
        all_of_them = sorted({*known, *await rules.portals(connection)})
    for name in names:
        if name not in all_of_them:
            raise BadRequest(f"There is no portal {name!r}; known: {', '.join(all_of_them)}.")
    return list(names) or all_of_them


async def holdings(url: str, name: str) -> dict[str, Any]:
    """What the database holds of a portal that may be dropped: calls, purchases, cost_rub. Raises BadRequest."""
    # A file with mistakes is a file: its portal is only away until it is mended.
    if any((portals_folder() / f"{name}{suffix}").exists() for suffix in (".yaml", ".yml")) or name in {
        portal.portal for portal in readable_portals(portals_folder())[0]
    }:
        raise BadRequest(
            f"{name} has a file in {portals_folder()}: remove it first, or its next night buys all of it again."
        )
    async with open_pool(url, size=1) as pool, pool.connection() as connection:
        known = await rules.portals(connection)
        if name not in known:
            raise BadRequest(f"The database has no portal {name!r}; known: {', '.join(sorted(known))}.")
        return await removal.holdings(connection, name)


async def drop(url: str, name: str) -> None:
    """Remove all of it."""
    async with open_pool(url, size=1) as pool, pool.connection() as connection:
        await removal.drop(connection, name)
