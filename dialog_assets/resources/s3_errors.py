"""What goes wrong with the archive, and what a service's answer means: a wrong setting, an outage, or one object.

An outage may pass by itself. Everything else that S3 refuses would befall every other recording too, because keys, sizes and
headers are alike: so it is the configuration's, and stops the step.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 -- botocore's
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.parsers import ResponseParserError
from s3transfer.exceptions import RetriesExceededError

from dialog_assets import certificates
from dialog_assets.boto3_sessions import AnswerTooLong, LeadsElsewhere, NoXml
from dialog_assets.errors import DialogAssetsError

RIGHTS = "s3:ListBucket, s3:GetObject, s3:PutObject, s3:AbortMultipartUpload"
"""What the credentials need. Without the first one S3 says "forbidden" of an object that is not there."""


class ArchiveRefused(DialogAssetsError):
    """The bucket, the credentials or a setting is wrong, or the archive is full: no recording can be archived."""


class ArchiveUnavailable(DialogAssetsError):
    """The archive did not answer, or not well; another try may work."""


class ArchivedFileMissing(DialogAssetsError):
    """One recording is not in the archive any more."""


class ArchivedFileChanged(DialogAssetsError):
    """One recording in the archive is not the one that the database describes."""


class ArchivedFileFrozen(DialogAssetsError):
    """One recording in the archive lies in cold storage, from where it must be called back before it can be read."""


class NoSuchObject(Exception):
    """S3 has no object of that key."""


FAILURES = (
    ClientError,
    BotoCoreError,
    RetriesExceededError,
    ResponseParserError,
    AnswerTooLong,
    LeadsElsewhere,
    NoXml,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
)
"""What boto3 raises. The last six are no errors of its own, but what its readers meet in an answer of another shape."""

_OUTAGES = (
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    CredentialRetrievalError,
    MetadataRetrievalError,
)

_CREDENTIALS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
)
_REGION = frozenset({"PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"})
_FULL = frozenset(
    {
        "QuotaExceeded",
        "TooManyBuckets",
        "ServiceQuotaExceeded",
        "XMinioStorageFull",
        "XMinioAdminBucketQuotaExceeded",
        "InsufficientStorage",
    }
)
_STYLE = frozenset({"SecondLevelDomainForbidden", "PathStyleRequestNotAllowed", "InvalidAddressingHeader"})
_ACCOUNT = frozenset({"AccountProblem", "NotSignedUp", "AllAccessDisabled", "UserSuspended", "AccountSuspended"})
_CHECK_KEYS = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and their lifetime"
_ADVICE: tuple[tuple[frozenset[str], str], ...] = (
    (_FULL, "make room or raise the quota"),
    (_REGION, "correct AWS_DEFAULT_REGION"),
    (_CREDENTIALS, _CHECK_KEYS),
    (frozenset({"RequestTimeTooSkewed"}), "this machine's clock is wrong; set it by NTP"),
    (_STYLE, "it wants the bucket's name in the host; set S3_ADDRESSING_STYLE=virtual"),
    (_ACCOUNT, "the account is closed or not paid; settle that with the service"),
    (frozenset({"KMS"}), "check the key of S3_SSE_KMS_KEY_ID and the right to use it"),
    (
        frozenset({"ObjectLock"}),
        "a bucket with Object Lock wants checksums; set AWS_REQUEST_CHECKSUM_CALCULATION=when_supported",
    ),
    (
        frozenset({"400", "301", "302", "307", "308"}),  # an answer to HEAD has no body
        "check AWS_DEFAULT_REGION, AWS_ENDPOINT_URL_S3 and that the credentials have not expired",
    ),
)
"""What a person can do about codes that no wait mends; the first that fits."""

_BY_STATUS = {
    401: _CHECK_KEYS,
    403: f"check the AWS credentials and their rights; they need {RIGHTS}",
}

_LOCK = re.compile(r"content-md5|x-amz-checksum|object lock", re.IGNORECASE)
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,59}")
_CLOCKS_APART = timedelta(minutes=10)
_ON_THE_WAY = frozenset(
    {"BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody", "RequestTimeout", "NoSuchUpload", "InvalidPart"}
)
"""The bytes, or parts of them, were damaged or lost."""

_PASSING_STATUSES = frozenset({408, 409, 429, 500, 502, 503, 504})


def explained(error: Exception, bucket: str, key: str | None) -> Exception:
    """The error to raise for what boto3 raised (one of FAILURES) while asked for `key`, or for the bucket itself.

    Texts name bucket, call and code; never what S3 says beyond them.
    """
    cause = error.last_exception if isinstance(error, RetriesExceededError) else error
    if isinstance(cause, ClientError):
        return _answer(cause, bucket, key)
    if isinstance(cause, LeadsElsewhere):
        return ArchiveRefused(
            f"AWS_ENDPOINT_URL_S3 leads to {cause.address}: correct the address to what answers there."
        )
    fault = certificates.fault(cause)
    if fault is not None:
        return ArchiveRefused(f"S3 bucket {bucket} cannot be reached (AWS_ENDPOINT_URL_S3): {fault}.")
    name = type(cause).__name__
    if isinstance(cause, NoCredentialsError | PartialCredentialsError):
        return ArchiveRefused("S3 has no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.")
    if isinstance(cause, AnswerTooLong):
        return ArchiveUnavailable(
            f"S3 bucket {bucket} does not end its answer, or sends it by drops; look at what stands before the service."
        )
    if isinstance(cause, ResponseParserError) or not isinstance(cause, BotoCoreError):
        left_out = cause.args[0] if isinstance(cause, KeyError) and cause.args else None
        what = (
            f"without {left_out}"
            if isinstance(left_out, str) and _CODE.fullmatch(left_out)
            else f"of another kind ({name})"
        )
        return ArchiveUnavailable(
            f"S3 bucket {bucket} gives an answer {what}, as no S3 service does; look at what answers at AWS_ENDPOINT_URL_S3."
        )
    if not isinstance(cause, _OUTAGES):
        return ArchiveRefused(
            f"S3 cannot be used as it is set up ({name}): check S3_BUCKET ({bucket}) and the variables that begin with AWS_."
        )
    return ArchiveUnavailable(
        f"S3 bucket {bucket} does not answer ({name}); check AWS_ENDPOINT_URL_S3 and the network."
    )


def _answer(error: ClientError, bucket: str, key: str | None) -> Exception:
    told_by = error.response.get("Error") or {}
    meta: Any = error.response.get("ResponseMetadata") or {}
    code, status = str(told_by.get("Code") or ""), int(meta.get("HTTPStatusCode") or 0)
    if not _CODE.fullmatch(code):
        code = str(status)
    told = f"{error.operation_name} on bucket {bucket} ({code})"
    if code == "NoSuchBucket" or (key is None and status == 404):
        return ArchiveRefused(f"S3 bucket {bucket} does not exist: create it or correct S3_BUCKET.")
    if code in _ON_THE_WAY or status in _PASSING_STATUSES:
        return ArchiveUnavailable(f"S3 fails at {told}; run the step again later.")
    if status == 404:
        return NoSuchObject()
    if code == "InvalidObjectState":
        return ArchivedFileFrozen(
            f"S3 object {key} in bucket {bucket} lies in cold storage: call it back, and keep lifecycle rules away from it."
        )
    if status == 507:
        code = "InsufficientStorage"
    elif status in (400, 401, 403) and _clock_is_wrong(meta):
        code = "RequestTimeTooSkewed"
    elif code.upper().startswith("KMS"):
        code = "KMS"
    elif status == 400 and _LOCK.search(str(told_by.get("Message") or "")[:2000]):
        code = "ObjectLock"
    advice = next((advice for codes, advice in _ADVICE if code in codes), _BY_STATUS.get(status))
    if code in _REGION:
        return ArchiveRefused(f"S3 bucket {bucket} is in another region ({code}): {advice}.")
    if advice is None:
        return ArchiveRefused(f"S3 does not take {told}: check the bucket's rules, S3_SSE and AWS_ENDPOINT_URL_S3.")
    is_full = code in _FULL
    return ArchiveRefused(f"S3 is full: it refuses {told}; {advice}." if is_full else f"S3 refuses {told}: {advice}.")


def _clock_is_wrong(meta: Any) -> bool:
    """By the answer's own time: an answer to HEAD has no words."""
    try:
        theirs = parsedate_to_datetime(str((meta.get("HTTPHeaders") or {}).get("date", "")))
        return abs(theirs - datetime.now(UTC)) > _CLOCKS_APART
    except (ValueError, TypeError, OverflowError):
        return False
