"""The archive of recordings: a bucket of any S3 service, through boto3.

Address and credentials are boto3's own variables: AWS_ENDPOINT_URL_S3 (empty for AWS), AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_DEFAULT_REGION. The archive's are S3_BUCKET, S3_PREFIX, S3_SSE and S3_SSE_KMS_KEY_ID. Objects get
no ACL, so nobody reads them but whom the bucket lets. What errors mean is in s3_errors.py; whether the bucket is open to the
world is asked by `dialog-assets doctor` (s3_exposure.py).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from s3transfer.subscribers import BaseSubscriber
from s3transfer.utils import OSUtils

from dialog_assets.boto3_sessions import new_session
from dialog_assets.resources.environment import required
from dialog_assets.resources.s3_errors import (
    FAILURES,
    RIGHTS,
    ArchivedFileChanged,
    ArchivedFileMissing,
    ArchiveRefused,
    ArchiveUnavailable,
    NoSuchObject,
    explained,
)

if TYPE_CHECKING:
    from s3transfer.futures import TransferFuture
    from s3transfer.manager import TransferManager

__all__ = [
    "RIGHTS",
    "Archive",
    "ArchiveRefused",
    "ArchiveResource",
    "ArchiveUnavailable",
    "ArchivedFileChanged",
    "ArchivedFileMissing",
]

_MB = 1024 * 1024

TRANSFERS = TransferConfig(
    multipart_threshold=16 * _MB,
    multipart_chunksize=8 * _MB,
    max_concurrency=4,
    max_io_queue=32,
    io_chunksize=_MB // 4,
    preferred_transfer_client="classic",  # the other one takes no notice of these limits
)
"""For all recordings of a step together. Parts are read from the file as they are sent, so memory does not grow with it."""

_CALLS_AT_ONCE = 40
_CALLED_OFF_WITHIN_S = 15.0
_PREFIX = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
_ENCRYPTIONS = ("AES256", "aws:kms")


class Archive:
    """One bucket. boto3 blocks, so its calls run in threads; a cancelled upload leaves nothing behind.

    `prefix` comes before every key; `encryption` are PutObject's arguments for it.
    """

    def __init__(
        self, client: Any, bucket: str, *, prefix: str = "", encryption: Mapping[str, str] | None = None
    ) -> None:
        self.client = client
        self._prefix = f"{prefix}/" if prefix else ""
        self._encryption = dict(encryption or {})
        self.bucket = bucket

    @cached_property
    def _transfers(self) -> TransferManager:
        manager: TransferManager = create_transfer_manager(self.client, TRANSFERS, OSUtils())
        return manager

    def key(self, portal: str, day: date, call_id: int, extension: str) -> str:
        """Where the recording of a call belongs."""
        return f"{self._prefix}{portal}/{day}/{call_id}.{extension}"

    async def put(self, path: Path, key: str, *, sha256: str, size: int, content_type: str) -> None:
        """Upload a file of `size` bytes unless the same are there already, and see that it is there.

        Every request's body is a part of its signature, so the service refuses what was damaged on the way.
        Raises ArchiveRefused, ArchiveUnavailable.
        """
        if await self._holds(key, sha256, size):
            return
        if size >= TRANSFERS.multipart_threshold:
            await self._abort_left(key)
        extra = {"ContentType": content_type, "Metadata": {"sha256": sha256}, **self._encryption}
        failure: ArchiveUnavailable | None = None
        try:
            await self._transfer(
                key,
                lambda ends: self._transfers.upload(str(path), self.bucket, key, extra_args=extra, subscribers=ends),
            )
        except ArchiveUnavailable as error:
            failure = error  # perhaps only the answer was lost
        if not await self._holds(key, sha256, size):
            raise failure or ArchiveUnavailable(
                f"S3 took {key} into bucket {self.bucket}, but does not have it as it was sent; run the step again later."
            )

    async def get(self, key: str, path: Path, *, sha256: str) -> None:
        """Download an object into a file, and see that it is the one of that hash.

        Raises ArchiveRefused, ArchiveUnavailable, ArchivedFileMissing, ArchivedFileChanged; OSError if the file cannot be
        written.
        """
        try:
            await self._transfer(
                key, lambda ends: self._transfers.download(self.bucket, key, str(path), subscribers=ends)
            )
        except NoSuchObject:
            await self.check()  # S3 tells a missing bucket from a missing object only where asked for the bucket
            raise ArchivedFileMissing(
                f"S3 object {key} is not in bucket {self.bucket} any more; restore it and run the step again."
            ) from None
        if await asyncio.to_thread(_sha256, path) != sha256:
            raise ArchivedFileChanged(
                f"S3 object {key} in bucket {self.bucket} is not the recording that was archived; if it was not replaced a "
                "moment ago, restore it and run the step again."
            )

    async def check(self) -> None:
        """Raises what stands against using the bucket."""
        await self._call("head_bucket", None)

    async def check_writing(self) -> None:
        """Raises what stands against putting an object there. Nothing is stored: an upload is begun and called off."""
        key = f"{self._prefix}doctor"
        begun = await self._call("create_multipart_upload", key, **self._encryption)
        await self._call("abort_multipart_upload", key, UploadId=begun["UploadId"])

    async def _holds(self, key: str, sha256: str, size: int) -> bool:
        try:
            head = await self._call("head_object", key)
        except NoSuchObject:
            return False
        return (head["ContentLength"], head["Metadata"].get("sha256")) == (size, sha256)

    async def _abort_left(self, key: str) -> None:
        """Drop the parts that a killed run left of this very object: they cost money and nobody sees them.

        Only one run at a time archives a call (step_lock). A service that does not list uploads, or may not for us, keeps
        them until its lifecycle rule.
        """
        try:
            listed = await self._call("list_multipart_uploads", None, Prefix=key)
            for left in listed.get("Uploads", []):
                if left["Key"] == key:
                    await self._call("abort_multipart_upload", key, UploadId=left["UploadId"])
        except (ArchiveRefused, NoSuchObject):
            return

    async def _transfer(self, key: str, begin: Callable[[list[BaseSubscriber]], TransferFuture]) -> None:
        """Wait for a transfer without holding a thread; if cancelled, until what it had sent is called off."""
        ended = asyncio.Event()
        transfer = begin([_Ends(asyncio.get_running_loop(), ended)])
        try:
            await ended.wait()
        except asyncio.CancelledError:
            transfer.cancel()
            with suppress(TimeoutError):  # a service that hangs does not hold up the end of the run
                async with asyncio.timeout(_CALLED_OFF_WITHIN_S):
                    await ended.wait()
            raise
        try:
            transfer.result()
        except FAILURES as error:
            raise explained(error, self.bucket, key) from None

    async def _call(self, name: str, key: str | None, **arguments: Any) -> Any:
        """One request, of an object or (`key` is None) of the bucket. Raises NoSuchObject too."""
        if key is not None:
            arguments["Key"] = key
        try:
            return await asyncio.to_thread(getattr(self.client, name), Bucket=self.bucket, **arguments)
        except FAILURES as error:
            raise explained(error, self.bucket, key) from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Ends(BaseSubscriber):
    """Tells the event loop when a transfer is over, its clean-up included."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
        self._loop = loop
        self._ended = ended

    def on_done(self, future: TransferFuture, **_: Any) -> None:  # noqa: ARG002 -- called by name
        """Called in one of the transfer's threads."""
        self._loop.call_soon_threadsafe(self._ended.set)


class ArchiveResource(dg.ConfigurableResource[None]):
    """Opens the archive for a step. `attempts`: of one request, boto3's growing pauses between them."""

    attempts: int = 5

    def open(self) -> Archive:
        """The bucket of S3_BUCKET. Raises MissingCredential, ArchiveRefused."""
        bucket = required("S3_BUCKET", "the name of the bucket that archives recordings")
        return Archive(connect(bucket, attempts=self.attempts), bucket, prefix=_prefix(), encryption=_encryption())


def connect(bucket: str, *, attempts: int = 5, anonymous: bool = False) -> Any:
    """An S3 client by the environment. Raises ArchiveRefused.

    Newer checksum headers (CRC32 trailers, boto3's default since 1.36) are left out, because other services than AWS refuse
    or mistake them; without them boto3 signs the SHA-256 of every body, which every S3 service checks. A bucket with Object
    Lock needs them: boto3's own AWS_REQUEST_CHECKSUM_CALCULATION=when_supported turns them on.
    """
    try:
        config = Config(
            retries={"mode": "standard", "total_max_attempts": attempts},
            connect_timeout=10,
            read_timeout=60,
            max_pool_connections=_CALLS_AT_ONCE,
            request_checksum_calculation=_unless_set("AWS_REQUEST_CHECKSUM_CALCULATION"),
            response_checksum_validation=_unless_set("AWS_RESPONSE_CHECKSUM_VALIDATION"),
            signature_version=UNSIGNED if anonymous else None,
        )
        return new_session().client("s3", config=config)
    except BotoCoreError as error:
        raise explained(error, bucket, None) from None
    except ValueError:
        raise ArchiveRefused("AWS_ENDPOINT_URL_S3: expected an address such as https://storage.example.") from None


def _unless_set(variable: str) -> Literal["when_required"] | None:
    """None leaves it to boto3, which reads the variable."""
    return None if os.environ.get(variable) else "when_required"


def _prefix() -> str:
    prefix = os.environ.get("S3_PREFIX", "").strip().strip("/")
    if prefix and not _PREFIX.fullmatch(prefix):
        raise ArchiveRefused("S3_PREFIX: expected names of Latin letters, digits and _ . - with / between them.")
    return prefix


def _encryption() -> dict[str, str]:
    kind = os.environ.get("S3_SSE", "").strip()
    kms_key = os.environ.get("S3_SSE_KMS_KEY_ID", "").strip()
    if kind and kind not in _ENCRYPTIONS:
        raise ArchiveRefused(f"S3_SSE: expected {' or '.join(_ENCRYPTIONS)}, or nothing.")
    if kms_key and kind != "aws:kms":
        raise ArchiveRefused("S3_SSE_KMS_KEY_ID is set, so S3_SSE must be aws:kms.")
    return {
        **({"ServerSideEncryption": kind} if kind else {}),
        **({"SSEKMSKeyId": kms_key} if kms_key else {}),
    }
