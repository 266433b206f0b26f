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
from pathlib import Path
from urllib.parse import quote

from starlette.responses import HTMLResponse, Response, StreamingResponse

from dialog_assets.sandbox.bitrix24_calling import Answer, Method, MethodCall, MethodError, PortalState
from dialog_assets.sandbox.bitrix24_php import to_int
from dialog_assets.sandbox.world.model import Recording

_SIGNING_KEY = secrets.token_bytes(32)
_CHUNK = 64 * 1024
_BROWSER_HEADERS = ("user-agent", "accept", "referer")
_NGINX = (
    "<html>\r\n<head><title>404 Not Found</title></head>\r\n<body>\r\n<center><h1>404 Not Found</h1></center>\r\n"
    "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)


def _recording(state: PortalState, file_id: int) -> Recording | None:
    recording = state.recordings.get(file_id)
    if recording is None or not state.clock.has_come(recording.ready_at) or not recording.path.is_file():
        return None
    return recording


def _file(call: MethodCall) -> Answer:
    state = call.state
    file_id = to_int(call.param("ID"))
    if file_id <= 0:
        raise MethodError("ERROR_ARGUMENT", "Invalid value of parameter {id}")
    recording = _recording(state, file_id)
    if recording is None:
        raise MethodError("ERROR_NOT_FOUND", "Could not find entity with id.")
    user, secret = state.portal.webhook_user, state.portal.webhook_secret
    created = recording.ready_at.astimezone(state.zone).isoformat(timespec="seconds")
    token = quote(make_token(file_id, user), safe="")
    return Answer(
        {
            "ID": str(file_id),
            "NAME": recording.name,
            "CODE": None,
            "STORAGE_ID": "11",
            "TYPE": "file",
            "PARENT_ID": "37",
            "DELETED_TYPE": "0",
            "GLOBAL_CONTENT_VERSION": "1",
            "FILE_ID": str(file_id + 20_000),
            "SIZE": str(recording.path.stat().st_size),
            "CREATE_TIME": created,
            "UPDATE_TIME": created,
            "DELETE_TIME": None,
            "CREATED_BY": str(user),
            "UPDATED_BY": str(user),
            "DELETED_BY": "0",
            "DOWNLOAD_URL": f"{call.base_url}/rest/{user}/{secret}/download/?token={token}",
            "DETAIL_URL": f"{call.base_url}/docs/file/{quote(recording.name)}",
        }
    )


METHODS = {"disk.file.get": Method(("disk",), _file)}


def make_token(file_id: int, user: int) -> str:
    """A token for one download: what it opens, a random part, a signature. To be used unchanged."""
    opened = b64encode(f"id={file_id}&_={secrets.token_urlsafe(24)}".encode()).decode()
    bound = b64encode(f"download|disk|{opened}|{user}".encode()).decode()
    unsigned = f"disk|{opened}|{bound}"
    return f"{unsigned}.{_sign(unsigned)}"


def _sign(text: str) -> str:
    return b64encode(hmac.new(_SIGNING_KEY, text.encode(), hashlib.sha256).digest()).decode()


def open_token(token: str, state: PortalState) -> Recording:
    """The recording behind a token.

    Raises MethodError for a token that this portal did not sign, or whose file is gone.
    """
    unsigned, _, signature = token.rpartition(".")
    if not hmac.compare_digest(_sign(unsigned).encode(), signature.encode()):
        raise MethodError("ERROR_CORE", "Link check failed")
    _, opened, bound = unsigned.split("|")
    if not b64decode(bound).decode().endswith(f"|{state.portal.webhook_user}"):
        raise MethodError("ERROR_CORE", "Link check failed")
    found = re.match(r"id=(\d+)&", b64decode(opened).decode())
    recording = _recording(state, int(found.group(1))) if found else None
    if recording is None:
        raise MethodError("ERROR_NOT_FOUND", "Could not find entity with id.")
    return recording


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
    size = recording.path.stat().st_size
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
    return StreamingResponse(_chunks(recording.path, span), 200 if asked is None else 206, headers)


async def _chunks(path: Path, span: Span) -> AsyncIterator[bytes]:
    left = span.length
    with path.open("rb") as file:
        file.seek(span.first)
        while left > 0:
            chunk = file.read(min(_CHUNK, left))
            if not chunk:
                return
            left -= len(chunk)
            yield chunk
