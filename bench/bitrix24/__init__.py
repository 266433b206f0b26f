"""Our Bitrix24 client beside fast_bitrix24 and b24pysdk, against one stand-in portal in one run (facts/bitrix24.md 10.4).

Here: which parts there are and how large. How a client is run is in harness.py, what is measured in a module a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.bitrix24 import calls, faults, harness, nightly, objects, recordings
from bench.bitrix24.calls import Window
from bench.report import Section

PARTS = ("calls", "crm", "users", "recordings", "faults", "nightly")

WINDOWS = (Window(1_000), Window(1_000, 50), Window(20_000), Window(200_000, free=True))
"""What is read in a few minutes."""

LARGE_WINDOWS = (
    *(Window(size) for size in (1_000, 20_000, 130_000, 200_000, 500_000)),
    *(Window(size, free=True) for size in (20_000, 130_000, 200_000, 500_000)),
    *(Window(size, latency) for latency in (50, 200) for size in (1_000, 20_000)),
    Window(200_000, 50, free=True),
    # At 200 ms a command the method's operating time of ten minutes ends at 120,000 calls.
    Window(50_000, 200, free=True),
)
"""Every size; slower portals too, and each with and without a price for counting rows and passing over them."""


@dataclass(frozen=True)
class Scale:
    """How large the measurement is."""

    parts: Sequence[str] = PARTS
    windows: Sequence[Window] = WINDOWS
    contacts: int = 10_000
    users: int = 2_000
    recordings: int = 100
    best_of: int = 3


LARGE = Scale(windows=LARGE_WINDOWS, recordings=500)


def measure(scale: Scale) -> tuple[list[Section], dict[str, str]]:
    """Sections, and the versions of what ran."""
    sections: list[Section] = []
    for part in scale.parts:
        if part == "calls":
            sections += calls.measure(scale.windows, scale.best_of)
        elif part == "crm":
            sections.append(objects.crm(scale.contacts, scale.best_of))
        elif part == "users":
            sections.append(objects.users(scale.users, scale.best_of))
        elif part == "recordings":
            sections.append(recordings.measure(scale.recordings, scale.best_of))
        elif part == "faults":
            sections.append(faults.measure())
        elif part == "nightly":
            sections += nightly.measure()
    return sections, {"peers": harness.versions(), "commit": harness.commit()}
