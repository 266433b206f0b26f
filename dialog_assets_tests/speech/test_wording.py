"""What words tell: profanity and its innocent neighbours, announcements and people who sound like them."""

from __future__ import annotations

import pytest

from dialog_assets.dialogs import Role, Turn
from dialog_assets.sandbox.world.loader import load_world
from dialog_assets.speech.wording import is_announcement, is_listening, profanity_count

PROFANE = """
хуй нахуй похуй хуйня охуел охуеть хуево нихуя дохуя хули пизда пиздец распиздяй спиздили ебать ебаный заебал наебали
выебывается доебался отъебись уебок ебало еблан ебучий проебали долбоеб ебнулся бля блять блядь блядский мудак мудила
пидор пидорас пидр сука сукин гондон залупа дрочить шлюха говно говенный жопа насрать обосрался херня нахер херово ЁБАНЫЙ
"""
CLEAN = """
себе тебе хлеба учеба мебель мебели колебания страхую страхуй подстрахуй застрахуй психуй плохую сухую глухую лихую хулиган
мудрый мудро педикюр педикулез мандарин мандат рубля рублях сабля оскорблять употреблять херсон херувим екатеринбург ебург
ебитда команда скипидар помидор небеса ребят ребенок ухудшить худой хуже хутор сучок сучков суккулент сукно бляха зебра
вебинар дебет требует погреб говор говорю говение похудеть охват срам срок срочно хурма победа обеды себестоимость
корабля дубля вафля ансамбля грабля дебил дурак идиот блин хрен черт
"""


@pytest.mark.parametrize("word", PROFANE.split())
def test_profane(word: str) -> None:
    """The common forms are found, ё or е, whatever the case."""
    assert profanity_count(f"да {word} же") == 1


@pytest.mark.parametrize("word", CLEAN.split())
def test_clean(word: str) -> None:
    """Words that only contain the letters are left alone; so are rude ones that are not profane."""
    assert profanity_count(f"да {word} же") == 0


def test_the_recognisers_own_filter_counts() -> None:
    """With profanity_filter the first letter stays and asterisks follow; a lone asterisk is no word."""
    assert profanity_count("ну и х** с ним, б****!") == 2
    assert profanity_count("нажмите * или 5*3, звёздочка ** и ***") == 0


def test_the_sandbox_world_is_clean() -> None:
    """Nobody swears in the written calls, angry as some are."""
    for script in load_world().scripts.values():
        for turn in script.turns:
            assert profanity_count(turn.heard) == profanity_count(turn.text) == 0, turn.text


def dialog(*lines: tuple[Role, str]) -> list[Turn]:
    """Turns one second after another."""
    return [
        Turn(role, {"operator": 0, "client": 1, "speaker": 0}[role], place * 1000, place * 1000 + 900, text)
        for place, (role, text) in enumerate(lines)
    ]


@pytest.mark.parametrize(
    "turns",
    [
        dialog(("client", "абонент не отвечает или временно недоступен попробуйте позвонить позднее")),
        dialog(("client", "Аппарат вызываемого абонента выключен"), ("client", "или находится вне зоны действия сети")),
        dialog(("speaker", "здравствуйте вы позвонили на автоответчик"), ("speaker", "говорите после сигнала")),
        dialog(
            ("operator", "алло"),
            ("client", "Оставьте, пожалуйста, сообщение после сигнала."),
            ("operator", "алло вы тут"),
        ),
        dialog(("client", "набранный вами номер не существует")),
        dialog(("client", "сейчас я не могу ответить на ваш звонок")),
    ],
)
def test_machines(turns: list[Turn]) -> None:
    """Answering machines and the network's announcements, in stereo, mono, and with an `алло` into them."""
    assert is_announcement(turns)


@pytest.mark.parametrize(
    "turns",
    [
        [],
        dialog(("operator", "алло"), ("client", "перезвоните позже я занят")),
        dialog(("client", "он сейчас не может подойти к телефону"), ("operator", "хорошо")),
        dialog(
            ("operator", "я вам звонил вчера там автоответчик"),
            ("client", "да я видел пропущенный простите не мог взять трубку"),
        ),
        dialog(
            ("operator", "окна север здравствуйте чем помочь"), ("client", "у вас абонент недоступен был весь день")
        ),
        dialog(("client", "автоответчик " + "слово " * 60)),
    ],
)
def test_people(turns: list[Turn]) -> None:
    """People who speak of machines, or like them, are no machines."""
    assert not is_announcement(turns)


def test_every_announcement_of_the_world_is_told() -> None:
    """The written calls: both voicemails are machines, no spoken call is."""
    machines = {
        script.name
        for script in load_world().scripts.values()
        if is_announcement(dialog(*((turn.speaker, turn.heard) for turn in script.turns)))
    }
    assert machines == {"okna_avtootvetchik", "avto_avtootvetchik"}


def test_listening() -> None:
    """One to three listener's words within the length, with any punctuation."""
    assert is_listening(Turn("client", 1, 0, 1000, "Да-да? Угу."), 1000) is False
    assert is_listening(Turn("client", 1, 0, 1000, "Да, да, угу."), 1000)
    assert not is_listening(Turn("client", 1, 0, 1001, "угу"), 1000)
    assert not is_listening(Turn("client", 1, 0, 0, "—"), 1000)
