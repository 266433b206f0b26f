"""The archive of recordings: a bucket of any S3 service, through boto3.

Address and credentials are boto3's own variables: AWS_ENDPOINT_URL_S3 (empty for AWS), AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_DEFAULT_REGION. The bucket is S3_BUCKET.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from dialog_assets.errors import DialogAssetsError
from dialog_assets.resources.environment import required
from dialog_assets.speech.inbound import silence_botocore


class ArchiveRefused(DialogAssetsError):
    """The bucket or the credentials are wrong: no recording can be archived."""


class ArchiveUnavailable(DialogAssetsError):
    """The archive did not answer; another try may work."""


class ArchivedFileMissing(DialogAssetsError):
    """One recording is not in the archive any more."""


class Archive:
    """One bucket. boto3 blocks, so its calls run in threads."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client = client
        self.bucket = bucket

    async def put(self, path: Path, key: str, *, sha256: str, content_type: str) -> None:
        """Upload a file unless the same bytes are there already. Raises ArchiveRefused, ArchiveUnavailable."""
        if await self._sha256(key) == sha256:
            return
        extra = {"ContentType": content_type, "Metadata": {"sha256": sha256}}
        await self._call("upload_file", key, Filename=str(path), ExtraArgs=extra)

    async def get(self, key: str, path: Path) -> None:
        """Download an object into a file. Raises ArchiveRefused, ArchiveUnavailable, ArchivedFileMissing."""
        try:
            await self._call("download_file", key, Filename=str(path))
        except FileNotFoundError:
            await self.check()  # S3 tells a missing bucket from a missing object only where asked for the bucket
            raise ArchivedFileMissing(
                f"S3 object {key} is not in bucket {self.bucket} any more; restore it and run the step again."
            ) from None

    async def check(self) -> None:
        """Raises what stands against using the bucket."""
        await self._call("head_bucket", None)

    async def _sha256(self, key: str) -> str | None:
        try:
            head = await self._call("head_object", key)
        except FileNotFoundError:
            return None
        return str(head["Metadata"].get("sha256", ""))

    async def _call(self, name: str, key: str | None, **arguments: Any) -> Any:
        if key is not None:
            arguments["Key"] = key
        try:
            return await asyncio.to_thread(getattr(self._client, name), Bucket=self.bucket, **arguments)
        except NoCredentialsError:
            raise ArchiveRefused("S3 has no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.") from None
        except ClientError as error:
            raise self._explained(error, key) from None
        except (BotoCoreError, Boto3Error) as error:
            if isinstance(error.__context__, ClientError):  # upload_file wraps the service's answer
                raise self._explained(error.__context__, key) from None
            raise ArchiveUnavailable(
                f"S3 bucket {self.bucket} does not answer ({type(error).__name__}); check AWS_ENDPOINT_URL_S3 and the network."
            ) from None

    def _explained(self, error: ClientError, key: str | None) -> Exception:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code == "NoSuchBucket" or (key is None and status == 404):
            return ArchiveRefused(f"S3 bucket {self.bucket} does not exist: create it or correct S3_BUCKET.")
        if status in (401, 403):
            return ArchiveRefused(
                f"S3 refuses {code} on bucket {self.bucket}: check the AWS credentials and their rights."
            )
        if status == 404:
            return FileNotFoundError(f"S3 object {key} is not in bucket {self.bucket}")
        return ArchiveUnavailable(f"S3 answers {code or status} on bucket {self.bucket}; run the step again later.")


class ArchiveResource(dg.ConfigurableResource[None]):
    """Opens the archive for a step."""

    def open(self) -> Archive:
        """The bucket of S3_BUCKET. Raises MissingCredential."""
        silence_botocore()
        bucket = required("S3_BUCKET", "the name of the bucket that archives recordings")
        return Archive(boto3.client("s3", config=Config(retries={"mode": "standard", "max_attempts": 5})), bucket)
