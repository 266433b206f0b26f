"""Manners in which models write an answer that is right: each says the same as the plain one, in a dress that people have met.

Here: from the words of an answer to the same answer in another dress. Not here: answers that are wrong (llm_answers).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

_LOOK_ALIKE = str.maketrans("aeocpx", "аеосрх")


def _each(change: Callable[[str, Any], Any]) -> Callable[[str], str]:
    """A manner that changes values by their keys, at any depth."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: change(key, walk(part)) for key, part in value.items()}
        return [walk(part) for part in value] if isinstance(value, list) else value

    return lambda text: json.dumps(walk(_object(text)), ensure_ascii=False)


def _object(text: str) -> Any:
    return json.loads(text[text.index("{") : text.rindex("}") + 1])


def _line(key: str, value: Any) -> Any:
    return re.sub(r"^L0*(\d+)$", r"[`l\1`]", value) if key == "line" else value


def _name(key: str, value: Any) -> Any:
    return f"[[{value.translate(_LOOK_ALIKE)}]]\u200b" if key in ("name", "criterion") else value


def _number(key: str, value: Any) -> Any:
    if key == "confidence":
        return f"{value} %"
    return ("N/A" if value is None else f"{value},0") if key == "score" else value


def _empty(_: str, value: Any) -> Any:
    return None if value == [] else value


MANNERS: dict[str, Callable[[str], str]] = {
    "thinks_aloud": lambda text: f'<think>{{"scores": [], "edits": [], "categories": []}} или нет…</think>\n{text}',
    "draft_first": lambda text: f'Сначала так: {{"text": 5}}\r\nИтог:\r\n```json\r\n{text}\r\n```',
    "lines": _each(_line),
    "names": _each(_name),
    "numbers": _each(_number),
    "no_quotes": _each(lambda key, value: _empty(key, value) if key in ("quotes", "speakers") else value),
    "keys": lambda text: re.sub(r'"(\w+)":', lambda key: f'"{key[1].upper()}":', text),
    "raw_line_breaks": lambda text: re.sub(r"(?<=[а-яё]) (?=[а-яё])", "\n", text),
}
"""Name → the manner."""
