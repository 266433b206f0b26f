"""How `dialog-assets doctor` examines: checks side by side, a finding each, and a last net below every one of them.

Here: what a check is, and what becomes of one that fails, hangs or breaks. Not here: what is checked (a module a service).
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psycopg

from dialog_assets.errors import DialogAssetsError
from dialog_assets.portals import Portal
from dialog_assets.store.faults import sentence
from dialog_assets.store.pool import Pool

CHECK_S = 120.0
"""How long one check may take."""

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, and one sentence for a person. A night can run with a warning, not with a failure."""

    what: str
    state: State
    sentence: str

    @property
    def ok(self) -> bool:
        """Whether a night can run with it."""
        return self.state != "fail"


class Unwell(DialogAssetsError):
    """A check has found what would stop a night."""


@dataclass(frozen=True)
class Context:
    """What the checks look at: the portals, and a pool of connections, or None where the database cannot be used."""

    portals: Sequence[Portal]
    pool: Pool | None

    def database(self) -> Pool:
        """The pool. Raises Unwell where the database cannot be used."""
        if self.pool is None:
            raise Unwell("it could not be checked without the database: mend that first.")
        return self.pool


Answer = str | Sequence[Finding]
"""One sentence if all is well, or findings."""


@dataclass(frozen=True)
class Check:
    """One thing to look at. `look` raises DialogAssetsError for what would stop a night."""

    what: str
    look: Callable[[], Awaitable[Answer]]


async def examine_all(checks: Sequence[Check]) -> list[Finding]:
    """The findings of all checks in their order, whatever becomes of one of them."""
    return [finding for found in await asyncio.gather(*map(_findings, checks)) for finding in found]


async def _findings(check: Check) -> Sequence[Finding]:
    try:
        async with asyncio.timeout(CHECK_S):
            answer = await check.look()
    except DialogAssetsError as error:
        return [Finding(check.what, "fail", str(error))]
    except psycopg.Error as error:
        return [Finding(check.what, "fail", f"{sentence(error)}.")]
    except TimeoutError:
        return [Finding(check.what, "fail", f"the check has no answer after {CHECK_S:.0f} s: look at the network.")]
    except Exception as error:  # noqa: BLE001 - the other findings are shown whatever befalls this check
        # The error's own text may hold a secret, so only its type and place are shown.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
        return [
            Finding(check.what, "fail", f"the check broke ({place}): a night would break there too; please report it.")
        ]
    return [Finding(check.what, "ok", answer)] if isinstance(answer, str) else answer
