"""What the router sees of a vendor: an answer, or one VendorFailure that says whether trying again makes sense.

Here: the port, and the reading of HTTP errors that the vendors share. Not here: waiting and retrying (router).
A failure holds codes and numbers only: vendors' messages may repeat a key or a prompt.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal, Protocol

from dialog_assets.llm.ledger import Finish, Usage
from dialog_assets.llm.requests import LLMRequest

FailureKind = Literal["transient", "timeout", "refused", "untrusted", "rejected", "too_large", "unclear"]

_REFUSED_STATUSES = {401, 402, 403, 404, 405, 407, 410, 421, 451}
_TRANSIENT_STATUSES = {408, 409, 425, 429}
_PERHAPS_PAID_STATUSES = {504, 524}
"""A gateway that did not wait for an answer that the model may have written."""

_ACCOUNT_CODES = {
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "access_terminated",
    "billing_error",
    "account_deactivated",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "model_not_found",
    "deploymentnotfound",
    "invalid_api_key",
    "unsupported_country_region_territory",
    "organization_disabled",
}
_ITEM_CODES = {
    "context_length_exceeded",
    "string_above_max_length",
    "content_policy_violation",
    "content_filter",
    "responsibleaipolicyviolation",
    "invalid_prompt",
}
_TOO_LARGE_CODES = {"context_length_exceeded", "string_above_max_length", "request_too_large"}
_TOO_LARGE = re.compile(
    r"request too large|(?:prompt|input|message|request)s? (?:is|are) too (?:long|large)|too many (?:input )?tokens"
    r"|(?:maximum|max) context|context (?:length|window|limit)|exceeds? the (?:maximum|max) (?:length|size)"
    r"|reduce (?:the|your) (?:length|prompt)|long context (?:requests|beta)|max(?:_completion)?_tokens.{0,20}too (?:large|high)"
    r"|max(?:_completion)?_tokens: \d+ >"
)
_ACCOUNT = re.compile(
    r"credit balance|insufficient (?:balance|funds|quota|credits?)|(?:spend|spending|usage|billing|budget|monthly) (?:hard )?limit"
    r"|exceeded your current quota|out of credits?|payment (?:required|method)|billing"
    r"|(?:organi[sz]ation|account|workspace|project|api key|key|access|subscription) (?:\S+ ){0,3}"
    r"(?:disabled|deactivated|suspended|terminated|blocked|archived|expired|revoked|closed|inactive)"
    r"|model(?: \S+)? (?:does )?not (?:exist|found|available|supported)"
    r"|(?:deployment|model) \S+ (?:\S+ ){0,4}(?:deprecated|retired|decommissioned|not exist)"
    r"|(?:country|region|territory|location)(?: \S+)? (?:is )?not supported|unsupported (?:country|region|location)"
)
_LIMIT_OF_TOKENS = re.compile(r"limit:? (\d+).{0,40}?requested:? (\d+)", re.DOTALL)
_HARMLESS_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,59}")
_READ_CHARACTERS = 4000


@dataclass(frozen=True, slots=True)
class VendorAnswer:
    """What the vendor answered, before it is priced. `usage`: None where it was not told, or cannot be true."""

    text: str
    usage: Usage | None
    model_returned: str
    vendor_request_id: str
    finish: Finish


class VendorFailure(Exception):
    """No answer.

    `refused`: a person must act (key, balance, region, model name). `untrusted`: the address does not show a certificate
    to trust, `what` is the sentence. `rejected`, `too_large`: this request is not acceptable. `unclear`: it was not
    accepted, and nothing tells whether another would be. `transient`, `timeout`: another try may do; `retry_after_s` is
    the vendor's wish, if any. `perhaps_paid`: the vendor may have worked, and bill it.
    """

    def __init__(
        self,
        kind: FailureKind,
        what: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        perhaps_paid: bool = False,
    ) -> None:
        super().__init__(what)
        self.kind = kind
        self.what = what
        self.status = status
        self.retry_after_s = retry_after_s
        self.perhaps_paid = perhaps_paid


class Vendor(Protocol):
    """One vendor's client."""

    async def send(self, request: LLMRequest[Any]) -> VendorAnswer:
        """One HTTP exchange, no retries. Raises VendorFailure."""
        ...

    async def close(self) -> None:
        """End the connections."""
        ...


def failure_of_status(status: int, content: bytes, headers: Mapping[str, str], prompt_tokens: int) -> VendorFailure:
    """The failure that an HTTP error stands for, by its status, the codes of its body, and where these say too little by its words.

    `prompt_tokens`: how long the prompt is, about, as a limit of tokens a minute below it is never met by waiting.
    """
    codes, words = _said(content)
    shown = next((code for code in codes if _HARMLESS_CODE.fullmatch(code)), None)
    what = f"HTTP {status}" + (f" {shown}" if shown else "")
    known = {code.lower() for code in codes}
    if 300 <= status < 400:
        return VendorFailure("refused", f"{what}, the address leads elsewhere and is not followed", status=status)
    if status in _TRANSIENT_STATUSES or status >= 500:
        if status == 429 and _never_fits(words, headers, prompt_tokens):
            return VendorFailure("too_large", what, status=status)
        if status == 429 and (_ACCOUNT_CODES & known or _ACCOUNT.search(words)):
            return VendorFailure("refused", what, status=status)
        wish = _retry_after_s(headers)
        paid = status in _PERHAPS_PAID_STATUSES
        return VendorFailure("transient", what, status=status, retry_after_s=wish, perhaps_paid=paid)
    if status in _REFUSED_STATUSES:
        return VendorFailure("refused", what, status=status)
    if status == 413 or _TOO_LARGE_CODES & known or _TOO_LARGE.search(words):
        return VendorFailure("too_large", what, status=status)
    if _ITEM_CODES & known:
        return VendorFailure("rejected", what, status=status)
    if _ACCOUNT_CODES & known or _ACCOUNT.search(words):
        return VendorFailure("refused", what, status=status)
    return VendorFailure("unclear", what, status=status)


def _never_fits(words: str, headers: Mapping[str, str], prompt_tokens: int) -> bool:
    """Whether a limit of tokens a minute is below what this one request needs."""
    if "request too large" in words or "long context" in words:
        return True
    told = _LIMIT_OF_TOKENS.search(words)
    if told is not None:
        return int(told[2][:12]) > int(told[1][:12])
    limits = (headers.get(name, "") for name in ("x-ratelimit-limit-tokens", "anthropic-ratelimit-input-tokens-limit"))
    return any(limit.isascii() and limit.isdigit() and 0 < int(limit[:12]) < prompt_tokens for limit in limits)


def _said(content: bytes) -> tuple[list[str], str]:
    """The codes of an error's body, most exact first, and its words in small letters, both for comparison only."""
    start = content[:64_000].decode("utf-8", "replace")
    try:
        body = json.loads(start)
    except (ValueError, RecursionError):
        return [], " ".join(start[:_READ_CHARACTERS].lower().split())
    found = list(_strings(body, 0))
    codes = [value for name in ("code", "error_code", "type") for key, value in found if key == name]
    words = " ".join(value for key, value in found if key in ("message", "detail", "error", "error_description", "msg"))
    return codes, " ".join(words[:_READ_CHARACTERS].lower().split())


def _strings(node: Any, depth: int) -> Iterator[tuple[str, str]]:
    if depth > 4:
        return
    if isinstance(node, list):
        for child in node[:20]:
            yield from _strings(child, depth + 1)
    for key, value in list(node.items())[:50] if isinstance(node, dict) else ():
        if isinstance(value, str):
            yield key, value[:_READ_CHARACTERS]
        else:
            yield from _strings(value, depth + 1)


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """`retry-after-ms`, else `retry-after` in seconds or as an HTTP date; None if neither can be read."""
    wishes = ((headers.get("retry-after-ms", ""), 0.001), (headers.get("retry-after", ""), 1.0))
    for wish, unit in wishes:
        try:
            seconds = float(wish) * unit
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    try:
        return max(0.0, parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - time.time())
    except (ValueError, OverflowError, OSError):
        return None


MOST_TOKENS = 100_000_000


def tokens(value: Any) -> int | None:
    """A count of tokens as a vendor or what stands before it may write it: a whole number, also as text; None if it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        value = value.strip()
        value = int(value) if value.isascii() and value.isdigit() and len(value) < 12 else None
    if isinstance(value, float):
        value = int(value) if value.is_integer() else None
    return value if isinstance(value, int) and 0 <= value <= MOST_TOKENS else None


def part(node: Any, *path: str | int) -> Any:
    """What lies at `path` in a vendor's JSON, None where there is nothing."""
    for step in path:
        if isinstance(step, str):
            node = node.get(step) if isinstance(node, dict) else None
        else:
            node = node[step] if isinstance(node, list) and -len(node) <= step < len(node) else None
    return node


def text_of(content: Any) -> str:
    """What a message says: a text, or a list of parts with texts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    kinds = (None, "text", "output_text")
    texts = (one.get("text") if isinstance(one, dict) and one.get("type") in kinds else one for one in parts)
    return "".join(text for text in texts if isinstance(text, str))


def label(value: Any, otherwise: str = "") -> str:
    """A vendor's name for something (a model, a request), fit to be stored: printable and short."""
    kept = "".join(letter for letter in value[:200] if letter.isprintable()) if isinstance(value, str) else ""
    return kept.encode("utf-8", "ignore").decode().strip() or otherwise


def json_object(content: bytes) -> dict[str, Any]:
    """The body of a 200. Raises VendorFailure for what is none: it may be on the bill unless it is a page."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    # Outside the except block: the parser's error holds the vendor's words, and would be shown as context.
    if not isinstance(body, dict):
        page = content[:200].lstrip().startswith(b"<")
        raise VendorFailure("transient", "an answer that is no JSON object", perhaps_paid=not page)
    return body
