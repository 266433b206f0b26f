"""What a client makes of a portal in which something goes wrong: all rows, an error, or fewer rows and no word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bench.bitrix24.harness import LEAST_S, Client, Run, portal, run_once, say, told
from bench.report import Section

CALLS = 10_000
STATISTIC = "voximplant.statistic.get"
CLIENTS = (
    Client("**dialog_assets**", "ours", "calls", ours=True),
    Client("fast_bitrix24 get_all", "peer_fast_bitrix24", "calls"),
    Client("b24pysdk call_list", "peer_b24pysdk", "calls"),
)


class Trouble(NamedTuple):
    """What goes wrong: the portal's faults, or what happens in it (dialog_assets/sandbox)."""

    name: str
    faults: Sequence[Mapping[str, Any]] = ()
    events: Sequence[Mapping[str, Any]] = ()


def _fault(kind: str, match: str = "batch", after: int = 1, **more: Any) -> list[dict[str, Any]]:
    return [{"service": "bitrix24", "kind": kind, "match": match, "after": after, "times": 1, **more}]


def _happens(kind: str, **more: Any) -> list[dict[str, Any]]:
    return [{"portal": "crowd", "kind": kind, "match": STATISTIC, "after": 30, **more}]


TROUBLES = (
    Trouble("none"),
    Trouble("503 to everything for a second", _fault("503_burst", value=1.0)),
    Trouble("429, the portal tells its end in 5 s", _fault("operating", STATISTIC, 100, value=5)),
    Trouble("one command fails once", _fault("command_error", STATISTIC, 100, value="INTERNAL_SERVER_ERROR")),
    Trouble(
        "commands are denied from one on", _fault("command_error", STATISTIC, 100, times=None, value="ACCESS_DENIED")
    ),
    Trouble("200 with an error in it", _fault("200_error")),
    Trouble("500", _fault("500")),
    Trouble("502 with HTML", _fault("502_html")),
    Trouble("connection reset", _fault("reset")),
    Trouble("calls are added all the time", events=_happens("insert", every=10, times=15)),
    Trouble("a call is deleted", events=_happens("delete", call=7)),
)


def measure() -> Section:
    """Each client in each trouble, once."""
    section = Section(
        f"Faults: {CALLS:,} calls",
        "4 ms a command, counting free. ok: every call that was there at the start and still is came once, in so many seconds; "
        "error: the caller gets an exception; silent loss: it gets fewer rows and no word; doubled: a row came more than once. "
        "Those that are denied cannot be had: there an error is the right end.",
        ("trouble", *(client.name for client in CLIENTS)),
    )
    with portal(calls=CALLS, free=True) as at:
        for trouble in TROUBLES:
            gone = [int(event["call"]) for event in trouble.events if event["kind"] == "delete"]
            # Deleted calls may have been read before, calls that are added have ids above the others': neither is counted.
            job = {"expected": CALLS - len(gone), "top": CALLS, "gone": gone}
            told_all = []
            for client in CLIENTS:
                run = run_once(at, client, job, limit_s=LEAST_S, faults=trouble.faults, events=trouble.events)
                told_all.append(_cell(run))
                say(f"{trouble.name}, {client.name.strip('*')}: {told_all[-1]}")
            section.rows.append((trouble.name, *told_all))
    return section


def _cell(run: Run) -> str:
    if told(run) != "ok":
        more = f" of {run['lost']:,}" if run["outcome"] == "ok" and run["lost"] else ""
        return f"{told(run)}{more}"
    return f"ok, {run['wall_s']:.1f} s" if not run["doubled"] else f"{run['doubled']:,} doubled"
