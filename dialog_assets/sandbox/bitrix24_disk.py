"""disk.file.get of the stand-in and the download behind its DOWNLOAD_URL (facts/bitrix24.md 4.2 and 4.3).

Here: tokens, file answers with ranges, nginx's 404. Not here: faults, the bucket.
"""

from __future__ import annotations

import hashlib
import hmac
import mimetypes
import re
import secrets
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import quote

from starlette.responses import HTMLResponse, Response, StreamingResponse

from dialog_assets.sandbox.bitrix24_calling import Answer, Method, MethodCall, MethodError, PortalState
from dialog_assets.sandbox.bitrix24_files import LIVE, StoredFile
from dialog_assets.sandbox.bitrix24_php import to_int
from dialog_assets.sandbox.world.model import Recording

_SIGNING_KEY = secrets.token_bytes(32)
_CHUNK = 64 * 1024
_BROWSER_HEADERS = ("user-agent", "accept", "referer")
_NGINX = (
    "<html>\r\n<head><title>404 Not Found</title></head>\r\n<body>\r\n<center><h1>404 Not Found</h1></center>\r\n"
    "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)


def _file_of(state: PortalState, file_id: int) -> StoredFile | None:
    file = state.files.get(file_id)
    if file is None or not state.clock.has_come(file.recording.ready_at) or file.recording.size is None:
        return None
    return file


def _file(call: MethodCall) -> Answer:
    state = call.state
    file_id = to_int(call.param("ID"))
    if file_id <= 0:
        raise MethodError("ERROR_ARGUMENT", "Invalid value of parameter {id}")
    file = _file_of(state, file_id)
    if file is None:
        raise MethodError("ERROR_NOT_FOUND", "Could not find entity with id.")
    user, recording = call.access.user, file.recording
    created = recording.ready_at.astimezone(state.zone).isoformat(timespec="seconds")
    updated = created if file.updated is None else file.updated.astimezone(state.zone).isoformat(timespec="seconds")
    return Answer(
        {
            "ID": str(file_id),
            "NAME": recording.name,
            "CODE": None,
            "STORAGE_ID": "11",
            "TYPE": "file",
            "PARENT_ID": "37",
            "DELETED_TYPE": str(file.deleted_type),
            "GLOBAL_CONTENT_VERSION": str(file.version),
            "FILE_ID": str(file_id + 20_000 + file.version - 1),
            "SIZE": str(recording.size),
            "CREATE_TIME": created,
            "UPDATE_TIME": updated,
            "DELETE_TIME": None if file.deleted_type == LIVE else updated,
            "CREATED_BY": str(user),
            "UPDATED_BY": str(user),
            "DELETED_BY": "0" if file.deleted_type == LIVE else str(user),
            "DOWNLOAD_URL": _download_url(call, file_id),
            "DETAIL_URL": f"{call.base_url}/docs/file/{quote(recording.name)}",
        }
    )


def _download_url(call: MethodCall, file_id: int) -> str:
    """Both forms carry the credential (facts 4.3)."""
    token = quote(make_token(call.state.portal.portal, file_id, call.access.user), safe="")
    if call.access.token is not None:
        return f"{call.base_url}/rest/download.json?auth={call.access.token}&token={token}"
    return f"{call.base_url}/rest/{call.access.user}/{call.state.portal.webhook_secret}/download/?token={token}"


METHODS = {"disk.file.get": Method(("disk",), _file)}


def make_token(portal: str, file_id: int, user: int) -> str:
    """A token for one download: what it opens, a random part, a signature. To be used unchanged."""
    opened = b64encode(f"id={file_id}&_={secrets.token_urlsafe(24)}".encode()).decode()
    bound = b64encode(f"download|disk|{opened}|{portal}|{user}".encode()).decode()
    unsigned = f"disk|{opened}|{bound}"
    return f"{unsigned}.{_sign(unsigned)}"


def _sign(text: str) -> str:
    return b64encode(hmac.new(_SIGNING_KEY, text.encode(), hashlib.sha256).digest()).decode()


def open_token(token: str, state: PortalState, user: int) -> Recording:
    """The recording behind a token.

    Raises MethodError for a token that this portal did not sign, or whose file is gone.
    """
    unsigned, _, signature = token.rpartition(".")
    if not hmac.compare_digest(_sign(unsigned).encode(), signature.encode()):
        raise MethodError("ERROR_CORE", "Link check failed")
    _, opened, bound = unsigned.split("|")
    if not b64decode(bound).decode().endswith(f"|{state.portal.portal}|{user}"):
        raise MethodError("ERROR_CORE", "Link check failed")
    found = re.match(r"id=(\d+)&", b64decode(opened).decode())
    return open_file(state, int(found.group(1)) if found else 0)


def open_file(state: PortalState, file_id: int) -> Recording:
    """The newest version of a live file. Raises MethodError."""
    file = _file_of(state, file_id)
    if file is None or file.deleted_type != LIVE:
        raise MethodError("ERROR_NOT_FOUND", "Could not find entity with id.")
    return file.recording


def looks_like_a_browser(headers: dict[str, str]) -> bool:
    """Whether nginx would let the download through; `headers` has lower-case names."""
    return all(headers.get(name) for name in _BROWSER_HEADERS)


def nginx_not_found() -> Response:
    """What nginx says to a download that does not look like a browser's."""
    return HTMLResponse(_NGINX, 404, {"Server": "nginx"})


@dataclass(frozen=True)
class Span:
    """Bytes `first` to `last` of a file of `size`, both included."""

    first: int
    last: int
    size: int

    @property
    def length(self) -> int:
        """Number of bytes."""
        return self.last - self.first + 1


def read_range(header: str | None, size: int) -> Span | None:
    """The one range that a Range header asks for; None where the whole file is to be sent.

    Raises ValueError for a range outside the file.
    """
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header or "")
    if match is None or match.group(0) == "bytes=-":
        return None
    first, last = match.groups()
    start, end = (int(first), int(last or size)) if first else (max(0, size - int(last)), size)
    span = Span(start, min(end, size - 1), size)
    if span.length <= 0:
        raise ValueError(f"range outside of {size} bytes")
    return span


def file_answer(recording: Recording, range_header: str | None, media_type: str | None = None) -> Response:
    """The recording or a range of it, streamed; `media_type` replaces the file's own."""
    size = recording.size or 0
    try:
        asked = read_range(range_header, size)
    except ValueError:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
    span = asked or Span(0, size - 1, size)
    name = quote(recording.name, safe="")
    headers = {
        "Content-Type": media_type or mimetypes.guess_type(recording.name)[0] or "application/octet-stream",
        "Content-Length": str(span.length),
        "Content-Disposition": f"attachment; filename=\"{name}\"; filename*=utf-8''{name}",
        "Accept-Ranges": "bytes",
    }
    if asked is not None:
        headers["Content-Range"] = f"bytes {span.first}-{span.last}/{size}"
    return StreamingResponse(_chunks(recording, span), 200 if asked is None else 206, headers)


async def _chunks(recording: Recording, span: Span) -> AsyncIterator[bytes]:
    at = span.first
    while at <= span.last:
        chunk = recording.read(at, min(_CHUNK, span.last - at + 1))
        if not chunk:
            return
        at += len(chunk)
        yield chunk
