"""Faults by script: which answers of the sandbox go wrong, how often, reproducibly by seed."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Fault:
    """One rule: requests of `service` whose label contains `match` suffer `kind`.

    `probability` is drawn from a generator of `seed`; `times` bounds how often it strikes (None: no bound); `after` lets
    that many matching requests through first. `value` is for kinds that need one (seconds, a host).
    """

    service: str
    kind: str
    match: str = ""
    probability: float = 1.0
    times: int | None = None
    after: int = 0
    seed: int = 0
    value: Any = None
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)


class Faults:
    """The script in force; safe to use from threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[Fault] = []

    def set(self, rules: Sequence[dict[str, Any]]) -> None:
        """Replace the script by `rules`, each the fields of Fault."""
        faults = [Fault(**rule) for rule in rules]
        with self._lock:
            self._rules = faults

    def strike(self, service: str, label: str, kinds: Sequence[str]) -> Fault | None:
        """The first rule of one of `kinds` that strikes this request, or None. `label` names the request, e.g. its method."""
        with self._lock:
            for rule in self._rules:
                if rule.service != service or rule.kind not in kinds or rule.match not in label or rule.times == 0:
                    continue
                if rule.after > 0:
                    rule.after -= 1
                    continue
                if rule._random.random() >= rule.probability:
                    continue
                if rule.times is not None:
                    rule.times -= 1
                return rule
        return None
