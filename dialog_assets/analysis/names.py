"""Names of categories and criteria, and other short words, on their way back from a model."""

from __future__ import annotations

from dialog_assets.analysis.lines import clean_text


def configured_name(given: str) -> str:
    """As configured: vendors do not guarantee the case, and models copy the brackets of the list."""
    return given.strip().removeprefix("[[").removesuffix("]]").strip().lower()


def shown(value: str) -> str:
    """A model's own word, short and on one line, for a complaint."""
    return repr(clean_text(value)[:60])
