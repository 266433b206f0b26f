"""The sandbox's own now: a fictional week can be lived through day by day, or be long past."""

from __future__ import annotations

from datetime import datetime


class Clock:
    """The moment up to which the world has happened; None means all of it."""

    def __init__(self) -> None:
        self.now: datetime | None = None

    def has_come(self, moment: datetime) -> bool:
        """Whether `moment` (timezone-aware) is not in the future."""
        return self.now is None or moment <= self.now
