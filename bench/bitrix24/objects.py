"""Things by id: CRM objects with their deals, and users."""

from __future__ import annotations

from math import ceil

from bench.bitrix24.harness import BUCKET, DRAIN, ROWS_A_REQUEST, Client, Run, bound_s, in_turns, portal, told
from bench.report import Section

CONTACTS = (
    Client("**dialog_assets**", "ours", "contacts", ours=True),
    Client("fewest requests, answers thrown away", "ours", "fewest", ours=True),
    Client("fast_bitrix24", "peer_fast_bitrix24", "contacts"),
    Client("b24pysdk", "peer_b24pysdk", "contacts"),
)
USERS = (
    Client("**dialog_assets** by id", "ours", "users", ours=True),
    Client("fast_bitrix24 get_all", "peer_fast_bitrix24", "users"),
    Client("b24pysdk call_list", "peer_b24pysdk", "users"),
)


def crm(contacts: int, best_of: int) -> Section:
    """Contacts by id with their deals."""
    with portal(contacts=contacts) as at:
        deals = at["deals"]
        fewest = ceil(contacts / ROWS_A_REQUEST) + ceil(deals / ROWS_A_REQUEST)
        job = {"ids": at["contacts"], "deal_pages": at["deal_pages"], "expected": contacts}
        found = in_turns(at, CONTACTS, job, best_of=best_of)
    ours, throwing = (found[client.name] for client in CONTACTS[:2])
    bound = max(bound_s(fewest), throwing["wall_s"])
    section = Section(
        f"CRM: {contacts:,} contacts by id with their {deals:,} deals",
        f"Bucket {BUCKET}/{DRAIN:g}, 4 ms a command. The fewest possible requests are {fewest}: {ROWS_A_REQUEST:,} rows each. "
        f"bound: what those take, {bound:.2f} s, the larger of ({fewest} - {BUCKET}) / {DRAIN:g} s and of the portal's own working "
        "time for them, measured with a client that sends them all at once, deals by ranges of ids that it is told, and throws "
        "the answers away unread.",
        ("client", "wall, s", "× ours", "× bound", "requests", "× fewest requests", "503", "contacts lost", "deals lost",
         "memory, MB", "exit"),
    )  # fmt: skip
    for client in CONTACTS:
        run = found[client.name]
        whole = told(run) == "ok" and run["related"] >= deals
        section.rows.append(
            (
                client.name,
                f"{run['wall_s']:.2f}",
                f"{'> ' if run['outcome'] == 'ended' else ''}{run['wall_s'] / ours['wall_s']:.2f}",
                f"{run['wall_s'] / bound:.2f}" if whole else "-",
                str(run["requests"]),
                f"{run['requests'] / fewest:.2f}" if whole else "-",
                str(run["refused"]),
                *_lost(run, deals),
                f"{run['peak_mb'] - run['idle_mb']:.0f}" if run["rows"] else "-",
                told(run) if whole or told(run) != "ok" else "silent loss",
            )
        )
    return section


def users(number: int, best_of: int) -> Section:
    """Users: ours by id, as the pipeline asks for them; the peers' lists."""
    with portal(users=number) as at:
        found = in_turns(at, USERS, {"ids": at["users"], "expected": number}, best_of=best_of)
    section = Section(
        f"Users: {number:,}",
        f"user.get; bucket {BUCKET}/{DRAIN:g}, 4 ms a command. We read those that calls name, by id; the peers' ways read all.",
        ("client", "wall, s", "× ours", "requests", "503", "lost", "memory, MB", "exit"),
    )
    for client in USERS:
        run = found[client.name]
        section.rows.append(
            (
                client.name,
                f"{run['wall_s']:.2f}",
                f"{run['wall_s'] / found[USERS[0].name]['wall_s']:.2f}",
                str(run["requests"]),
                str(run["refused"]),
                f"{run['lost']:,}",
                f"{run['peak_mb'] - run['idle_mb']:.0f}",
                told(run),
            )
        )
    return section


def _lost(run: Run, deals: int) -> tuple[str, str]:
    if run["outcome"] == "ended":
        return "-", "-"
    return f"{run['lost']:,}", f"{max(0, deals - run['related']):,}"
