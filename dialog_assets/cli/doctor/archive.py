"""Doctor's look at the S3 archive."""

from __future__ import annotations

from dialog_assets.cli.doctor.examination import Check, Context, Unwell
from dialog_assets.resources.s3 import ArchiveResource
from dialog_assets.resources.s3_exposure import exposure


def checks(_: Context) -> list[Check]:
    """One check of the archive."""
    return [Check("S3 archive", bucket)]


async def bucket() -> str:
    """Whether recordings can be put into the bucket, and are closed to the world there. Raises Unwell."""
    archive = ArchiveResource().open()
    await archive.check()
    await archive.check_writing()
    found = await exposure(archive)
    if found.ways:
        raise Unwell(
            f"bucket {archive.bucket} is open to the world ({', '.join(found.ways)}): close it, it holds people's voices."
        )
    told = [f"bucket {archive.bucket} can be read and written"]
    told.append(f"not public, but it does not tell its {', '.join(found.untold)}" if found.untold else "not public")
    if found.drops_parts is False:
        told.append("a lifecycle rule AbortIncompleteMultipartUpload would end what killed uploads leave")
    return "; ".join(told)
