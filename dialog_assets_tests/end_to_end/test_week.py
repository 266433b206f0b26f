"""A week of both portals through the real Dagster job: every call accounted for, every result and every kopeck right."""

from __future__ import annotations

import hashlib
from collections import Counter
from decimal import Decimal

import dagster as dg
import pytest

from dialog_assets.dialogs import line_id
from dialog_assets.portals import Portal
from dialog_assets.sandbox.llm_match import tokens
from dialog_assets.sandbox.world.model import Call, World
from dialog_assets.sandbox.world.oracle import day_of, entity_of, expected_state, summarised
from dialog_assets_tests.end_to_end.week import EMPTY_DAYS, RANGES, STEPS, Row, Week, average, materializations, rows

pytestmark = pytest.mark.xdist_group("week")

PORTALS = ("avto_ural", "okna_sever")


def test_both_runs_end_well(week: Week) -> None:
    """A failed call does not stop its day: both weeks end with success."""
    assert {portal: run.success for portal, run in week.runs.items()} == dict.fromkeys(PORTALS, True)


@pytest.mark.parametrize("step", STEPS)
def test_every_call_ends_as_the_world_says(week: Week, world: World, portals: list[Portal], step: str) -> None:
    """At every step each call of the world has just the state and reason that its story calls for."""
    found = {
        (row["portal"], row["call_id"]): (row["state"], row["reason"])
        for row in rows(week.database, "SELECT portal, call_id, state, reason FROM call_steps WHERE step = %s", step)
    }
    expected = {
        (portal.portal, call.id): expected_state(world.portals[portal.portal], portal, call, step)
        for portal in portals
        for call in world.portals[portal.portal].calls
    }
    assert found == expected


def test_every_call_is_accounted_for(week: Week, world: World) -> None:
    """Rule 4: per portal, day and step, done + skipped + failed + waiting are the world's calls, and none was not run."""
    counted = {
        (row["portal"], row["day"], row["step"]): row["calls"]
        for row in rows(
            week.database,
            """
            SELECT c.portal, c.day, s.step, count(*) AS calls FROM calls c
            JOIN call_steps s ON s.portal = c.portal AND s.call_id = c.call_id
            WHERE s.state IN ('done', 'skipped', 'failed', 'waiting') GROUP BY 1, 2, 3
            """,
        )
    }
    by_day = Counter(
        (portal.portal, day_of(portal, call)) for portal in world.portals.values() for call in portal.calls
    )
    assert counted == {(*place, step): calls for place, calls in by_day.items() for step in STEPS}
    assert not rows(week.database, "SELECT * FROM call_steps WHERE reason LIKE %s", "%not_run")


def test_a_call_belongs_to_the_day_of_its_portal(week: Week) -> None:
    """Calls minutes before and after midnight are on the days of their portal's clock, not of UTC."""
    found = rows(
        week.database, "SELECT call_id, day::text FROM calls WHERE call_id IN (5012, 5013, 804, 805) ORDER BY call_id"
    )
    assert [tuple(row.values()) for row in found] == [
        (804, "2026-03-02"),
        (805, "2026-03-03"),
        (5012, "2026-03-03"),
        (5013, "2026-03-04"),
    ]


def test_unknown_users_and_deleted_entities_are_recorded(week: Week, world: World) -> None:
    """Whom the calls name and the portal does not return is there with found = false, all others with their data."""
    users = {
        (row["portal"], row["user_id"]): row["found"]
        for row in rows(week.database, "SELECT portal, user_id, found FROM users")
    }
    assert users == {
        (portal.portal, user): user in portal.users
        for portal in world.portals.values()
        for user in {int(call.fields["PORTAL_USER_ID"]) for call in portal.calls}
    }
    assert [user for user, found in users.items() if not found] == [("avto_ural", 29), ("okna_sever", 14)]
    missing = rows(week.database, "SELECT portal, entity_type, entity_id FROM entities WHERE NOT found")
    assert [tuple(row.values()) for row in missing] == [("okna_sever", "contact", 199)]
    named = {
        (portal.portal, *entity)
        for portal in world.portals.values()
        for call in portal.calls
        if (entity := entity_of(call)) is not None
    }
    stored = rows(week.database, "SELECT portal, entity_type, entity_id FROM entities WHERE entity_type <> 'deal'")
    assert {tuple(row.values()) for row in stored} == named


def test_deals_of_the_entities_are_there(week: Week, world: World) -> None:
    """Each deal of an entity that was on the phone is stored with its amount and related to it."""
    expected = set()
    for portal in world.portals.values():
        on_the_phone = {entity_of(call) for call in portal.calls}
        for number, deal in portal.deals.items():
            for kind, name in (("contact", "CONTACT_ID"), ("company", "COMPANY_ID"), ("lead", "LEAD_ID")):
                if deal[name] and (kind, int(deal[name])) in on_the_phone:
                    expected.add((portal.portal, kind, int(deal[name]), number, Decimal(deal["OPPORTUNITY"])))
    found = rows(
        week.database,
        """
        SELECT d.portal, d.entity_type, d.entity_id, d.deal_id, e.amount FROM entity_deals d
        JOIN entities e ON e.portal = d.portal AND e.entity_type = 'deal' AND e.entity_id = d.deal_id
        """,
    )
    assert {tuple(row.values()) for row in found} == expected


def test_the_archive_holds_the_recordings(week: Week, world: World) -> None:
    """Every recording but the damaged one is in the bucket: the same bytes, key by portal, day and call, its content type."""
    expected = {}
    for portal in world.portals.values():
        for call in portal.calls:
            if call.recording is not None and call.recording.content != "damaged":
                key = f"{portal.portal}/{day_of(portal, call)}/{call.id}.mp3"
                expected[key] = (hashlib.sha256(call.recording.path.read_bytes()).hexdigest(), "audio/mpeg")
    held = {key: (hashlib.sha256(data).hexdigest(), kind) for key, (data, kind) in week.archive.items()}
    assert held == expected
    stored = rows(week.database, "SELECT s3_key, sha256, bytes, channels, container FROM audio_files")
    assert {row["s3_key"]: row["sha256"] for row in stored} == {key: sha256 for key, (sha256, _) in expected.items()}
    assert all(row["bytes"] == len(week.archive[row["s3_key"]][0]) for row in stored)


def spoken(world: World) -> list[tuple[str, Call]]:
    """Portal and call of every conversation."""
    return [
        (portal.portal, call)
        for portal in world.portals.values()
        for call in portal.calls
        if call.recording is not None and call.recording.content == "speech"
    ]


def words(text: str) -> list[str]:
    """The words of a text without case and punctuation."""
    return [word.norm for word in tokens(text)]


def dialogs(week: Week, table: str) -> dict[tuple[str, int], list[Row]]:
    """Turns by portal and call."""
    found = {
        "transcripts": "SELECT portal, call_id, turns FROM transcripts",
        "fixed_dialogs": "SELECT portal, call_id, turns FROM fixed_dialogs",
    }
    return {(row["portal"], row["call_id"]): row["turns"] for row in rows(week.database, found[table])}


def test_stereo_transcripts_know_who_speaks(week: Week, world: World, portals: list[Portal]) -> None:
    """On two channels the operator is the portal's channel and the client the other, as the script's voices are."""
    operator = {portal.portal: portal.channels.operator for portal in portals}
    turns = dialogs(week, "transcripts")
    for portal, call in spoken(world):
        assert call.recording is not None
        assert call.recording.script is not None
        if call.recording.channels != 2:
            continue
        own = turns[portal, call.id]
        assert {turn["role"] for turn in own} == {"operator", "client"}
        assert {turn["channel"] for turn in own if turn["role"] == "operator"} == {operator[portal]}
        for role in ("operator", "client"):
            heard = " ".join(turn.heard for turn in call.recording.script.turns if turn.speaker == role)
            assert words(" ".join(turn["text"] for turn in own if turn["role"] == role)) == words(heard)


def test_correction_tells_the_sides_of_a_mono_recording_apart(week: Week, world: World) -> None:
    """A mono dialog is all `speaker` when recognised, and has the script's operator and client once it is corrected."""
    heard, fixed = dialogs(week, "transcripts"), dialogs(week, "fixed_dialogs")
    mono = [place for place in spoken(world) if place[1].recording and place[1].recording.channels == 1]
    assert [call.id for _, call in mono] == [811, 5013, 5021]
    for portal, call in mono:
        assert call.recording is not None
        assert {turn["role"] for turn in heard[portal, call.id]} == {"speaker"}
        sides = {" ".join(words(turn.text)): turn.speaker for turn in call.recording.turns}
        told = [
            (turn["role"], sides[text])
            for turn in fixed[portal, call.id]
            if (text := " ".join(words(turn["text"]))) in sides
        ]
        assert len(told) >= len(call.recording.turns) // 2
        assert all(role == side for role, side in told)


def test_dialogs_are_marked_as_the_world_says(week: Week, world: World) -> None:
    """Mono recordings and announcements are marked; the words of every stereo call agree with the portal's channels."""
    found = {
        (row["portal"], row["call_id"]): (row["marks"], row["verdict"])
        for row in rows(
            week.database,
            "SELECT portal, call_id, marks, role_check ->> 'verdict' AS verdict FROM transcripts WHERE turns <> '[]'",
        )
    }
    for portal in world.portals.values():
        for call in portal.calls:
            if call.recording is None or (portal.portal, call.id) not in found:
                continue
            expected: tuple[list[str], str | None] = ([], "agrees")
            if call.recording.content == "voicemail":
                expected = ["one_sided", "voicemail"], None
            elif call.recording.channels == 1:
                expected = ["mono"], None
            assert found.pop((portal.portal, call.id)) == expected, call.id
    assert found == {}


def test_corrected_dialogs_say_what_was_said(week: Week, world: World) -> None:
    """Each side's corrected words are the script's, and nine lines of ten are the script's to the last comma."""
    fixed = dialogs(week, "fixed_dialogs")
    lines, right = 0, 0
    for portal, call in spoken(world):
        assert call.recording is not None
        written = {(turn.speaker, turn.text) for turn in call.recording.turns}
        own = fixed[portal, call.id]
        lines += len(own)
        right += sum((turn["role"], turn["text"]) in written for turn in own)
        for side in ("operator", "client"):
            said = " ".join(turn.text for turn in call.recording.turns if turn.speaker == side)
            assert " ".join(turn["text"] for turn in own if turn["role"] == side) == said, (portal, call.id)
    assert right >= 0.9 * lines, (right, lines)


def test_edits_lead_from_the_recognised_to_the_corrected_dialog(week: Week) -> None:
    """The stored edits are exactly the lines in which the corrected dialog differs."""
    heard, fixed = dialogs(week, "transcripts"), dialogs(week, "fixed_dialogs")
    for row in rows(week.database, "SELECT portal, call_id, edits FROM fixed_dialogs"):
        place = (row["portal"], row["call_id"])
        changed = [
            {"line": line_id(index), "before": before["text"], "after": after["text"]}
            for index, (before, after) in enumerate(zip(heard[place], fixed[place], strict=True))
            if before["text"] != after["text"]
        ]
        assert sorted(row["edits"], key=lambda edit: str(edit["line"])) == changed


def test_categories_are_the_scripts(week: Week, world: World, portals: list[Portal]) -> None:
    """Categories with confidence and reason as the script's reviewer gave them, and the criteria that they select."""
    criteria = {
        (portal.portal, category.name): [item.label for item in portal.criteria_of([category.name])]
        for portal in portals
        for category in portal.categories
    }
    expected = {
        (portal, call.id, name): (confidence, reason, criteria[portal, name])
        for portal, call in spoken(world)
        if call.recording and call.recording.script
        for name, confidence, reason in call.recording.script.categories
    }
    found = rows(week.database, "SELECT * FROM classifications")
    assert {
        (row["portal"], row["call_id"], row["category"]): (row["confidence"], row["reason"], row["criteria"])
        for row in found
    } == expected


def test_scores_are_the_scripts(week: Week, world: World, portals: list[Portal]) -> None:
    """Every criterion that a dialog's categories select, in its present version, with the reviewer's score and text."""
    versions = {(portal.portal, item.name): item.version for portal in portals for item in portal.criteria}
    expected = {
        (portal, call.id, judgement.criterion, versions[portal, judgement.criterion]): (
            judgement.score is not None,
            judgement.score,
            judgement.text,
        )
        for portal, call in spoken(world)
        if call.recording and call.recording.script
        for judgement in call.recording.script.judgements
    }
    found = rows(week.database, "SELECT * FROM criteria_scores")
    assert {
        (row["portal"], row["call_id"], row["criterion"], row["version"]): (
            row["applicable"],
            row["score"],
            row["text"],
        )
        for row in found
    } == expected


def test_quotes_point_at_the_words(week: Week, world: World) -> None:
    """A quote's words stand in the turn it names, said by the side that the reviewer quotes, at that turn's second."""
    fixed = dialogs(week, "fixed_dialogs")
    stored = {
        (row["portal"], row["call_id"], row["criterion"]): row["quotes"]
        for row in rows(week.database, "SELECT portal, call_id, criterion, quotes FROM criteria_scores")
    }
    for portal, call in spoken(world):
        assert call.recording is not None
        assert call.recording.script is not None
        turns = fixed[portal, call.id]
        for judgement in call.recording.script.judgements:
            quotes = stored[portal, call.id, judgement.criterion]
            if call.recording.channels == 2:  # a mono turn may be cut within the quoted words
                assert [words(quote["text"]) for quote in quotes] == [words(said) for _, said in judgement.quotes]
            for quote in quotes:
                turn = turns[quote["turn"]]
                written = next(
                    call.recording.turns[index]
                    for index, said in judgement.quotes
                    if set(words(quote["text"])) <= set(words(said))
                )
                assert quote["line"] == line_id(quote["turn"])
                assert quote["text"] in turn["text"]
                assert turn["role"] == written.speaker
                assert quote["start_ms"] == turn["start_ms"]
                assert turn["start_ms"] <= written.end_ms
                assert turn["end_ms"] >= written.start_ms


def test_summaries_average_what_was_scored(week: Week, world: World, portals: list[Portal]) -> None:
    """One first version for each entity with something to say: its calls, exact averages, a text within the limit."""
    expected = {
        (portal.portal, *entity): (
            1,
            {name: str(average([score for _, score in given])) for name, given in judged.items()},
            sorted({call for given in judged.values() for call, _ in given}),
        )
        for portal in portals
        for entity, judged in summarised(world.portals[portal.portal], portal).items()
        if judged
    }
    limits = {portal.portal: portal.summary_max_characters for portal in portals}
    found = rows(week.database, "SELECT * FROM entity_summaries")
    assert {
        (row["portal"], row["entity_type"], row["entity_id"]): (row["version"], row["average_scores"], row["calls"])
        for row in found
    } == expected
    assert all(0 < len(row["text"]) <= limits[row["portal"]] for row in found)


def test_the_ledger_agrees_with_the_vendors_bills(week: Week) -> None:
    """What the ledger says was spent is, vendor by vendor, to the last digit what the sandbox would have charged."""
    spent = {
        (row["vendor"], row["currency"]): row["cost"]
        for row in rows(week.database, "SELECT vendor, currency, sum(cost) AS cost FROM ledger GROUP BY 1, 2")
    }
    charged = {
        (vendor, currency): Decimal(cost)
        for vendor, book in week.books.items()
        for currency, cost in book["cost"].items()
    }
    assert spent == charged
    assert len(spent) == 4


def test_every_purchase_is_settled_at_the_first_try(week: Week) -> None:
    """Nothing stays open in the ledger, no answer is kept once its result is stored, nothing was asked twice."""
    found = rows(week.database, "SELECT DISTINCT state, attempts, answer IS NULL AS forgotten FROM ledger")
    assert found == [{"state": "settled", "attempts": 1, "forgotten": True}]
    submitted = week.books["voicekit"]
    assert set(submitted["items"]["recording"].values()) == {1}
    bought = rows(week.database, "SELECT vendor, count(*) AS number FROM ledger GROUP BY 1")
    answered = {
        vendor: book["counts"]["answered"] for vendor, book in week.books.items() if "answered" in book["counts"]
    }
    assert {row["vendor"]: row["number"] for row in bought} == {
        **answered,
        "voicekit": submitted["counts"]["submitted"],
    }


def test_results_carry_what_they_cost(week: Week) -> None:
    """Per step, the rows' cost_rub add up to the ledger's; a dialog without a category has its cost in the ledger only."""
    spent = {
        row["step"]: row["cost_rub"]
        for row in rows(
            week.database,
            """
            SELECT l.step, sum(l.cost_rub) AS cost_rub FROM ledger l
            LEFT JOIN call_steps s ON s.portal = l.portal AND s.call_id = l.call_id AND s.step = l.step
            WHERE s.reason IS DISTINCT FROM 'no_category' GROUP BY 1
            """,
        )
    }
    carried = {
        "transcripts": rows(week.database, "SELECT sum(cost_rub) AS cost_rub FROM transcripts"),
        "fixed_dialogs": rows(week.database, "SELECT sum(cost_rub) AS cost_rub FROM fixed_dialogs"),
        "classifications": rows(week.database, "SELECT sum(cost_rub) AS cost_rub FROM classifications"),
        "criteria_scores": rows(week.database, "SELECT sum(cost_rub) AS cost_rub FROM criteria_scores"),
        "entity_summaries": rows(week.database, "SELECT sum(cost_rub) AS cost_rub FROM entity_summaries"),
    }
    assert {step: found[0]["cost_rub"] for step, found in carried.items()} == spent


def test_dollars_become_roubles_by_the_portals_rate(week: Week, portals: list[Portal]) -> None:
    """Each ledger row's roubles are its cost times the rate of its portal, to six places; roubles stay as they are."""
    rates = {portal.portal: portal.llm.rub_per_usd for portal in portals}
    for row in rows(week.database, "SELECT portal, currency, cost, cost_rub, rub_rate FROM ledger"):
        rate = rates[row["portal"]] if row["currency"] == "USD" else Decimal(1)
        assert row["rub_rate"] == rate
        assert abs(row["cost_rub"] - row["cost"] * rate) <= Decimal("0.0000005")


@pytest.mark.parametrize("portal", PORTALS)
def test_every_day_of_a_range_has_its_own_figures(week: Week, world: World, portal: str) -> None:
    """Each partition's materialization tells that day's calls, states, cost and table; days without calls tell zero."""
    first, last = RANGES[portal]
    calls = Counter(day_of(world.portals[portal], call) for call in world.portals[portal].calls)
    states = {
        (row["step"], row["day"], row["state"]): row["calls"]
        for row in rows(
            week.database,
            """
            SELECT s.step, c.day, s.state, count(*) AS calls FROM call_steps s
            JOIN calls c ON c.portal = s.portal AND c.call_id = s.call_id WHERE s.portal = %s GROUP BY 1, 2, 3
            """,
            portal,
        )
    }
    costs = {
        (row["step"], row["day"]): row["cost_rub"]
        for row in rows(
            week.database,
            "SELECT step, day, sum(cost_rub) AS cost_rub FROM ledger WHERE portal = %s GROUP BY 1, 2",
            portal,
        )
    }
    days = [day for day in sorted({*calls, *EMPTY_DAYS}) if first <= day <= last]
    for step in STEPS:
        told = materializations(week.runs[portal], portal, step)
        assert sorted(told) == [day.isoformat() for day in days]
        for day in days:
            figures = {name: entry.value for name, entry in told[day.isoformat()].items()}
            assert figures["calls"] == calls[day]
            assert figures.get("counted_by_the_portal") == (calls[day] if step == "calls" else None)
            for state in ("done", "skipped", "failed", "waiting"):
                assert figures[state] == states.get((step, day, state), 0)
            assert figures["cost_rub"] == pytest.approx(float(costs.get((step, day), 0)))
            assert f"**{calls[day]}**" in str(figures["states"])


def test_checks_are_red_just_where_a_call_failed(week: Week) -> None:
    """All others pass everywhere; no_failed_calls fails at okna_sever/audio_files alone, and says why."""
    found = [evaluation for run in week.runs.values() for evaluation in run.get_asset_check_evaluations()]
    assert Counter((evaluation.asset_key.path[0], evaluation.check_name) for evaluation in found) == {
        (portal, check): len(STEPS) for portal in PORTALS for check in ("no_failed_calls", "every_call_accounted_for")
    } | {
        (portal, check): number
        for portal in PORTALS
        for check, number in {
            "channels_fit_the_content": 1,
            "as_many_as_the_portal_counts": 1,
            "every_night_ran": 1,
            "nothing_overdue": len(STEPS) - 1,
        }.items()
    }
    (red,) = [evaluation for evaluation in found if not evaluation.passed]
    assert (red.asset_key, red.check_name) == (dg.AssetKey(["okna_sever", "audio_files"]), "no_failed_calls")
    assert "recording_not_audio" in str(red.metadata["calls"].value)
    assert "5020" in str(red.metadata["calls"].value)
