"""The JSON objects inside what a model wrote around them.

Here: text in, objects out, in time that grows with the text's length only. Not here: which of them is the answer (router),
what its values mean (analysis), repairing: a truncated object stays broken, because a repaired one can look valid and say
something else (facts/llm.md section 5).
"""

from __future__ import annotations

import json
import re
from bisect import bisect
from typing import Any, NoReturn

LONGEST = 2_000_000
"""Characters beyond which a text is no answer to anything that is asked here."""

DEEPEST = 50
"""Brackets inside each other beyond which an object is none of ours."""

# A string that never ends is one token to the end of the text: looked at once, not once for each quote in it.
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[{}\[\],]|[^\s"{}\[\],]++', re.DOTALL)
_THOUGHT = re.compile(r"<(/?)(?:think|thinking|thoughts?|reasoning|analysis|scratchpad)>", re.IGNORECASE)
_BEGINS_AN_OBJECT = re.compile(r'\{\s*+(?:"|\Z)')


def json_objects(text: str) -> list[dict[str, Any]]:
    """The complete JSON objects of `text` in their order, without what surrounds them: prose, fences, thoughts, drafts.

    Commas left before a closing bracket and raw line breaks in strings are forgiven. Braces in the prose that balance but
    are no JSON (`{json}`) are passed over, and so is an object that gives two values to one key or a number that JSON does
    not have. None at all if the last object is cut off: what comes before it then is no more than a draft; so is what a
    model thinks aloud, before `</think>` or behind a `<think>` that does not end.
    """
    if len(text) > LONGEST:
        return []
    found: list[tuple[int, int, dict[str, Any]]] = []
    start = text.find("{")
    while start >= 0:
        end, trailing_commas, depth = _scan_object(text, start)
        if end is None:
            if _BEGINS_AN_OBJECT.match(text, start):
                return []
            break
        value = _load(_without(text, start, end, trailing_commas)) if depth <= DEEPEST else None
        if isinstance(value, dict):
            found.append((start, end, value))
        start = text.find("{", end)
    begin, end = _said_aloud(text, [(start, end) for start, end, _ in found])
    return [value for start, _, value in found if begin <= start < end]


def _said_aloud(text: str, objects: list[tuple[int, int]]) -> tuple[int, int]:
    """From where to where a text is the answer and no thought; a tag inside an object is a part of its words."""
    begin, end = 0, len(text)
    for tag in _THOUGHT.finditer(text):
        at = bisect(objects, (tag.start(), len(text)))
        if at and tag.start() < objects[at - 1][1]:
            continue
        if tag[1]:
            begin, end = tag.end(), len(text)
        else:
            end = min(end, tag.start())
    return begin, end


def _scan_object(text: str, start: int) -> tuple[int | None, list[int], int]:
    """Where the object that opens at `start` ends (None: nowhere), the places of its trailing commas, and how deep it is."""
    depth = deepest = 0
    comma: int | None = None
    trailing_commas: list[int] = []
    for token in _TOKEN.finditer(text, start):
        symbol = token[0]
        if symbol in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif symbol in "}]":
            depth -= 1
            if comma is not None:
                trailing_commas.append(comma)
            if depth == 0:
                return token.end(), trailing_commas, deepest
        comma = token.start() if symbol == "," else None
    return None, [], deepest


def _without(text: str, start: int, end: int, places: list[int]) -> str:
    borders = [start, *(border for place in places for border in (place, place + 1)), end]
    return "".join(text[begin:stop] for begin, stop in zip(borders[::2], borders[1::2], strict=True))


def _load(text: str) -> object:
    try:
        return json.loads(text, strict=False, object_pairs_hook=_one_value_a_key, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None


def _one_value_a_key(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found and found[key] != value:
            raise ValueError(f"two values for {key}")
        found[key] = value
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
