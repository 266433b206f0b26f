"""What a request wants, read from its prompt and answer schema the way a model would understand it.

Here: the marks agreed between prompts and sandbox (dialog lines, [[names]], limits, blocks). Not here: answers, wire formats.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from dialog_assets.sandbox.llm_match import DialogLine, Speaker

Step = Literal["edits", "categories", "scores", "text", "other"]

STEPS: tuple[Step, ...] = ("edits", "categories", "scores", "text")

_LINE = re.compile(r"^(L\d{3,}) (ОПЕРАТОР|КЛИЕНТ|ГОЛОС): ?(.*)$", re.MULTILINE)
_SPEAKERS: dict[str, Speaker | None] = {"ОПЕРАТОР": "operator", "КЛИЕНТ": "client", "ГОЛОС": None}
_MARK = re.compile(r"^\s*(?:[-*•]\s+|\d+[.)]\s+)?\[\[([a-z][a-z0-9_]*)\]\]", re.MULTILINE)
_BLOCK = re.compile(r"^- (.+)$", re.MULTILINE)
_LIMIT = re.compile(r"не более (\d[\d \u00a0]*) ?символ")


@dataclass(frozen=True)
class Asked:
    """One request in words that no vendor owns. `thinking` are the tokens the model spends before it answers."""

    model: str
    system: str
    task: str  # what the user's messages say
    schema: dict[str, Any] | None
    json_only: bool  # the vendor promises an answer that is nothing but JSON
    max_output: int | None
    thinking: int

    @property
    def prompt(self) -> str:
        """Everything the model reads, but the schema."""
        return f"{self.system}\n{self.task}"

    @property
    def step(self) -> Step:
        """Which answer is wanted: the schema's top-level property, or that of the example in the prompt."""
        if self.schema is not None:
            properties = self.schema.get("properties", {})
            return next((step for step in STEPS if step in properties), "other")
        return next((step for step in STEPS if re.search(rf'"{step}"\s*:', self.prompt)), "other")

    @property
    def label(self) -> str:
        """What faults match against, e.g. `edits:deepseek-flash`."""
        return f"{self.step}:{self.model}"


def dialog_lines(prompt: str) -> list[DialogLine]:
    """The dialog of a prompt: the longest run of lines whose ids ascend, so that lines shown as an example are left out."""
    runs: list[list[DialogLine]] = [[]]
    last = -1
    for match in _LINE.finditer(prompt):
        number = int(match[1][1:])
        if number <= last:
            runs.append([])
        runs[-1].append(DialogLine(match[1], _SPEAKERS[match[2]], match[3].strip()))
        last = number
    return max(runs, key=len)


def marked_names(prompt: str) -> list[str]:
    """The names of categories or criteria that a prompt presents, each once, in its order."""
    return list(dict.fromkeys(_MARK.findall(prompt)))


def blocks_to_merge(task: str) -> list[str]:
    """The texts that a summary is to be made of."""
    return [block.strip() for block in _BLOCK.findall(task)]


def character_limit(prompt: str) -> int | None:
    """The length that a summary must not exceed, if the prompt gives one."""
    match = _LIMIT.search(prompt)
    return int(re.sub(r"\D", "", match[1])) if match else None
