"""The prompts as files: `prompts/<name>.md`, each with a part `# Система` and a part `# Запрос`.

Here: reading a file, its version, filling its `${places}`. Not here: what goes into the places (the step's module).
The version is the file's hash: whoever edits a prompt gets new ledger keys, and the results say which text made them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from string import Template

_FOLDER = Path(__file__).with_name("prompts")
_AGAIN = """

Предыдущий ответ на этот запрос принят не весь. Ошибки:
{complaints}
Всё остальное уже принято: ответь только о том, что спрошено здесь, в том же формате JSON, исправив эти ошибки."""
_SYSTEM, _USER = "# Система\n", "\n# Запрос\n"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt file; `system` and `user` may have places."""

    name: str
    version: str
    system: Template
    user: Template


@lru_cache
def prompt(name: str) -> Prompt:
    """The prompt of that name. Raises ValueError for a file without its two parts."""
    text = (_FOLDER / f"{name}.md").read_text(encoding="utf-8")
    system, border, user = text.removeprefix(_SYSTEM).partition(_USER)
    if not text.startswith(_SYSTEM) or not border:
        raise ValueError(
            f"prompt {name}.md must have the parts {_SYSTEM.strip()!r} and {_USER.strip()!r}, in this order"
        )
    version = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Prompt(name, version, Template(system.strip()), Template(user.strip()))


def asked_again(complaints: Sequence[str]) -> str:
    """What follows the text of a request that asks only for what an earlier answer left open; empty without complaints."""
    return _AGAIN.format(complaints="\n".join(complaints)) if complaints else ""
