"""A dialog as the lines of a prompt, inside a block that its own words cannot close.

Here: the text that leaves in a prompt, made safe to read by line. Not here: what the prompts say about it.
Facts: facts/llm.md section 7. The block's token comes from the text's hash, because a random one would change the
request's key and so buy the same answer twice.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence

from dialog_assets.dialogs import Role, Turn, line_id

SPEAKERS: dict[Role, str] = {"operator": "ОПЕРАТОР", "client": "КЛИЕНТ", "speaker": "ГОЛОС"}


def clean_text(text: str) -> str:
    """One line of visible text: no control, zero-width or direction characters, single spaces."""
    kept = (_visible(char) for char in text)
    return " ".join("".join(kept).split())


def _visible(char: str) -> str:
    category = unicodedata.category(char)
    if category in ("Cf", "Cs"):
        return ""
    return " " if category == "Cc" else char


def dialog_block(turns: Sequence[Turn]) -> str:
    """One line a turn, `L001 ОПЕРАТОР: …`, between the marks of `block`."""
    return block(
        f"{line_id(index)} {SPEAKERS[turn.role]}: {clean_text(turn.text)}".rstrip() for index, turn in enumerate(turns)
    )


def block(lines: Iterable[str]) -> str:
    """The lines between marks that hold a token which does not occur in them."""
    text = "\n".join(lines)
    token = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"<<<ДАННЫЕ {token}>>>\n{text.replace(token, '')}\n<<<КОНЕЦ ДАННЫХ {token}>>>"


def line_numbers(turns: Sequence[Turn]) -> dict[str, int]:
    """Turn index by line id."""
    return {line_id(index): index for index in range(len(turns))}
