"""How long to wait before a read is repeated: pure, by error and attempt (facts/bitrix24.md 1.3).

Not here: waiting for a method's operating time (operating.py).
"""

from __future__ import annotations

import random

from dialog_assets.bitrix24.errors import Bitrix24Error, Bitrix24LimitError

BUCKET_S = 2.0
"""First wait for a full bucket: one drain interval of the slowest tariff and a second more, as the official SDK does."""

BACKOFF_S = 0.5
LONGEST_S = 60.0


def pause_s(error: Bitrix24Error, attempt: int) -> float:
    """Seconds to wait after failed attempt number `attempt` (from 1): doubling, with 10 % of jitter either way."""
    first = BUCKET_S if isinstance(error, Bitrix24LimitError) else BACKOFF_S
    spread = random.uniform(0.9, 1.1)  # noqa: S311 -- spreads retries, no secret depends on it
    return min(LONGEST_S, first * 2.0 ** (attempt - 1)) * spread
