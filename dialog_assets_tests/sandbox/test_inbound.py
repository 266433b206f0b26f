"""The inbound storage, asked by boto3 and by hand through real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import io
import random
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import httpx2
import pytest
import uvicorn
from botocore.client import Config
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from dialog_assets.sandbox.books import Books
from dialog_assets.sandbox.clock import Clock
from dialog_assets.sandbox.faults import Faults
from dialog_assets.sandbox.inbound import MIN_PART, InboundStorage
from dialog_assets.sandbox.inbound_objects import Contents, StoredObject, Writing, whole_sha256

API_KEY = "key/with+slash/and="
SECRET = "c2VjcmV0K2FzL3RleHQ="


class Served:
    """A storage that is up, and S3 clients of it."""

    def __init__(self) -> None:
        self.books, self.faults = Books(), Faults()
        self.clock = Clock()
        self.storage = InboundStorage(
            API_KEY, self.books, self.faults, secret_key=SECRET, other_keys={"other": "secret"}, clock=self.clock
        )
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.server = uvicorn.Server(
            uvicorn.Config(self.storage.app, log_config=None, lifespan="off", timeout_keep_alive=75)
        )
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server.serve(sockets=[self._socket])))

    def client(self, *, key: str = API_KEY, secret: str = SECRET, checksums: Any = "when_required") -> Any:
        """A boto3 client as the vendor's documents describe it."""
        config = Config(
            request_checksum_calculation=checksums,
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"},
            retries={"max_attempts": 0},
        )
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            region_name="us-east-1",
            config=config,
        )


@pytest.fixture(scope="module")
def running() -> Iterator[Served]:
    """One server for the module."""
    served = Served()
    served.thread.start()
    yield served
    served.server.should_exit = True
    served.thread.join(5)


@pytest.fixture
def served(running: Served) -> Served:
    """The server, emptied."""
    running.storage.reset()
    running.books.reset()
    running.faults.set([])
    running.clock.now = None
    return running


def refusal(call: Any, **arguments: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["ResponseMetadata"]["HTTPStatusCode"], caught.value.response["Error"]["Code"]


@pytest.mark.parametrize("key", ["a.mp3", "folder/запись 1+2 (копия).mp3", "a%20b.mp3", "~._-"])
def test_put_and_head(served: Served, key: str) -> None:
    """An object is kept under its raw name, whatever is in it, and can be looked at."""
    client = served.client()
    client.put_object(Bucket="inbound", Key=key, Body=b"audio")
    assert served.storage.objects == {key: b"audio"}
    head = client.head_object(Bucket="inbound", Key=key)
    assert head["ContentLength"] == 5
    assert refusal(client.head_object, Bucket="inbound", Key=f"{key}x")[0] == 404
    assert served.books.as_dict()["voicekit"]["counts"]["uploads"] == 1


def test_bucket_questions(served: Served) -> None:
    """Location and versioning are answered."""
    client = served.client()
    assert not client.get_bucket_location(Bucket="inbound")["LocationConstraint"]
    assert "Status" not in client.get_bucket_versioning(Bucket="inbound")


def test_list_pages(served: Served) -> None:
    """ListObjects pages through every name of a prefix once, in order, folders rolled up by the delimiter."""
    names = [f"d/{number:02d} ё.mp3" for number in range(7)]
    for name in [*names, "e/1", "e/2", "z"]:
        served.storage.store(name, b"x")
    client = served.client()
    pages = client.get_paginator("list_objects").paginate(
        Bucket="inbound", Prefix="d/", PaginationConfig={"PageSize": 3}
    )
    assert [one["Key"] for page in pages for one in page["Contents"]] == names
    listing = client.list_objects(Bucket="inbound", Delimiter="/")
    assert [one["Prefix"] for one in listing["CommonPrefixes"]] == ["d/", "e/"]
    assert [one["Key"] for one in listing["Contents"]] == ["z"]


def test_multipart(served: Served) -> None:
    """A multipart upload makes one object of its parts; an aborted one leaves nothing; small and unknown parts are refused."""
    client = served.client()
    where = {"Bucket": "inbound", "Key": "big.mp3"}
    parts = [b"a" * MIN_PART, b"b" * 10]

    def upload(contents: list[bytes]) -> tuple[str, list[dict[str, Any]]]:
        upload_id = client.create_multipart_upload(**where)["UploadId"]
        listed = [
            {
                "PartNumber": number,
                "ETag": client.upload_part(**where, UploadId=upload_id, PartNumber=number, Body=part)["ETag"],
            }
            for number, part in enumerate(contents, 1)
        ]
        return upload_id, listed

    upload_id, listed = upload(parts)
    client.complete_multipart_upload(**where, UploadId=upload_id, MultipartUpload={"Parts": listed})
    assert served.storage.objects["big.mp3"] == b"".join(parts)
    served.storage.reset()
    upload_id, listed = upload([b"small", b"b"])
    small = refusal(client.complete_multipart_upload, **where, UploadId=upload_id, MultipartUpload={"Parts": listed})
    assert small == (400, "EntityTooSmall")
    client.abort_multipart_upload(**where, UploadId=upload_id)
    gone = refusal(client.upload_part, **where, UploadId=upload_id, PartNumber=1, Body=b"x")
    assert gone == (404, "NoSuchUpload")
    assert not served.storage.objects


def test_upload_as_the_sdk_does(served: Served) -> None:
    """The SDK's own upload of a large file, in parts side by side, arrives whole under a name with spaces."""
    data = random.Random(1).randbytes(17_000_000)
    name = "default_name_2026-03-02 09:00:00.123+1"
    served.client().upload_fileobj(io.BytesIO(data), "inbound", name)
    assert served.storage.objects[name] == data
    assert served.books.as_dict()["voicekit"]["counts"]["UploadPart"] == 3


def test_unsupported_refused(served: Served) -> None:
    """Download, deletion, other calls and other buckets are refused, and the object stays."""
    served.storage.store("a", b"x")
    client = served.client()
    for call in (client.get_object, client.delete_object, client.get_object_acl):
        assert refusal(call, Bucket="inbound", Key="a") == (403, "AccessDenied")
    assert refusal(client.list_objects_v2, Bucket="inbound") == (403, "AccessDenied")
    assert refusal(client.list_buckets) == (403, "AccessDenied")
    assert refusal(client.put_object, Bucket="other", Key="a", Body=b"x") == (404, "NoSuchBucket")
    assert served.storage.objects == {"a": b"x"}


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"key": "key/with+slash"}, "InvalidAccessKeyId"),
        ({"secret": "wrong"}, "SignatureDoesNotMatch"),
        ({"checksums": "when_supported"}, "NotImplemented"),
    ],
)
def test_bad_clients(served: Served, options: dict[str, Any], code: str) -> None:
    """A wrong key, a wrong secret and CRC checksums are refused by name; nothing is stored."""
    client = served.client(**options)
    assert refusal(client.put_object, Bucket="inbound", Key="a", Body=b"x")[1] == code
    assert not served.storage.objects


def test_accounts_are_apart(served: Served) -> None:
    """An account neither sees another's object nor continues its upload."""
    mine, other = served.client(), served.client(key="other", secret="secret")
    where = {"Bucket": "inbound", "Key": "a"}
    mine.put_object(**where, Body=b"mine")
    assert refusal(other.head_object, **where)[0] == 404
    assert "Contents" not in other.list_objects(Bucket="inbound")
    other.put_object(**where, Body=b"other's")
    assert served.storage.objects == {"a": b"mine"}
    assert served.storage.objects_of("other") == {"a": b"other's"}
    upload_id = mine.create_multipart_upload(**where)["UploadId"]
    assert refusal(other.upload_part, **where, UploadId=upload_id, PartNumber=1, Body=b"x") == (404, "NoSuchUpload")


def test_kept_five_days(served: Served) -> None:
    """An object ages by the sandbox's clock, which Last-Modified tells a client by its own, and is gone after five days."""
    client = served.client()
    where = {"Bucket": "inbound", "Key": "a"}
    served.clock.now = datetime(2026, 3, 2, tzinfo=UTC)
    client.put_object(**where, Body=b"x")
    served.clock.now += timedelta(days=5)
    age = datetime.now(UTC) - client.head_object(**where)["LastModified"]
    assert timedelta(days=5) <= age < timedelta(days=5, minutes=1)
    (listed,) = client.list_objects(Bucket="inbound")["Contents"]
    assert datetime.now(UTC) - listed["LastModified"] < timedelta(days=5, minutes=1)
    served.clock.now += timedelta(seconds=1)
    assert refusal(client.head_object, **where)[0] == 404
    assert "Contents" not in client.list_objects(Bucket="inbound")
    assert not served.storage.objects


@given(
    parts=st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=5),
    reads=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20)), max_size=8),
)
def test_read_in_pieces(parts: list[bytes], reads: list[tuple[int, int]]) -> None:
    """An object of several parts reads as one file from any place."""
    contents = Contents()
    spans = []
    for part in parts:
        writing = Writing(contents, len(part) + 3)  # room that is left over is not read
        writing.write(part)
        spans.append(writing.span)
    whole = io.BytesIO(b"".join(parts))
    assert whole_sha256(contents, tuple(spans)) == hashlib.sha256(whole.getvalue()).hexdigest()
    stored = StoredObject(contents, tuple(spans), "", "", datetime.now(UTC), None)
    assert stored.size == len(whole.getvalue())
    with stored.open() as file:
        for place, length in reads:
            assert file.seek(place) == whole.seek(place)
            assert file.read(length) == whole.read(length)


def test_bad_requests_by_hand(served: Served) -> None:
    """Unsigned requests, old ones and changed bodies are refused in S3's XML."""
    client = served.client()
    sent: list[Any] = []
    client.meta.events.register("before-send.s3.PutObject", lambda request, **_: sent.append(request))
    client.put_object(Bucket="inbound", Key="a", Body=b"x")
    headers = {name: value if isinstance(value, str) else value.decode() for name, value in sent[0].headers.items()}
    url = f"{served.url}/inbound/a"
    assert httpx2.put(url, content=b"x", headers=headers, timeout=60).status_code == 200
    assert "XAmzContentSHA256Mismatch" in httpx2.put(url, content=b"y", headers=headers, timeout=60).text
    assert "SignatureDoesNotMatch" in httpx2.put(f"{url}2", content=b"x", headers=headers, timeout=60).text
    extra = headers | {"x-amz-acl": "private"}
    assert "x-amz-acl must be signed" in httpx2.put(url, content=b"x", headers=extra, timeout=60).text
    old = headers | {"X-Amz-Date": "20200101T000000Z"}
    assert "RequestTimeTooSkewed" in httpx2.put(url, content=b"x", headers=old, timeout=60).text
    assert "AccessDenied" in httpx2.put(url, content=b"x", timeout=60).text
    assert (
        "AuthorizationHeaderMalformed"
        in httpx2.put(url, content=b"x", headers={"authorization": "AWS4-HMAC-SHA256 Credential=a/b"}, timeout=60).text
    )


def test_faults(served: Served) -> None:
    """The storage can be down for a call, and can lose what it has accepted."""
    client = served.client()
    served.faults.set(
        [
            {"service": "voicekit", "kind": "storage_unavailable", "match": "PutObject", "times": 1},
            {"service": "voicekit", "kind": "storage_lost", "times": 1},
            {"service": "voicekit", "kind": "storage_unavailable_after", "match": "b.mp3"},
        ]
    )
    assert refusal(client.put_object, Bucket="inbound", Key="a", Body=b"x") == (503, "ServiceUnavailable")
    client.put_object(Bucket="inbound", Key="a", Body=b"x")
    assert not served.storage.objects
    client.put_object(Bucket="inbound", Key="a", Body=b"x")
    assert served.storage.objects
    assert refusal(client.put_object, Bucket="inbound", Key="b.mp3", Body=b"x") == (503, "ServiceUnavailable")
    assert set(served.storage.objects) == {"a", "b.mp3"}
