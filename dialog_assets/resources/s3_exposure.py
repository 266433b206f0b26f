"""Whether the archive's bucket is open to the world, as far as its service tells; and what it does with interrupted uploads.

Asked by `dialog-assets doctor`, never by a run. Services know different parts of this: what one refuses to tell is named, and
is no fault.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from dialog_assets.resources.s3 import Archive, connect
from dialog_assets.resources.s3_errors import FAILURES

_EVERYBODY = ("/groups/global/AllUsers", "/groups/global/AuthenticatedUsers")
_QUESTIONS = {
    "get_public_access_block": "public access block",
    "get_bucket_policy_status": "policy status",
    "get_bucket_acl": "ACL",
    "get_bucket_lifecycle_configuration": "lifecycle",
}

Answer = Mapping[str, Any] | None
"""What a bucket has of something, {} if nothing; None if the service does not tell."""


@dataclass(frozen=True)
class Exposure:
    """`ways`: how anybody may read; empty is private. `untold`: what the service does not tell. `drops_parts`: whether a
    rule ends interrupted uploads, None if that is not told."""

    ways: tuple[str, ...]
    untold: tuple[str, ...]
    drops_parts: bool | None


async def exposure(archive: Archive) -> Exposure:
    """Ask the service, and try without credentials. Raises ArchiveRefused if no client can be made."""
    answers = {name: await _ask(archive, name) for name in _QUESTIONS}
    anonymous = await asyncio.to_thread(_lists_without_credentials, archive.bucket)
    return judged(answers, anonymous=anonymous)


def judged(answers: Mapping[str, Answer], *, anonymous: bool) -> Exposure:
    """The exposure that follows from the answers by the names of boto3's calls, and from a try without credentials."""
    block = (answers["get_public_access_block"] or {}).get("PublicAccessBlockConfiguration", {})
    policy = (answers["get_bucket_policy_status"] or {}).get("PolicyStatus", {})
    grants = (answers["get_bucket_acl"] or {}).get("Grants", [])
    everybody = any(grant.get("Grantee", {}).get("URI", "").endswith(_EVERYBODY) for grant in grants)
    ways = {
        "its policy is public": policy.get("IsPublic", False) and not block.get("RestrictPublicBuckets", False),
        "its ACL names everybody": everybody and not block.get("IgnorePublicAcls", False),
        "it can be listed without credentials": anonymous,
    }
    lifecycle = answers["get_bucket_lifecycle_configuration"]
    rules = (lifecycle or {}).get("Rules", [])
    drops = any(rule.get("Status") == "Enabled" and "AbortIncompleteMultipartUpload" in rule for rule in rules)
    return Exposure(
        ways=tuple(way for way, open_to_all in ways.items() if open_to_all),
        untold=tuple(what for name, what in _QUESTIONS.items() if answers[name] is None),
        drops_parts=None if lifecycle is None else drops,
    )


async def _ask(archive: Archive, name: str) -> Answer:
    try:
        answer: dict[str, Any] = await asyncio.to_thread(getattr(archive.client, name), Bucket=archive.bucket)
    except ClientError as error:
        return {} if str(error.response.get("Error", {}).get("Code", "")).startswith("NoSuch") else None
    except FAILURES:
        return None
    return answer


def _lists_without_credentials(bucket: str) -> bool:
    try:
        connect(bucket, anonymous=True).list_objects_v2(Bucket=bucket, MaxKeys=1)
    except FAILURES:
        return False
    return True
