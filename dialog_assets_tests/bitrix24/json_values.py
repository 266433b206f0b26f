"""Any JSON value that a portal could send, and those that are known to break things."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

NASTY: list[Any] = [
    *(True, False, None, 0, -1, 2**31, -(2**31), 2**63, -(2**63), 10**40, 1.5, 3e9, 1e300, 5e-324),
    *(float("inf"), float("nan")),  # what Python makes of 1e999
    *("", " ", "0", "-0", "٣", "²", "1_000", "1e400", "1e-400", "1e99999", "1e999999999", "1e-999999999", "9" * 400),
    *("3000000000", "-3000000000", "9223372036854775808", "NaN", "Infinity", "-Infinity", "0x10", "1,5", "+", "-"),
    *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "20000-01-01T00:00:00+03:00", "2026-02-30T00:00:00Z"),
    *("2026-03-02T10:00:00", "2026-03-02", "2026-W10-1T10:00:00+03:00", "2026-03-02T10:00:00+24:00", "24:00"),
    *("\0", "a\0b", "\ud83d", "\udc00x", "🙂", "x" * 3000, "CONTACT" * 500, "Y", "N", "true"),
    *([], {}, [[]], [{}], [None], {"0": "5"}, {"VALUE": "1"}, [{"VALUE": {"a": 1}}], [1, "x"], [1.5], [2**63]),
]

any_json: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(NASTY),
    st.recursive(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.text(st.characters(exclude_categories=()), max_size=20),
        ),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ),
)


def garbled(row: dict[str, Any], *, most: int = 3) -> st.SearchStrategy[dict[str, Any]]:
    """The row with up to `most` of its fields replaced by any JSON values."""
    return st.dictionaries(st.sampled_from(sorted(row)), any_json, min_size=1, max_size=most).map(
        lambda changes: {**row, **changes}
    )
