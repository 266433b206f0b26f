"""Whether the words of a stereo call fit the roles that its channels were given. Pure functions.

Here: signs in the first turns that tell operator from client, their points, and the verdict with its evidence.
Not here: who is on which channel (the portal's configuration), and the sides of a mono recording (the correction's).

A recording does not say which channel is the operator's, and a wrong setting swaps both sides of every call. Operators
say what clients do not (the company's name in a greeting, an offer of help), and the other way round (a wish, a question
for the price). Each sign has points by how seldom the other side says it; points for the roles as they are minus points
against them, at least EVIDENCE either way, is a verdict. The signs see a recogniser's text: lower case, no punctuation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rapidfuzz import fuzz

from dialog_assets.dialogs import Role, Turn, line_id
from dialog_assets.speech.wording import tokens

Verdict = Literal["agrees", "disagrees", "unclear"]
Side = Literal["operator", "client"]

OPENING_TURNS = 8
"""Turns of both sides together that are looked at: later on, both sides ask, promise and name the company."""

OPENING_WORDS = 40
"""Words of one turn that are looked at."""

EVIDENCE = 3
"""Points that a verdict takes: more than one weak sign."""

NAME_WITHIN = 10
"""Words from a turn's start within which a company's name belongs to the greeting."""

NAME_LIKENESS = 85.0
"""Letters in common, in percent, at which heard words are the name: a case ending or a misheard letter is allowed."""

_LEGAL_FORMS = frozenset(["ооо", "оао", "зао", "пао", "ао", "ип", "нко", "тоо"])
_CALLED_BY_THEM = frozenset({"incoming", "redirected"})
_ASKING = frozenset(["вы", "мне", "нам", "нас", "звонили", "звонил", "звонила", "попал", "попала"])
_NO_GREETING = frozenset(["в", "во", "у", "про"])
_KINDS = frozenset(["компания", "компании", "компанию", "фирма", "фирмы", "фирму", "магазин", "салон"])
_HELLO = frozenset(["алло", "ало", "алле", "але"])
_ANSWERING = _HELLO | frozenset(["да", "слушаю", "вас", "говорите", "здравствуйте", "добрый", "день"])


@dataclass(frozen=True, slots=True)
class Evidence:
    """One sign: in turn `line`, said by the side that the channel names, `words` are what `speaks_for` says."""

    line: str
    said_by: Role
    speaks_for: Side
    sign: str
    points: int
    words: str


@dataclass(frozen=True, slots=True)
class RoleCheck:
    """The verdict on a call's roles, the points for and against them, and what they were given for."""

    verdict: Verdict
    points_for: int
    points_against: int
    evidence: tuple[Evidence, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain dicts and lists for a JSON column."""
        return asdict(self) | {"evidence": [asdict(one) for one in self.evidence]}


@dataclass(frozen=True, slots=True)
class _Sign:
    """A pattern over a turn's words; `calls`: in calls to the company, from it, or both; `turns`: of a side's first ones."""

    name: str
    speaks_for: Side
    points: int
    pattern: re.Pattern[str]
    calls: Literal["in", "out", "both"] = "both"
    turns: int = OPENING_TURNS


def _sign(name: str, speaks_for: Side, points: int, pattern: str, **limits: Any) -> _Sign:
    return _Sign(name, speaks_for, points, re.compile(rf"\b(?:{pattern})\b"), **limits)


_SIGNS = (
    _sign(
        "offers_help",
        "operator",
        4,
        r"чем (?:я )?(?:могу|можем|смогу|сможем)?(?: я)?(?: вам| тебе)?(?: быть)? ?(?:помочь|полез\w+)"
        r"|(?:могу|можем) (?:я |вам |чем |то |еще )+помочь",
    ),
    _sign("listens", "operator", 2, r"слушаю вас|вас слушаю|слушаю", calls="in", turns=1),
    _sign("introduces_itself", "operator", 1, r"меня зовут \w+", calls="in", turns=1),
    _sign("introduces_itself", "operator", 2, r"меня зовут \w+", calls="out", turns=2),
    _sign("calls_on_behalf", "operator", 3, r"вас (?:беспокои\w+|приветству\w+)|вам звон(?:ю|ит|ят)"),
    _sign(
        "asks_for_a_moment",
        "operator",
        3,
        r"(?:удобно|можете|сможете)(?: ли)?(?: вам)?(?: сейчас)? (?:говорить|разговаривать|пообщаться|общаться)",
    ),
    _sign(
        "refers_to_a_request",
        "operator",
        3,
        r"вы (?:\w+ ){0,4}(?:оставляли|оставили|просили|обращались)|по (?:поводу )?ваше(?:й|му|го) \w+",
        turns=3,
    ),
    _sign(
        "names_a_post",
        "operator",
        2,
        r"(?<!мне )(?<!нужен )(?<!нужна )(?<!нужно )(?<!ваш )(?<!с )(?<!со )"
        r"(?:отдел(?:е)? (?:продаж\w*|качества|доставки|кадров|заботы|сервиса)"
        r"|служба (?:качества|поддержки|доставки|заботы|сервиса)"
        r"|(?:ночной |старший |дежурный )?(?:диспетчер|менеджер|оператор|администратор|консультант|специалист|мастер)"
        r"|(?:авто)?сервис|магазин|салон|клиника|ресепшен|приемная)",
        turns=1,
    ),
    _sign(
        "asks_for_details",
        "operator",
        2,
        r"(?:назовите|продиктуйте|напомните|подскажите|скажите|уточните) (?:мне )?(?:пожалуйста )?"
        r"(?:ваш\w*|номер|фамилию|адрес|имя|телефон)"
        r"|как (?:я )?(?:могу |можно |мне )?к вам (?:могу |можно )?обращаться|(?:как|и как) вас зовут"
        r"|оставайтесь на линии|ожидайте|разговор (?:записывается|может быть записан)",
    ),
    _sign(
        "states_a_wish",
        "client",
        2,
        r"(?:хочу|хотим|хотел\w*)(?: бы)?(?: \w+){0,2} \w+(?:ть|ться|чь|сти)|мне (?:бы|нужн\w+|надо)|нам (?:бы|нужн\w+|надо)",
        calls="in",
        turns=2,
    ),
    _sign(
        "asks_the_price",
        "client",
        2,
        r"сколько (?:\w+ ){0,3}(?:стоит|стоят|стоить|обойдется)|почем|(?:какая|какие) (?:у вас )?цен\w",
        turns=2,
    ),
    _sign(
        "asks_what_is_offered",
        "client",
        2,
        r"подскажите (?:пожалуйста )?(?:а )?(?:сколько|когда|можно|есть ли|у вас|вы|как можно)|у вас (?:есть|можно)",
        calls="in",
        turns=2,
    ),
    _sign(
        "speaks_of_its_order",
        "client",
        2,
        r"я (?:\w+ ){0,2}(?:заказ(?:ал|ывал)|купил|покупал|оставлял|записывал|оформлял)\w*"
        r"|вы (?:мне|нам) \w+|мне (?:\w+ ){0,3}(?:постав|установ|прислал|привезли|сказали|обещали|звонили)\w*"
        r"|это снова|моя фамилия|у меня (?:\w+ ){0,2}(?:вопрос|проблема|заказ|сломал\w+|не работает)",
        turns=2,
    ),
)


def check_roles(turns: Sequence[Turn], direction: str, company_names: Sequence[str]) -> RoleCheck:
    """Weigh what both sides of a stereo call say in its first turns against the roles that they have.

    turns: of roles operator and client, in order of time. direction: of the call, as table calls has it; a callback
    begins like an incoming call, its operator being rung first. company_names: as people say them.
    """
    evidence: list[Evidence] = []
    spoken: dict[Role, int] = {}
    names = [name for name in map(_name_words, company_names) if name]
    outgoing = direction == "outgoing"
    for index, turn in enumerate(turns[:OPENING_TURNS]):
        words = tokens(turn.text)[:OPENING_WORDS]
        place = spoken[turn.role] = spoken.get(turn.role, 0) + 1
        found = [*_signs(" ".join(words), place, outgoing=outgoing)]
        if place <= 2:
            found += _company_named(words, names, direction)
        if index == 0:
            found += _first_words(words, outgoing=outgoing)
        evidence += [
            Evidence(line_id(index), turn.role, side, sign, points, said) for sign, side, points, said in found
        ]
    points_for = sum(one.points for one in evidence if one.said_by == one.speaks_for)
    points_against = sum(one.points for one in evidence if one.said_by != one.speaks_for)
    verdict: Verdict = "unclear"
    if points_for - points_against >= EVIDENCE:
        verdict = "agrees"
    elif points_against - points_for >= EVIDENCE:
        verdict = "disagrees"
    return RoleCheck(verdict, points_for, points_against, tuple(evidence))


_Found = tuple[str, Side, int, str]
"""Sign, whom it speaks for, points, words."""


def _signs(text: str, place: int, *, outgoing: bool) -> Iterator[_Found]:
    for sign in _SIGNS:
        fits = sign.calls == "both" or (sign.calls == "out") == outgoing
        match = sign.pattern.search(text) if fits and place <= sign.turns else None
        if match:
            yield sign.name, sign.speaks_for, sign.points, match.group()


def _first_words(words: Sequence[str], *, outgoing: bool) -> Iterator[_Found]:
    """Who speaks first: in a call to the company its operator, in a call from it the client with an `алло`."""
    if not outgoing:
        yield "speaks_first", "operator", 1, " ".join(words[:3])
    elif words and _ANSWERING.issuperset(words) and not {*_HELLO, "слушаю"}.isdisjoint(words):
        yield "answers_the_ring", "client", 3, " ".join(words)


def _company_named(words: Sequence[str], names: Sequence[tuple[str, ...]], direction: str) -> Iterator[_Found]:
    """The company's name near the start of a turn: a greeting, unless the words before it make it a question."""
    for name in names:
        found = _place_of(name, words[:NAME_WITHIN])
        if found is None:
            continue
        start, end = found
        before = [word for word in words[:start] if word not in _KINDS][-3:]
        said = " ".join(words[max(0, start - 2) : end])
        theirs = direction in _CALLED_BY_THEM
        if not _NO_GREETING.isdisjoint(before[-1:]) or (theirs and not _HELLO.isdisjoint(before[-1:])):
            # `В окна север звонил`, and `алло, окна север` with which either side may begin.
            return
        if not _ASKING.isdisjoint(before) or (theirs and before[-1:] == ["это"]):
            yield "asks_for_the_company", "client", 2, said
        else:
            yield "names_the_company", "operator", 4 if len(name) > 1 else 2, said
        return


def _name_words(name: str) -> tuple[str, ...]:
    return tuple(word for word in tokens(name) if word not in _LEGAL_FORMS)


def _place_of(name: Sequence[str], words: Sequence[str]) -> tuple[int, int] | None:
    """Where the words that sound most like the name begin and end; the recogniser may join them or part them."""
    wanted = "".join(name)
    best: tuple[float, int, int] | None = None
    for length in range(max(1, len(name) - 1), len(name) + 2):
        for start in range(len(words) - length + 1):
            likeness = fuzz.ratio(wanted, "".join(words[start : start + length]))
            if likeness >= NAME_LIKENESS and (best is None or likeness > best[0]):
                best = likeness, start, start + length
    return best and best[1:]
