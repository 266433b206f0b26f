"""Keeps the HTTP library's own log lines away: they hold whole URLs, and a webhook's secret is a part of its URL."""

from __future__ import annotations

import logging

_LOGGERS = (
    "httpx2",
    "httpcore2.connection",
    "httpcore2.http11",
    "httpcore2.http2",
    "httpcore2.proxy",
    "httpcore2.socks",
)


class _WarningsOnly(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING


_FILTER = _WarningsOnly("warnings only")


def silence_urls() -> None:
    """Drop everything below WARNING of httpx2 and httpcore2.

    A filter and not a level, because a level is set again by whoever configures logging (Dagster's python_logs does).
    """
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_FILTER)
