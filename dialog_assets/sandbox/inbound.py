"""VoiceKit's `inbound` storage: the S3 calls that it offers, and refusals of all others (facts/voicekit.md 3.2).

Here: PutObject, HeadObject, ListObjects, GetBucketLocation, GetBucketVersioning and multipart uploads, path style. Each account
sees its own objects only. Not here: signatures (`inbound_signature`), contents and their five days (`inbound_objects`).

CRC checksums (x-amz-checksum-*, x-amz-sdk-checksum-algorithm, aws-chunked trailers) are refused, because it is unknown
whether the real service takes them and a client must not rely on it.

Fault kinds of service "voicekit"; the label is the call's name and the object's, such as "PutObject acme/7.mp3":
storage_unavailable (503, nothing was done), storage_unavailable_after (503 although it was done), storage_slow (`value` seconds
before the answer), storage_lost (the answer is good but the object is not there, as after its 5 days).
Books, service "voicekit": counts by call, "uploads", "upload_bytes".
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dialog_assets.sandbox.books import Books
from dialog_assets.sandbox.clock import Clock
from dialog_assets.sandbox.faults import Fault, Faults
from dialog_assets.sandbox.inbound_objects import Contents, Objects, Span, Writing, whole_sha256
from dialog_assets.sandbox.inbound_signature import SignatureError, check_payload, check_signature

SERVICE = "voicekit"
BUCKET = "inbound"
MIN_PART = 5 * 1024 * 1024
LIST_LIMIT = 1000
BODY_LIMIT = 2_000_000
"""Bytes of a body that is not an object's: a list of 10,000 parts fits."""

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
METHODS = ["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH"]

# (method, has a key, sub-resources in the query that may be there and one that must be) → the call's name.
_LIST_PARAMETERS = frozenset({"prefix", "marker", "max-keys", "delimiter", "encoding-type"})
_CALLS: tuple[tuple[str, bool, frozenset[str], str], ...] = (
    ("GET", False, frozenset({"location"}), "GetBucketLocation"),
    ("GET", False, frozenset({"versioning"}), "GetBucketVersioning"),
    ("HEAD", True, frozenset(), "HeadObject"),
    ("PUT", True, frozenset(), "PutObject"),
    ("POST", True, frozenset({"uploads"}), "CreateMultipartUpload"),
    ("PUT", True, frozenset({"uploadId", "partNumber"}), "UploadPart"),
    ("POST", True, frozenset({"uploadId"}), "CompleteMultipartUpload"),
    ("DELETE", True, frozenset({"uploadId"}), "AbortMultipartUpload"),
)


class _S3Error(Exception):
    def __init__(self, status: int, code: str, text: str) -> None:
        self.status = status
        self.code = code
        self.text = text
        super().__init__(text)


_UNAVAILABLE = _S3Error(503, "ServiceUnavailable", "Please try again.")


@dataclass(frozen=True)
class _Part:
    span: Span
    etag: str


@dataclass
class _Upload:
    key: str
    parts: dict[int, _Part] = field(default_factory=dict)


@dataclass
class _Account:
    objects: Objects
    uploads: dict[str, _Upload] = field(default_factory=dict)


@dataclass(frozen=True)
class _Asked:
    """A call that was let in."""

    request: Request
    account: _Account
    call: str
    key: str
    stream: AsyncIterator[bytes]


class InboundStorage:
    """The storage as an ASGI app; `other_keys` are further accounts (API key → secret), isolated from the first.

    `objects` holds what the first account has uploaded, by raw object name.
    """

    def __init__(
        self,
        api_key: str,
        books: Books,
        faults: Faults,
        *,
        secret_key: str,
        other_keys: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        latency_ms: float = 0,
    ) -> None:
        self.app = Starlette(routes=[Route("/{path:path}", self._answer, methods=METHODS)])
        self._contents = Contents()
        self._clock = clock or Clock()
        self._secrets = {api_key: secret_key, **(other_keys or {})}
        self._accounts = {key: _Account(Objects(self._contents, self._clock)) for key in self._secrets}
        self.objects = self._accounts[api_key].objects
        self._api_key = api_key
        self._books = books
        self._faults = faults
        self._latency_s = latency_ms / 1000
        self._calls: dict[str, Callable[[_Asked], Awaitable[Response]]] = {
            "GetBucketLocation": self._location,
            "GetBucketVersioning": self._versioning,
            "ListObjects": self._list,
            "HeadObject": self._head,
            "PutObject": self._put,
            "CreateMultipartUpload": self._create_upload,
            "UploadPart": self._upload_part,
            "CompleteMultipartUpload": self._complete_upload,
            "AbortMultipartUpload": self._abort_upload,
        }

    def objects_of(self, api_key: str) -> Objects:
        """What an account has uploaded; KeyError for an unknown one."""
        return self._accounts[api_key].objects

    def reset(self) -> None:
        """Forget every object and upload."""
        for account in self._accounts.values():
            account.objects.clear()
            account.uploads.clear()
        self._contents.clear()

    def store(self, key: str, data: bytes, api_key: str | None = None) -> None:
        """Put an object there, as an upload of the first or another account does."""
        writing = Writing(self._contents, len(data))
        writing.write(data)
        objects = self.objects_of(api_key or self._api_key)
        objects.put(key, (writing.span,), writing.sha256.hexdigest(), _quoted(writing.md5.hexdigest()))

    async def _answer(self, request: Request) -> Response:
        stream = request.stream()
        try:
            return await self._perform(request, stream)
        except (_S3Error, SignatureError) as refusal:
            status, code, text = refusal.status, refusal.code, refusal.text
        # Who is still sending must be able to read the refusal.
        async for _ in stream:
            continue
        content = (
            f"<Error><Code>{code}</Code><Message>{escape(text)}</Message><RequestId>{uuid.uuid4()}</RequestId></Error>"
        )
        return Response("" if request.method == "HEAD" else _xml(content), status, media_type="application/xml")

    async def _perform(self, request: Request, stream: AsyncIterator[bytes]) -> Response:
        _refuse_checksums(request)
        api_key = check_signature(
            request.method,
            request.scope["raw_path"].decode("ascii"),
            request.scope["query_string"].decode("ascii"),
            request.headers,
            secrets=self._secrets,
            now=datetime.now(UTC),
        )
        bucket, _, key = request.path_params["path"].partition("/")
        if not bucket:
            raise _denied("ListBuckets")
        if bucket != BUCKET:
            raise _S3Error(404, "NoSuchBucket", f"The only bucket is {BUCKET}, path style.")
        asked = _Asked(request, self._accounts[api_key], _call_of(request, key), key, stream)
        self._books.count(SERVICE, asked.call)
        slow = self._strike(asked, "storage_slow")
        delay = self._latency_s + (float(slow.value) if slow else 0)
        if delay:
            await asyncio.sleep(delay)
        if self._strike(asked, "storage_unavailable"):
            raise _UNAVAILABLE
        response = await self._calls[asked.call](asked)
        if self._strike(asked, "storage_unavailable_after"):
            raise _UNAVAILABLE
        return response

    def _strike(self, asked: _Asked, kind: str) -> Fault | None:
        return self._faults.strike(SERVICE, f"{asked.call} {asked.key}", [kind])

    async def _location(self, _asked: _Asked) -> Response:
        return _xml_response(f'<LocationConstraint xmlns="{NAMESPACE}"/>')

    async def _versioning(self, _asked: _Asked) -> Response:
        return _xml_response(f'<VersioningConfiguration xmlns="{NAMESPACE}"/>')

    async def _list(self, asked: _Asked) -> Response:
        query, objects = asked.request.query_params, asked.account.objects
        prefix, marker, delimiter = query.get("prefix", ""), query.get("marker", ""), query.get("delimiter", "")
        limit_text = query.get("max-keys", str(LIST_LIMIT))
        if not limit_text.isdecimal():
            raise _S3Error(400, "InvalidArgument", "max-keys is not a number.")
        limit = min(int(limit_text), LIST_LIMIT)
        by_url = query.get("encoding-type") == "url"
        encode = (lambda text: quote(text, safe="/")) if by_url else escape
        encoding = "<EncodingType>url</EncodingType>" if by_url else ""
        entries: list[tuple[str, str]] = []  # (name that the page is cut by, its XML)
        for key in sorted(objects):
            if not key.startswith(prefix):
                continue
            head, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
            name = f"{prefix}{head}{cut}" if cut else key
            if name <= marker or (entries and entries[-1][0] == name):
                continue
            entries.append((name, self._entry(objects, name, encode(name), group=bool(cut))))
        page = entries[:limit]
        more = len(entries) > len(page)
        following = f"<NextMarker>{encode(page[-1][0])}</NextMarker>" if more and page and delimiter else ""
        return _xml_response(
            f'<ListBucketResult xmlns="{NAMESPACE}"><Name>{BUCKET}</Name><Prefix>{encode(prefix)}</Prefix>'
            f"<Marker>{encode(marker)}</Marker>{following}{encoding}<MaxKeys>{limit}</MaxKeys>"
            f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{''.join(xml for _, xml in page)}</ListBucketResult>"
        )

    def _entry(self, objects: Objects, name: str, shown: str, *, group: bool) -> str:
        if group:
            return f"<CommonPrefixes><Prefix>{shown}</Prefix></CommonPrefixes>"
        found = objects.stored(name)
        if found is None:
            return ""
        return (
            f"<Contents><Key>{shown}</Key><LastModified>{found.modified(self._clock):%Y-%m-%dT%H:%M:%S.000Z}</LastModified>"
            f"<ETag>{escape(found.etag)}</ETag><Size>{found.size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        )

    async def _head(self, asked: _Asked) -> Response:
        found = asked.account.objects.stored(asked.key)
        if found is None:
            raise _S3Error(404, "NoSuchKey", "The object does not exist.")
        headers = {
            "etag": found.etag,
            "content-length": str(found.size),
            "last-modified": f"{found.modified(self._clock):%a, %d %b %Y %H:%M:%S} GMT",
        }
        return Response(headers=headers, media_type="binary/octet-stream")

    async def _put(self, asked: _Asked) -> Response:
        writing = await self._received(asked)
        etag = _quoted(writing.md5.hexdigest())
        self._accept(asked, (writing.span,), writing.sha256.hexdigest(), etag)
        return Response(headers={"etag": etag})

    async def _received(self, asked: _Asked) -> Writing:
        """The body on disk, once it is what its headers say."""
        length = asked.request.headers.get("content-length", "")
        if not length.isdecimal():
            raise _S3Error(411, "MissingContentLength", "The length of the body must be given.")
        writing = Writing(self._contents, int(length))
        async for chunk in asked.stream:
            writing.write(chunk)
        check_payload(asked.request.headers, writing.sha256.hexdigest())
        given = asked.request.headers.get("content-md5")
        if given and given != base64.b64encode(writing.md5.digest()).decode():
            raise _S3Error(400, "BadDigest", "Content-MD5 differs from the body's.")
        return writing

    async def _create_upload(self, asked: _Asked) -> Response:
        upload_id = uuid.uuid4().hex
        asked.account.uploads[upload_id] = _Upload(asked.key)
        return _xml_response(
            f'<InitiateMultipartUploadResult xmlns="{NAMESPACE}"><Bucket>{BUCKET}</Bucket><Key>{escape(asked.key)}</Key>'
            f"<UploadId>{upload_id}</UploadId></InitiateMultipartUploadResult>"
        )

    async def _upload_part(self, asked: _Asked) -> Response:
        number = asked.request.query_params["partNumber"]
        if not number.isdecimal() or not 1 <= int(number) <= 10_000:
            raise _S3Error(400, "InvalidArgument", "partNumber is not between 1 and 10000.")
        upload = _upload(asked)
        writing = await self._received(asked)
        part = _Part(writing.span, _quoted(writing.md5.hexdigest()))
        upload.parts[int(number)] = part
        return Response(headers={"etag": part.etag})

    async def _complete_upload(self, asked: _Asked) -> Response:
        body = b""
        async for chunk in asked.stream:
            body += chunk
            if len(body) > BODY_LIMIT:
                raise _S3Error(400, "MalformedXML", "The list of parts is too long.")
        check_payload(asked.request.headers, hashlib.sha256(body).hexdigest())
        upload = _upload(asked)
        listed = _listed_parts(body)
        if any(number not in upload.parts or upload.parts[number].etag != etag for number, etag in listed):
            raise _S3Error(400, "InvalidPart", "A listed part was not uploaded, or its ETag differs.")
        if [number for number, _ in listed] != sorted({number for number, _ in listed}):
            raise _S3Error(400, "InvalidPartOrder", "The parts are not listed in ascending order.")
        parts = [upload.parts[number] for number, _ in listed]
        if any(part.span[1] < MIN_PART for part in parts[:-1]):
            raise _S3Error(400, "EntityTooSmall", "A part other than the last is smaller than 5 MB.")
        spans = tuple(part.span for part in parts)
        sha256 = await asyncio.to_thread(whole_sha256, self._contents, spans)
        hashes = b"".join(bytes.fromhex(part.etag.strip('"')) for part in parts)
        etag = _quoted(f"{hashlib.md5(hashes, usedforsecurity=False).hexdigest()}-{len(parts)}")
        self._accept(asked, spans, sha256, etag)
        asked.account.uploads.pop(asked.request.query_params["uploadId"], None)
        return _xml_response(
            f'<CompleteMultipartUploadResult xmlns="{NAMESPACE}"><Bucket>{BUCKET}</Bucket><Key>{escape(asked.key)}</Key>'
            f"<ETag>{escape(etag)}</ETag></CompleteMultipartUploadResult>"
        )

    async def _abort_upload(self, asked: _Asked) -> Response:
        _upload(asked)
        del asked.account.uploads[asked.request.query_params["uploadId"]]
        return Response(status_code=204)

    def _accept(self, asked: _Asked, spans: tuple[Span, ...], sha256: str, etag: str) -> None:
        self._books.count(SERVICE, "uploads")
        self._books.count(SERVICE, "upload_bytes", sum(length for _, length in spans))
        if not self._strike(asked, "storage_lost"):
            asked.account.objects.put(asked.key, spans, sha256, etag)


def _upload(asked: _Asked) -> _Upload:
    upload = asked.account.uploads.get(asked.request.query_params["uploadId"])
    if upload is None or upload.key != asked.key:
        raise _S3Error(404, "NoSuchUpload", "The multipart upload does not exist.")
    return upload


def _call_of(request: Request, key: str) -> str:
    given = frozenset(request.query_params) - {"x-id"}
    if "x-amz-copy-source" in request.headers:
        raise _denied("CopyObject")
    for method, has_key, query, call in _CALLS:
        if (request.method, bool(key), given) == (method, has_key, query):
            return call
    if request.method == "GET" and not key and given <= _LIST_PARAMETERS:
        return "ListObjects"
    known = {("GET", True): "GetObject", ("DELETE", True): "DeleteObject", ("DELETE", False): "DeleteBucket"}
    raise _denied(known.get((request.method, bool(key)), "this call"))


def _refuse_checksums(request: Request) -> None:
    headers = request.headers
    chunked = "aws-chunked" in headers.get("content-encoding", "") or headers.get(
        "x-amz-content-sha256", ""
    ).startswith("STREAMING-")
    named = [name for name in headers if name.startswith(("x-amz-checksum-", "x-amz-sdk-checksum-", "x-amz-trailer"))]
    if chunked or named:
        what = named[0] if named else "aws-chunked"
        raise _S3Error(
            501,
            "NotImplemented",
            f"{what} is not supported: switch checksums off (request_checksum_calculation=when_required).",
        )


def _listed_parts(body: bytes) -> list[tuple[int, str]]:
    try:
        root = ET.fromstring(body)  # noqa: S314 - see the import
        found = [
            (int(part.findtext("{*}PartNumber") or ""), (part.findtext("{*}ETag") or "").strip().strip('"'))
            for part in root.findall("{*}Part")
        ]
    except (ET.ParseError, ValueError):
        found = []
    if not found:
        raise _S3Error(400, "MalformedXML", "The list of parts cannot be read or is empty.")
    return [(number, _quoted(etag)) for number, etag in found]


def _quoted(etag: str) -> str:
    return f'"{etag}"'


def _denied(call: str) -> _S3Error:
    return _S3Error(403, "AccessDenied", f"{call} is not supported by this storage.")


def _xml(content: str) -> str:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{content}'


def _xml_response(content: str) -> Response:
    return Response(_xml(content), media_type="application/xml")
