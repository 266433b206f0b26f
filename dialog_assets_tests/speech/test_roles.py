"""The roles that channels give, held against the words: written calls, other openings, and both the wrong way round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from dialog_assets.bitrix24.rows import call_row
from dialog_assets.dialogs import Role, Turn
from dialog_assets.portals import Portal
from dialog_assets.sandbox.world.loader import load_world
from dialog_assets.speech.roles import EVIDENCE, RoleCheck, check_roles

OTHER: dict[Role, Role] = {"operator": "client", "client": "operator"}


def turns(*lines: str, swapped: bool = False) -> list[Turn]:
    """Turns of `o: …` and `c: …`; swapped: with the other side's role."""
    roles: dict[str, Role] = {"o": "operator", "c": "client"}
    return [
        Turn(
            OTHER[roles[line[0]]] if swapped else roles[line[0]], 0, place * 1000, place * 1000 + 900, line[2:].strip()
        )
        for place, line in enumerate(lines)
    ]


def world_calls(portals: list[Portal], *, swapped: bool = False) -> Iterator[tuple[str, RoleCheck]]:
    """Every spoken call of the sandbox's week as the recogniser hears it, with the check of its roles."""
    titles = {portal.portal: portal.title for portal in portals}
    for portal in load_world().portals.values():
        for call in portal.calls:
            if call.recording is None or call.recording.content != "speech":
                continue
            heard = [f"{turn.speaker[0]}:{turn.heard}" for turn in call.recording.turns]
            direction = call_row(call.fields).direction
            yield (
                f"{portal.portal} {call.id}",
                check_roles(turns(*heard, swapped=swapped), direction, [titles[portal.portal]]),
            )


def test_every_written_call_agrees(portals: list[Portal]) -> None:
    """All 26 spoken calls of the week have evidence, and it is for the channels as they are."""
    assert Counter(check.verdict for _, check in world_calls(portals)) == {"agrees": 26}


def test_every_written_call_disagrees_when_swapped(portals: list[Portal]) -> None:
    """A portal whose channels are set the wrong way round is found by any of its calls."""
    assert Counter(check.verdict for _, check in world_calls(portals, swapped=True)) == {"disagrees": 26}


@pytest.mark.parametrize(
    ("direction", "company", "lines", "told"),
    [
        (
            "incoming",
            "Стройдвор",
            [
                "o: стройдвор добрый день",
                "c: добрый день девушка мне бы цемент есть у вас марки пятьсот",
                "o: есть сколько мешков вам нужно",
            ],
            True,
        ),
        (
            "incoming",
            "Стройдвор",
            ["o: алло", "c: алло это стройдвор", "o: да стройдвор слушаю вас", "c: скажите вы песок возите"],
            True,
        ),
        (
            "incoming",
            "Стройдвор",
            [
                "c: алло здравствуйте",
                "o: здравствуйте",
                "c: это магазин стройдвор",
                "o: да слушаю",
                "c: я заказывал у вас кирпич три дня назад где он",
            ],
            False,
        ),
        (
            "incoming",
            "Клиника Доброе сердце",
            [
                "o: клиника доброе сердце администратор ольга здравствуйте",
                "c: здравствуйте ольга запишите меня пожалуйста к терапевту",
                "o: на какое число вам удобно",
            ],
            True,
        ),
        (
            "incoming",
            "Клиника Доброе сердце",
            [
                "o: здравствуйте меня зовут ирина чем могу помочь",
                "c: ирина здравствуйте меня зовут петр я хотел бы узнать результаты анализов",
            ],
            True,
        ),
        (
            "incoming",
            "Клиника Доброе сердце",
            [
                "c: здравствуйте я попал в доброе сердце",
                "o: да здравствуйте администратор наталья слушаю",
                "c: мне нужно отменить запись",
            ],
            True,
        ),
        (
            "incoming",
            "Пицца Слон",
            ["o: пицца слон оператор максим", "c: мне большую пепперони и колу", "o: адрес пожалуйста"],
            True,
        ),
        (
            "incoming",
            "Пицца Слон",
            ["o: да", "c: здравствуйте а вы пиццу доставляете", "o: доставляем назовите адрес"],
            True,
        ),
        (
            "outgoing",
            "Пицца Слон",
            ["c: алло", "o: здравствуйте это пицца слон курьер подъезжает", "c: ага спасибо"],
            True,
        ),
        (
            "outgoing",
            "Пицца Слон",
            [
                "c: слушаю",
                "o: алло добрый вечер вы оставляли заказ на сайте пицца слон хочу уточнить адрес",
                "c: да верно",
            ],
            True,
        ),
        (
            "outgoing",
            "Автоцентр Лидер",
            [
                "c: да алло",
                "o: сергей здравствуйте меня зовут кирилл автоцентр лидер вам удобно сейчас говорить",
                "c: да говорите",
            ],
            True,
        ),
        (
            "outgoing",
            "Автоцентр Лидер",
            [
                "o: алло сергей петрович",
                "c: да",
                "o: это из автоцентра лидер вас беспокоят по поводу вашей машины",
                "c: ну что там сколько стоить будет",
            ],
            True,
        ),
        (
            "outgoing",
            "Автоцентр Лидер",
            [
                "c: да слушаю вас",
                "o: добрый день компания лидер меня зовут анна вы интересовались кредитом",
                "c: мне не нужно спасибо",
            ],
            True,
        ),
        (
            "outgoing",
            "Автоцентр Лидер",
            [
                "c: алло",
                "o: здравствуйте звоню вам сказать что машина готова",
                "c: ой хорошо а во сколько можно забрать",
            ],
            True,
        ),
        (
            "callback",
            "Окна Север",
            [
                "o: да слушаю",
                "c: здравствуйте это окна север",
                "o: да окна север дмитрий слушаю вас",
                "c: хочу узнать сколько стоит остеклить лоджию",
            ],
            True,
        ),
        (
            "callback",
            "Окна Север",
            [
                "o: добрый день вы заказывали звонок на сайте",
                "c: да заказывал мне нужно окно поменять",
                "o: подскажите какой у вас дом",
            ],
            True,
        ),
        (
            "redirected",
            "Юридическое бюро Закон",
            ["o: юрист слушаю", "c: здравствуйте меня перевели на вас у меня вопрос по наследству", "o: рассказывайте"],
            True,
        ),
        (
            "incoming",
            "Юридическое бюро Закон",
            [
                "o: здравствуйте вы позвонили в юридическое бюро закон разговор может быть записан",
                "c: здравствуйте мне звонили с этого номера",
                "o: минутку сейчас посмотрю назовите вашу фамилию",
            ],
            True,
        ),
        (
            "incoming",
            "Юридическое бюро Закон",
            [
                "o: бюро закон",
                "c: добрый день меня зовут елена компания ромашка хочу предложить вам канцтовары",
                "o: нам не нужно спасибо",
            ],
            False,
        ),
        (
            "incoming",
            "ООО «Ромашка»",
            [
                "o: ромашка добрый день",
                "c: здравствуйте ольга это иван я вам вчера звонил по поводу букета",
                "o: да иван помню",
            ],
            True,
        ),
        (
            "incoming",
            "ООО «Ромашка»",
            ["o: здравствуйте", "c: здравствуйте я хочу заказать ромашки сто одну штуку", "o: хорошо на какое число"],
            False,
        ),
        (
            "incoming",
            "Тёплый дом",
            [
                "o: теплый дом слушаем вас",
                "c: у меня котел не работает вы мне его ставили осенью",
                "o: какая модель котла",
            ],
            True,
        ),
        (
            "incoming",
            "Тёплый дом",
            ["c: алло теплый дом", "o: да здравствуйте", "c: у нас батареи холодные когда придет мастер"],
            False,
        ),
        (
            "incoming",
            "Тёплый дом",
            ["c: алло добрый день меня интересует теплый пол", "o: добрый день какая площадь", "c: двадцать метров"],
            False,
        ),
        (
            "outgoing",
            "Тёплый дом",
            ["c: алло", "o: здравствуйте мастер виктор теплый дом я подъехал к вашему подъезду", "c: сейчас открою"],
            True,
        ),
        (
            "outgoing",
            "Тёплый дом",
            [
                "o: здравствуйте",
                "c: здравствуйте",
                "o: это елена вы у нас котел заказывали",
                "c: да заказывала а когда его привезут мне обещали в среду",
            ],
            False,
        ),
        ("info", "Тёплый дом", ["o: здравствуйте это теплый дом напоминаем о визите мастера", "c: хорошо"], True),
        (
            "incoming",
            "Салон Лаванда",
            ["o: салон лаванда алина", "c: алина привет запиши меня на маникюр", "o: привет давай посмотрю на пятницу"],
            True,
        ),
        (
            "incoming",
            "Салон Лаванда",
            ["o: да лаванда", "c: здравствуйте я хотела перенести запись", "o: на какое имя запись"],
            True,
        ),
        (
            "outgoing",
            "Салон Лаванда",
            [
                "c: алло кто это",
                "o: салон лаванда вы записаны на завтра на три часа подтверждаете",
                "c: да подтверждаю",
            ],
            True,
        ),
    ],
)
def test_other_openings(direction: str, company: str, lines: list[str], *, told: bool) -> None:
    """Openings of other trades, many with little to go by: never the wrong verdict, and none where one cannot tell."""
    for swapped, verdict in ((False, "agrees"), (True, "disagrees")):
        check = check_roles(turns(*lines, swapped=swapped), direction, [company])
        assert check.verdict == (verdict if told else "unclear"), check.evidence


def test_the_evidence_says_where_and_why() -> None:
    """Each sign names its turn, the side that says it, whom it speaks for, the words and the points; they add up."""
    said = turns("c: окна север меня зовут анна чем могу помочь", "o: сколько стоит окно")
    check = check_roles(said, "incoming", ["ООО «Окна Север»"])
    assert check.verdict == "disagrees"
    assert [(one["line"], one["said_by"], one["speaks_for"], one["sign"], one["points"], one["words"])
            for one in check.as_json()["evidence"]] == [
        ("L001", "client", "operator", "offers_help", 4, "чем могу помочь"),
        ("L001", "client", "operator", "introduces_itself", 1, "меня зовут анна"),
        ("L001", "client", "operator", "names_the_company", 4, "окна север"),
        ("L001", "client", "operator", "speaks_first", 1, "окна север меня"),
        ("L002", "operator", "client", "asks_the_price", 2, "сколько стоит"),
    ]  # fmt: skip
    assert (check.points_for, check.points_against) == (0, 12)


@pytest.mark.parametrize(
    "heard", ["окно север", "окна север", "окнасевер", "окнах севера", "окна се вер", "акна север"]
)
def test_a_name_misheard(heard: str) -> None:
    """The recogniser's case endings, joined and parted words are the name still."""
    assert check_roles(turns(f"o: {heard} добрый день"), "incoming", ["Окна Север"]).verdict == "agrees"


@pytest.mark.parametrize("heard", ["окна", "северные окна", "двери север", "окна запад"])
def test_another_name(heard: str) -> None:
    """Half a name or another one is none."""
    check = check_roles(turns(f"o: {heard} добрый день"), "incoming", ["Окна Север"])
    assert "names_the_company" not in {one.sign for one in check.evidence}


def test_another_name_that_operators_use() -> None:
    """A brand beside the title counts when it is configured."""
    said = turns("o: теплодом добрый день", "c: здравствуйте")
    assert check_roles(said, "incoming", ["Окна Север"]).verdict == "unclear"
    assert check_roles(said, "incoming", ["Окна Север", "Тёплый дом", "Теплодом"]).points_for == 3


def test_one_weak_sign_is_no_verdict() -> None:
    """A verdict takes EVIDENCE points, so that no single small sign makes one."""
    check = check_roles(turns("c: добрый день", "o: добрый день"), "incoming", ["Окна Север"])
    assert 0 < check.points_against < EVIDENCE
    assert check.verdict == "unclear"


def test_only_the_beginning_counts() -> None:
    """Later on a client may offer help and an operator ask for prices: these say nothing of the channels."""
    talk = ["o: добрый день", "c: добрый день", *["o: так", "c: да"] * 3, "c: чем могу помочь окна север"]
    assert check_roles(turns(*talk), "outgoing", ["Окна Север"]).evidence == ()
    assert check_roles([], "incoming", ["Окна Север"]) == RoleCheck("unclear", 0, 0, ())
