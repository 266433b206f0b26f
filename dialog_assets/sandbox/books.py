"""What the sandbox was asked, how often, and what that would have cost. One object serves all its services."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from decimal import Decimal
from typing import Any


class Books:
    """Counts, keyed counts (a key seen twice is visible as 2) and costs, by service; safe to use from threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        with self._lock:
            self._counts: dict[str, Counter[str]] = defaultdict(Counter)
            self._items: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
            self._costs: dict[str, dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))

    def count(self, service: str, what: str, number: int = 1) -> None:
        """Add `number` to the service's count of `what`."""
        with self._lock:
            self._counts[service][what] += number

    def item(self, service: str, what: str, key: str, number: int = 1) -> None:
        """Note that `what` happened to `key` `number` times more, for example one recording's submission."""
        with self._lock:
            self._items[service][what][key] += number

    def peak(self, service: str, what: str, key: str, number: int) -> None:
        """Note how many there are of `key` at once; the most stays."""
        with self._lock:
            keyed = self._items[service][what]
            keyed[key] = max(keyed[key], number)

    def cost(self, service: str, currency: str, amount: Decimal) -> None:
        """Add what the real service would have charged."""
        with self._lock:
            self._costs[service][currency] += amount

    def as_dict(self) -> dict[str, Any]:
        """`{service: {"counts": {what: n}, "items": {what: {key: n}}, "cost": {currency: "1.23"}}}`."""
        with self._lock:
            services = sorted({*self._counts, *self._items, *self._costs})
            return {
                service: {
                    "counts": dict(sorted(self._counts[service].items())),
                    "items": {what: dict(sorted(keys.items())) for what, keys in sorted(self._items[service].items())},
                    "cost": {currency: str(amount) for currency, amount in sorted(self._costs[service].items())},
                }
                for service in services
            }
