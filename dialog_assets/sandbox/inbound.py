"""VoiceKit's `inbound` storage: the S3 calls that it offers, and refusals of all others (facts/voicekit.md 3.2).

Here: PutObject, HeadObject, ListObjects, GetBucketLocation, GetBucketVersioning and multipart uploads, path style, bytes in
memory. Not here: signatures (`inbound_signature`), and reading objects for recognition, which is a look into `objects`.

CRC checksums (x-amz-checksum-*, x-amz-sdk-checksum-algorithm, aws-chunked trailers) are refused, because it is unknown
whether the real service takes them and a client must not rely on it.

Fault kinds of service "voicekit"; the label is the call's name, such as PutObject: storage_unavailable (503), storage_slow
(`value` seconds before the answer), storage_lost (the answer is good but the object is not there, as after its 5 days).
Books, service "voicekit": counts by call, "uploads", "upload_bytes".
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import uuid
from collections.abc import Awaitable, Callable
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
from dialog_assets.sandbox.faults import Faults
from dialog_assets.sandbox.inbound_signature import SignatureError, check_signature

SERVICE = "voicekit"
BUCKET = "inbound"
MIN_PART = 5 * 1024 * 1024
LIST_LIMIT = 1000
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


@dataclass
class _Upload:
    key: str
    parts: dict[int, bytes] = field(default_factory=dict)


class InboundStorage:
    """The storage as an ASGI app. `objects` holds what has been uploaded, by raw object name; equal contents share memory."""

    def __init__(self, api_key: str, books: Books, faults: Faults, *, secret_key: str, latency_ms: float = 0) -> None:
        self.objects: dict[str, bytes] = {}
        self.app = Starlette(routes=[Route("/{path:path}", self._answer, methods=METHODS)])
        self._api_key = api_key
        self._secret_key = secret_key
        self._books = books
        self._faults = faults
        self._latency_s = latency_ms / 1000
        self._uploads: dict[str, _Upload] = {}
        self._contents: dict[str, bytes] = {}
        self._written: dict[str, datetime] = {}
        self._calls: dict[str, Callable[[Request, str, bytes], Awaitable[Response]]] = {
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

    def reset(self) -> None:
        """Forget every object and upload."""
        self.objects.clear()
        self._uploads.clear()
        self._contents.clear()
        self._written.clear()

    def store(self, key: str, data: bytes) -> None:
        """Put an object there, as an upload does."""
        self.objects[key] = self._contents.setdefault(hashlib.sha256(data).hexdigest(), data)
        self._written[key] = datetime.now(UTC)

    async def _answer(self, request: Request) -> Response:
        body = await request.body()
        try:
            return await self._perform(request, body)
        except (_S3Error, SignatureError) as refusal:
            status, code, text = refusal.status, refusal.code, refusal.text
        content = (
            f"<Error><Code>{code}</Code><Message>{escape(text)}</Message><RequestId>{uuid.uuid4()}</RequestId></Error>"
        )
        return Response("" if request.method == "HEAD" else _xml(content), status, media_type="application/xml")

    async def _perform(self, request: Request, body: bytes) -> Response:
        _refuse_checksums(request)
        check_signature(
            request.method,
            request.scope["raw_path"].decode("ascii"),
            request.scope["query_string"].decode("ascii"),
            request.headers,
            body,
            access_key=self._api_key,
            secret_key=self._secret_key,
            now=datetime.now(UTC),
        )
        bucket, _, key = request.path_params["path"].partition("/")
        if not bucket:
            raise _denied("ListBuckets")
        if bucket != BUCKET:
            raise _S3Error(404, "NoSuchBucket", f"The only bucket is {BUCKET}, path style.")
        call = _call_of(request, key)
        self._books.count(SERVICE, call)
        slow = self._faults.strike(SERVICE, call, ["storage_slow"])
        delay = self._latency_s + (float(slow.value) if slow else 0)
        if delay:
            await asyncio.sleep(delay)
        if self._faults.strike(SERVICE, call, ["storage_unavailable"]):
            raise _S3Error(503, "ServiceUnavailable", "Please try again.")
        return await self._calls[call](request, key, body)

    async def _location(self, _request: Request, _key: str, _body: bytes) -> Response:
        return _xml_response(f'<LocationConstraint xmlns="{NAMESPACE}"/>')

    async def _versioning(self, _request: Request, _key: str, _body: bytes) -> Response:
        return _xml_response(f'<VersioningConfiguration xmlns="{NAMESPACE}"/>')

    async def _list(self, request: Request, _key: str, _body: bytes) -> Response:
        query = request.query_params
        prefix, marker, delimiter = query.get("prefix", ""), query.get("marker", ""), query.get("delimiter", "")
        limit_text = query.get("max-keys", str(LIST_LIMIT))
        if not limit_text.isdecimal():
            raise _S3Error(400, "InvalidArgument", "max-keys is not a number.")
        limit = min(int(limit_text), LIST_LIMIT)
        by_url = query.get("encoding-type") == "url"
        encode = (lambda text: quote(text, safe="/")) if by_url else escape
        encoding = "<EncodingType>url</EncodingType>" if by_url else ""
        entries: list[tuple[str, str]] = []  # (name that the page is cut by, its XML)
        for key in sorted(self.objects):
            if not key.startswith(prefix):
                continue
            head, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
            name = f"{prefix}{head}{cut}" if cut else key
            if name <= marker or (entries and entries[-1][0] == name):
                continue
            entries.append((name, self._entry(name, encode(name), group=bool(cut))))
        page = entries[:limit]
        more = len(entries) > len(page)
        following = f"<NextMarker>{encode(page[-1][0])}</NextMarker>" if more and page and delimiter else ""
        return _xml_response(
            f'<ListBucketResult xmlns="{NAMESPACE}"><Name>{BUCKET}</Name><Prefix>{encode(prefix)}</Prefix>'
            f"<Marker>{encode(marker)}</Marker>{following}{encoding}<MaxKeys>{limit}</MaxKeys>"
            f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{''.join(xml for _, xml in page)}</ListBucketResult>"
        )

    def _entry(self, name: str, shown: str, *, group: bool) -> str:
        if group:
            return f"<CommonPrefixes><Prefix>{shown}</Prefix></CommonPrefixes>"
        data, written = self.objects[name], self._written[name]
        return (
            f"<Contents><Key>{shown}</Key><LastModified>{written:%Y-%m-%dT%H:%M:%S.000Z}</LastModified>"
            f"<ETag>{escape(_etag(data))}</ETag><Size>{len(data)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        )

    async def _head(self, _request: Request, key: str, _body: bytes) -> Response:
        data = self.objects.get(key)
        if data is None:
            raise _S3Error(404, "NoSuchKey", "The object does not exist.")
        written = self._written[key]
        headers = {
            "etag": _etag(data),
            "content-length": str(len(data)),
            "last-modified": f"{written:%a, %d %b %Y %H:%M:%S} GMT",
        }
        return Response(headers=headers, media_type="binary/octet-stream")

    async def _put(self, request: Request, key: str, body: bytes) -> Response:
        _check_md5(request, body)
        self._accept("PutObject", key, body)
        return Response(headers={"etag": _etag(body)})

    async def _create_upload(self, _request: Request, key: str, _body: bytes) -> Response:
        upload_id = uuid.uuid4().hex
        self._uploads[upload_id] = _Upload(key)
        return _xml_response(
            f'<InitiateMultipartUploadResult xmlns="{NAMESPACE}"><Bucket>{BUCKET}</Bucket><Key>{escape(key)}</Key>'
            f"<UploadId>{upload_id}</UploadId></InitiateMultipartUploadResult>"
        )

    async def _upload_part(self, request: Request, key: str, body: bytes) -> Response:
        number = request.query_params["partNumber"]
        if not number.isdecimal() or not 1 <= int(number) <= 10_000:
            raise _S3Error(400, "InvalidArgument", "partNumber is not between 1 and 10000.")
        _check_md5(request, body)
        self._upload(request, key).parts[int(number)] = body
        return Response(headers={"etag": _etag(body)})

    async def _complete_upload(self, request: Request, key: str, body: bytes) -> Response:
        upload = self._upload(request, key)
        listed = _listed_parts(body)
        if any(number not in upload.parts or _etag(upload.parts[number]) != etag for number, etag in listed):
            raise _S3Error(400, "InvalidPart", "A listed part was not uploaded, or its ETag differs.")
        if [number for number, _ in listed] != sorted({number for number, _ in listed}):
            raise _S3Error(400, "InvalidPartOrder", "The parts are not listed in ascending order.")
        parts = [upload.parts[number] for number, _ in listed]
        if any(len(part) < MIN_PART for part in parts[:-1]):
            raise _S3Error(400, "EntityTooSmall", "A part other than the last is smaller than 5 MB.")
        self._accept("CompleteMultipartUpload", key, b"".join(parts))
        del self._uploads[request.query_params["uploadId"]]
        etag = hashlib.md5(b"".join(hashlib.md5(part).digest() for part in parts), usedforsecurity=False)  # noqa: S324
        return _xml_response(
            f'<CompleteMultipartUploadResult xmlns="{NAMESPACE}"><Bucket>{BUCKET}</Bucket><Key>{escape(key)}</Key>'
            f"<ETag>&quot;{etag.hexdigest()}-{len(parts)}&quot;</ETag></CompleteMultipartUploadResult>"
        )

    async def _abort_upload(self, request: Request, key: str, _body: bytes) -> Response:
        self._upload(request, key)
        del self._uploads[request.query_params["uploadId"]]
        return Response(status_code=204)

    def _upload(self, request: Request, key: str) -> _Upload:
        upload = self._uploads.get(request.query_params["uploadId"])
        if upload is None or upload.key != key:
            raise _S3Error(404, "NoSuchUpload", "The multipart upload does not exist.")
        return upload

    def _accept(self, call: str, key: str, data: bytes) -> None:
        self._books.count(SERVICE, "uploads")
        self._books.count(SERVICE, "upload_bytes", len(data))
        if not self._faults.strike(SERVICE, call, ["storage_lost"]):
            self.store(key, data)


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


def _check_md5(request: Request, body: bytes) -> None:
    given = request.headers.get("content-md5")
    if given and given != base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode():
        raise _S3Error(400, "BadDigest", "Content-MD5 differs from the body's.")


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
    return [(number, f'"{etag}"') for number, etag in found]


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def _denied(call: str) -> _S3Error:
    return _S3Error(403, "AccessDenied", f"{call} is not supported by this storage.")


def _xml(content: str) -> str:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{content}'


def _xml_response(content: str) -> Response:
    return Response(_xml(content), media_type="application/xml")
