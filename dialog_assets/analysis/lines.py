"""A dialog as the lines of a prompt, inside a block that its own words cannot close.

Here: the text that leaves in a prompt, made safe to read by line, and the way back from a line's name to its turn. Not here:
what the prompts say about it. Facts: facts/llm.md section 7. The block's token comes from the text's hash, because a random
one would change the request's key and so buy the same answer twice.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence

from dialog_assets.dialogs import Role, Turn, line_id
from dialog_assets.said import visible

clean_text = visible

SPEAKERS: dict[Role, str] = {"operator": "ОПЕРАТОР", "client": "КЛИЕНТ", "speaker": "ГОЛОС"}

LINE_CHARACTERS = 6_000
"""What of one turn a prompt shows; nobody speaks that long without a pause."""

_LINE = re.compile(r"[LlЛл] ?0*(\d{1,7})")
_WHO_SAYS_IT = re.compile(r"[ :.,—-]*(?:ОПЕРАТОР|КЛИЕНТ|ГОЛОС)?[ :.,—-]*", re.IGNORECASE)


def dialog_block(turns: Sequence[Turn], start: int = 0, stop: int | None = None) -> str:
    """One line a turn, `L001 ОПЕРАТОР: …`, between the marks of `block`; only the turns from `start` to before `stop`."""
    return block(
        f"{line_id(index)} {SPEAKERS[turn.role]}: {line_text(turn)}".rstrip()
        for index, turn in enumerate(turns[start:stop], start)
    )


def line_text(turn: Turn) -> str:
    """The words of a turn as a prompt shows them."""
    text = clean_text(turn.text)
    return text if len(text) <= LINE_CHARACTERS else f"{text[: LINE_CHARACTERS - 1]}…"


def is_cut(turn: Turn) -> bool:
    """Whether a prompt shows only the beginning of a turn."""
    return len(turn.text) > LINE_CHARACTERS and len(clean_text(turn.text)) > LINE_CHARACTERS


def block(lines: Iterable[str]) -> str:
    """The lines between marks that hold a token which does not occur in them."""
    text = "\n".join(lines)
    token = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"<<<ДАННЫЕ {token}>>>\n{text.replace(token, '')}\n<<<КОНЕЦ ДАННЫХ {token}>>>"


def strangers_text(text: str, limit: int) -> str:
    """What a stranger wrote (the title of a card, say) for a line of a block: visible, on one line, cut, without marks."""
    # What is far beyond the limit is not even looked at.
    kept = clean_text(text[: 4 * limit])
    kept = re.sub(r"<{3,}|>{3,}", lambda marks: "‹" if marks[0][0] == "<" else "›", kept)
    return kept if len(kept) <= limit and len(text) <= 4 * limit else f"{kept[: limit - 1].rstrip()}…"


def line_index(given: str, turns: int) -> int | None:
    """Which of so many turns a model's word for a line means: `L007`, also `[L007]`, `l7`, `` `L007`: ``; None if none."""
    text = clean_text(unicodedata.normalize("NFKC", given[:200])).strip("[](){}<>`'\"«»“”„*_ ")
    match = _LINE.match(text)
    if match is None or not _WHO_SAYS_IT.fullmatch(text[match.end() :].strip("[](){}<>`'\"«»“”„*_ ")):
        return None
    index = int(match[1]) - 1
    return index if 0 <= index < turns else None
