"""Phrases become dialogs: whatever the order, nothing lost, time never backwards."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from itertools import accumulate, islice, pairwise, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog_assets.dialogs import Turn, Word, turns_key
from dialog_assets.speech.dialogs import Dialog, DialogRules, read_dialog
from dialog_assets.speech.port import Phrase, poll_delays
from dialog_assets.speech.prices import recognition_cost
from dialog_assets_tests.audio.files import SHARED
from dialog_assets_tests.speech.built import build_dialog

RULES = DialogRules(operator_channel=0, company_names=("Окна Север",))


TEXTS = ("", "да", "угу угу", "окно цена", "нет да окно цена")
LENGTHS_MS = (-50, 0, 300, 1000, 4000)
WORDS = (None, (0, 20), (0, 100), (-200, 100), (300, 700))
"""No words, or how much later than the phrase the first begins, and how long each is, in milliseconds."""


def spoken(channel: int, start: int, kind: tuple[str, int, tuple[int, int] | None]) -> Phrase:
    """A phrase as an unreliable service may give it: blank, endless, overlapping, with words outside its times or none."""
    text, length_ms, words = kind
    start_ms = start * 100
    late, step = words or (0, 0)
    times = [start_ms + late + step * place for place in range(len(text.split()))] if words else []
    return Phrase(
        channel, start_ms, start_ms + length_ms, f" {text}",
        tuple(Word(word, at, at + step) for word, at in zip(text.split(), times, strict=False)),
    )  # fmt: skip


phrase = st.builds(
    spoken, st.integers(0, 1), st.integers(0, 80), st.sampled_from(list(product(TEXTS, LENGTHS_MS, WORDS)))
)
phrases = st.lists(phrase, max_size=10) | st.lists(phrase, min_size=6, max_size=10)
kept_phrases = phrases.map(lambda some: [one for one in some if one.text.strip()])


def read(some: list[Phrase], channels: int = 2, rules: DialogRules = RULES, **known: Any) -> Dialog:
    """The dialog of a call of a minute."""
    return read_dialog(some, rules, channels=channels, **{"duration_s": 60.0, "direction": "incoming", **known})


@given(phrases, st.randoms(use_true_random=False), st.sampled_from([1, 2]), st.sampled_from([(), ("dual_mono",)]))
def test_any_order_gives_the_same_dialog(
    given_phrases: list[Phrase], chance: Any, channels: int, audio_marks: tuple[str, ...]
) -> None:
    """The service promises no order, so the order must not matter: same turns, marks, figures and key."""
    shuffled = list(given_phrases)
    chance.shuffle(shuffled)
    first, second = (read(some, channels, audio_marks=audio_marks) for some in (given_phrases, shuffled))
    assert first == second
    assert turns_key(first.turns) == turns_key(second.turns)


@given(kept_phrases, st.sampled_from([1, 2]), st.integers(0, 3000), st.integers(0, 2000))
def test_every_word_exactly_once(
    given_phrases: list[Phrase], channels: int, pause_ms: int, backchannel_ms: int
) -> None:
    """On each channel the text is its phrases' texts in order of time, and words are neither lost, doubled nor moved over."""
    turns = build_dialog(
        given_phrases, channels=channels, operator_channel=1, pause_ms=pause_ms, backchannel_ms=backchannel_ms
    )
    for channel in (0, 1):
        own = [one for one in given_phrases if one.channel == channel]
        told = [word for turn in turns if turn.channel == channel for word in turn.text.split()]
        assert Counter(told) == Counter(word for one in own for word in one.text.split())
        assert Counter(word.text for turn in turns if turn.channel == channel for word in turn.words) == Counter(
            word.text for one in own for word in one.words
        )
        if len({one.start_ms for one in own}) == len(own) and all(one.end_ms > one.start_ms for one in own):
            in_time = sorted(own, key=lambda one: one.start_ms)
            assert told == [word for one in in_time for word in one.text.split()]


@given(kept_phrases, st.sampled_from([1, 2]))
def test_time_never_runs_backwards(given_phrases: list[Phrase], channels: int) -> None:
    """Turns come by their start; a side's next turn begins when its last one has ended; words lie in their turn."""
    turns = build_dialog(given_phrases, channels=channels, operator_channel=0)
    assert [turn.start_ms for turn in turns] == sorted(turn.start_ms for turn in turns)
    for channel in (0, 1) if channels == 2 else ():
        own = [turn for turn in turns if turn.channel == channel]
        assert all(before.end_ms <= after.start_ms for before, after in pairwise(own))
    for turn in turns:
        assert turn.start_ms <= turn.end_ms
        assert all(turn.start_ms <= word.start_ms <= word.end_ms <= turn.end_ms for word in turn.words)


@given(kept_phrases)
def test_turn_times_are_those_of_the_phrases(given_phrases: list[Phrase]) -> None:
    """A turn begins with a phrase and ends with one: a click on it plays what it says, and nothing is cut off."""
    given_phrases = [replace(one, end_ms=max(one.end_ms, one.start_ms + 10)) for one in given_phrases]
    turns = build_dialog(given_phrases, channels=2, operator_channel=0)
    for turn in turns:
        assert turn.start_ms in {one.start_ms for one in given_phrases if one.channel == turn.channel}
        assert turn.end_ms in {one.end_ms for one in given_phrases if one.channel == turn.channel}
    for one in given_phrases:
        assert any(
            turn.channel == one.channel and turn.start_ms <= one.start_ms and one.end_ms <= turn.end_ms
            for turn in turns
        )


@given(kept_phrases, st.sampled_from([1, 2]))
def test_a_role_belongs_to_a_channel(given_phrases: list[Phrase], channels: int) -> None:
    """Merging never crosses channels, so a side never gets the other's role; mono has no sides."""
    turns = build_dialog(given_phrases, channels=channels, operator_channel=1)
    expected = {0: "client", 1: "operator"} if channels == 2 else {0: "speaker", 1: "speaker"}
    assert all(turn.role == expected[turn.channel] for turn in turns)


@given(kept_phrases)
def test_dual_mono_is_one_mono_stream(given_phrases: list[Phrase]) -> None:
    """The same speech on both channels gives the dialog of one of them, not everything twice."""
    once = [replace(one, channel=0) for one in given_phrases]
    mono = read(once, channels=1)
    twice = read([*once, *(replace(one, channel=1) for one in once)], audio_marks=["dual_mono"])
    assert twice.turns == mono.turns
    assert twice.marks == (["dual_mono", *mono.marks] if mono.turns else [])
    assert twice.talk_metrics == mono.talk_metrics


def said(*phrases: tuple[int, int, int, str]) -> list[Phrase]:
    """Phrases of (channel, start_ms, end_ms, text)."""
    return [Phrase(*one) for one in phrases]


def lines(turns: list[Turn]) -> list[tuple[str, str, int, int]]:
    """Turns as (role, text, start_ms, end_ms)."""
    return [(turn.role, turn.text, turn.start_ms, turn.end_ms) for turn in turns]


def test_stereo_turns() -> None:
    """One side's phrases are one turn until the other speaks or a pause longer than the limit; roles by channel."""
    turns = build_dialog(
        said((1, 0, 1000, "алло"), (1, 2500, 3000, "слушаю"), (0, 3100, 4000, "добрый день"), (1, 4200, 5000, "да"),
             (1, 6501, 7000, "говорите"), (0, 6600, 6700, " ")),
        channels=2, operator_channel=1,
    )  # fmt: skip
    assert lines(turns) == [
        ("operator", "алло слушаю", 0, 3000),
        ("client", "добрый день", 3100, 4000),
        ("operator", "да", 4200, 5000),
        ("operator", "говорите", 6501, 7000),
    ]


STORY = ((0, 0, 6000, "замер бесплатный"), (0, 6500, 9000, "мастер приедет завтра"))


def test_a_listener_does_not_cut_a_turn() -> None:
    """`Угу` said over the speaker is a turn of its own inside the speaker's, which goes on."""
    assert lines(build_dialog(said(*STORY, (1, 3000, 3400, "угу")), channels=2, operator_channel=0)) == [
        ("operator", "замер бесплатный мастер приедет завтра", 0, 9000),
        ("client", "угу", 3000, 3400),
    ]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((1, 3000, 4001, "угу"), "too long"),
        ((1, 3000, 3400, "дорого"), "not a listener's word"),
        ((1, 3000, 3400, "да да да да"), "too many words"),
        ((1, 6050, 6400, "да"), "in a pause: it may answer"),
        ((1, 5900, 6400, "да"), "at the end of a phrase: it may answer"),
    ],
)
def test_what_takes_over(words: tuple[int, int, int, str], why: str) -> None:
    """Whoever says more than `угу`, or says it where an answer may be meant, parts the other's phrases."""
    turns = build_dialog(said(*STORY, words), channels=2, operator_channel=0)
    assert [turn.role for turn in turns] == ["operator", "client", "operator"], why


def test_interjections_can_be_told_to_cut() -> None:
    """backchannel_ms 0 is the rule of before: whatever the other side says parts a turn."""
    turns = build_dialog(said(*STORY, (1, 3000, 3400, "угу")), channels=2, operator_channel=0, backchannel_ms=0)
    assert [turn.role for turn in turns] == ["operator", "client", "operator"]


def test_a_listener_who_goes_on_takes_over() -> None:
    """`Угу` followed by a question is one turn of the client, and the operator's next phrase is a new turn."""
    turns = build_dialog(
        said(*STORY, (1, 3000, 3400, "угу"), (1, 4000, 6200, "а сколько стоит")), channels=2, operator_channel=0
    )
    assert lines(turns) == [
        ("operator", "замер бесплатный", 0, 6000),
        ("client", "угу а сколько стоит", 3000, 6200),
        ("operator", "мастер приедет завтра", 6500, 9000),
    ]


def test_mono_phrases_stay_apart() -> None:
    """In mono each phrase may be another person, even at once: none are merged, and the portal's channels say nothing."""
    turns = build_dialog(
        said((0, 0, 1000, "алло"), (0, 900, 2000, "добрый день"), (0, 2100, 2900, "угу")),
        channels=1,
        operator_channel=0,
    )
    assert [(turn.role, turn.text) for turn in turns] == [
        ("speaker", "алло"), ("speaker", "добрый день"), ("speaker", "угу"),
    ]  # fmt: skip


def test_times_that_cannot_be_are_put_right() -> None:
    """A phrase without length has its words' times; a word outside its phrase is moved to the edge; nothing is dropped."""
    no_times = Phrase(0, 0, 0, "алло да", (Word("алло", 700, 900), Word("да", 950, 1100)))
    outside = Phrase(0, 5000, 6000, "кто это", (Word("кто", 4900, 5100), Word("это", 5900, 6200)))
    backwards = Phrase(1, 9000, 8000, "гудок")
    turns = build_dialog([no_times, outside, backwards], channels=2, operator_channel=0)
    assert lines(turns) == [
        ("operator", "алло да", 700, 1100),
        ("operator", "кто это", 5000, 6000),
        ("client", "гудок", 9000, 9000),
    ]
    assert turns[1].words == (Word("кто", 5000, 5100), Word("это", 5900, 6000))
    assert turns[2].words == ()


def test_dual_mono_keeps_what_one_channel_missed() -> None:
    """Where the better heard channel has nothing, the other's phrase counts."""
    dialog = read(
        said((0, 0, 900, "окна север здравствуйте"), (1, 20, 900, "окна север"), (1, 3000, 3900, "здравствуйте")),
        audio_marks=["dual_mono"],
    )
    assert [(turn.role, turn.channel, turn.text) for turn in dialog.turns] == [
        ("speaker", 0, "окна север здравствуйте"),
        ("speaker", 0, "здравствуйте"),
    ]


def test_the_same_words_twice_are_dual_mono_without_being_told() -> None:
    """Recordings of before the channels were compared: phrase by phrase the same on both channels, at the same time."""
    once = [(0, 900, "окна север здравствуйте"), (1500, 3000, "добрый день мне нужно окно")]
    both = said(*((channel, *one) for channel in (0, 1) for one in once))
    assert read(both).marks == ["dual_mono", "mono"]
    assert len(read(both).turns) == 2
    moved = [replace(one, start_ms=one.start_ms + 400 * one.channel) for one in both]
    assert "dual_mono" not in read(moved).marks
    assert "dual_mono" not in read(said((0, 0, 500, "алло"), (1, 0, 500, "алло"))).marks


@pytest.mark.parametrize(
    ("spoken", "channels", "marks"),
    [
        ([], 2, []),
        ([(0, 0, 900, "окна север добрый день"), (1, 1000, 1900, "здравствуйте")], 2, []),
        ([(0, 0, 900, "алло"), (0, 3000, 3900, "алло вас не слышно")], 2, ["one_sided"]),
        ([(0, 0, 900, "алло"), (0, 3000, 3900, "алло вас не слышно")], 1, ["mono"]),
        ([(1, 0, 4000, "абонент недоступен оставьте сообщение после сигнала")], 2, ["one_sided", "voicemail"]),
        ([(0, 0, 900, "алло"), (1, 500, 4000, "вы позвонили на автоответчик")], 2, ["voicemail"]),
        ([(0, 0, 900, "окна север слушаю"), (1, 1000, 1900, "где мои окна блядь")], 2, ["profanity"]),
        ([(1, 0, 900, "окна север слушаю вас"), (0, 1000, 1900, "хочу заказать окно")], 2, ["roles_disagree"]),
    ],
)
def test_marks(spoken: list[tuple[int, int, int, str]], channels: int, marks: list[str]) -> None:
    """What a reader must know before trusting the words."""
    assert read(said(*spoken), channels).marks == marks


def test_a_machine_has_no_role_to_be_wrong_about() -> None:
    """What an announcement says is no evidence for the channels."""
    dialog = read(said((1, 0, 4000, "окна север сейчас не может ответить на ваш звонок")))
    assert dialog.role_check is None
    assert "voicemail" in dialog.marks


BEFORE = """[{"role": "operator", "channel": 0, "start_ms": 120, "end_ms": 900, "text": "добрый день",
    "words": [{"text": "добрый", "start_ms": 120, "end_ms": 500}, {"text": "день", "start_ms": 500, "end_ms": 900}]},
    {"role": "client", "channel": 1, "start_ms": 1000, "end_ms": 2000, "text": "мне нужно окно", "words": []}]"""


def test_dialogs_of_before_stay_what_they_are() -> None:
    """Rows written by the first release are read, and have the key that the steps after them remember: else all is bought again."""
    turns = [Turn.from_json(turn) for turn in json.loads(BEFORE)]
    assert turns_key(turns) == "28c6e49f688fd3bafc6fadcd851127af23453fd4c9f2f44d103810f844a46956"
    again = build_dialog(
        [Phrase(turn.channel, turn.start_ms, turn.end_ms, turn.text, turn.words) for turn in turns],
        channels=2, operator_channel=0,
    )  # fmt: skip
    assert turns_key(again) == turns_key(turns)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared sample audio is not here")
def test_the_call_of_known_turns() -> None:
    """A real recording whose turns are known: seven turns, one begun half a second before the other's end."""
    known = json.loads((SHARED / "call_stereo_8k.turns.json").read_text())
    dialog = read(
        [
            Phrase(turn["channel"], round(turn["start"] * 1000), round(turn["end"] * 1000), f"слово {place}")
            for place, turn in enumerate(known["turns"])
        ],
        duration_s=known["duration"],
    )
    assert [turn.channel for turn in dialog.turns] == [turn["channel"] for turn in known["turns"]]
    figures = dialog.talk_metrics
    assert (figures["interruptions_operator"], figures["interruptions_client"]) == (0, 1)
    assert (figures["reaction_median_s_operator"], figures["reaction_max_s_client"]) == (0.4, 0.4)
    assert (figures["longest_monologue_s"], figures["longest_pause_s"]) == (7.4, 0.4)
    assert dialog.marks == []
    assert dialog.role_check is not None
    assert dialog.role_check.verdict == "unclear"


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
