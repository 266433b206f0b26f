"""JSON out of the wrappings that models put around it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog_assets.llm.cleaning import json_objects

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=4)
PROSE = st.sampled_from(
    ["", "Вот ответ:\n", 'Готово, "как просили". ', "По схеме {json}: ", "\ufeff", "[1] \n\n", "\r\n"]
)
FENCES = st.sampled_from([("", ""), ("```json\n", "\n```"), ("```\n", "```"), ("```JSON ", " ```")])
STYLES = st.sampled_from([{}, {"ensure_ascii": False}, {"indent": 2}, {"separators": (",", ":")}])


@given(OBJECTS, PROSE, PROSE, FENCES, STYLES)
def test_wrapped_object_comes_back(
    value: dict[str, object], before: str, after: str, fence: tuple[str, str], style: dict[str, Any]
) -> None:
    """Any JSON object comes back whole from prose, fences and byte order marks."""
    text = json.dumps(value, **style)
    assert json_objects(f"{before}{fence[0]}{text}{fence[1]}{after}") == [value]


@pytest.mark.parametrize(
    ("text", "objects"),
    [
        ('{"a": [1, 2,], "b": {"c": 1,\n},}', [{"a": [1, 2], "b": {"c": 1}}]),
        ('{"a": ",}"}', [{"a": ",}"}]),
        ('{"a": "\\",]"}', [{"a": '",]'}]),
        ('{"a": 1} {"b": 2}', [{"a": 1}, {"b": 2}]),
        ('<think>{"a": 0}</think>```json\r\n{"a": 9}\r\n```', [{"a": 9}]),
        ('Так {"a": 0}\n</THINK>\n{"a": 9}', [{"a": 9}]),
        ('<thinking>{"a": 0}', []),
        ('<think>{"a": 0}</think>', []),
        ('{"a": 9}<think>{"a": 0}', [{"a": 9}]),
        ('{"a": "</think>"}', [{"a": "</think>"}]),
        ('По схеме {json} или {так: "да"}: {"a": 1}', [{"a": 1}]),
        ('{"a": "два\nслова\tи"}', [{"a": "два\nслова\tи"}]),
        ('{"score": 7, "quote": "обор', []),
        ('{"score": 7} Точнее: {"score": 9', []),
        ('{"score": 7} Точнее: {', []),
        ('{"score": 7} :-{ )', [{"score": 7}]),
        ('{"scores": [{"score": 7}', []),
        ('{"score": 7, "score": 9}', []),
        ('{"score": 7, "score": 7}', [{"score": 7}]),
        ('{"score": NaN}', []),
        ('{"score": -Infinity}', []),
        ('{"score": 0x10}', []),
        ("{'score': 7}", []),
        ("[1, 2]", []),
        ("Не знаю.", []),
        ("", []),
    ],
)
def test_exactly(text: str, objects: list[dict[str, Any]]) -> None:
    """Whole objects come in order; what is cut off, says two things of one, or is no JSON, is not repaired."""
    assert json_objects(text) == objects


@given(st.text(alphabet='{}[]",\\a1 \n', max_size=200))
def test_never_fails(text: str) -> None:
    """Whatever comes in, objects come out."""
    assert all(isinstance(found, dict) for found in json_objects(text))


@pytest.mark.parametrize(
    "text",
    [
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        "{" * 500_000,
        '{"' + '\\"' * 300_000,
        '{"a": "' + "\\" * 500_000,
        '{"a" ' + '"' * 500_001,
        "{a}" * 200_000,
        "{[" * 300_000,
        '{"a": "' + "ж" * 3_000_000 + '"}',
    ],
)
def test_nothing_is_looked_at_twice(text: str) -> None:
    """Texts made to be slow are none too long: an answer of such a kind is refused in passing."""
    assert json_objects(text) == []
