"""The archive against S3 over a socket: what is stored and how, what is never sent twice, what each failure means."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import threading
import time
from asyncio import FIRST_COMPLETED
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig

from dialog_assets.cli.doctor.archive import bucket as doctor_of_the_archive
from dialog_assets.cli.doctor.examination import Unwell
from dialog_assets.errors import DialogAssetsError
from dialog_assets.resources import s3
from dialog_assets.resources.environment import MissingCredential
from dialog_assets.resources.s3 import (
    Archive,
    ArchivedFileChanged,
    ArchivedFileMissing,
    ArchiveRefused,
    ArchiveResource,
    ArchiveUnavailable,
)
from dialog_assets.resources.s3_exposure import Exposure, exposure, judged
from dialog_assets_tests.resources.archive_on_a_socket import Bucket, Sample, served_bucket, write_sample

KEY = "acme/2026-03-02/7.mp3"
PART = 5 * 1024 * 1024
"""The least that S3 takes."""


@pytest.fixture(scope="module")
def served() -> Iterator[Bucket]:
    """One server for all tests here."""
    with served_bucket() as bucket:
        yield bucket


@pytest.fixture
def bucket(served: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """The bucket, empty, with nothing going wrong; files above 5 MB go in parts, so that few bytes are needed."""
    monkeypatch.setattr(s3, "TRANSFERS", TransferConfig(multipart_threshold=PART, multipart_chunksize=PART))
    served.reset()
    yield served
    served.faults.set([])


@pytest.fixture
def small(tmp_path: Path) -> Sample:
    """Sent in one piece."""
    return write_sample(tmp_path / "small", 100_000)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """Sent in parts."""
    return write_sample(tmp_path_factory.mktemp("large") / "large", PART + 1000)


def opened() -> Archive:
    """The archive as it is set up now; its requests are not repeated."""
    return ArchiveResource(attempts=1).open()


once = functools.cache(opened)
"""One archive for all tests of the same settings: to open one takes longer than most of them."""


@functools.cache
def twice() -> Archive:
    """An archive whose requests may be repeated."""
    return ArchiveResource(attempts=2).open()


async def put(archive: Archive, sample: Sample, key: str = KEY) -> None:
    """Archive a file as audio/mpeg."""
    await archive.put(sample.path, key, sha256=sample.sha256, size=sample.size, content_type="audio/mpeg")


def test_what_is_stored(bucket: Bucket, small: Sample) -> None:
    """The bytes, under portal/day/call, with type and sha256; owned by the bucket alone, for no ACL is sent."""
    archive = once()
    key = archive.key("acme", date(2026, 3, 2), 7, "mp3")
    assert key == KEY
    asyncio.run(put(archive, small, key))
    found = bucket.client.get_object(Bucket=bucket.name, Key=key)
    assert found["Body"].read() == small.read()
    assert (found["ContentType"], found["Metadata"]) == ("audio/mpeg", {"sha256": small.sha256})
    assert "ServerSideEncryption" not in found or found["ServerSideEncryption"] == "AES256"
    (grant,) = bucket.client.get_object_acl(Bucket=bucket.name, Key=key)["Grants"]
    assert grant["Permission"] == "FULL_CONTROL"


@pytest.mark.parametrize("size", ["small", "large"])
def test_the_same_bytes_are_sent_once(bucket: Bucket, size: str, request: pytest.FixtureRequest) -> None:
    """A second time one question is asked and nothing is sent; the archive's own memory has no part in it."""
    sample: Sample = request.getfixturevalue(size)
    asyncio.run(put(once(), sample))
    sent = bucket.counts()
    assert sent["upload_bytes"] == sample.size
    asyncio.run(put(once(), sample))
    assert bucket.counts() == {"HeadObject": 1}


def test_other_bytes_replace(bucket: Bucket, small: Sample, tmp_path: Path) -> None:
    """A recording that came anew takes the place of the earlier one, also where both have the same length."""
    other = write_sample(tmp_path / "other", small.size, seed=2)
    for sample in (small, other):
        asyncio.run(put(once(), sample))
    assert bucket.client.get_object(Bucket=bucket.name, Key=KEY)["Body"].read() == other.read()
    assert bucket.keys() == [KEY]
    asyncio.run(once().get(KEY, tmp_path / "back", sha256=other.sha256))
    with pytest.raises(ArchivedFileChanged, match=f"{KEY} in bucket .* is not the recording that was archived"):
        asyncio.run(once().get(KEY, tmp_path / "back", sha256=small.sha256))


def test_a_large_file_goes_in_parts(bucket: Bucket, large: Sample, tmp_path: Path) -> None:
    """Two parts, put together as the file was; the same comes back; no upload stays open."""
    archive = once()

    async def there_and_back() -> None:
        await put(archive, large)
        await archive.get(KEY, tmp_path / "back", sha256=large.sha256)

    asyncio.run(there_and_back())
    counts = bucket.counts()
    assert (counts["CreateMultipartUpload"], counts["UploadPart"], counts["CompleteMultipartUpload"]) == (1, 2, 1)
    assert (tmp_path / "back").read_bytes() == large.read()
    head = bucket.client.head_object(Bucket=bucket.name, Key=KEY)
    assert (head["ContentType"], head["Metadata"]) == ("audio/mpeg", {"sha256": large.sha256})
    assert bucket.uploads() == []


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"S3_SSE": "AES256"}, ("AES256", None)),
        ({"S3_SSE": "aws:kms", "S3_SSE_KMS_KEY_ID": "key-1"}, ("aws:kms", "key-1")),
    ],
)
@pytest.mark.parametrize("size", ["small", "large"])
def test_encryption_and_prefix_are_configured(
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    size: str,
    settings: dict[str, str],
    expected: tuple[str, str | None],
) -> None:
    """S3_SSE and its key reach whole objects and those in parts; S3_PREFIX comes before every key."""
    for name, value in {**settings, "S3_PREFIX": "/calls/archive/"}.items():
        monkeypatch.setenv(name, value)
    archive = opened()
    key = archive.key("acme", date(2026, 3, 2), 7, "mp3")
    assert key == f"calls/archive/{KEY}"
    asyncio.run(put(archive, request.getfixturevalue(size), key))
    head = bucket.client.head_object(Bucket=bucket.name, Key=key)
    assert (head["ServerSideEncryption"], head.get("SSEKMSKeyId")) == expected


def sent_headers(archive: Archive, sample: Sample) -> list[dict[str, str]]:
    """The headers of every body that is sent."""
    found: list[dict[str, str]] = []

    def note(request: Any, **_: Any) -> None:
        if request.method == "PUT":
            found.append({name.lower(): str(value) for name, value in request.headers.items()})

    archive.client.meta.events.register("before-send.s3", note)
    asyncio.run(put(archive, sample))
    return found


@pytest.mark.parametrize("size", ["small", "large"])
def test_bodies_are_signed(bucket: Bucket, size: str, request: pytest.FixtureRequest) -> None:
    """Each body goes with its own SHA-256 in the signature, and without the checksum headers that other services refuse."""
    sample: Sample = request.getfixturevalue(size)
    parts = {hashlib.sha256(sample.read()[start : start + PART]).hexdigest() for start in range(0, sample.size, PART)}
    sent = sent_headers(opened(), sample)
    assert {headers["x-amz-content-sha256"].strip("b'") for headers in sent} == parts
    assert not [name for headers in sent for name in headers if "checksum" in name or "trailer" in name]


def test_checksum_headers_on_demand(bucket: Bucket, small: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3's own variable turns them on, for buckets that want them."""
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    (headers,) = sent_headers(opened(), small)
    assert "x-amz-checksum-crc32" in headers


# Interrupted


@contextmanager
def held_parts(archive: Archive) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Parts are held back where they leave: the first event tells that one is, the second lets them go."""
    held, let_go = threading.Event(), threading.Event()

    def hold(**_: Any) -> None:
        held.set()
        let_go.wait()

    events = archive.client.meta.events
    events.register("before-send.s3.UploadPart", hold)
    try:
        yield held, let_go
    finally:
        held.set()
        let_go.set()
        events.unregister("before-send.s3.UploadPart", hold)


def test_a_cancelled_upload_leaves_nothing(bucket: Bucket, large: Sample) -> None:
    """Cancelled while its parts are on the way, an upload is called off before the cancellation goes on."""

    async def cancelled() -> None:
        with held_parts(once()) as (held, let_go):
            task = asyncio.create_task(put(once(), large))
            await asyncio.wait([task, asyncio.create_task(asyncio.to_thread(held.wait))], return_when=FIRST_COMPLETED)
            task.cancel()
            await asyncio.wait([task], timeout=0.1)  # it has heard of it
            let_go.set()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancelled())
    assert bucket.counts()["AbortMultipartUpload"] == 1
    assert (bucket.uploads(), bucket.keys()) == ([], [])


def test_a_service_that_hangs_does_not_hold_up_the_end(
    bucket: Bucket, large: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled run does not wait for ever for its uploads to be called off; they are, as soon as S3 answers."""
    monkeypatch.setattr(s3, "_CALLED_OFF_WITHIN_S", 0.01)

    async def cancelled() -> None:
        with held_parts(once()) as (held, _):
            task = asyncio.create_task(put(once(), large))
            await asyncio.wait([task, asyncio.create_task(asyncio.to_thread(held.wait))], return_when=FIRST_COMPLETED)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert "AbortMultipartUpload" not in bucket.counts()

    asyncio.run(cancelled())
    while bucket.uploads():
        time.sleep(0.01)
    assert bucket.keys() == []


def test_a_slow_answer_is_waited_for(bucket: Bucket, small: Sample) -> None:
    """S3 may take its time."""
    archive = once()
    bucket.fails("slow", "PutObject", value=1.0)
    began = time.monotonic()
    asyncio.run(put(archive, small))
    assert time.monotonic() - began >= 1.0
    assert bucket.keys() == [KEY]


def test_a_failed_upload_leaves_nothing(bucket: Bucket, large: Sample) -> None:
    """An upload whose second part fails is called off."""
    bucket.fails("internal", "UploadPart", after=1)
    with pytest.raises(ArchiveUnavailable, match="UploadPart"):
        asyncio.run(put(once(), large))
    assert (bucket.uploads(), bucket.keys()) == ([], [])


def test_parts_of_a_killed_run_go_when_the_call_is_archived(bucket: Bucket, large: Sample) -> None:
    """What a killed run had sent of this recording is dropped; another recording's upload is not ours to end."""
    for key in (KEY, KEY + ".other"):
        begun = bucket.client.create_multipart_upload(Bucket=bucket.name, Key=key)
        bucket.client.upload_part(Bucket=bucket.name, Key=key, PartNumber=1, UploadId=begun["UploadId"], Body=b"some")
    asyncio.run(put(once(), large))
    assert bucket.uploads() == [KEY + ".other"]
    assert bucket.client.head_object(Bucket=bucket.name, Key=KEY)["ContentLength"] == large.size


def test_a_service_that_lists_no_uploads(bucket: Bucket, large: Sample) -> None:
    """Where old parts cannot be seen, the recording is archived all the same."""
    bucket.fails("denied", "ListMultipartUploads")
    asyncio.run(put(once(), large))
    assert bucket.keys() == [KEY]


# What fails, and passes


@pytest.mark.parametrize("kind", ["reset", "reset_after", "slow_down", "internal"])
@pytest.mark.parametrize("size", ["small", "large"])
def test_what_passes_is_tried_again(bucket: Bucket, kind: str, size: str, request: pytest.FixtureRequest) -> None:
    """A connection that breaks in mid-upload or before the answer, a busy and a failing service: once costs nothing."""
    sample: Sample = request.getfixturevalue(size)
    call = "PutObject" if size == "small" else "UploadPart"
    bucket.fails(kind, call, times=1)
    asyncio.run(put(twice(), sample))
    assert bucket.client.get_object(Bucket=bucket.name, Key=KEY)["Body"].read() == sample.read()
    assert bucket.uploads() == []


@pytest.mark.parametrize(("size", "call"), [("small", "PutObject"), ("large", "CompleteMultipartUpload")])
def test_a_lost_answer_to_the_last_request(
    bucket: Bucket, size: str, call: str, request: pytest.FixtureRequest
) -> None:
    """The object is there though nobody said so: it is looked for, found, and not sent again."""
    sample: Sample = request.getfixturevalue(size)
    bucket.fails("reset_after", call)
    asyncio.run(put(once(), sample))
    assert bucket.counts()["upload_bytes"] == sample.size


@pytest.mark.parametrize("kind", ["lost", "cut"])
def test_what_was_stored_is_looked_at(bucket: Bucket, small: Sample, kind: str) -> None:
    """A service that says yes and has nothing, or less than was sent, is found out; the next try mends it."""
    bucket.fails(kind, "PutObject", times=1)
    with pytest.raises(ArchiveUnavailable, match="does not have it as it was sent"):
        asyncio.run(put(once(), small))
    asyncio.run(put(once(), small))
    assert bucket.client.head_object(Bucket=bucket.name, Key=KEY)["ContentLength"] == small.size


WRONG = {
    "denied": "their rights; they need s3:ListBucket",
    "no_bucket": "does not exist: create it or correct S3_BUCKET",
    "other_region": "is in another region",
    "expired_token": "AWS_SECRET_ACCESS_KEY and their lifetime",
    "quota": "S3 is full: it refuses PutObject",
    "full": "S3 is full: it refuses PutObject",
    "not_offered": "check the bucket's rules, S3_SSE",
}
PASSING = {"internal": "S3 fails at PutObject", "slow_down": r"S3 fails at PutObject .*SlowDown"}


MEANINGS: list[tuple[str, type[DialogAssetsError], str]] = [
    *((kind, ArchiveRefused, told) for kind, told in WRONG.items()),
    *((kind, ArchiveUnavailable, told) for kind, told in PASSING.items()),
    ("reset", ArchiveUnavailable, "does not answer"),
]


@pytest.mark.parametrize(
    ("call", "kind", "error", "told"),
    [
        *(("PutObject", *meaning) for meaning in MEANINGS),
        # An answer to HEAD has no words: only its status tells; and that of a missing bucket is a missing object's.
        *(("HeadObject", kind, error, "") for kind, error, _ in MEANINGS if kind != "no_bucket"),
    ],
)
def test_what_a_refusal_means(
    bucket: Bucket, small: Sample, call: str, kind: str, error: type[DialogAssetsError], told: str
) -> None:
    """A wrong setting is told from an outage; one sentence, with what to do."""
    bucket.fails(kind, call)
    with pytest.raises(error, match=told) as caught:
        asyncio.run(put(once(), small))
    assert "\n" not in str(caught.value)
    assert bucket.name in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"S3_BUCKET": "not-here"}, ArchiveRefused, "bucket not-here does not exist"),
        ({"S3_BUCKET": "s3://recordings"}, ArchiveRefused, r"cannot be used as it is set up .*check S3_BUCKET"),
        ({"S3_BUCKET": None}, MissingCredential, "S3_BUCKET is not set"),
        ({"AWS_ACCESS_KEY_ID": "another"}, ArchiveRefused, "ListObjectsV2 .*check AWS_ACCESS_KEY_ID"),
        ({"AWS_SECRET_ACCESS_KEY": "another"}, ArchiveRefused, "ListObjectsV2 .*check AWS_ACCESS_KEY_ID"),
        ({"AWS_SECRET_ACCESS_KEY": None}, ArchiveRefused, "has no credentials: set AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, ArchiveRefused, "has no credentials"),
        ({"AWS_ENDPOINT_URL_S3": "storage.example"}, ArchiveRefused, "AWS_ENDPOINT_URL_S3: expected an address"),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, ArchiveUnavailable, "does not answer"),
        ({"AWS_REQUEST_CHECKSUM_CALCULATION": "sometimes"}, ArchiveRefused, "cannot be used as it is set up"),
        ({"S3_SSE": "aes"}, ArchiveRefused, "S3_SSE: expected AES256 or aws:kms"),
        ({"S3_SSE_KMS_KEY_ID": "key-1"}, ArchiveRefused, "S3_SSE must be aws:kms"),
        ({"S3_PREFIX": "a b"}, ArchiveRefused, "S3_PREFIX: expected"),
    ],
)
def test_wrong_settings(
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    settings: dict[str, str | None],
    error: type[DialogAssetsError],
    told: str,
) -> None:
    """Each is one sentence that names the variable, before anything is sent; no secret is in it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in settings.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    with pytest.raises(error, match=told) as caught:
        asyncio.run(opened().check())
    assert "another" not in str(caught.value)


def test_reading_what_is_not_there(bucket: Bucket, tmp_path: Path) -> None:
    """An object that is gone is one recording's trouble, a bucket that is gone everybody's."""
    with pytest.raises(ArchivedFileMissing, match=f"{KEY} is not in bucket"):
        asyncio.run(once().get(KEY, tmp_path / "back", sha256="0"))
    gone = Archive(once().client, "gone")
    with pytest.raises(ArchiveRefused, match="bucket gone does not exist"):
        asyncio.run(gone.get(KEY, tmp_path / "back", sha256="0"))
    assert list(tmp_path.iterdir()) == []


# Open to the world

READ_BY_ALL = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "*"}
CLOSED = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)


def test_a_bucket_that_everybody_may_read(bucket: Bucket) -> None:
    """A public policy and an ACL for everybody are seen; a public access block closes both; a try to write stores nothing."""
    archive, client, where = once(), bucket.client, {"Bucket": bucket.name}
    assert asyncio.run(exposure(archive)) == Exposure((), (), drops_parts=False)
    try:
        client.put_bucket_policy(**where, Policy=json.dumps({"Statement": [READ_BY_ALL]}))
        client.put_bucket_acl(**where, ACL="public-read")
        assert asyncio.run(exposure(archive)).ways == ("its policy is public", "its ACL names everybody")
        with pytest.raises(
            Unwell, match=r"is open to the world \(its policy is public, its ACL names everybody\): close it"
        ):
            asyncio.run(doctor_of_the_archive())
        client.put_public_access_block(**where, PublicAccessBlockConfiguration=CLOSED)
        assert asyncio.run(exposure(archive)).ways == ()
        assert "test objects were put, read and removed; not public" in asyncio.run(doctor_of_the_archive())[0].sentence
    finally:
        client.delete_public_access_block(**where)
        client.delete_bucket_policy(**where)
        client.put_bucket_acl(**where, ACL="private")
    assert (bucket.keys(), bucket.uploads()) == ([], [])


@pytest.mark.parametrize("kind", ["denied", "not_offered"])
def test_a_service_that_does_not_tell(bucket: Bucket, kind: str) -> None:
    """What it does not know or may not say is named, and is no fault."""
    bucket.fails(kind, "GetBucket")
    found = asyncio.run(exposure(once()))
    assert found == Exposure((), ("policy status", "ACL", "lifecycle"), drops_parts=None)


def test_a_bucket_that_can_be_listed_without_credentials() -> None:
    """Whatever else is told, that is open; and a rule that ends interrupted uploads is seen."""
    rules = [{"Status": "Enabled", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 2}}]
    answers = dict.fromkeys(("get_public_access_block", "get_bucket_policy_status", "get_bucket_acl"))
    found = judged({**answers, "get_bucket_lifecycle_configuration": {"Rules": rules}}, anonymous=True)
    assert found.ways == ("it can be listed without credentials",)
    assert found.drops_parts is True


def test_a_writer_without_the_right(bucket: Bucket) -> None:
    """Found out without storing anything."""
    bucket.fails("denied", "CreateMultipartUpload")
    with pytest.raises(ArchiveRefused, match=r"CreateMultipartUpload on bucket .*AccessDenied"):
        asyncio.run(doctor_of_the_archive())
