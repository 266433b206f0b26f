"""AWS Signature V4 of a request, checked as an S3 server does it (facts/voicekit.md 3.2). Not here: what the request wants."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote, unquote

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
MAX_SKEW = timedelta(minutes=15)


class SignatureError(Exception):
    """A request that is not signed as it should be; `code` is S3's error code."""

    def __init__(self, code: str, text: str, status: int = 403) -> None:
        self.code = code
        self.text = text
        self.status = status
        super().__init__(text)


def check_payload(headers: Mapping[str, str], sha256: str) -> None:
    """Raise SignatureError unless the body, whose hash is `sha256`, is the one that was signed."""
    if headers.get("x-amz-content-sha256") not in (UNSIGNED, sha256):
        raise SignatureError("XAmzContentSHA256Mismatch", "x-amz-content-sha256 differs from the body's.", 400)


def check_signature(
    method: str,
    raw_path: str,
    query: str,
    headers: Mapping[str, str],
    *,
    secrets: Mapping[str, str],
    now: datetime,
) -> str:
    """The access key that signed the request (header names in lower case, path and query as sent), else SignatureError.

    `secrets` holds each access key's secret. An access key may hold `/`, so the credential is read from the right: its last
    four parts are date, region, service, end. Whether x-amz-content-sha256 is the body's is left to who reads the body.
    """
    fields = _fields(headers.get("authorization", ""))
    key, *scope = fields["Credential"].rsplit("/", 4)
    secret_key = secrets.get(key)
    if secret_key is None:
        raise SignatureError("InvalidAccessKeyId", "The access key is not known here.")
    date, _region, service, end = scope
    moment = headers.get("x-amz-date", "")
    _check_time(moment, now)
    if (service, end) != ("s3", "aws4_request") or not moment.startswith(date):
        raise SignatureError("AuthorizationHeaderMalformed", "The credential's scope is not of S3 and this day.", 400)
    payload = headers.get("x-amz-content-sha256", "")
    if not payload:
        raise SignatureError("MissingSecurityHeader", "x-amz-content-sha256 is missing.", 400)
    signed = fields["SignedHeaders"].split(";")
    unsigned = [name for name in headers if name.startswith("x-amz-") and name not in signed]
    if "host" not in signed or unsigned:
        raise SignatureError("AccessDenied", f"The header {(unsigned or ['host'])[0]} must be signed.")
    canonical = "\n".join(
        (
            method,
            quote(unquote(raw_path), safe="/-_.~"),
            _canonical_query(query),
            "".join(f"{name}:{' '.join(headers.get(name, '').split())}\n" for name in signed),
            fields["SignedHeaders"],
            payload,
        )
    )
    text = "\n".join((ALGORITHM, moment, "/".join(scope), hashlib.sha256(canonical.encode()).hexdigest()))
    signing_key = f"AWS4{secret_key}".encode()
    for part in scope:
        signing_key = hmac.new(signing_key, part.encode(), hashlib.sha256).digest()
    expected = hmac.new(signing_key, text.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, fields["Signature"]):
        raise SignatureError("SignatureDoesNotMatch", "The signature is not that of this request and the secret key.")
    return key


def _fields(authorization: str) -> dict[str, str]:
    algorithm, _, rest = authorization.partition(" ")
    if not authorization:
        raise SignatureError("AccessDenied", "The request carries no Authorization header.")
    if algorithm != ALGORITHM:
        raise SignatureError("InvalidRequest", f"Only {ALGORITHM} is supported.", 400)
    pairs = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    if not pairs.keys() >= {"Credential", "SignedHeaders", "Signature"} or pairs["Credential"].count("/") < 4:
        raise SignatureError("AuthorizationHeaderMalformed", "The Authorization header cannot be read.", 400)
    return pairs


def _check_time(moment: str, now: datetime) -> None:
    try:
        sent = datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise SignatureError("AccessDenied", "x-amz-date is missing or not a time.") from None
    if abs(now - sent) > MAX_SKEW:
        raise SignatureError("RequestTimeTooSkewed", "x-amz-date is more than 15 minutes away from the server's time.")


def _canonical_query(query: str) -> str:
    pairs = parse_qsl(query, keep_blank_values=True)
    return "&".join(sorted(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs))
