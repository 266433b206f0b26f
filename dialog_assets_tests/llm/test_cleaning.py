"""JSON out of the wrappings that models put around it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog_assets.llm.cleaning import clean_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=4)
PROSE = st.sampled_from(["", "Вот ответ:\n", 'Готово, "как просили". ', "По схеме {json}: ", "\ufeff", "[1] \n\n"])
FENCES = st.sampled_from([("", ""), ("```json\n", "\n```"), ("```\n", "```"), ("```JSON ", " ```")])
STYLES = st.sampled_from([{}, {"ensure_ascii": False}, {"indent": 2}, {"separators": (",", ":")}])


@given(OBJECTS, PROSE, PROSE, FENCES, STYLES)
def test_wrapped_object_comes_back(
    value: dict[str, object], before: str, after: str, fence: tuple[str, str], style: dict[str, Any]
) -> None:
    """Any JSON object comes back whole from prose, fences and byte order marks."""
    text = json.dumps(value, **style)
    assert json.loads(clean_json(f"{before}{fence[0]}{text}{fence[1]}{after}")) == value


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ('{"a": [1, 2,], "b": {"c": 1,\n},}', '{"a": [1, 2], "b": {"c": 1\n}}'),
        ('{"a": ",}"}', '{"a": ",}"}'),
        ('{"a": "\\",]"}', '{"a": "\\",]"}'),
        ('{"a": 1} {"b": 2}', '{"a": 1}'),
        ('{"score": 7, "quote": "обор', '{"score": 7, "quote": "обор'),
        ('{"scores": [{"score": 7}', '{"scores": [{"score": 7}'),
        ("Не знаю.", "Не знаю."),
        ("", ""),
    ],
)
def test_exactly(text: str, clean: str) -> None:
    """Trailing commas go, strings stay, the first object wins, and what is cut off is not repaired."""
    assert clean_json(text) == clean


@given(st.text(alphabet='{}[]",\\a1 \n', max_size=200))
def test_never_fails(text: str) -> None:
    """Whatever comes in, text comes out."""
    assert isinstance(clean_json(text), str)


def test_deep_nesting_is_not_a_crash() -> None:
    """An answer nested beyond reason is left to the parser to refuse."""
    text = '{"a":' * 100_000 + "1" + "}" * 100_000
    assert clean_json(text) == text
