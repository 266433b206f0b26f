"""Any S3 storage: services and proxies that answer in another shape than AWS. Understood, or told in one sentence."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dialog_assets import boto3_sessions
from dialog_assets.cli.doctor.archive import bucket as doctor
from dialog_assets.errors import DialogAssetsError
from dialog_assets.resources.environment import UnusableCredential
from dialog_assets.resources.s3 import (
    ArchivedFileFrozen,
    ArchivedFileMissing,
    ArchiveRefused,
    ArchiveResource,
    ArchiveUnavailable,
)
from dialog_assets_tests.resources.archive_on_a_socket import Bucket, Sample, served_bucket, write_sample

KEY = "acme/2026-03-02/7.mp3"


@pytest.fixture(scope="module")
def served() -> Iterator[Bucket]:
    """One server for all tests here."""
    with served_bucket() as bucket:
        yield bucket


@pytest.fixture
def bucket(served: Bucket) -> Bucket:
    """It, empty, and with nothing amiss."""
    served.reset()
    return served


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    """A short recording."""
    return write_sample(tmp_path / "sample", 1000)


def put(sample: Sample, **more: Any) -> None:
    """Archive it, as a night does."""
    archive = ArchiveResource(attempts=1).open()
    asyncio.run(
        archive.put(sample.path, KEY, sha256=sample.sha256, size=sample.size, content_type="audio/mpeg", **more)
    )


def get(sample: Sample, path: Path, **more: Any) -> None:
    """Read it back, as a night does."""
    archive = ArchiveResource(attempts=1).open()
    asyncio.run(archive.get(KEY, path, sha256=sample.sha256, size=sample.size, **more))


UNDERSTOOD = [
    ("capitals", "", None),
    ("doubled", "", None),
    ("stripped", "HeadObject", None),
    ("renamed", "HeadObject", None),
    ("leaves_out", "HeadObject", ["content-length"]),
    ("leaves_out", "HeadObject", ["last-modified", "etag", "content-type", "x-amz-meta-sha256"]),
    ("leaves_out", "GetObject", ["last-modified", "etag"]),
    ("leaves_out", "ListObjects", ["Name", "MaxKeys", "Prefix"]),
    ("leaves_out", "PutObject", ["etag"]),
    ("answers", "DeleteObject", [405, "text/html", "<html>no</html>"]),
    ("no_trailers", "", None),
]


@pytest.mark.parametrize(("kind", "match", "value"), UNDERSTOOD)
def test_manners_that_are_understood(
    bucket: Bucket, sample: Sample, tmp_path: Path, kind: str, match: str, value: Any
) -> None:
    """A recording is archived, not sent again the next night, and read; doctor is content."""
    bucket.fails(kind, match, value=value)
    put(sample)
    put(sample)
    assert bucket.counts()["PutObject"] == 1
    get(sample, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == sample.read()
    assert [finding.state for finding in asyncio.run(doctor())] == ["ok"]


HTML = "<!DOCTYPE html><html><body>Sign in</body></html>"
TOLD: list[tuple[str, str, Any, type[DialogAssetsError], str]] = [
    ("stripped", "", None, ArchiveRefused, "S3 keeps no metadata in bucket .*x-amz-meta-sha256"),
    ("renamed", "", None, ArchiveRefused, "let the service, or the proxy before it, pass x-amz-meta-"),
    ("leaves_out", "Object", ["content-length", "content-range"], ArchiveRefused, "does not tell the size"),
    *(
        ("redirect", call, [status, "https://storage.example"], ArchiveRefused, "leads to https://storage.example:")
        for call in ("", "PutObject", "HeadObject", "ListObjects")
        for status in (301, 302, 307, 308)
    ),
    ("redirect", "", [302, "//elsewhere.example:8443"], ArchiveRefused, "leads to http://elsewhere.example:8443"),
    ("skewed", "", None, ArchiveRefused, "this machine's clock is wrong"),
    ("virtual_only", "", None, ArchiveRefused, "set S3_ADDRESSING_STYLE=virtual"),
    ("account", "", None, ArchiveRefused, "the account is closed or not paid"),
    ("object_lock", "", None, ArchiveRefused, "set AWS_REQUEST_CHECKSUM_CALCULATION=when_supported"),
    ("kms", "PutObject", None, ArchiveRefused, "S3_SSE_KMS_KEY_ID"),
    ("answers", "ListObjects", [200, "text/html", HTML], ArchiveUnavailable, "gives an answer of another kind"),
    ("answers", "ListObjects", [200, "application/xml", "<a></a>"], ArchiveRefused, "is no S3 service"),
    ("answers", "ListObjects", [200, "application/xml", ""], ArchiveRefused, "is no S3 service"),
    ("answers", "ListObjects", [200, "application/json", '{"ok": true}'], ArchiveUnavailable, "of another kind"),
    ("answers", "ListObjects", [400, "application/xml", ""], ArchiveRefused, "S3 refuses ListObjectsV2"),
    ("answers", "ListObjects", [403, "text/html", HTML], ArchiveRefused, "S3 refuses ListObjectsV2"),
    ("answers", "ListObjects", [418, "text/plain", "\x1b[31mtea"], ArchiveRefused, "S3 does not take ListObjectsV2"),
    ("answers", "ListObjects", [403, "application/xml", "<Error><Code>+7 905 \x85</Code></Error>"], ArchiveRefused, "403"),
    ("answers", "PutObject", [404, "text/plain", ""], ArchiveRefused, "S3 answers 404 to the upload"),
    ("answers", "PutObject", [204, "text/plain", ""], ArchiveUnavailable, "does not have it as it was sent"),
    ("answers", "HeadObject", [400, "text/plain", ""], ArchiveRefused, "check AWS_DEFAULT_REGION"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "match", "value", "error", "told"), TOLD)
def test_manners_that_are_told(
    bucket: Bucket, sample: Sample, kind: str, match: str, value: Any, error: type[DialogAssetsError], told: str
) -> None:
    """One sentence in the night, and doctor finds the same before it."""
    bucket.fails(kind, match, value=value)

    def night() -> None:
        archive = ArchiveResource(attempts=1).open()
        asyncio.run(archive.check())
        put(sample)

    for look in (night, lambda: asyncio.run(doctor())):
        with pytest.raises(error, match=told) as caught:
            look()
        assert "\n" not in str(caught.value)
        assert "\x1b" not in str(caught.value)
        assert "905" not in str(caught.value)


@pytest.mark.parametrize("left_out", [["UploadId"], ["etag"]])
def test_parts_without_what_names_them(bucket: Bucket, sample: Sample, left_out: list[str]) -> None:
    """An upload in parts without its id or a part's ETag cannot be ended: told, and found by doctor."""
    bucket.fails("leaves_out", "Upload", value=left_out)
    for look in (lambda: put(sample, in_parts=True), lambda: asyncio.run(doctor())):
        with pytest.raises(ArchiveUnavailable, match=r"gives an answer without (UploadId|ETag)"):
            look()


def test_object_lock_with_its_setting(bucket: Bucket, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the sentence asks for is enough, for whole objects and for parts."""
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    bucket.fails("object_lock")
    put(sample)
    assert [finding.state for finding in asyncio.run(doctor())] == ["ok"]


def test_the_bucket_in_the_host_s_name(
    bucket: Bucket, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3_ADDRESSING_STYLE=virtual is enough for services that take nothing else; another word is told."""
    look_up = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *rest, **more: look_up("127.0.0.1" if str(host).endswith("localhost") else host, *rest, **more),
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", bucket.url.replace("127.0.0.1", "localhost"))
    bucket.fails("virtual_only")
    monkeypatch.setenv("S3_ADDRESSING_STYLE", "virtual")
    put(sample)
    get(sample, tmp_path / "back")
    monkeypatch.setenv("S3_ADDRESSING_STYLE", "subdomain")
    with pytest.raises(ArchiveRefused, match=r"S3_ADDRESSING_STYLE: expected path .*, virtual"):
        put(sample)


def test_the_clock_is_told_by_the_answer_s_date(
    bucket: Bucket, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer to HEAD has no words, but a time."""
    bucket.fails("denied", "HeadObject")
    with pytest.raises(ArchiveRefused, match="check the AWS credentials"):
        put(sample)
    from datetime import timedelta

    from dialog_assets.resources import s3_errors

    monkeypatch.setattr(s3_errors, "_CLOCKS_APART", timedelta(seconds=-1))
    with pytest.raises(ArchiveRefused, match="this machine's clock is wrong"):
        put(sample)


@pytest.mark.parametrize("kind", ["endless", "drops"])
@pytest.mark.parametrize("call", ["ListObjects", "GetObject"])
def test_answers_without_an_end(
    bucket: Bucket, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, call: str
) -> None:
    """Neither memory nor time nor the disk is spent on a body that does not end, and it is asked for once."""
    put(sample)
    for name, value in {"ANSWER_BYTES": 1_000_000, "OBJECT_BYTES": 1_000_000, "SLOWEST_BYTES_S": 1e9}.items():
        monkeypatch.setattr(boto3_sessions, name, value)
    monkeypatch.setattr(boto3_sessions, "ANSWER_S", 0.2 if kind == "drops" else 60)
    bucket.counts()
    bucket.fails(kind, call, value=0.01)
    archive = ArchiveResource(attempts=3).open()

    async def ask() -> None:
        if call == "ListObjects":
            await archive.check()
        else:
            await archive.get(KEY, tmp_path / "back", sha256=sample.sha256, size=sample.size)

    with pytest.raises(ArchiveUnavailable, match="does not end its answer, or sends it by drops"):
        asyncio.run(ask())
    assert bucket.counts()[call] == 1


def test_where_a_recording_lies(bucket: Bucket, sample: Sample, tmp_path: Path) -> None:
    """It is read from the bucket that its row names; one that is closed now is that recording's trouble, by its name."""
    bucket.client.create_bucket(Bucket="the-old-one")
    put(sample)
    data = sample.read()
    bucket.client.put_object(Bucket="the-old-one", Key="old.mp3", Body=data)
    archive = ArchiveResource(attempts=1).open()
    asyncio.run(archive.get("old.mp3", tmp_path / "back", sha256=sample.sha256, size=sample.size, bucket="the-old-one"))
    assert (tmp_path / "back").read_bytes() == data
    for name, told in {
        "the-old-one": "is not in bucket the-old-one any more",
        "gone": "is not in bucket gone|lies in bucket gone",
    }.items():
        with pytest.raises(ArchivedFileMissing, match=told):
            get(sample, tmp_path / "back", bucket=name)
    bucket.fails("denied", "GetObject")
    with pytest.raises(
        ArchivedFileMissing, match=f"lies in bucket the-old-one, not in {bucket.name}, and cannot be read"
    ):
        get(sample, tmp_path / "back", bucket="the-old-one")
    with pytest.raises(ArchiveRefused):
        get(sample, tmp_path / "back")
    bucket.fails("frozen", "GetObject")
    with pytest.raises(ArchivedFileFrozen, match="cold storage"):
        get(sample, tmp_path / "back")


def test_credentials_that_may_not_remove(bucket: Bucket) -> None:
    """A night needs no such right: the same test objects are written over, never one more."""
    bucket.fails("denied", "DeleteObject")
    for _ in range(2):
        (found,) = asyncio.run(doctor())
        assert "stay, as the credentials may not remove them" in found.sentence
    assert bucket.keys() == ["doctor/test", "doctor/test-in-parts"]


def test_recordings_in_the_clear_are_told(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over http to another machine."""
    look_up = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *rest, **more: look_up("127.0.0.1" if host == "storage.example" else host, *rest, **more),
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", bucket.url.replace("127.0.0.1", "storage.example"))
    assert [finding.state for finding in asyncio.run(doctor())] == ["ok", "warn"]


NO_KEYS = {
    "Сandbox-key": "1 of 11 is U.0421 CYRILLIC CAPITAL LETTER ES",
    "«key»": "1 of 5 is U.00AB",
    "key\u200b": "4 of 4 is U.200B ZERO WIDTH SPACE",
    "\ufeffkey": "1 of 4 is U.FEFF",
    "ke\ny": "3 of 4 is U.000A",
    "ke y": "3 of 4 is U.0020 SPACE",
    "key\xa0": "4 of 4 is U.00A0",
    "key\x7f": "4 of 4 is U.007F",
    '"key"': "1 of 5 is U.0022",
    "key\n": "4 of 4 is U.000A",
}


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
@pytest.mark.parametrize("key", list(NO_KEYS))
def test_what_no_key_has(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, variable: str, key: str) -> None:
    """Told before anything is sent, without the key."""
    monkeypatch.setenv(variable, key)
    with pytest.raises(UnusableCredential, match=f"{variable} cannot hold .*: its character {NO_KEYS[key]}") as caught:
        asyncio.run(ArchiveResource().open().check())
    assert key not in str(caught.value)
    assert bucket.counts() == {}


# Answers of any shape


WORDS = ["", "<", "<a/>", HTML, '{"Error": 1}', "\x00\xff", "<Error><Code>NoSuchKey</Code></Error>", "x" * 5000,
         '<?xml version="1.0"?><ListBucketResult><KeyCount>many</KeyCount><Contents/></ListBucketResult>',
         '<ListBucketResult><Contents><Size>-1</Size><LastModified>31.02.2026</LastModified></Contents></ListBucketResult>',
         "<InitiateMultipartUploadResult><UploadId/></InitiateMultipartUploadResult>",
         "<Error><Code>Всё сломалось</Code><Message>\u202e</Message></Error>"]  # fmt: skip
STATUSES = [
    200,
    201,
    204,
    206,
    301,
    302,
    304,
    307,
    400,
    401,
    403,
    404,
    405,
    409,
    411,
    412,
    416,
    429,
    500,
    501,
    503,
    507,
    599,
]
NAMES = ["content-length", "etag", "last-modified", "content-type", "x-amz-meta-sha256", "date", "content-range", "UploadId",
         "Name", "KeyCount", "Key"]  # fmt: skip
CALLS = ["", "Head", "Get", "PutObject", "UploadPart", "CreateMultipart", "CompleteMultipart", "List", "Delete"]


def mutated(seed: int) -> dict[str, Any]:
    """A rule by which answers change, the same for a seed."""
    draw = random.Random(seed)
    kind = draw.choice(
        ["answers", "answers", "leaves_out", "capitals", "doubled", "stripped", "redirect", "lost", "cut"]
    )
    value: Any = None
    if kind == "answers":
        value = [
            draw.choice(STATUSES),
            draw.choice(["application/xml", "text/html", "audio/mpeg", ""]),
            draw.choice(WORDS),
        ]
    elif kind == "leaves_out":
        value = draw.sample(NAMES, draw.randint(1, 5))
    elif kind == "redirect":
        value = [
            draw.choice([301, 302, 307, 308]),
            draw.choice(["https://a.example", "http://[::1", "", "ftp://x", "//h:99999"]),
        ]
    return {
        "kind": kind,
        "match": draw.choice(CALLS),
        "value": value,
        "probability": draw.choice([1.0, 0.5]),
        "seed": seed,
    }


def holds(bucket: Bucket, folder: Path, seed: int) -> None:
    """Whatever the service answers, a night's calls end well or with one sentence."""
    bucket.reset()
    sample = write_sample(folder / "sample", 1000, seed)
    put(sample)
    bucket.fails(**mutated(seed))
    other = write_sample(folder / "other", 1500, seed + 1)
    for use in (
        lambda: asyncio.run(ArchiveResource(attempts=2).open().check()),
        lambda: put(other),
        lambda: put(other, in_parts=True),
        lambda: get(sample, folder / "back"),
        lambda: asyncio.run(doctor()),
    ):
        try:
            use()
        except DialogAssetsError as error:
            assert "\n" not in str(error)
            assert str(error)[-1] in ".!"
            assert str(error).isprintable()


@pytest.mark.parametrize("seed", range(12))
def test_answers_of_any_shape(bucket: Bucket, tmp_path: Path, seed: int) -> None:
    """A dozen of them."""
    holds(bucket, tmp_path, seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(12, 212))
def test_answers_of_any_shape_at_length(bucket: Bucket, tmp_path: Path, seed: int) -> None:
    """Two hundred more."""
    holds(bucket, tmp_path, seed)
