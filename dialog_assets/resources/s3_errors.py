"""What goes wrong with the archive, and what a service's answer means: a wrong setting, an outage, or one object.

An outage may pass by itself. Everything else that S3 refuses would befall every other recording too, because keys, sizes and
headers are alike: so it is the configuration's, and stops the step.
"""

from __future__ import annotations

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


class NoSuchObject(Exception):
    """S3 has no object of that key."""


FAILURES = (ClientError, BotoCoreError, RetriesExceededError, ResponseParserError)
"""What boto3 raises."""

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
_FULL = frozenset({"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage"})
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
    fault = certificates.fault(cause)
    if fault is not None:
        return ArchiveRefused(f"S3 bucket {bucket} cannot be reached (AWS_ENDPOINT_URL_S3): {fault}.")
    name = type(cause).__name__
    if isinstance(cause, NoCredentialsError | PartialCredentialsError):
        return ArchiveRefused("S3 has no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.")
    if isinstance(cause, BotoCoreError) and not isinstance(cause, _OUTAGES):
        return ArchiveRefused(
            f"S3 cannot be used as it is set up ({name}): check S3_BUCKET ({bucket}) and the variables that begin with AWS_."
        )
    return ArchiveUnavailable(
        f"S3 bucket {bucket} does not answer ({name}); check AWS_ENDPOINT_URL_S3 and the network."
    )


def _answer(error: ClientError, bucket: str, key: str | None) -> Exception:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    told = f"{error.operation_name} on bucket {bucket} ({code or status})"
    if code == "NoSuchBucket" or (key is None and status == 404):
        return ArchiveRefused(f"S3 bucket {bucket} does not exist: create it or correct S3_BUCKET.")
    if code in _ON_THE_WAY or status in _PASSING_STATUSES:
        return ArchiveUnavailable(f"S3 fails at {told}; run the step again later.")
    if status == 404:
        return NoSuchObject()
    if code in _FULL or status == 507:
        return ArchiveRefused(f"S3 is full: it refuses {told}; make room or raise the quota.")
    if code in _REGION:
        return ArchiveRefused(f"S3 bucket {bucket} is in another region ({code}): correct AWS_DEFAULT_REGION.")
    if code == "RequestTimeTooSkewed":
        return ArchiveRefused(f"S3 refuses {told}: this machine's clock is wrong; set it by NTP.")
    if code.upper().startswith("KMS"):
        return ArchiveRefused(f"S3 refuses {told}: check the key of S3_SSE_KMS_KEY_ID and the right to use it.")
    if code == "400":  # an answer to HEAD has no body
        return ArchiveRefused(
            f"S3 refuses {told}: check AWS_DEFAULT_REGION, AWS_ENDPOINT_URL_S3 and that the credentials have not expired."
        )
    if code in _CREDENTIALS or status == 401:
        return ArchiveRefused(f"S3 refuses {told}: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and their lifetime.")
    if status == 403:
        return ArchiveRefused(f"S3 refuses {told}: check the AWS credentials and their rights; they need {RIGHTS}.")
    return ArchiveRefused(f"S3 does not take {told}: check the bucket's rules, S3_SSE and AWS_ENDPOINT_URL_S3.")
