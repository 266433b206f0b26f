"""An S3 service on a socket, with the environment pointing at it; and files to put there."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import pytest

from dialog_assets.sandbox.books import Books
from dialog_assets.sandbox.faults import Faults
from dialog_assets.sandbox.s3 import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, S3Server


@dataclass
class Bucket:
    """A bucket, what it was asked, and what goes wrong with it."""

    name: str
    url: str
    server: S3Server = field(repr=False)
    books: Books = field(repr=False)
    faults: Faults = field(repr=False)

    @cached_property
    def client(self) -> Any:
        """boto3's own client, for looking and for what our code never does."""
        return boto3.session.Session().client("s3")

    def reset(self) -> None:
        """Empty it; nothing goes wrong any more."""
        self.faults.set([])
        self.server.reset()
        self.books.reset()

    def counts(self) -> dict[str, int]:
        """How often each call came since the last time; looking at the bucket counts too."""
        found: dict[str, int] = self.books.as_dict().get("s3", {}).get("counts", {})
        self.books.reset()
        return found

    def keys(self) -> list[str]:
        """What is there."""
        return [entry["Key"] for entry in self.client.list_objects_v2(Bucket=self.name).get("Contents", [])]

    def uploads(self) -> list[str]:
        """The keys of multipart uploads that nobody has ended."""
        return [entry["Key"] for entry in self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", [])]

    def fails(self, kind: str, match: str = "", **rule: Any) -> None:
        """From now on this goes wrong, and nothing else."""
        self.faults.set([{"service": "s3", "kind": kind, "match": match, **rule}])


@contextmanager
def served_bucket() -> Iterator[Bucket]:
    """An empty bucket on a port of its own; this process's AWS_* and S3_BUCKET lead to it."""
    books, faults = Books(), Faults()
    server = S3Server(books, faults)
    url = f"http://127.0.0.1:{server.start('127.0.0.1', 0)}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL_S3": url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "S3_BUCKET": server.bucket,
        }.items():
            patch.setenv(name, value)
        yield Bucket(server.bucket, url, server, books, faults)
    server.stop()
    server.release()


@dataclass(frozen=True)
class Sample:
    """A file with its identity."""

    path: Path
    sha256: str
    size: int

    def read(self) -> bytes:
        """Its bytes."""
        return self.path.read_bytes()


def write_sample(path: Path, size: int, seed: int = 1) -> Sample:
    """A file of `size` random bytes, the same for a seed."""
    data = random.Random(seed).randbytes(size)
    path.write_bytes(data)
    return Sample(path, hashlib.sha256(data).hexdigest(), len(data))
