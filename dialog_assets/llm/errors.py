"""What can go wrong with a paid answer, as one tree of typed errors.

    LLMError
    ├── LLMRefused            nothing will be answered until a person acts: stop the step
    │   └── UnknownPrice      we refuse ourselves: a model without a price is not asked
    ├── LLMUnavailable        the vendor did not answer, retries are used up: try the item another time
    ├── LLMItemUnanswered     it does not answer this question in time, and others it does: try the item another time
    ├── LLMRequestRejected    the vendor does not accept this one request, and others it does: this item fails
    │   └── LLMRequestTooLarge   for its length
    └── LLMAnswerError        answers came and were paid, none is of use: this item fails
        ├── LLMAnswerInvalid  they break the schema or the rules, also after feedback
        ├── LLMContentRefused the model declines
        ├── LLMCeilingReached the item has cost enough without a result
        └── LLMTruncated      cut off, also with twice the room

Here: the errors. Not here: when they are raised (router, prices).
No text holds a key, an address, or a word of a prompt or an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from dialog_assets.errors import DialogAssetsError


class LLMError(DialogAssetsError):
    """The root of this room's errors."""


class LLMRefused(LLMError):
    """A refused key, an empty balance, a closed region, an unknown model: no request of this step can succeed."""


class UnknownPrice(LLMRefused):
    """prices.json cannot say what this would cost, and an unpriced request is not sent."""


class LLMUnavailable(LLMError):
    """No answer after all tries: network, timeouts, overload."""


class LLMItemUnanswered(LLMError):
    """No answer after all tries, though a small question asked then was answered: it is this item that is not."""


class LLMRequestRejected(LLMError):
    """The vendor does not accept this one request; a small question asked then was accepted, or its code says so."""


class LLMRequestTooLarge(LLMRequestRejected):
    """The request is longer than the model's context, the vendor's limit for a request, or the account's for a minute."""


class LLMAnswerError(LLMError):
    """Paid answers of no use.

    `keys` are their ledger rows: settle them together with recording the item's failure, or the next run is given the
    same answers again. `cost_usd` is what they cost together.
    """

    def __init__(self, message: str, *, keys: Sequence[str], cost_usd: Decimal) -> None:
        super().__init__(message)
        self.keys = tuple(keys)
        self.cost_usd = cost_usd


class LLMAnswerInvalid(LLMAnswerError):
    """The answer breaks its schema or its rules; `complaints` are the last answer's, and may quote it."""

    def __init__(self, message: str, *, keys: Sequence[str], cost_usd: Decimal, complaints: Sequence[str]) -> None:
        super().__init__(message, keys=keys, cost_usd=cost_usd)
        self.complaints = tuple(complaints)


class LLMContentRefused(LLMAnswerError):
    """The model declines; the same request usually is declined again."""


class LLMTruncated(LLMAnswerError):
    """The answer does not fit the limit of output tokens, nor twice that limit, or not the model's context."""


class LLMCeilingReached(LLMAnswerError):
    """What was bought for this item at this step brought no result, and is as much as the portal's file allows."""
