"""Recordings from the portal's Disk: one download, checked, resumed after a cut (facts/bitrix24.md 4.3).

Here: the bytes of one file into a caller's file object. Not here: where the URL comes from (reading.files), what the audio
holds (audio/), where it is kept. A download URL holds the credential: it is never shown, and never goes to another host.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import urljoin

import httpx2

from dialog_assets.bitrix24.client import Bitrix24Client, unavailable
from dialog_assets.bitrix24.credentials import origin_of
from dialog_assets.bitrix24.errors import (
    Bitrix24AccessError,
    Bitrix24Error,
    RecordingUnavailableError,
    classify,
)
from dialog_assets.bitrix24.rows import DiskFile

__all__ = ["MAX_BYTES", "RecordingUnavailableError", "download"]

MAX_BYTES = 512 * 1024 * 1024
"""Far above telephony: an hour of 16-bit stereo at 16 kHz is 230 MB."""

_METHOD = "download"
_PAGE_BYTES = 64 * 1024
_REDIRECTS = 3
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


async def download(client: Bitrix24Client, file: DiskFile, target: BinaryIO, *, max_bytes: int = MAX_BYTES) -> int:
    """Write the whole file to `target` (seekable, from its current position); returns the number of bytes.

    Raises RecordingUnavailableError when this recording cannot be had (what was written then is no recording),
    Bitrix24AccessError when the credential is refused, Bitrix24UnavailableError or Bitrix24LimitError when the portal
    still fails after the client's attempts.
    """
    if file.size > max_bytes:
        raise RecordingUnavailableError("too_large", file.id, description=f"{file.size} bytes, allowed {max_bytes}")
    if origin_of(file.download_url) != client.origin:
        raise RecordingUnavailableError("refused", file.id, description="its address is outside the portal")
    transfer = _Transfer(file, target, target.tell())
    attempt = 0
    while True:
        attempt += 1
        failure = await _try(client, transfer)
        if failure is None:
            break
        if not failure.retryable or attempt >= client.attempts:
            raise failure
        await client.rest(failure, attempt)
    if not _is_audio(transfer.head):
        raise RecordingUnavailableError("not_audio", file.id, description="no known audio format")
    return transfer.received


@dataclass
class _Transfer:
    """How far one file has come; `head` keeps its first bytes for the format check."""

    file: DiskFile
    target: BinaryIO
    base: int
    received: int = 0
    head: bytes = b""

    def restart(self) -> None:
        self.target.seek(self.base)
        self.target.truncate()
        self.received = 0
        self.head = b""

    def write(self, piece: bytes) -> None:
        self.target.write(piece)
        self.received += len(piece)
        if len(self.head) < _HEAD_BYTES:
            self.head = (self.head + piece)[:_HEAD_BYTES]

    def short(self) -> RecordingUnavailableError:
        """Fewer bytes than the file has: worth another try from where it stopped."""
        error = RecordingUnavailableError(
            "truncated", self.file.id, description=f"{self.received} of {self.file.size} bytes"
        )
        error.retryable = True
        return error


async def _try(client: Bitrix24Client, transfer: _Transfer) -> Bitrix24Error | None:
    """One request from where the transfer stopped; None when the file is complete, else the failure."""
    url = transfer.file.download_url
    headers = {
        "Accept": "*/*",
        "Accept-Language": "en",
        "Accept-Encoding": "identity",
        "Referer": f"{client.origin}/",
    }
    if transfer.received:
        headers["Range"] = f"bytes={transfer.received}-"
    for _ in range(_REDIRECTS + 1):
        try:
            async with client.stream(url, headers) as response:
                if response.is_redirect:
                    url = urljoin(url, response.headers.get("location", ""))
                    if origin_of(url) != client.origin:
                        return RecordingUnavailableError(
                            "refused",
                            transfer.file.id,
                            status=response.status_code,
                            description="it leads to another host",
                        )
                    continue
                return await _receive(response, transfer)
        except httpx2.RequestError as error:
            return transfer.short() if transfer.received else unavailable(_METHOD, error)
        except httpx2.InvalidURL:
            return RecordingUnavailableError("refused", transfer.file.id, description="its address is malformed")
    return RecordingUnavailableError("refused", transfer.file.id, description="it leads in circles")


async def _receive(response: httpx2.Response, transfer: _Transfer) -> Bitrix24Error | None:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if response.status_code == 416 and transfer.received:
        error = transfer.short()
        error.retryable = False
        return error
    page = response.status_code not in (200, 206) or kind == "text/html" or "json" in kind
    if not page and transfer.received and not _continues(response, transfer):
        transfer.restart()
        if response.status_code == 206:
            return transfer.short()
    shown = b""
    async for piece in response.aiter_bytes():
        # No audio begins with these: an error page under an audio's content type.
        page = page or (not transfer.received and piece.lstrip()[:1] in (b"{", b"<"))
        if page:
            shown += piece
            if len(shown) > _PAGE_BYTES:
                break
            continue
        transfer.write(piece)
        if transfer.received > transfer.file.size:
            return RecordingUnavailableError(
                "changed", transfer.file.id, description=f"above {transfer.file.size} bytes"
            )
    if page:
        return _page_error(response.status_code, shown, transfer.file.id)
    return transfer.short() if transfer.received < transfer.file.size else None


def _continues(response: httpx2.Response, transfer: _Transfer) -> bool:
    """Whether a 206 goes on exactly where the transfer stopped, in a file of the same size."""
    found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", "").strip())
    if response.status_code != 206 or found is None:
        return False
    return int(found[1]) == transfer.received and found[2] in ("*", str(transfer.file.size))


_CREDENTIAL_CODES = {
    "EXPIRED_TOKEN",
    "INSUFFICIENT_SCOPE",
    "INVALID_CREDENTIALS",
    "INVALID_TOKEN",
    "NO_AUTH_FOUND",
    "OVERLOAD_LIMIT",
    "PAYMENT_REQUIRED",
    "PORTAL_DELETED",
}


def _page_error(status: int, content: bytes, file_id: int) -> Bitrix24Error:
    """What a page in the place of audio means: only the credential's own codes stop more than this recording."""
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    told = isinstance(body, dict) and body.get("error") is not None
    if status < 300 and not told:
        error = RecordingUnavailableError("not_audio", file_id, status=status, description="a page came in its place")
        # A proxy's page may be gone the next moment.
        error.retryable = True
        return error
    failure = classify(status, body, method=_METHOD)
    if failure is None or failure.retryable:
        return failure or RecordingUnavailableError("refused", file_id, status=status)
    if isinstance(failure, Bitrix24AccessError) and failure.code.upper() in _CREDENTIAL_CODES:
        return failure
    gone = status in (404, 410) or "NOT_FOUND" in failure.code.upper()
    return RecordingUnavailableError("gone" if gone else "refused", file_id, status=status, description=failure.code)


_HEAD_BYTES = 16


def _is_audio(head: bytes) -> bool:
    """RIFF/WAVE, ID3, Ogg, or a valid frame header of MPEG audio (layers II and III) or of AAC in ADTS.

    The sync word alone would let a UTF-16 text (FF FE, which reads as layer I) and a run of FF pass.
    """
    if head[:4] in (b"RIFF", b"OggS") or head[:3] == b"ID3":
        return True
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return False
    version, layer = head[1] >> 3 & 0b11, head[1] >> 1 & 0b11
    if layer == 0:
        return head[1] & 0xF0 == 0xF0 and head[2] >> 2 & 0b1111 < 13
    return version != 0b01 and layer != 0b11 and head[2] >> 4 != 0b1111 and head[2] >> 2 & 0b11 != 0b11
