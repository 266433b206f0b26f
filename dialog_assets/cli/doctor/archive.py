"""Doctor's look at the S3 archive: what a night does with a recording, done with a few bytes."""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from pathlib import Path

from dialog_assets.cli.doctor.examination import Check, Context, Finding, Unwell
from dialog_assets.resources.s3 import Archive, ArchiveResource
from dialog_assets.resources.s3_exposure import exposure


def checks(_: Context) -> list[Check]:
    """One check of the archive."""
    return [Check("S3 archive", bucket)]


async def bucket() -> list[Finding]:
    """Whether recordings can be put into the bucket and read from it, and are closed to the world there. Raises Unwell."""
    archive = ArchiveResource().open()
    await archive.check()
    tried = await try_writing(archive)
    found = await exposure(archive)
    if found.ways:
        raise Unwell(
            f"bucket {archive.bucket} is open to the world ({', '.join(found.ways)}): close it, it holds people's voices."
        )
    told = [f"bucket {archive.bucket} can be read and written, in one piece and in parts", tried]
    told.append(f"not public, but it does not tell its {', '.join(found.untold)}" if found.untold else "not public")
    if found.drops_parts is False:
        told.append("a lifecycle rule AbortIncompleteMultipartUpload would end what killed uploads leave")
    findings = [Finding("S3 archive", "ok", "; ".join(told))]
    if os.environ.get("AWS_ENDPOINT_URL_S3", "").startswith("http:") and not _is_here(
        os.environ["AWS_ENDPOINT_URL_S3"]
    ):
        findings.append(
            Finding(
                "S3 archive",
                "warn",
                "AWS_ENDPOINT_URL_S3 begins with http: recordings cross the network for all to hear.",
            )
        )
    return findings


async def try_writing(archive: Archive) -> str:
    """Put a few bytes, see that they are kept with what is told of them, and read them, both ways in which a night puts.

    A test object is removed where the rights allow that; a night needs no such right, so else the same one is written over
    the next time. Raises what a night's upload raises.
    """
    left = []
    with tempfile.TemporaryDirectory() as folder:
        path, back = Path(folder) / "test", Path(folder) / "back"
        for name, in_parts in (("test", False), ("test-in-parts", True)):
            data = secrets.token_bytes(64)  # others each time, so that they must be sent
            path.write_bytes(data)
            key, sha256 = archive.test_key(name), hashlib.sha256(data).hexdigest()
            await archive.put(
                path,
                key,
                sha256=sha256,
                size=len(data),
                content_type="application/octet-stream",
                in_parts=in_parts,
            )
            await archive.get(key, back, sha256=sha256, size=len(data))
            if not await archive.remove(key):
                left.append(key)
    if left:
        return f"the test objects {', '.join(left)} stay, as the credentials may not remove them, and need not"
    return "test objects were put, read and removed"


def _is_here(url: str) -> bool:
    host = url.partition("//")[2].partition("/")[0].rpartition("@")[2]
    return host.startswith(("127.", "localhost", "[::1]"))
