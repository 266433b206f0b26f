"""What stands before moto's S3: signatures, the faults of the script, and the books. Not here: buckets and objects, moto's.

moto takes every request from everybody; a real service refuses one that is not signed with a key it knows (so an anonymous
one too), and a body that differs from its signed hash.

Fault kinds of service "s3"; the label is the call's name and the object's key, such as `PutObject acme/2026-03-02/7.mp3`:
denied, no_bucket, other_region, expired_token, quota, full, not_offered, internal, slow_down (an answer with that error);
slow (`value` seconds before the call); reset (the connection breaks after `value` bytes of the body, 65,536 if not given);
reset_after (the call is done, and the connection breaks instead of its answer); lost (the answer is good, but nothing was
stored); cut (the answer is good, but the last byte was not stored).
Manners of other services and of proxies before them, as kinds too: skewed, account, kms, frozen (refusals); object_lock (a
body without a checksum header is refused), no_trailers (one with checksums in a trailer is), virtual_only (a bucket in the
path is refused); capitals, stripped, doubled, renamed (names of metadata); leaves_out (`value`: names of headers and of
elements that the answer lacks); redirect (`value`: status and address); answers (`value`: status, content type and body that
come instead); endless (its body never ends), drops (a byte of it every `value` seconds).
Books, service "s3": counts by call, "upload_bytes"; items "stored" by object key.
"""

from __future__ import annotations

import hashlib
import io
import socket
import struct
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, unquote
from xml.sax.saxutils import escape

from dialog_assets.sandbox.books import Books
from dialog_assets.sandbox.faults import Faults
from dialog_assets.sandbox.inbound_signature import SignatureError, check_payload, check_signature
from dialog_assets.sandbox.s3_manners import MANNERS, behave

SERVICE = "s3"

REFUSALS = {
    "denied": (403, "AccessDenied", "Access Denied"),
    "no_bucket": (404, "NoSuchBucket", "The specified bucket does not exist"),
    "other_region": (400, "AuthorizationHeaderMalformed", "The region 'us-east-1' is wrong; expecting 'eu-north-1'"),
    "expired_token": (400, "ExpiredToken", "The provided token has expired."),
    "quota": (403, "QuotaExceeded", "The bucket's quota is exceeded."),
    "full": (507, "XMinioStorageFull", "Storage backend has reached its minimum free drive threshold."),
    "not_offered": (501, "NotImplemented", "A header you provided implies functionality that is not implemented."),
    "skewed": (
        403,
        "RequestTimeTooSkewed",
        "The difference between the request time and the current time is too large.",
    ),
    "second_level": (400, "SecondLevelDomainForbidden", "Please use virtual hosted style to access."),
    "account": (403, "AccountProblem", "There is a problem with your account."),
    "kms": (400, "KMS.DisabledException", "The key is disabled."),
    "frozen": (403, "InvalidObjectState", "The operation is not valid for the object's storage class"),
    "md5": (
        400,
        "InvalidRequest",
        "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object with Object Lock",
    ),
    "trailers": (501, "NotImplemented", "A header you provided implies functionality that is not implemented."),
    "internal": (500, "InternalError", "We encountered an internal error. Please try again."),
    "slow_down": (503, "SlowDown", "Please reduce your request rate."),
}
"""Fault kind → HTTP status, code and text of the answer."""

_CUT_AFTER = 65_536
_STORING = ("PutObject", "UploadPart")

# (method, has a key, what the query must have) → the call's name; the first that fits.
_CALLS: tuple[tuple[str, bool, str, str], ...] = (
    ("PUT", True, "partNumber", "UploadPart"),
    ("PUT", True, "", "PutObject"),
    ("POST", True, "uploads", "CreateMultipartUpload"),
    ("POST", True, "uploadId", "CompleteMultipartUpload"),
    ("DELETE", True, "uploadId", "AbortMultipartUpload"),
    ("DELETE", True, "", "DeleteObject"),
    ("HEAD", True, "", "HeadObject"),
    ("GET", True, "", "GetObject"),
    ("HEAD", False, "", "HeadBucket"),
    ("GET", False, "uploads", "ListMultipartUploads"),
    ("GET", False, "policyStatus", "GetBucketPolicyStatus"),
    ("GET", False, "publicAccessBlock", "GetPublicAccessBlock"),
    ("GET", False, "acl", "GetBucketAcl"),
    ("GET", False, "lifecycle", "GetBucketLifecycleConfiguration"),
    ("GET", False, "", "ListObjects"),
)

Environ = dict[str, Any]


class Front:
    """A WSGI application around moto's."""

    def __init__(self, app: Any, books: Books, faults: Faults, *, access_key: str, secret_key: str) -> None:
        self._app = app
        self._books = books
        self._faults = faults
        self._secrets = {access_key: secret_key}

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        path, in_host = environ["RAW_URI"].partition("?")[0], self._bucket_in_host(environ)
        call, key = _call_of(environ)
        label = f"{call} {key}"
        broken = self._faults.strike(SERVICE, label, ["reset"])
        if broken is not None:
            environ["wsgi.input"].read(min(int(broken.value or _CUT_AFTER), _length(environ)))
            _break(environ)
        body = environ["wsgi.input"].read(_length(environ))
        environ["wsgi.input"] = io.BytesIO(body)
        try:
            headers = _headers(environ)
            check_signature(
                environ["REQUEST_METHOD"],
                path,
                environ["QUERY_STRING"],
                headers,
                secrets=self._secrets,
                now=datetime.now(UTC),
            )
            check_payload(headers, hashlib.sha256(body).hexdigest())
        except SignatureError as error:
            return _refuse(environ, start_response, error.status, error.code, error.text)
        self._books.count(SERVICE, call)
        slow = self._faults.strike(SERVICE, label, ["slow"])
        if slow is not None:
            time.sleep(float(slow.value))
        refusal = self._refusal(label, headers, in_host=in_host)
        if refusal is not None:
            return _refuse(environ, start_response, *REFUSALS[refusal])
        if call in _STORING:
            self._books.count(SERVICE, "upload_bytes", len(body))
        if call in ("PutObject", "CompleteMultipartUpload"):
            self._books.item(SERVICE, "stored", key)
        return self._perform(environ, start_response, label, body)

    def _bucket_in_host(self, environ: Environ) -> bool:
        """Put a bucket that the host names into the path, where all that follows looks for it."""
        host = environ.get("HTTP_HOST", "").partition(":")[0]
        bucket = host.partition(".")[0]
        if not bucket.startswith("sandbox-"):
            return False
        environ["RAW_URI"] = f"/{bucket}{environ['RAW_URI']}"
        environ["REQUEST_URI"] = environ["RAW_URI"]
        environ["PATH_INFO"] = f"/{bucket}{environ['PATH_INFO']}"
        return True

    def _refusal(self, label: str, headers: dict[str, str], *, in_host: bool) -> str | None:
        """The kind of REFUSALS that this request meets."""
        call = label.partition(" ")[0]
        summed = "content-md5" in headers or any(name.startswith("x-amz-checksum") for name in headers)
        trailed = "x-amz-trailer" in headers or "aws-chunked" in headers.get("content-encoding", "")
        if call in _STORING and not summed and not trailed and self._strikes(label, "object_lock"):
            return "md5"
        if trailed and self._strikes(label, "no_trailers"):
            return "trailers"
        if not in_host and self._strikes(label, "virtual_only"):
            return "second_level"
        refusal = self._faults.strike(SERVICE, label, list(REFUSALS))
        return None if refusal is None else refusal.kind

    def _strikes(self, label: str, kind: str) -> bool:
        return self._faults.strike(SERVICE, label, [kind]) is not None

    def _perform(self, environ: Environ, start_response: Any, label: str, body: bytes) -> Iterable[bytes]:
        if self._faults.strike(SERVICE, label, ["lost"]) is not None:
            start_response("200 OK", [("ETag", '"lost"'), ("Content-Length", "0")])
            return []
        if self._faults.strike(SERVICE, label, ["cut"]) is not None:
            environ["wsgi.input"] = io.BytesIO(body[:-1])
            environ["CONTENT_LENGTH"] = str(len(body) - 1)
        manner = self._faults.strike(SERVICE, label, MANNERS)
        environ["HTTP_HOST"] = "127.0.0.1"  # moto looks for a bucket in every name
        app = self._app if manner is None else partial(behave, manner, self._app)
        answer: Iterable[bytes] = app(environ, start_response)
        if self._faults.strike(SERVICE, label, ["reset_after"]) is not None:
            _break(environ)
        return answer


def _call_of(environ: Environ) -> tuple[str, str]:
    """The call's name and the object's key, of a path-style address."""
    _, _, rest = environ["RAW_URI"].partition("?")[0].partition("/")
    key = unquote(rest.partition("/")[2])
    given = {name for name, _ in parse_qsl(environ["QUERY_STRING"], keep_blank_values=True)}
    for method, has_key, query, call in _CALLS:
        if (method, has_key) == (environ["REQUEST_METHOD"], bool(key)) and (not query or query in given):
            return call, key
    return environ["REQUEST_METHOD"], key


def _length(environ: Environ) -> int:
    return int(environ.get("CONTENT_LENGTH") or 0)


def _headers(environ: Environ) -> dict[str, str]:
    named = {
        name.removeprefix("HTTP_"): value
        for name, value in environ.items()
        if name.startswith("HTTP_") or name in ("CONTENT_TYPE", "CONTENT_LENGTH")
    }
    return {name.replace("_", "-").lower(): str(value) for name, value in named.items()}


def _break(environ: Environ) -> None:
    """End the connection with a reset instead of an answer."""
    connection: socket.socket = environ["werkzeug.socket"]
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError


def _refuse(environ: Environ, start_response: Any, status: int, code: str, text: str) -> Iterable[bytes]:
    content = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{escape(text)}</Message></Error>'
    )
    body = b"" if environ["REQUEST_METHOD"] == "HEAD" else content.encode()
    start_response(f"{status} {code}", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]
