"""Random scripts of faults for every service of the sandbox, the same for a seed."""

from __future__ import annotations

import random
from typing import Any

PASSING: dict[str, dict[str, tuple[str, ...]]] = {
    "bitrix24": {
        "": ("503", "500", "502_html", "reset", "200_error"),
        "download": ("html_200", "truncated", "reset", "500"),
    },
    "voicekit": {
        "LongRunningRecognize": ("unavailable_before", "unavailable_after", "exhausted", "internal", "aborted"),
        "GetOperation": ("unavailable_before", "unavailable_after", "exhausted", "internal"),
        "ListOperations": ("unavailable_before", "internal"),
        "PutObject": ("storage_lost", "storage_unavailable"),
    },
    "s3": {
        "PutObject": ("slow_down", "reset", "reset_after", "lost"),
        "HeadObject": ("internal",),
        "GetObject": ("slow_down", "reset_after"),
    },
    "openai": {"": ("429", "500", "529", "reset", "reset_after")},
    "deepseek": {"": ("429", "500", "529", "reset", "reset_after")},
}
"""What passes by itself, by service and label."""

BOUGHT_IN_VAIN: dict[str, dict[str, tuple[str, ...]]] = {
    "voicekit": {"LongRunningRecognize": ("failed",), "GetOperation": ("expired",)},
    "openai": {"": ("invalid_json", "wrong_shape", "blank", "length")},
    "deepseek": {"": ("invalid_json", "wrong_shape", "length")},
}
"""What a vendor is paid for without a result: it must be bought again. Each strikes once, as three on one item fail it."""

Rule = dict[str, Any]


def script(seed: int) -> list[Rule]:
    """A random script of faults, the same for a seed."""
    chance = random.Random(seed)
    rules = [
        _rule(chance, service, label, kind, times=chance.randint(1, 3))
        for service, labels in PASSING.items()
        for label, kinds in labels.items()
        for kind in kinds
    ]
    rules += [
        _rule(chance, service, label, kind, times=1)
        for service, labels in BOUGHT_IN_VAIN.items()
        for label, kinds in labels.items()
        for kind in kinds
    ]
    chance.shuffle(rules)
    return rules


def _rule(chance: random.Random, service: str, label: str, kind: str, *, times: int) -> Rule:
    return {
        "service": service,
        "match": label,
        "kind": kind,
        "times": times,
        "probability": round(chance.uniform(0.1, 0.5), 2),
        "after": chance.randint(0, 4),
        "seed": chance.randint(0, 10**6),
    }
