"""What recognition costs, computed from the recording's length."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal


def recognition_cost(duration_s: float, rub_per_minute: Decimal) -> Decimal:
    """Roubles for a recording: seconds rounded up, six decimal places.

    Length is taken to the millisecond first, so that float noise does not buy a second. Raises ValueError for a length
    that is negative or not finite.
    """
    if not math.isfinite(duration_s) or duration_s < 0:
        raise ValueError(f"duration must be a finite number of seconds, not {duration_s}")
    seconds = -(-round(duration_s * 1000) // 1000)
    return (rub_per_minute * seconds / 60).quantize(Decimal("0.000001"), ROUND_HALF_UP)
