"""Phrases become dialogs: whatever the order, nothing lost, time never backwards."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from itertools import accumulate, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog_assets.dialogs import Role, Turn, Word
from dialog_assets.speech.dialogs import build_dialog, talk_metrics
from dialog_assets.speech.port import Phrase, poll_delays
from dialog_assets.speech.prices import recognition_cost


@st.composite
def phrase(draw: st.DrawFn) -> Phrase:
    start = draw(st.integers(0, 20_000))
    texts = draw(st.lists(st.sampled_from(["да", "нет", "окно", "цена"]), max_size=4))
    words = tuple(Word(text, start + 100 * place, start + 100 * place + 80) for place, text in enumerate(texts))
    return Phrase(draw(st.integers(0, 1)), start, start + draw(st.integers(-50, 3000)), " ".join(texts), words)


phrases = st.lists(phrase(), max_size=12)


@given(phrases, st.randoms(use_true_random=False), st.sampled_from([1, 2]))
def test_any_order_gives_the_same_dialog(given_phrases: list[Phrase], chance: object, channels: int) -> None:
    """The service promises no order, so the order must not matter."""
    shuffled = list(given_phrases)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    build = [build_dialog(some, channels=channels, operator_channel=0) for some in (given_phrases, shuffled)]
    assert build[0] == build[1]


@given(phrases, st.sampled_from([1, 2]), st.integers(0, 3000))
def test_every_word_exactly_once(given_phrases: list[Phrase], channels: int, pause_ms: int) -> None:
    """Merging neither loses nor doubles a word, on its channel, in text and in words alike."""
    turns = build_dialog(given_phrases, channels=channels, operator_channel=1, pause_ms=pause_ms)
    said = Counter((one.channel, word) for one in given_phrases for word in one.words)
    assert Counter((turn.channel, word) for turn in turns for word in turn.words) == said
    texts = Counter((one.channel, word) for one in given_phrases for word in one.text.split())
    assert Counter((turn.channel, word) for turn in turns for word in turn.text.split()) == texts


@given(phrases, st.sampled_from([1, 2]))
def test_time_never_runs_backwards(given_phrases: list[Phrase], channels: int) -> None:
    """Turns are in order of their start, no turn ends before it starts, no phrase's time is outside its turn."""
    turns = build_dialog(given_phrases, channels=channels, operator_channel=0)
    starts = [turn.start_ms for turn in turns]
    assert starts == sorted(starts)
    assert all(turn.start_ms <= turn.end_ms for turn in turns)
    spoken = [one for one in given_phrases if one.text]
    assert max((turn.end_ms for turn in turns), default=0) == max(
        (max(p.start_ms, p.end_ms) for p in spoken), default=0
    )


def test_stereo_turns() -> None:
    """One side's phrases are one turn until the other speaks or a pause longer than the limit; roles by channel."""
    said = [
        Phrase(1, 0, 1000, "алло"),
        Phrase(1, 2500, 3000, "слушаю"),
        Phrase(0, 3100, 4000, "добрый день"),
        Phrase(1, 4200, 5000, "да"),
        Phrase(1, 6501, 7000, "говорите"),
        Phrase(0, 6600, 6700, " "),
    ]
    turns = build_dialog(said, channels=2, operator_channel=1)
    assert [(turn.role, turn.text, turn.start_ms, turn.end_ms) for turn in turns] == [
        ("operator", "алло слушаю", 0, 3000),
        ("client", "добрый день", 3100, 4000),
        ("operator", "да", 4200, 5000),
        ("operator", "говорите", 6501, 7000),
    ]
    unknown = build_dialog(said, channels=2, operator_channel=None)
    assert {turn.role for turn in unknown} == {"speaker"}
    assert len(unknown) == 4


def test_mono_phrases_stay_apart() -> None:
    """In mono each phrase may be another person, so none are merged, and the portal's operator channel says nothing."""
    said = [Phrase(0, 0, 1000, "алло"), Phrase(0, 1100, 2000, "добрый день")]
    turns = build_dialog(said, channels=1, operator_channel=0)
    assert [(turn.role, turn.text) for turn in turns] == [("speaker", "алло"), ("speaker", "добрый день")]


def turn(role: Role, start_s: float, end_s: float, text: str = "да") -> Turn:
    return Turn(role, 0 if role == "operator" else 1, round(start_s * 1000), round(end_s * 1000), text)


def test_metrics_by_hand() -> None:
    """A minute worked out by hand: shares, silence, longest turn, tempo, and who breaks in."""
    turns = [
        turn("operator", 0, 20, " ".join(["слово"] * 40)),
        turn("client", 15, 25, " ".join(["слово"] * 10)),
        turn("operator", 25, 35, " ".join(["слово"] * 20)),
        turn("client", 40, 50, " ".join(["слово"] * 10)),
    ]
    assert talk_metrics(turns, 60) == {
        "talk_ratio_operator": 0.6,
        "words_per_minute_operator": 120.0,
        "interruptions_operator": 0,
        "talk_ratio_client": 0.4,
        "words_per_minute_client": 60.0,
        "interruptions_client": 1,
        "silence_share": 0.25,
        "longest_monologue_s": 20.0,
    }


def test_two_who_begin_together_do_not_interrupt() -> None:
    """Only who begins later interrupts, whichever channel is looked at first."""
    metrics = talk_metrics([turn("operator", 1, 3), turn("client", 1, 2)], 5)
    assert (metrics["interruptions_operator"], metrics["interruptions_client"]) == (0, 0)


def test_metrics_of_nothing() -> None:
    """A dialog without turns is silence, without a division by zero; so is a recording without length."""
    metrics = talk_metrics([], 10)
    assert metrics["silence_share"] == 1.0
    assert set(talk_metrics([], 0).values()) == {0}


@given(phrases, st.floats(0, 30))
def test_metrics_stay_in_their_bounds(given_phrases: list[Phrase], duration_s: float) -> None:
    """Shares lie between 0 and 1 even if the stated length is wrong; mono has the role speaker."""
    for channels in (1, 2):
        turns = build_dialog(given_phrases, channels=channels, operator_channel=0)
        metrics = talk_metrics(turns, duration_s)
        assert all(0 <= value <= 1 for name, value in metrics.items() if "ratio" in name or "share" in name)
        assert ("talk_ratio_speaker" in metrics) == (channels == 1 and bool(turns))


@pytest.mark.parametrize(
    ("seconds", "cost"),
    [(0, "0"), (0.001, "0.003"), (60, "0.18"), (60.0000001, "0.18"), (60.001, "0.183"), (97, "0.291")],
)
def test_cost(seconds: float, cost: str) -> None:
    """Started seconds are paid; float noise is not a second."""
    assert recognition_cost(seconds, Decimal("0.18")) == Decimal(cost)


@given(st.floats(0, 100_000), st.floats(0, 100_000), st.decimals("0", "10", places=4))
def test_cost_grows_with_length(first: float, second: float, rate: Decimal) -> None:
    """A longer recording never costs less, and the sum has six places."""
    low, high = (recognition_cost(seconds, rate) for seconds in sorted((first, second)))
    assert low <= high
    assert high.as_tuple().exponent == -6


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_no_cost_of_an_impossible_length(seconds: float) -> None:
    """A length that cannot be is a mistake, not a free recording."""
    with pytest.raises(ValueError, match="finite"):
        recognition_cost(seconds, Decimal("0.18"))


def test_poll_delays_grow_with_the_time_waited() -> None:
    """A second first, then a twentieth of the time waited, a minute at most, without end."""
    delays = list(islice(poll_delays(), 300))
    assert delays[:20] == [1.0] * 20
    waited = list(accumulate(delays))
    assert all(delay <= max(1.0, 0.05 * before) + 1e-9 for delay, before in zip(delays[1:], waited, strict=False))
    assert delays == sorted(delays)
    assert delays[-1] == 60.0
    assert next(poll_delays(waited=7200)) == 60.0, "what another run waited for counts"
