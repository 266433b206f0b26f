"""The archive of recordings: a bucket of any S3 service, through boto3.

Address and credentials are boto3's own variables: AWS_ENDPOINT_URL_S3 (empty for AWS), AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_DEFAULT_REGION. The archive's are S3_BUCKET, S3_PREFIX, S3_ADDRESSING_STYLE, S3_SSE and
S3_SSE_KMS_KEY_ID. Objects get no ACL, so nobody reads them but whom the bucket lets. What errors mean is in s3_errors.py;
whether the bucket is open to the world is asked by `dialog-assets doctor` (s3_exposure.py).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
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

from dialog_assets.boto3_sessions import bounded, new_session
from dialog_assets.resources.environment import check_key, required
from dialog_assets.resources.s3_errors import (
    FAILURES,
    RIGHTS,
    ArchivedFileChanged,
    ArchivedFileFrozen,
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
    "ArchivedFileFrozen",
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

_IN_PARTS = TransferConfig(
    multipart_threshold=1, multipart_chunksize=8 * _MB, max_concurrency=1, preferred_transfer_client="classic"
)
"""To try the way of long recordings with a short one."""

_CALLS_AT_ONCE = 40
_CALLED_OFF_WITHIN_S = 15.0
_PREFIX = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
_STYLES: dict[str, Literal["auto", "path", "virtual"]] = {"auto": "auto", "path": "path", "virtual": "virtual"}
_CONTENT_RANGE = re.compile(r"\s*bytes\s+[\d*]+(?:-\d+)?/(\d+)\s*", re.IGNORECASE)
_HASH_NAME = "sha256"
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

    @cached_property
    def _transfers_in_parts(self) -> TransferManager:
        manager: TransferManager = create_transfer_manager(self.client, _IN_PARTS, OSUtils())
        return manager

    def key(self, portal: str, day: date, call_id: int, extension: str) -> str:
        """Where the recording of a call belongs."""
        return f"{self._prefix}{portal}/{day}/{call_id}.{extension}"

    async def put(
        self, path: Path, key: str, *, sha256: str, size: int, content_type: str, in_parts: bool = False
    ) -> None:
        """Upload a file of `size` bytes unless the same are there already, and see that it is there.

        Every request's body is a part of its signature, so the service refuses what was damaged on the way. `in_parts`: a
        small one too. Raises ArchiveRefused, ArchiveUnavailable.
        """
        if await self._holds(key, sha256, size):
            return
        if size >= TRANSFERS.multipart_threshold:
            await self._abort_left(key)
        extra = {"ContentType": content_type, "Metadata": {_HASH_NAME: sha256}, **self._encryption}
        transfers = self._transfers_in_parts if in_parts else self._transfers
        failure: ArchiveUnavailable | None = None
        try:
            await self._transfer(
                key, lambda ends: transfers.upload(str(path), self.bucket, key, extra_args=extra, subscribers=ends)
            )
        except ArchiveUnavailable as error:
            failure = error  # perhaps only the answer was lost
        except NoSuchObject:
            raise ArchiveRefused(
                f"S3 answers 404 to the upload of {key} into bucket {self.bucket}: check S3_BUCKET and AWS_ENDPOINT_URL_S3."
            ) from None
        if await self._holds(key, sha256, size):
            return
        if failure is None:
            await self._tell_what_is_kept(key, size)
        raise failure or ArchiveUnavailable(
            f"S3 took {key} into bucket {self.bucket}, but does not have it as it was sent; run the step again later."
        )

    async def get(
        self, key: str, path: Path, *, sha256: str, size: int | None = None, bucket: str | None = None
    ) -> None:
        """Download an object into a file, and see that it is the one of that hash.

        `size`: where it is known, so that it need not be asked for. `bucket`: where it is another one than the archive's.

        Raises ArchiveRefused, ArchiveUnavailable, ArchivedFileMissing, ArchivedFileChanged, ArchivedFileFrozen; OSError if
        the file cannot be written.
        """
        bucket = bucket or self.bucket
        try:
            await self._transfer(
                key,
                lambda ends: self._transfers.download(bucket, key, str(path), subscribers=[*ends, _OfSize(size)]),
                bucket,
            )
        except NoSuchObject:
            if bucket == self.bucket:
                await self.check()  # S3 tells a missing bucket from a missing object only where asked for the bucket
            raise ArchivedFileMissing(
                f"S3 object {key} is not in bucket {bucket} any more; the next run fetches it again, if the portal has it."
            ) from None
        except ArchiveRefused as error:
            if bucket == self.bucket:
                raise
            raise ArchivedFileMissing(
                f"S3 object {key} lies in bucket {bucket}, not in {self.bucket}, and cannot be read there ({error}); the next "
                "run fetches it again, if the portal has it."
            ) from None
        if await asyncio.to_thread(_sha256, path) != sha256:
            raise ArchivedFileChanged(
                f"S3 object {key} in bucket {bucket} is not the recording that was archived; if it was not replaced a "
                "moment ago, restore it and run the step again."
            )

    async def check(self) -> None:
        """Raises what stands against using the bucket: its first object is listed, as only HEAD is refused without words."""
        prefix = {"Prefix": self._prefix} if self._prefix else {}
        listed = await self._call("list_objects_v2", None, MaxKeys=1, **prefix)
        if not {"Name", "KeyCount", "IsTruncated", "MaxKeys", "Contents"}.intersection(listed):
            raise ArchiveRefused(
                f"What answers for bucket {self.bucket} is no S3 service: its list of objects tells nothing; check "
                "AWS_ENDPOINT_URL_S3."
            )

    async def remove(self, key: str) -> bool:
        """Remove doctor's test object; False where that is refused. Recordings are never removed."""
        try:
            await self._call("delete_object", key)
        except (ArchiveRefused, ArchiveUnavailable, NoSuchObject):
            return False
        return True

    def test_key(self, name: str) -> str:
        """Where doctor tries what a night does: never among recordings."""
        return f"{self._prefix}doctor/{name}"

    async def _holds(self, key: str, sha256: str, size: int) -> bool:
        """Whether the object is there with that hash in its metadata, as HEAD tells, or else a read of one byte."""
        kept = await self._kept(key)
        if kept is not None and not kept.is_of(sha256, size):
            kept = await self._kept_by_reading(key)
        return kept is not None and kept.is_of(sha256, size)

    async def _kept(self, key: str) -> _Kept | None:
        try:
            return _kept(await self._call("head_object", key))
        except NoSuchObject:
            return None

    async def _kept_by_reading(self, key: str) -> _Kept | None:
        """What a GET tells, as services and proxies answer HEAD with less, or from a cache."""
        try:
            answer = await self._call("get_object", key, Range="bytes=0-0")
        except (NoSuchObject, ArchiveRefused, ArchivedFileFrozen):
            return None
        answer["Body"].close()
        told = _CONTENT_RANGE.fullmatch(str(answer.get("ContentRange") or ""))
        kept = _kept(answer)
        return _Kept(int(told[1]) if told else kept.size, kept.hashes)

    async def _tell_what_is_kept(self, key: str, size: int) -> None:
        """Raises ArchiveRefused where what was just sent is there, but what is told of it is cut for every object alike."""
        kept, read = await self._kept(key), await self._kept_by_reading(key)
        if kept is None or read is None or (sizes := {kept.size, read.size}) - {None, size}:
            return
        if not kept.hashes | read.hashes:
            raise ArchiveRefused(
                f"S3 keeps no metadata in bucket {self.bucket}: x-amz-meta-{_HASH_NAME} of {key} is lost, so recordings cannot be "
                "told from others; let the service, or the proxy before it, pass x-amz-meta-* headers both ways."
            )
        if sizes == {None}:
            raise ArchiveRefused(
                f"S3 does not tell the size of {key} in bucket {self.bucket}: let the proxy before the service pass "
                "Content-Length of HEAD, or Content-Range."
            )

    async def _abort_left(self, key: str) -> None:
        """Drop the parts that a killed run left of this very object: they cost money and nobody sees them.

        Only one run at a time archives a call (step_lock). A service that does not list uploads, or may not for us, keeps
        them until its lifecycle rule.
        """
        try:
            listed = await self._call("list_multipart_uploads", None, Prefix=key)
            for left in listed.get("Uploads", []):
                if left.get("Key") == key and left.get("UploadId"):
                    await self._call("abort_multipart_upload", key, UploadId=left["UploadId"])
        except (ArchiveRefused, NoSuchObject):
            return

    async def _transfer(
        self, key: str, begin: Callable[[list[BaseSubscriber]], TransferFuture], bucket: str | None = None
    ) -> None:
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
            raise explained(error, bucket or self.bucket, key) from None

    async def _call(self, name: str, key: str | None, **arguments: Any) -> Any:
        """One request, of an object or (`key` is None) of the bucket. Raises NoSuchObject too."""
        if key is not None:
            arguments["Key"] = key
        try:
            return await asyncio.to_thread(getattr(self.client, name), Bucket=self.bucket, **arguments)
        except FAILURES as error:
            raise explained(error, self.bucket, key) from None


@dataclass(frozen=True)
class _Kept:
    """What is told of an object: its size, None if that is left out, and the values of its hash."""

    size: int | None
    hashes: frozenset[str]

    def is_of(self, sha256: str, size: int) -> bool:
        return self.size == size and self.hashes == {sha256}


def _kept(answer: Mapping[str, Any]) -> _Kept:
    """Names of metadata come in any case, and a value that two headers hold comes as a list."""
    size = answer.get("ContentLength")
    metadata = answer.get("Metadata") or {}
    values = [str(value) for name, value in metadata.items() if str(name).strip().lower() == _HASH_NAME]
    hashes = {part.strip(" \t\"'").lower() for value in values for part in value.split(",")}
    return _Kept(size if isinstance(size, int) else None, frozenset(hashes - {""}))


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


class _OfSize(BaseSubscriber):
    """Tells a download how large the object is."""

    def __init__(self, size: int | None) -> None:
        self._size = size

    def on_queued(self, future: TransferFuture, **_: Any) -> None:
        """Called before the transfer asks."""
        if self._size is not None:
            future.meta.provide_transfer_size(self._size)


class ArchiveResource(dg.ConfigurableResource[None]):
    """Opens the archive for a step. `attempts`: of one request, boto3's growing pauses between them."""

    attempts: int = 5

    def open(self) -> Archive:
        """The bucket of S3_BUCKET. Raises MissingCredential, UnusableCredential, ArchiveRefused, CertificatesUnusable."""
        bucket = required("S3_BUCKET", "the name of the bucket that archives recordings")
        return Archive(connect(bucket, attempts=self.attempts), bucket, prefix=_prefix(), encryption=_encryption())


def connect(bucket: str, *, attempts: int = 5, anonymous: bool = False) -> Any:
    """An S3 client by the environment. Raises ArchiveRefused, UnusableCredential, CertificatesUnusable.

    Newer checksum headers (CRC32 trailers, boto3's default since 1.36) are left out, because other services than AWS refuse
    or mistake them; without them boto3 signs the SHA-256 of every body, which every S3 service checks. A bucket with Object
    Lock needs them: boto3's own AWS_REQUEST_CHECKSUM_CALCULATION=when_supported turns them on.
    """
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION"):
        check_key(name, os.environ.get(name, ""), "what signs requests to S3")
    try:
        config = Config(
            retries={"mode": "standard", "total_max_attempts": attempts},
            connect_timeout=10,
            read_timeout=60,
            max_pool_connections=_CALLS_AT_ONCE,
            request_checksum_calculation=_unless_set("AWS_REQUEST_CHECKSUM_CALCULATION"),
            response_checksum_validation=_unless_set("AWS_RESPONSE_CHECKSUM_VALIDATION"),
            signature_version=UNSIGNED if anonymous else None,
            s3={"addressing_style": _addressing_style()},
        )
        return bounded(new_session().client("s3", config=config))
    except BotoCoreError as error:
        raise explained(error, bucket, None) from None
    except ValueError:
        raise ArchiveRefused("AWS_ENDPOINT_URL_S3: expected an address such as https://storage.example.") from None


def _unless_set(variable: str) -> Literal["when_required"] | None:
    """None leaves it to boto3, which reads the variable."""
    return None if os.environ.get(variable) else "when_required"


def _addressing_style() -> Literal["auto", "path", "virtual"]:
    given = os.environ.get("S3_ADDRESSING_STYLE", "").strip() or "auto"
    style = _STYLES.get(given)
    if style is None:
        raise ArchiveRefused(
            "S3_ADDRESSING_STYLE: expected path (the bucket in the path), virtual (in the host's name), or nothing."
        )
    return style


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
