"""Names of categories and criteria, and other short words, on their way back from a model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from dialog_assets.analysis.lines import clean_text
from dialog_assets.analysis.reading import plain

_LOOK_ALIKE = str.maketrans("авекмнорстухіјѕёһ- ", "abekmhopctyxijseh__")
"""Cyrillic letters that look like Latin ones; ё counts as e; what may stand between words is _."""


class Names:
    """The names that were asked about, each with its title, to find which of them a model means."""

    def __init__(self, titles: Mapping[str, str]) -> None:
        self._names = set(titles)
        self._looks: dict[str, set[str]] = defaultdict(set)
        for name, title in titles.items():
            self._looks[_look(name)].add(name)
            self._looks[_look(title)].add(name)

    def find(self, given: str) -> str | None:
        """The configured name: vendors do not guarantee its letters' case, and models copy brackets, ticks, titles.

        Letters that only look like the right ones are taken for them. None if it may be another name, or is none.
        """
        exact = _bare(given)
        if exact in self._names:
            return exact
        meant = self._looks.get(_look(given), set())
        return next(iter(meant)) if len(meant) == 1 else None


def _bare(given: str) -> str:
    return plain(plain(given).strip("[]{}()<>.:;")).lower()


def _look(given: str) -> str:
    return _bare(given).translate(_LOOK_ALIKE)


def shown(value: str) -> str:
    """A model's own word, short and on one line, for a complaint."""
    return repr(clean_text(value[:600])[:60])
