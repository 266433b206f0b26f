"""What can go wrong with Bitrix24, as types that say what the caller may do, and the pure function that sorts answers into them.

    Bitrix24Error
    ├── Bitrix24AccessError          credential, rights, plan, portal gone: stop the step
    ├── Bitrix24LimitError           request bucket or operating time, still exceeded after the retries: later
    ├── Bitrix24UnavailableError     5xx, HTML, resets, timeouts, still there after the retries: later
    ├── Bitrix24RequestError         this request of this item is refused; a repetition would be refused too
    ├── Bitrix24DataError            the answer cannot be believed or read
    │   └── RowError                 one field of one row cannot be read
    └── RecordingUnavailableError    one recording cannot be had; `code` says why

Here: the tree and the classification (facts/bitrix24.md 1.2, 1.3). Not here: waiting and retrying (retries.py).
No text holds a URL, a secret, a phone or an e-mail: what the portal wrote is cleaned (said.py) before it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dialog_assets.bitrix24.answers import Odd
from dialog_assets.errors import DialogAssetsError
from dialog_assets.said import said, said_code


class Bitrix24Error(DialogAssetsError):
    """Root of the tree.

    `code` is the portal's error code (our own lower-case word where the portal gave none), `status` the HTTP status or
    None inside a batch, `description` the portal's text, cleaned. `retryable`: the same read may succeed a little later.
    """

    def __init__(
        self,
        code: str,
        *,
        method: str = "",
        status: int | None = None,
        description: str = "",
        advice: str = "",
        retryable: bool = False,
    ) -> None:
        self.code = code
        self.method = method
        self.status = status
        self.description = description
        self.advice = advice
        self.retryable = retryable
        super().__init__(code, method, status, description, advice, retryable)

    def __str__(self) -> str:
        where = f"Bitrix24 {self.method}" if self.method else "Bitrix24"
        what = f"{where}: {self.code or 'error without a code'}"
        if self.status is not None:
            what += f" (HTTP {self.status})"
        if self.description:
            what += f", {self.description}"
        return f"{what}; {self.advice}" if self.advice else what

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), dict(self.__dict__))


def _rebuild(kind: type[Bitrix24Error], state: dict[str, Any]) -> Bitrix24Error:
    error = kind.__new__(kind)
    error.__dict__.update(state)
    return error


class Bitrix24AccessError(Bitrix24Error):
    """The credential, its rights, the plan or the portal itself: nothing of this step can work until a person acts."""

    @property
    def of_method(self) -> bool:
        """Whether the credential is good and only may not call this method, so that others may do."""
        return self.code.upper() in _METHOD_CODES or (self.code == "" and self.status not in (401, 402, 403))


class Bitrix24LimitError(Bitrix24Error):
    """A limit of the portal, still exceeded after the retries."""


class Bitrix24UnavailableError(Bitrix24Error):
    """The portal did not answer sensibly, still so after the retries."""


class Bitrix24RequestError(Bitrix24Error):
    """This request is refused by the method; other items may do."""


class Bitrix24DataError(Bitrix24Error):
    """An answer that contradicts the request, or cannot be read."""


class RowError(Bitrix24DataError):
    """One field of one row cannot be read. Names the method, the row's id and the field; never the value."""

    def __init__(self, method: str, field: str, expected: str, row_id: int | None = None) -> None:
        self.field = field
        self.expected = expected
        self.row_id = row_id
        row = "a row without a readable ID" if row_id is None else f"row {row_id}"
        super().__init__(
            "unreadable_row",
            method=method,
            description=f"field {field} of {row} is not {expected}",
            advice="look at this row in the portal",
        )


RecordingReason = Literal[
    "gone",
    "refused",
    "not_audio",
    "truncated",
    "changed",
    "too_large",
    "too_slow",
    "unreachable",
    "untrusted",
    "elsewhere",
]
"""gone: no such file, or in the trash · refused: no right to it, a bad link, a redirect elsewhere · not_audio: the bytes are
no audio · truncated: fewer bytes came than the Disk says · changed: it is longer or shorter than the Disk said, so it was
replaced in the meantime · too_large: above the caller's limit · too_slow: not there within the caller's time · unreachable: the
host outside the portal does not answer · untrusted: nor does it show a certificate to trust · elsewhere: the portal's
link names a host that is not known to be the portal's."""

_RECORDING_TEXTS: dict[RecordingReason, str] = {
    "gone": "the file is not there any more",
    "refused": "the portal refuses the file",
    "not_audio": "the file is no audio",
    "truncated": "fewer bytes came than the file should have",
    "changed": "the file is not as long as it should be",
    "too_large": "the file is larger than allowed",
    "too_slow": "the file did not come in the time allowed",
    "unreachable": "the provider's host does not answer",
    "elsewhere": "its address is outside the portal",
    "untrusted": "the provider's host cannot be trusted",
}


class RecordingUnavailableError(Bitrix24Error):
    """One recording cannot be had; the reason is `code` and `reason`, `name` says which.

    `outdated`: what is known of its place is, so asking the portal for the place again may help.
    """

    def __init__(self, reason: RecordingReason, name: str, *, status: int | None = None, description: str = "") -> None:
        self.reason: RecordingReason = reason
        self.name = name
        self.outdated = False
        text = f"recording {name}: {_RECORDING_TEXTS[reason]}"
        super().__init__(
            reason,
            method="download",
            status=status,
            description=f"{text} ({description})" if description else text,
        )


_METHOD_CODES = {
    "ACCESS_DENIED",
    "ALLOWED_ONLY_INTRANET_USER",
    "ERROR_METHOD_NOT_FOUND",
    "INSUFFICIENT_SCOPE",
    "METHOD_CONFIRM_DENIED",
    "METHOD_CONFIRM_WAITING",
    "USER_ACCESS_ERROR",
    "WRONG_AUTH_TYPE",
}

Kind = type[Bitrix24AccessError | Bitrix24LimitError | Bitrix24UnavailableError | Bitrix24RequestError]


@dataclass(frozen=True)
class _Rule:
    kind: Kind
    advice: str
    retryable: bool = False


_CREDENTIAL = _Rule(Bitrix24AccessError, "check the webhook URL and that its creator is still active")
_RIGHTS = _Rule(Bitrix24AccessError, "give the webhook's creator this right in the portal")
_WAIT = _Rule(Bitrix24UnavailableError, "the portal is in trouble; the next run tries again", retryable=True)
_STRANGE = _Rule(
    Bitrix24UnavailableError,
    "JSON came that is no answer of Bitrix24's REST; if it stays so, check that the webhook URL leads to the portal",
    retryable=True,
)
_ITEM = _Rule(Bitrix24RequestError, "")
_MOVED = _Rule(Bitrix24AccessError, "the address leads elsewhere; check the webhook URL's domain")
_NOBODY = _Rule(Bitrix24AccessError, "no portal answers at this address; check the webhook URL")

_RULES: dict[str, _Rule] = {
    "QUERY_LIMIT_EXCEEDED": _Rule(
        Bitrix24LimitError, "another program uses this portal's request limit from the same address", retryable=True
    ),
    "OPERATION_TIME_LIMIT": _Rule(
        Bitrix24LimitError, "the method used up its time on the portal; the next run goes on", retryable=True
    ),
    "OVERLOAD_LIMIT": _Rule(Bitrix24AccessError, "the portal's REST is blocked by hand; ask Bitrix24 support"),
    "INTERNAL_SERVER_ERROR": _WAIT,
    "ERROR_UNEXPECTED_ANSWER": _WAIT,
    "EXPIRED_TOKEN": _Rule(Bitrix24AccessError, "authorise again"),
    "INVALID_TOKEN": _Rule(Bitrix24AccessError, "authorise again"),
    "NO_AUTH_FOUND": _CREDENTIAL,
    "INVALID_CREDENTIALS": _CREDENTIAL,
    "INSUFFICIENT_SCOPE": _Rule(Bitrix24AccessError, "add the method's scope to the webhook"),
    "ACCESS_DENIED": _Rule(
        Bitrix24AccessError, "give the webhook's creator the right, or the portal a commercial plan"
    ),
    "USER_ACCESS_ERROR": _RIGHTS,
    "ALLOWED_ONLY_INTRANET_USER": _RIGHTS,
    "WRONG_AUTH_TYPE": _Rule(Bitrix24AccessError, "this method needs an application instead of a webhook"),
    "ERROR_METHOD_NOT_FOUND": _Rule(Bitrix24AccessError, "install the module in the portal, or add its scope"),
    "METHOD_CONFIRM_WAITING": _Rule(Bitrix24AccessError, "an administrator must approve this method in the portal"),
    "METHOD_CONFIRM_DENIED": _Rule(Bitrix24AccessError, "an administrator denied this method in the portal"),
    "INVALID_REQUEST": _Rule(Bitrix24AccessError, "check the webhook URL; it must begin with https://"),
    "PORTAL_DELETED": _Rule(Bitrix24AccessError, "the portal is gone; remove its file or its credential"),
    "PAYMENT_REQUIRED": _Rule(Bitrix24AccessError, "the portal's subscription has ended"),
}


def classify(status: int | None, body: object, *, method: str = "", odd: Odd | None = None) -> Bitrix24Error | None:
    """The error that an answer means, or None when it is a success.

    `status` is the HTTP status, None for one entry of a batch's result_error; `body` the decoded JSON, or None when the
    body is not JSON, which `odd` tells of. The code decides, then the status: both differ between versions of the portal.
    """
    found = _error_of(body)
    if found is None and odd is not None and (odd.always or (status is not None and status < 300)):
        kind: Kind = Bitrix24UnavailableError if odd.passes else Bitrix24AccessError
        return kind(
            odd.code, method=method, status=status, description=odd.detail, advice=odd.advice, retryable=odd.passes
        )
    if found is None:
        if status is None or status < 300:
            if isinstance(body, Mapping) and "result" in body:
                return None
            code, rule = ("not_json", _WAIT) if body is None else ("no_result", _STRANGE)
        else:
            code, rule = f"http_{status}", _by_status(status, json=isinstance(body, Mapping))
        return rule.kind(code, method=method, status=status, advice=rule.advice, retryable=rule.retryable)
    code, description = found
    rule = _RULES.get(code.upper()) or _by_text(code, description) or _by_status(status, json=True)
    return rule.kind(
        code, method=method, status=status, description=description, advice=rule.advice, retryable=rule.retryable
    )


def is_operating(error: Bitrix24Error) -> bool:
    """Whether a method was blocked for its operating time: its code, or 429 without one."""
    return isinstance(error, Bitrix24LimitError) and error.code.upper() != "QUERY_LIMIT_EXCEEDED"


def _error_of(body: object) -> tuple[str, str] | None:
    """(code, cleaned text) of the v2 shape (string, number or empty) and of the v3 shape (object)."""
    if not isinstance(body, Mapping) or body.get("error") is None:
        return None
    error = body["error"]
    if isinstance(error, Mapping):
        return said_code(error.get("code", "")), said(error.get("message", ""))
    return said_code(error), said(body.get("error_description") or "")


def _by_text(code: str, description: str) -> _Rule | None:
    """Classic crm.* sends an empty code, so there the text is the only hint."""
    return _RIGHTS if code == "" and "access denied" in description.lower() else None


def _by_status(status: int | None, *, json: bool) -> _Rule:
    if status is None or status < 300:
        return _ITEM
    if status < 400:
        return _MOVED
    if status in (401, 402, 403):
        return _CREDENTIAL
    if status == 429:
        return _RULES["OPERATION_TIME_LIMIT"]
    if status == 408 or status >= 500:
        return _WAIT
    if status in (404, 410) and not json:
        return _NOBODY
    return _ITEM
