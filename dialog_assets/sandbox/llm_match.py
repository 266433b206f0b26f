"""Which script a prompt's dialog comes from, and which true words its words stand for.

Here: words, comparing dialogs, aligning recogniser text with the truth. Not here: what is answered about the dialog.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Literal

from dialog_assets.sandbox.world.model import Script, ScriptTurn

Speaker = Literal["operator", "client"]

_PLACEHOLDER = re.compile(r"\[[A-ZА-ЯЁ]+_\d+\]")
_NOT_A_WORD = re.compile(r"\W+")
_TRAILING = re.compile(r"[.,!?…:;]+$")

RECOGNISED_FROM = 0.35
"""Weighted share of a dialog's word pairs that a script must have to be taken for its script."""


@dataclass(frozen=True)
class DialogLine:
    """A line of a prompt's dialog; `speaker` is None where the prompt marks it ГОЛОС."""

    id: str
    speaker: Speaker | None
    text: str


@dataclass(frozen=True)
class Token:
    """A word as written, with the punctuation around it, and its form for comparison."""

    text: str
    norm: str

    @property
    def masked(self) -> bool:
        """Whether it is a placeholder such as [ИМЯ_1], which must stay as it is."""
        return self.norm.startswith("[")


@dataclass(frozen=True)
class HeardWord:
    """A word that the recogniser heard in turn `turn`, and the true words that it stands for, with their punctuation."""

    norm: str
    truth: tuple[str, ...]
    turn: int


@dataclass(frozen=True)
class AlignedWord:
    """A word of a prompt's line with the true words for it and their turn; `turn` None: the script has nothing for it."""

    token: Token
    line: int
    truth: tuple[str, ...]
    turn: int | None


def tokens(text: str) -> list[Token]:
    """The words of `text`; a dash that stands alone goes with the word before it."""
    found: list[Token] = []
    prefix = ""
    for piece in text.split():
        placeholder = _PLACEHOLDER.search(piece)
        norm = placeholder.group() if placeholder else _NOT_A_WORD.sub("", piece.lower().replace("ё", "е"))
        if norm:
            found.append(Token(prefix + piece, norm))
            prefix = ""
        elif found:
            found[-1] = Token(f"{found[-1].text} {piece}", found[-1].norm)
        else:
            prefix += f"{piece} "
    return found


def heard_words(turn: ScriptTurn, index: int) -> list[HeardWord]:
    """The recogniser's words of one turn; together their truths are the turn's whole text."""
    heard, true = tokens(turn.heard), tokens(turn.text)
    if not heard:
        return []
    truths: list[list[str]] = [[] for _ in heard]
    for tag, i1, i2, j1, j2 in _matcher(heard, true).get_opcodes():
        for j in range(j1, j2):
            if tag == "insert":
                truths[max(i1 - 1, 0)].append(true[j].text)
            else:
                truths[i1 + (j - j1) * (i2 - i1) // (j2 - j1)].append(true[j].text)
    return [HeardWord(token.norm, tuple(truth), index) for token, truth in zip(heard, truths, strict=True)]


class ScriptBook:
    """All scripts, ready to be compared with prompts."""

    def __init__(self, scripts: Iterable[Script]) -> None:
        self._scripts = {script.name: script for script in scripts}
        self._heard = {
            script.name: [word for index, turn in enumerate(script.turns) for word in heard_words(turn, index)]
            for script in self._scripts.values()
        }
        self._holders: dict[tuple[str, str], list[str]] = defaultdict(list)
        for script in self._scripts.values():
            for pair in _script_pairs(script):
                self._holders[pair].append(script.name)

    def find(self, lines: Sequence[DialogLine]) -> Script | None:
        """The script that these lines are a record of, or None. Pairs that many scripts share count little."""
        pairs = {pair for line in lines for pair in _pairs([token.norm for token in tokens(line.text)])}
        total = 0.0
        weights: dict[str, float] = defaultdict(float)
        for pair in sorted(pairs):
            if any(word.startswith("[") for word in pair):
                continue
            holders = self._holders.get(pair, [])
            weight = 1 / max(len(holders), 1)
            total += weight
            for name in holders:
                weights[name] += weight
        best = min(weights, key=lambda name: (-weights[name], name), default=None)
        if best is None or weights[best] < RECOGNISED_FROM * total:
            return None
        return self._scripts[best]

    def align(self, script: Script, lines: Sequence[DialogLine]) -> list[AlignedWord]:
        """Every word of `lines`, in order, with the truth about it; each side is compared with its own turns."""
        aligned: list[AlignedWord] = []
        heard = self._heard[script.name]
        for speaker in ("operator", "client", None):
            own = [word for word in heard if speaker is None or script.turns[word.turn].speaker == speaker]
            words = [
                (index, token)
                for index, line in enumerate(lines)
                if line.speaker == speaker
                for token in tokens(line.text)
            ]
            aligned += _align(words, own)
        return sorted(aligned, key=lambda word: word.line)


def _align(words: Sequence[tuple[int, Token]], heard: Sequence[HeardWord]) -> list[AlignedWord]:
    matcher = SequenceMatcher(None, [token.norm for _, token in words], [word.norm for word in heard], autojunk=False)
    aligned: list[AlignedWord] = []
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        block, truth = words[i1:i2], heard[j1:j2]
        if tag == "equal" or (tag == "replace" and len(block) == len(truth)):
            aligned += [_one(line, token, [word]) for (line, token), word in zip(block, truth, strict=True)]
        elif tag == "replace" and not any(token.masked for _, token in block) and len(truth) <= 2 * len(block) + 3:
            shares: list[list[HeardWord]] = [[] for _ in block]
            for j, word in enumerate(truth):
                shares[j * len(block) // len(truth)].append(word)
            aligned += [_one(line, token, share) for (line, token), share in zip(block, shares, strict=True)]
        elif tag == "replace" and len(block) == 1 and block[0][1].masked:
            aligned.append(_one(*block[0], truth))
        else:
            aligned += [AlignedWord(token, line, (token.text,), None) for line, token in block]
    return aligned


def _one(line: int, token: Token, heard: Sequence[HeardWord]) -> AlignedWord:
    truth = tuple(text for word in heard for text in word.truth)
    turn = heard[0].turn if heard else None
    if token.masked:
        end = _TRAILING.search(truth[-1]) if truth else None
        written = _TRAILING.sub("", token.text) + end.group() if end else token.text
        return AlignedWord(token, line, (written,), turn)
    return AlignedWord(token, line, truth, turn)


def find_words(wanted: Sequence[Token], text: str) -> tuple[float, str]:
    """Where `wanted` stands in `text`: the share of its words found there, and that piece of `text` word for word."""
    words = tokens(text)
    matcher = _matcher(words, wanted)
    blocks = [block for block in matcher.get_matching_blocks() if block.size]
    if not blocks:
        return 0.0, ""
    if blocks[-1].a + blocks[-1].size - blocks[0].a > 1.5 * len(wanted) + 2:
        blocks = [max(blocks, key=lambda block: block.size)]
    piece = words[blocks[0].a : blocks[-1].a + blocks[-1].size]
    return sum(block.size for block in blocks) / len(wanted), " ".join(token.text for token in piece)


def _matcher(first: Sequence[Token], second: Sequence[Token]) -> SequenceMatcher[str]:
    return SequenceMatcher(None, [token.norm for token in first], [token.norm for token in second], autojunk=False)


def _pairs(words: Sequence[str]) -> set[tuple[str, str]]:
    return set(pairwise(words))


def _script_pairs(script: Script) -> set[tuple[str, str]]:
    """Pairs within the whole dialog and within each side's own words, as spoken and as heard: turns may be merged either way."""
    pairs: set[tuple[str, str]] = set()
    for speaker in (None, "operator", "client"):
        turns = [turn for turn in script.turns if speaker is None or turn.speaker == speaker]
        pairs |= _pairs([token.norm for turn in turns for token in tokens(turn.text)])
        pairs |= _pairs([token.norm for turn in turns for token in tokens(turn.heard)])
    return pairs
