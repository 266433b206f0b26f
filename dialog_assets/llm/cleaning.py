"""The JSON object inside what a model wrote around it.

Here: text in, text out. Not here: repairing. A truncated object stays broken, because a repaired one can look valid and
say something else (facts/llm.md section 5).
"""

from __future__ import annotations

import json
import re

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],]|[^\s"{}\[\],]+', re.DOTALL)


def clean_json(text: str) -> str:
    """The first JSON object in `text`, without what surrounds it: a byte order mark, ``` fences, prose before or after.

    A comma left before a closing bracket is dropped; nothing else in the object is touched. Braces in the prose that
    balance but are no JSON (`{json}`) are passed over. Without a whole object the stripped text comes back as it is,
    for the parser to complain about.
    """
    stripped = text.strip().removeprefix("\ufeff").strip()
    start = stripped.find("{")
    while start >= 0:
        end, trailing_commas = _scan_object(stripped, start)
        if end is None:
            break
        candidate = _without(stripped, start, end, trailing_commas)
        if _is_object(candidate):
            return candidate
        start = stripped.find("{", end)
    return stripped


def _scan_object(text: str, start: int) -> tuple[int | None, list[int]]:
    """Where the object that opens at `start` ends (None: nowhere), and the places of its trailing commas."""
    depth = 0
    comma: int | None = None
    trailing_commas: list[int] = []
    for token in _TOKEN.finditer(text, start):
        symbol = token[0]
        if symbol in "{[":
            depth += 1
        elif symbol in "}]":
            depth -= 1
            if comma is not None:
                trailing_commas.append(comma)
            if depth == 0:
                return token.end(), trailing_commas
        comma = token.start() if symbol == "," else None
    return None, []


def _without(text: str, start: int, end: int, places: list[int]) -> str:
    borders = [start, *(border for place in places for border in (place, place + 1)), end]
    return "".join(text[begin:stop] for begin, stop in zip(borders[::2], borders[1::2], strict=True))


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
