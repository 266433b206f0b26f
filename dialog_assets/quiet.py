"""What libraries may say in a log: nothing below a warning, where their words may hold a secret or people's.

Here: one list for the whole project. Not here: our own log lines.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

TALKATIVE = ("openai", "anthropic", "httpx", "httpx2", "httpcore", "httpcore2")
"""At DEBUG the SDKs write whole prompts and keys, at INFO the HTTP libraries write whole URLs, whose secret is in them."""

LEFT_OUT = "left out: below a warning this library's words may hold a secret or people's data"


def hush() -> None:
    """Leave out what `TALKATIVE` libraries say below WARNING, whoever sets their loggers to whatever level, before or after.

    It is done where a record is made, as a level is set again by whoever configures logging, and a filter on a logger
    does not see what its children say.
    """
    made_by = logging.getLogRecordFactory()
    if not isinstance(made_by, _Discreet):
        logging.setLogRecordFactory(_Discreet(made_by))


class _Discreet:
    """A factory of log records which asks another one, and empties what comes from a talkative library."""

    def __init__(self, factory: Callable[..., logging.LogRecord]) -> None:
        self._factory = factory

    def __call__(self, name: str | None, level: int | None, *args: Any, **named: Any) -> logging.LogRecord:
        record = self._factory(name, level, *args, **named)
        if name is not None and level is not None and level < logging.WARNING and name.partition(".")[0] in TALKATIVE:
            record.msg, record.args, record.exc_info, record.stack_info = LEFT_OUT, (), None, None
        return record
