"""What Russian words tell by themselves: a listener's interjection, an answering machine, profanity.

Here: word lists and patterns, each with what it must not catch. Not here: who operator is (`roles.py`), and any model:
these decide marks and figures, never what a text says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dialog_assets.dialogs import Turn

_TOKEN = re.compile(r"\w+(?:-\w+)*")

LISTENING = frozenset(
    _TOKEN.findall(
        "угу ага угум мгм мм ммм м эм э да так ну хорошо понятно ясно понял поняла ок окей конечно верно точно правильно вот"
    )
)
"""What a listener says while the other side goes on. None of them answers a question by more than yes."""

LISTENING_WORDS = 3

_ANNOUNCEMENT = re.compile(
    r"""
    \bавтоответчик
    | \bабонент\w*\ (?:сейчас\ |временно\ )?(?:не\ отвечает|недоступ|не\ доступ|занят|выключен)
    | \b(?:аппарат|телефон)\ (?:вызываемого\ )?абонента\b
    | \bвне\ зоны\ (?:действия|доступа|обслуживания)
    | \bоставьте\ (?:ваше\ |свое\ |голосовое\ |пожалуйста\ )*сообщение
    | \bпосле\ (?:звукового\ |длинного\ )?(?:сигнала|гудка)\b
    | \bне\ могу\ (?:сейчас\ )?(?:подойти\ к\ телефону|ответить\ на\ (?:ваш\ )?звонок)
    | \bне\ может\ (?:сейчас\ )?ответить\ на\ (?:ваш\ )?звонок
    | \bголосов\w+\ (?:почт|ящик)
    | \bнабранн\w+\ (?:вами\ )?номер | \bнабранный\ вами\b
    | \bномер\ (?:не\ существует|не\ обслуживается|временно\ (?:не\ обслуживается|заблокирован))
    """,
    re.VERBOSE,
)
"""Answering machines and the network's announcements. Not `перезвоните позже` nor `вы позвонили в`: people say these too."""

ANNOUNCEMENT_WORDS = 60
REPLY_WORDS = 4

_PROFANE = re.compile(
    r"""
    (?:за|на|по|до|ни|от|о|при|рас|вы|не|недо|пере|у|с)?ху(?:[йюя]\w* | е[втсмл]\w* | и[нлтс]\w* | ев\w* | л[ие]$)
    | \w*пизд\w*
    | (?:вы|за|до|на|об[ъь]?|отъ?|по|подъ?|при|про|разъ?|съ|въ|изъ|у|о|недо|пере|долбо)?
        еб(?!ург|итд)(?:$|а$|ы|н|а[тнлшвх]|и[тсщмш]|у[чтнкл]|л[аоияну]|о[шнк]|ут|у$|ет|ешь|ырь)\w*
    | (?:вы)?бля(?:$|[дт]\w*)
    | муд(?:ак|ач|ил|озв|оеб)\w*
    | п[ие]д[оа]р(?!ок)\w* | пидр\w* | педик(?:[аеиу]|о[вм]|ам|ами|ах)?
    | сук(?:[аиу]|ой|ин\w*) | суч(?:ар\w+|ий|ья|ье)
    | г[ао]ндон\w* | залуп\w* | \w*дроч\w* | шлюх\w* | манд(?:[ауе]|ой|авошк\w*)
    | г[оа]в(?:е?нн|н)\w* | жоп\w*
    | (?:на|обо?|по|за|про|у)?ср(?:ать(?:ся)?|ал\w*|ан\w+)
    | (?:на|по|ни|до)?хер(?:[ауя]|ом|н[яюие]|ней|нов\w+|ов[оы]\w*|ач\w+)?
    """,
    re.VERBOSE,
)
"""Whole words, ё as е. Anchored, so that себе, тебе, хлеба, рубля, колебание, страхуй, плохую, скипидар, мандарин stay clean."""

_CENSORED = re.compile(r"(?<!\w)[А-Яа-яЁё]\*{2,}")


def tokens(text: str) -> list[str]:
    """The words of `text` in lower case, ё as е, without punctuation."""
    return _TOKEN.findall(text.lower().replace("ё", "е"))


def is_listening(turn: Turn, longest_ms: int) -> bool:
    """Whether `turn` is one to three words of LISTENING, not longer than `longest_ms`."""
    if turn.end_ms - turn.start_ms > longest_ms:
        return False
    words = tokens(turn.text)
    return 0 < len(words) <= LISTENING_WORDS and LISTENING.issuperset(words)


def is_announcement(turns: Sequence[Turn]) -> bool:
    """Whether all that is said in a call is a machine's: an answering machine's greeting or the network's announcement.

    Told by its words, conservatively: one channel says at most ANNOUNCEMENT_WORDS words with a phrase that only machines
    say, the other at most REPLY_WORDS (an `алло, алло?` into it).
    """
    said: dict[int, list[str]] = {}
    for turn in turns:
        said.setdefault(turn.channel, []).extend(tokens(turn.text))
    machines = [
        channel
        for channel, words in said.items()
        if len(words) <= ANNOUNCEMENT_WORDS and _ANNOUNCEMENT.search(" ".join(words))
    ]
    return any(
        all(len(words) <= REPLY_WORDS for channel, words in said.items() if channel != machine) for machine in machines
    )


def profanity_count(text: str) -> int:
    """How many words of `text` are profane, or were made unreadable by the recogniser's own filter (`б***`).

    Coarse insults (дурак, идиот) are not counted: they are rude, not profane.
    """
    plain = sum(1 for word in tokens(text) if _PROFANE.fullmatch(word))
    return plain + len(_CENSORED.findall(text))
