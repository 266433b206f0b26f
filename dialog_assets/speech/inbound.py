"""VoiceKit's own storage, from which it reads what it recognises by URI (facts/voicekit.md section 3).

S3-compatible, write and head only: no download, no delete; files stay at most five days. boto3 blocks, so every request
goes through a worker thread. Not here: the archive of recordings, which is another storage.
"""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from dialog_assets import certificates
from dialog_assets.boto3_sessions import AnswerTooLong, LeadsElsewhere, NoXml, bounded, new_session
from dialog_assets.speech.errors import RecogniserBusy, RecogniserRefused, RecogniserUnavailable, RecordingRejected

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET = "inbound"
URI_PREFIX = "storage://s3.api.tinkoff.ai/inbound/"
"""The one documented form; it does not follow the address of the storage."""

REUSE_FOR = timedelta(days=4)
"""Files stay five days and recognition may take one, so an older file is sent again."""

_PART = 16 * 1024 * 1024
_TRANSFER = TransferConfig(multipart_threshold=2 * _PART, multipart_chunksize=_PART, use_threads=False)
"""A long recording goes in parts: read as they are sent, and one that fails is sent again without the others."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_CREDENTIAL_CODES = frozenset({"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "RequestTimeTooSkewed"})


class Inbound:
    """The bucket `inbound` at `storage_url`, signed with the API key and the secret key as text.

    `attempts` bounds the tries of one request, waits between them included by boto3's standard mode.
    """

    def __init__(self, storage_url: str, api_key: str, secret_key: str, *, attempts: int = 4) -> None:
        self._url = storage_url.rstrip("/")
        self._keys = api_key.strip(), secret_key.strip()
        self._attempts = attempts
        self._client: S3Client | None = None
        self._opening = asyncio.Lock()

    async def upload(self, path: Path, object_name: str) -> str:
        """Send the file unless the storage has it, and return its URI.

        The storage has it if an object of that name and size is young enough to be read by an operation that starts
        now. Raises RecogniserRefused, RecogniserBusy, RecogniserUnavailable, RecordingRejected; ValueError for a name
        that is not plain ASCII, because the URI holds it unescaped.
        """
        if not _NAME.fullmatch(object_name):
            raise ValueError("an object name in the recogniser's storage holds ASCII letters, digits and . _ - / only")
        client = await self._open()
        failure = await asyncio.to_thread(_send, client, path, object_name)
        if failure is not None:
            raise _translated(failure)
        return URI_PREFIX + object_name

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await asyncio.to_thread(self._client.close)
            self._client = None

    async def _open(self) -> S3Client:
        async with self._opening:
            if self._client is None:
                self._client = await asyncio.to_thread(self._connect)
            return self._client

    def _connect(self) -> S3Client:
        config = Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            connect_timeout=10,
            read_timeout=60,
            max_pool_connections=32,
            retries={"total_max_attempts": self._attempts, "mode": "standard"},
        )
        try:
            client: S3Client = bounded(
                new_session().client(
                    "s3",
                    endpoint_url=self._url,
                    region_name="us-east-1",
                    aws_access_key_id=self._keys[0],
                    aws_secret_access_key=self._keys[1],
                    config=config,
                )
            )
            return client
        except (ValueError, BotoCoreError) as error:
            raise RecogniserRefused(
                f"the recogniser's storage cannot be set up ({type(error).__name__}): check VOICEKIT_STORAGE_URL"
            ) from None


_STRANGE = (AnswerTooLong, LeadsElsewhere, NoXml, ResponseParserError, KeyError)
"""What an answer that is none of S3's raises; a KeyError is a part that it lacks."""


def _send(client: S3Client, path: Path, name: str) -> Exception | None:
    """What went wrong, or None. Returned, not raised, so that the typed error does not carry boto3's text along."""
    try:
        if not _is_there(client, name, path.stat().st_size):
            client.upload_file(str(path), BUCKET, name, Config=_TRANSFER)
    except (ClientError, BotoCoreError, *_STRANGE) as error:
        return error
    except Boto3Error as error:  # upload_file wraps what went wrong with a part
        known = isinstance(error.__context__, (ClientError, BotoCoreError, *_STRANGE))
        return error.__context__ if known and isinstance(error.__context__, Exception) else BotoCoreError()
    return None


def _is_there(client: S3Client, name: str, size: int) -> bool:
    try:
        head = client.head_object(Bucket=BUCKET, Key=name)
    except ClientError as error:
        if _status(error) == 404:
            return False
        raise
    # What a proxy in front leaves out is not known: then the file is sent once more.
    written = head.get("LastModified")
    return head.get("ContentLength") == size and written is not None and datetime.now(UTC) - written < REUSE_FOR


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _translated(error: Exception) -> Exception:
    if isinstance(error, LeadsElsewhere):
        return RecogniserRefused(
            f"VOICEKIT_STORAGE_URL leads to {error.address}: correct the address to what answers there"
        )
    if isinstance(error, _STRANGE):
        return RecogniserUnavailable(
            f"the recogniser's storage answers in a way that is none of S3's ({type(error).__name__}): look at what stands "
            "before it, and check VOICEKIT_STORAGE_URL"
        )
    if not isinstance(error, ClientError):
        fault = certificates.fault(error)
        if fault is not None:
            return RecogniserRefused(f"the recogniser's storage (VOICEKIT_STORAGE_URL): {fault}")
        return RecogniserUnavailable(
            f"the recogniser's storage does not answer ({type(error).__name__}): check VOICEKIT_STORAGE_URL and the network"
        )
    status, code = _status(error), str(error.response.get("Error", {}).get("Code", ""))
    what = f"HTTP {status}{'' if code == str(status) else f' {code}'}"
    if status in (401, 403) or code in _CREDENTIAL_CODES:
        return RecogniserRefused(
            f"the recogniser's storage refuses the credential ({what}): check VOICEKIT_API_KEY and VOICEKIT_SECRET_KEY"
        )
    if status in (404, 405, 501) or code == "NoSuchBucket":
        return RecogniserRefused(
            f"the recogniser's storage has no bucket {BUCKET} ({what}): check VOICEKIT_STORAGE_URL"
        )
    if status in (429, 503):
        return RecogniserBusy(f"the recogniser's storage is overloaded ({what}): try again later")
    if status >= 500 or status in (408, 0):
        return RecogniserUnavailable(f"the recogniser's storage failed ({what}): try again later")
    return RecordingRejected("refused_by_storage", f"the recogniser's storage does not take the recording ({what})")
