"""Calls of a window: sizes, slow portals, with and without a price for counting rows and for the depth of an offset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.bitrix24.harness import BUCKET, COMMANDS, DRAIN, ROWS_A_PAGE, Client, Run, bound_s, in_turns, portal, told
from bench.report import Section

OURS = Client("**dialog_assets**", "ours", "calls", ours=True)
CLIENTS = (
    OURS,
    Client("fast_bitrix24 get_all", "peer_fast_bitrix24", "calls"),
    Client("fast_bitrix24 slow(1)", "peer_fast_bitrix24", "calls_slowly"),
    Client("b24pysdk call_list", "peer_b24pysdk", "calls"),
    Client("b24pysdk call_list_fast", "peer_b24pysdk", "calls_fast"),
)


@dataclass(frozen=True)
class Window:
    """So many calls at a portal where a command takes so long; `free`: counting and passing over rows cost nothing more."""

    calls: int
    latency_ms: float = 4.0
    free: bool = False

    @property
    def title(self) -> str:
        """In a table."""
        return f"{self.calls:,} calls, {self.latency_ms:g} ms a command, counting {'free' if self.free else 'priced'}"

    @property
    def last_s(self) -> float:
        """What the last answer takes by itself at the least: as many commands one after another as a request has."""
        return min(COMMANDS, self.calls / ROWS_A_PAGE) * self.latency_ms / 1000


def measure(windows: Sequence[Window], best_of: int) -> list[Section]:
    """A section a window, and what a row costs us in each."""
    sections, ours = [], {}
    for window in windows:
        section, ours[window] = _read(window, best_of)
        sections.append(section)
    return [*sections, _cost(ours)]


def _read(window: Window, best_of: int) -> tuple[Section, Run]:
    price = "free" if window.free else f"{window.latency_ms / 10:g} ms a thousand more"
    section = Section(
        window.title,
        f"voximplant.statistic.get of one window; bucket {BUCKET}/{DRAIN:g}, {window.latency_ms:g} ms a command, counting rows and "
        f"passing over rows {price}. bound: (own requests - {BUCKET}) / {DRAIN:g} s; with the last answer: {window.last_s:g} s, "
        "which the portal works at the last request, more; neither where it is below a second. Memory: peak above the "
        "idle process. exit: what the caller sees. b24pysdk's fast list sends `filter` and `order` in forms that this "
        "method ignores.",
        ("client", "wall, s", "× ours", "× bound", "× bound with last answer", "requests", "503", "429", "lost", "doubled",
         "in order", "memory, MB", "first row, s", "exit"),
    )  # fmt: skip
    # A window that fits the burst needs nobody to go slowly.
    clients = [one for one in CLIENTS if one.case != "calls_slowly" or window.calls > 100_000]
    with portal(calls=window.calls, latency_ms=window.latency_ms, free=window.free) as at:
        job = {"expected": at["calls"], "fingerprint": at["calls_fingerprint"]}
        found = in_turns(at, clients, job, best_of=best_of)
    ours = found[OURS.name]
    for client in clients:
        section.rows.append((client.name, *_cells(window, found[client.name], ours)))
    return section, ours


def _cells(window: Window, run: Run, ours: Run) -> tuple[str, ...]:
    bound, ended = bound_s(run["requests"]), run["outcome"] == "ended"
    return (
        f"{run['wall_s']:.2f}",
        f"{'> ' if ended else ''}{run['wall_s'] / ours['wall_s']:.2f}",
        f"{run['wall_s'] / bound:.2f}" if bound >= 1 and told(run) == "ok" else "-",
        f"{run['wall_s'] / (bound + window.last_s):.2f}" if bound + window.last_s >= 1 and told(run) == "ok" else "-",
        str(run["requests"]),
        str(run["refused"]),
        str(run["blocked"]),
        "-" if ended else f"{run['lost']:,}",
        "-" if ended else f"{run['doubled']:,}",
        "-" if not run["rows"] else "yes" if run["ascending"] else "no",
        "-" if ended else f"{run['peak_mb'] - run['idle_mb']:.0f}",
        "-" if run["first_s"] is None else f"{run['first_s']:.2f}",
        told(run),
    )


def _cost(ours: dict[Window, Run]) -> Section:
    section = Section(
        "What a row costs our client",
        "Processor time of the client's process over the rows that it read, in one run; the runs are those of the tables above. "
        "Small windows carry what a client costs once.",
        ("window", "rows", "cpu, s", "cpu a row, µs", "× the largest's", "memory, MB"),
    )
    largest = max(ours, key=lambda window: window.calls)
    per_row = {window: 1e6 * run["cpu_s"] / max(1, run["rows"]) for window, run in ours.items()}
    for window, run in ours.items():
        section.rows.append(
            (
                window.title,
                f"{run['rows']:,}",
                f"{run['cpu_s']:.2f}",
                f"{per_row[window]:.1f}",
                f"{per_row[window] / (per_row[largest] or 1):.2f}",
                f"{run['peak_mb'] - run['idle_mb']:.0f}",
            )
        )
    return section
