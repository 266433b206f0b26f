"""Batch commands as PHP reads them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog_assets.bitrix24.paging import chunks, command_text, php_params, php_query

keys = st.text(st.characters(blacklist_characters="[]", blacklist_categories=["Cs"]), min_size=1, max_size=6)
leaves = st.one_of(st.text(max_size=8), st.integers())
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(keys, inner, min_size=1),
    max_leaves=8,
)


def as_php(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): as_php(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return {str(number): as_php(inner) for number, inner in enumerate(value)}
    return str(value)


@given(st.dictionaries(keys, trees, max_size=4))
def test_nested_parameters_arrive_unchanged(params: dict[str, Any]) -> None:
    """What is written with brackets and percent signs is read back the same."""
    assert php_params(php_query(params)) == as_php(params)


def test_the_documented_form() -> None:
    """The form of facts/bitrix24.md 2.3; a plus sign of an offset is escaped, or PHP would read a blank."""
    params = {"FILTER": {">ID": 5, ">=CALL_START_DATE": "2026-03-02T00:00:00+03:00"}, "start": 0, "flag": True}
    assert command_text(("voximplant.statistic.get", params)) == (
        "voximplant.statistic.get?FILTER[%3EID]=5&FILTER[%3E%3DCALL_START_DATE]=2026-03-02T00%3A00%3A00%2B03%3A00"
        "&start=0&flag=1"
    )
    assert command_text(("profile", {})) == "profile"


@pytest.mark.parametrize("empty", [[], {}, None])
def test_what_php_cannot_say_is_refused(empty: Any) -> None:
    """An empty filter would vanish from the query and return the whole portal."""
    with pytest.raises(ValueError, match="ID"):
        php_query({"filter": {"@ID": empty}})


def test_chunks_keep_order_and_lose_nothing() -> None:
    """Pieces of the asked size, the last one shorter."""
    assert list(chunks(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(chunks([], 2)) == []
