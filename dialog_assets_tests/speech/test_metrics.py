"""The figures of a dialog, worked out by hand, and kept in their bounds whatever the recogniser gives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog_assets.dialogs import Role, Turn, Word
from dialog_assets.speech.metrics import talk_metrics
from dialog_assets.speech.port import Phrase
from dialog_assets_tests.speech.built import build_dialog
from dialog_assets_tests.speech.test_dialogs import kept_phrases


def turn(role: Role, start_s: float, end_s: float, text: str = "слово", words: tuple[Word, ...] = ()) -> Turn:
    """A turn of seconds."""
    return Turn(role, 0 if role == "operator" else 1, round(start_s * 1000), round(end_s * 1000), text, words)


def test_metrics_by_hand() -> None:
    """A minute worked out by hand: shares, silence, tempo, who breaks in, who waits how long."""
    turns = [
        turn("operator", 0, 20, " ".join(["слово"] * 40)),
        turn("client", 15, 25, " ".join(["слово"] * 9) + " блин"),
        turn("operator", 25.5, 35.5, " ".join(["слово"] * 19) + " хрен"),
        turn("client", 40.5, 50.5, " ".join(["слово"] * 9) + " бля"),
    ]
    assert talk_metrics(turns, 60) == {
        "talk_ratio_operator": 0.6,
        "words_per_minute_operator": 120.0,
        "turns_operator": 2,
        "words_operator": 60,
        "profanity_operator": 0,
        "interruptions_operator": 0,
        "backchannels_operator": 0,
        "longest_monologue_s_operator": 20.0,
        "reaction_median_s_operator": 0.5,
        "reaction_max_s_operator": 0.5,
        "talk_ratio_client": 0.4,
        "words_per_minute_client": 60.0,
        "turns_client": 2,
        "words_client": 20,
        "profanity_client": 1,
        "interruptions_client": 1,
        "backchannels_client": 0,
        "longest_monologue_s_client": 10.0,
        "reaction_median_s_client": 5.0,
        "reaction_max_s_client": 5.0,
        "silence_share": 0.25,
        "longest_monologue_s": 20.0,
        "longest_pause_s": 5.0,
    }


def test_the_figures_of_the_first_release_keep_their_meaning() -> None:
    """Analysts have them: on a call without interjections they are what they were."""
    turns = [turn("operator", 0, 2), turn("client", 1, 5), turn("operator", 6, 7), turn("operator", 6.5, 9)]
    figures = talk_metrics(turns, 10)
    known = ("talk_ratio_operator", "talk_ratio_client", "interruptions_operator", "interruptions_client")
    assert [figures[name] for name in known] == [0.556, 0.444, 0, 1]
    assert (figures["words_per_minute_operator"], figures["words_per_minute_client"]) == (36.0, 15.0)
    assert (figures["silence_share"], figures["longest_monologue_s"]) == (0.2, 4.0)


def test_who_says_nothing_has_no_pace() -> None:
    """Null, so that averages leave it out; the share of a silent side is 0."""
    figures = talk_metrics([turn("client", 1, 5)], 10)
    assert (figures["words_per_minute_operator"], figures["talk_ratio_operator"]) == (None, 0.0)
    assert talk_metrics([], 10)["words_per_minute_client"] is None


def test_a_listener_neither_interrupts_nor_answers() -> None:
    """`Угу` inside the other's turn is counted apart; it is no answer to wait for, and nobody interrupts it."""
    turns = [
        turn("operator", 0, 10),
        turn("client", 4, 4.5, "угу"),
        turn("client", 7, 7.4, "да"),
        turn("client", 11, 12, "а цена"),
    ]
    figures = talk_metrics(turns, 20)
    assert (figures["backchannels_client"], figures["interruptions_client"], figures["turns_client"]) == (2, 0, 3)
    assert (figures["reaction_median_s_client"], figures["reaction_max_s_client"]) == (1.0, 1.0)
    assert figures["interruptions_operator"] == 0
    told_to_cut = talk_metrics(turns, 20, backchannel_ms=0)
    assert (told_to_cut["backchannels_client"], told_to_cut["interruptions_client"]) == (0, 2)


def test_words_tell_when_a_turn_really_begins() -> None:
    """A phrase has the recogniser's silence around it; reactions and pauses go by the words."""
    asked = turn("operator", 0, 3, "кто там", (Word("кто", 500, 900), Word("там", 1000, 1500)))
    answered = turn("client", 3, 6, "это я", (Word("это", 4000, 4300), Word("я", 5200, 5500)))
    figures = talk_metrics([asked, answered], 6)
    assert figures["reaction_max_s_client"] == 2.5
    assert figures["longest_pause_s"] == 2.5
    assert figures["silence_share"] == 0.0


def test_an_answer_before_the_end_is_no_reaction() -> None:
    """Who breaks in did not wait; who goes on after a pause of its own did not answer."""
    turns = [turn("operator", 0, 5), turn("client", 4, 8), turn("client", 10, 11), turn("operator", 11, 12)]
    figures = talk_metrics(turns, 12)
    assert figures["reaction_max_s_client"] is None
    assert (figures["reaction_median_s_operator"], figures["reaction_max_s_operator"]) == (0.0, 0.0)


def test_two_who_begin_together_do_not_interrupt() -> None:
    """Only who begins later interrupts, whichever channel is looked at first."""
    metrics = talk_metrics([turn("operator", 1, 3), turn("client", 1, 2)], 5)
    assert (metrics["interruptions_operator"], metrics["interruptions_client"]) == (0, 0)


def test_metrics_of_nothing() -> None:
    """A dialog without turns is silence, without a division by zero; so is a recording without length."""
    assert talk_metrics([], 10)["silence_share"] == 1.0
    assert set(talk_metrics([], 0).values()) == {0, None}


def test_mono_has_no_sides() -> None:
    """What needs two sides is null, not nought: an average over calls leaves it out."""
    figures = talk_metrics([turn("speaker", 0, 2, "раз два"), turn("speaker", 4, 5)], 10)
    assert {name for name, value in figures.items() if value is not None} == {
        "talk_ratio_speaker", "words_per_minute_speaker", "turns_speaker", "words_speaker", "profanity_speaker",
        "silence_share", "longest_monologue_s", "longest_pause_s",
    }  # fmt: skip
    assert (figures["turns_speaker"], figures["words_speaker"], figures["words_per_minute_speaker"]) == (2, 3, 60.0)
    stereo = talk_metrics([turn("operator", 0, 2)], 10)
    assert {name for name in figures if not name.endswith("_speaker")} == set(stereo)


@given(kept_phrases, st.floats(0, 60), st.sampled_from([1, 2]))
def test_metrics_stay_in_their_bounds(given_phrases: list[Phrase], duration_s: float, channels: int) -> None:
    """Shares lie between 0 and 1 even if the stated length is wrong and add up; counts are those of the turns."""
    turns = build_dialog(given_phrases, channels=channels, operator_channel=0)
    figures = talk_metrics(turns, duration_s)
    known = {name: value for name, value in figures.items() if value is not None}
    assert all(value >= 0 for value in known.values())
    assert all(value <= 1 for name, value in known.items() if "ratio" in name or "share" in name)
    ratios = [value for name, value in known.items() if name.startswith("talk_ratio")]
    talking = sum(turn.end_ms - turn.start_ms for turn in turns)
    assert sum(ratios) == pytest.approx(1 if talking else 0, abs=0.0011)
    assert sum(value for name, value in known.items() if name.startswith("turns_")) == len(turns)
    words = sum(len(turn.words) or len(turn.text.split()) for turn in turns)
    assert sum(value for name, value in known.items() if name.startswith("words_") and "minute" not in name) == words
    if channels == 2:
        longest = (known["longest_monologue_s_operator"], known["longest_monologue_s_client"])
        assert max(longest) == known["longest_monologue_s"]
        for role in ("operator", "client"):
            median, most = figures[f"reaction_median_s_{role}"], figures[f"reaction_max_s_{role}"]
            assert (median is None) == (most is None)
            assert median is None or most is None or median <= most
    assert ("talk_ratio_speaker" in figures) == (channels == 1 and bool(turns))


@given(kept_phrases)
def test_the_other_way_round(given_phrases: list[Phrase]) -> None:
    """With the channels swapped every figure of a role becomes the other role's."""
    one, other = (talk_metrics(build_dialog(given_phrases, channels=2, operator_channel=side), 30) for side in (0, 1))
    swapped = {
        name.replace("operator", "@").replace("client", "operator").replace("@", "client"): value
        for name, value in other.items()
    }
    assert swapped == one
