"""What the router sees of a vendor: an answer, or one VendorFailure that says whether trying again makes sense.

Here: the port, and the reading of HTTP statuses that the SDKs share. Not here: waiting and retrying (router).
A failure holds codes and numbers only: vendors' messages may repeat a key or a prompt.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal, Protocol

from dialog_assets import certificates
from dialog_assets.llm.ledger import Finish, Usage
from dialog_assets.llm.requests import LLMRequest

FailureKind = Literal["transient", "timeout", "refused", "rejected", "untrusted"]

_REFUSED_STATUSES = {401, 402, 403, 404}
_TRANSIENT_STATUSES = {408, 409, 425, 429}
_NO_MONEY = {
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "access_terminated",
    "billing_error",
    "account_deactivated",
}
_HARMLESS_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,59}")


@dataclass(frozen=True, slots=True)
class VendorAnswer:
    """What the vendor answered, before it is priced."""

    text: str
    usage: Usage
    model_returned: str
    vendor_request_id: str
    finish: Finish


class VendorFailure(Exception):
    """No answer.

    `refused`: a person must act (key, balance, region, model name). `rejected`: this request is not acceptable.
    `untrusted`: the address does not show a certificate to trust; `what` is the sentence.
    `transient`: another try may do; `retry_after_s` is the vendor's wish, if any. `timeout`: the same, but the vendor may
    have worked, and bill it.
    """

    def __init__(
        self, kind: FailureKind, what: str, *, status: int | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(what)
        self.kind = kind
        self.what = what
        self.status = status
        self.retry_after_s = retry_after_s


class Vendor(Protocol):
    """One vendor's client."""

    async def send(self, request: LLMRequest[Any]) -> VendorAnswer:
        """One HTTP exchange, no retries. Raises VendorFailure."""
        ...

    async def close(self) -> None:
        """End the connections."""
        ...


def failure_of_connection(error: Exception) -> VendorFailure:
    """The failure that a lost or refused connection stands for."""
    fault = certificates.fault(error)
    return VendorFailure("transient", "no connection") if fault is None else VendorFailure("untrusted", fault)


def failure_of_status(status: int, codes: tuple[object, ...], headers: Mapping[str, str]) -> VendorFailure:
    """The failure that an HTTP error stands for; `codes` are the error body's code and type, most exact first."""
    known = [code for code in codes if isinstance(code, str) and _HARMLESS_CODE.fullmatch(code)]
    what = f"HTTP {status}" + (f" {known[0]}" if known else "")
    if status in _REFUSED_STATUSES or _NO_MONEY.intersection(known):
        return VendorFailure("refused", what, status=status)
    if status in _TRANSIENT_STATUSES or status >= 500:
        return VendorFailure("transient", what, status=status, retry_after_s=_retry_after_s(headers))
    return VendorFailure("rejected", what, status=status)


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """`retry-after-ms`, else `retry-after` in seconds or as an HTTP date; None if neither can be read."""
    try:
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    except (KeyError, ValueError):
        pass
    wish = headers.get("retry-after", "")
    try:
        return max(0.0, float(wish))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(wish).timestamp() - time.time())
    except ValueError:
        return None


def hush(*loggers: str) -> None:
    """Keep libraries from logging people's words: at DEBUG, Anthropic's SDK writes whole requests, at INFO, httpx2 whole URLs.

    The SDKs raise their own level from OPENAI_LOG and ANTHROPIC_LOG, so this comes after their import.
    """
    for name in loggers:
        logging.getLogger(name).setLevel(logging.WARNING)
