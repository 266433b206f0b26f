"""One recording's bytes: downloaded, checked, resumed after a cut (facts/bitrix24.md 4.3).

Here: from a place (a URL, and what is known of it) into a caller's file object. Not here: where places come from
(recordings.py), what the audio holds (audio/), where it is kept. A portal's download URL holds the credential: it is never
shown, and never goes to another host.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import BinaryIO, Literal
from urllib.parse import urljoin, urlsplit

import httpx2

from dialog_assets.bitrix24.client import USER_AGENT, Bitrix24Client, unavailable
from dialog_assets.bitrix24.errors import (
    Bitrix24AccessError,
    Bitrix24Error,
    Bitrix24UnavailableError,
    RecordingUnavailableError,
    classify,
)
from dialog_assets.bitrix24.outside import NotAllowedError, OutsideHosts
from dialog_assets.bitrix24.own_links import ForeignLinkError, own_link
from dialog_assets.hosts import origin_of

__all__ = ["MAX_BYTES", "TIMEOUT_S", "Downloaded", "Place", "RecordingUnavailableError", "Way", "download"]

Way = Literal["disk", "activity", "provider"]

MAX_BYTES = 512 * 1024 * 1024
"""Far above telephony: an hour of 16-bit stereo at 16 kHz is 230 MB."""

TIMEOUT_S = 900.0
"""How long one recording may take, waiting and repetitions included, seconds."""

_METHOD = "download"
_PAGE_BYTES = 64 * 1024
_REDIRECTS = 3
_RENEWALS = 2
"""How often one download may find its place outdated."""
_PROGRESS_BYTES = 64 * 1024
"""An attempt that brought less than this before its cut counts as failed."""
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a recording can be had: `way` of facts 4.1, `name` for errors (no secret), `size` in bytes where it is told.

    A `size` of 0 is told of what is empty and of what nobody has measured yet: the answer's own length counts then.
    `url` is a secret, and made for one use where it is the portal's: do not store it.
    """

    way: Way
    name: str
    url: str = field(repr=False)
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Downloaded:
    """How many bytes came, and whether anybody had told that it would be so many: else nothing tells a cut file."""

    bytes: int
    told: bool


Again = Callable[[], Awaitable[Place]]
"""Asks for the same recording's place once more: URLs die with their token, portals move, recordings are replaced."""


async def download(
    client: Bitrix24Client,
    place: Place,
    target: BinaryIO,
    *,
    outside: OutsideHosts | None = None,
    again: Again | None = None,
    max_bytes: int = MAX_BYTES,
    timeout_s: float = TIMEOUT_S,
) -> Downloaded:
    """Write the whole recording to `target` (seekable, from its current position).

    A cut costs the rest of the file only; attempts are counted anew where one got on. `outside` are the hosts that a
    place, or a redirect, outside the portal may name.
    Raises RecordingUnavailableError when this recording cannot be had (what was written then is no recording),
    Bitrix24AccessError when the credential is refused, Bitrix24UnavailableError or Bitrix24LimitError when the portal
    still fails after the client's attempts.
    """
    if place.size is not None and place.size > max_bytes:
        raise RecordingUnavailableError("too_large", place.name, description=f"{place.size} bytes, allowed {max_bytes}")
    transfer = _Transfer(place, target, target.tell(), max_bytes)
    late = False
    try:
        async with asyncio.timeout(timeout_s):
            await _repeat(client, transfer, outside or OutsideHosts(), again)
    except TimeoutError:
        late = True
    if late:
        raise RecordingUnavailableError(
            "too_slow", place.name, description=f"{transfer.received} bytes in {timeout_s:g} s"
        )
    return Downloaded(transfer.received, transfer.told)


async def _repeat(client: Bitrix24Client, transfer: _Transfer, outside: OutsideHosts, again: Again | None) -> None:
    attempt = renewals = 0
    while True:
        attempt += 1
        failure = await _try(client, transfer, outside)
        if failure is None:
            return
        if again is not None and renewals < _RENEWALS and _is_outdated(failure):
            renewals, attempt = renewals + 1, 0
            transfer.move(await again(), same=failure.code != "changed")
            continue
        if transfer.gain() >= _PROGRESS_BYTES:
            attempt = 1
        if not failure.retryable or attempt >= client.attempts:
            raise _outside(transfer.place, failure) if transfer.place.way == "provider" else failure
        await client.rest(failure, attempt)


def _is_outdated(failure: Bitrix24Error) -> bool:
    """Whether a fresh place of the same recording may do."""
    if isinstance(failure, RecordingUnavailableError):
        return failure.outdated
    return failure.code.upper() == "EXPIRED_TOKEN"


def _outside(place: Place, failure: Bitrix24Error) -> Bitrix24Error:
    """A provider that does not answer, or whom nobody trusts, is no trouble of the portal's."""
    if isinstance(failure, Bitrix24UnavailableError):
        return RecordingUnavailableError("unreachable", place.name, status=failure.status, description=failure.code)
    if isinstance(failure, Bitrix24AccessError) and failure.code == "certificate":
        host = urlsplit(place.url).hostname
        return RecordingUnavailableError("untrusted", place.name, description=f"host {host}: {failure.advice}")
    return failure


@dataclass
class _Transfer:
    """How far one file has come. `size` is None until it is told; `tag` names the version of an outside file."""

    place: Place
    target: BinaryIO
    base: int
    max_bytes: int
    received: int = 0
    tag: str | None = None
    size: int | None = None
    told: bool = False
    furthest: int = 0

    def __post_init__(self) -> None:
        self.size = self.place.size or None

    def gain(self) -> int:
        """How many bytes further it is than ever before; what was read anew after a restart is no gain."""
        before, self.furthest = self.furthest, max(self.furthest, self.received)
        return self.furthest - before

    def restart(self) -> None:
        self.target.seek(self.base)
        self.target.truncate()
        self.received = 0
        self.size, self.tag = self.place.size or None, None

    def move(self, place: Place, *, same: bool) -> None:
        """Go on at another place; from the beginning where it leads to other bytes."""
        same = same and place.size == self.place.size
        self.place = place
        if not same:
            self.restart()
            self.furthest = 0

    def write(self, piece: bytes) -> None:
        self.target.write(piece)
        self.received += len(piece)

    def learn(self, response: httpx2.Response) -> None:
        """What the head of an answer tells of a file whose size nobody has told."""
        length = response.headers.get("content-length", "")
        packed = response.headers.get("content-encoding", "identity").lower() != "identity"
        if self.size is None and response.status_code == httpx2.codes.OK and length.isdecimal() and not packed:
            self.size = int(length)
        # The end of a chunked answer is a part of it.
        self.told = self.size is not None or "transfer-encoding" in response.headers
        self.tag = self.tag or response.headers.get("etag") or response.headers.get("last-modified")

    def overflow(self) -> RecordingUnavailableError | None:
        """More bytes than there should be."""
        if self.size is not None and self.received > self.size:
            return self.changed(f"above {self.size} bytes")
        if self.received > self.max_bytes or (self.size or 0) > self.max_bytes:
            return RecordingUnavailableError(
                "too_large", self.place.name, description=f"allowed {self.max_bytes} bytes"
            )
        return None

    def changed(self, how: str) -> RecordingUnavailableError:
        """Not the file that the place was given for."""
        error = RecordingUnavailableError("changed", self.place.name, description=how)
        error.outdated = True
        return error

    def short(self) -> RecordingUnavailableError:
        """Fewer bytes than the file has: worth another try from where it stopped."""
        whole = "an unknown number of" if self.size is None else self.size
        error = RecordingUnavailableError("truncated", self.place.name, description=f"{self.received} of {whole} bytes")
        error.retryable = True
        return error


async def _try(client: Bitrix24Client, transfer: _Transfer, outside: OutsideHosts) -> Bitrix24Error | None:
    """One request from where the transfer stopped; None when the file is complete, else the failure."""
    place = transfer.place
    url = place.url
    for step in range(_REDIRECTS + 1):
        try:
            if place.way != "provider":
                url = _at_home(client, url, redirected=step > 0)
            async with _opened(client, transfer, outside, url) as response:
                if response.is_redirect:
                    target = urljoin(url, response.headers.get("location", ""))
                    if place.way != "provider" and _is_renamed(url, target):
                        return _moved(place, urlsplit(target).hostname or "")
                    url = target
                    continue
                return await _receive(response, transfer)
        except ForeignLinkError as error:
            failure: Bitrix24Error = _elsewhere(place, error.host)
        except NotAllowedError as error:
            failure = RecordingUnavailableError("refused", place.name, description=str(error))
        except httpx2.RequestError as error:
            failure = transfer.short() if transfer.received else unavailable(_METHOD, error)
        except (httpx2.InvalidURL, ValueError):
            failure = RecordingUnavailableError("refused", place.name, description="its address is malformed")
        return failure
    return RecordingUnavailableError("refused", place.name, description="it leads in circles")


def _is_renamed(url: str, target: str) -> bool:
    """Whether a redirect leads to the very same path and query at another origin, as a renamed portal's does."""
    old, new = urlsplit(url), urlsplit(target)
    same = (old.scheme, old.path, old.query) == (new.scheme, new.path, new.query)
    return same and origin_of(url) != origin_of(target)


def _at_home(client: Bitrix24Client, url: str, *, redirected: bool) -> str:
    """A link of the portal at the portal's own origin; a redirect of it may lead to an allowed host outside.

    Raises ForeignLinkError, ValueError.
    """
    try:
        return own_link(url, client.origin, client.link_hosts)
    except ForeignLinkError:
        if redirected:
            return url  # whether that host may be asked, it decides itself
        raise


def _moved(place: Place, host: str) -> RecordingUnavailableError:
    """A redirect like that of a renamed portal: whether it is one, the portal itself must say."""
    error = RecordingUnavailableError(
        "refused", place.name, description=f"its address is outside the portal, it leads to host {host}"
    )
    error.outdated = True
    return error


def _elsewhere(place: Place, host: str) -> RecordingUnavailableError:
    """The secret in the URL goes nowhere else; where the portal is now, the portal itself must say."""
    advice = (
        f"the portal's links name the host {host}: correct the portal's own address in its settings, or, if it is the same "
        "portal, name it under bitrix24.link_hosts in the portal file"
    )
    error = RecordingUnavailableError("elsewhere", place.name, description=advice)
    error.outdated = True
    return error


@asynccontextmanager
async def _opened(
    client: Bitrix24Client, transfer: _Transfer, outside: OutsideHosts, url: str
) -> AsyncIterator[httpx2.Response]:
    headers = {"Accept": "*/*", "Accept-Language": "en", "Accept-Encoding": "identity"}
    if transfer.received:
        headers["Range"] = f"bytes={transfer.received}-"
        if transfer.tag is not None and not transfer.tag.startswith("W/"):
            headers["If-Range"] = transfer.tag
    if transfer.place.way != "provider" and origin_of(url) == client.origin:
        async with client.stream(url, {**headers, "Referer": f"{client.origin}/"}) as response:
            yield response
    else:
        # Another host gets neither the portal's name nor anything of its URL.
        async with outside.stream(url, {**headers, "User-Agent": USER_AGENT}) as response:
            yield response


async def _receive(response: httpx2.Response, transfer: _Transfer) -> Bitrix24Error | None:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    page = response.status_code not in (200, 206) or kind == "text/html" or "json" in kind
    if transfer.received and (not page or response.status_code == 416):
        failure = _resume(response, transfer)
        if failure is not None:
            return failure
    if not page:
        transfer.learn(response)
        if (failure := transfer.overflow()) is not None:
            return failure
    shown = b""
    async for piece in _after_head(response):
        # An error page may come under an audio's content type.
        page = page or (not transfer.received and _is_page(piece))
        if page:
            shown += piece
            if len(shown) > _PAGE_BYTES:
                break
            continue
        transfer.write(piece)
        if (failure := transfer.overflow()) is not None:
            return failure
    if page:
        return _page_error(response.status_code, shown, transfer.place)
    nothing_told = not transfer.received and not transfer.told and transfer.place.size != 0
    return transfer.short() if nothing_told or transfer.received < (transfer.size or 0) else None


async def _after_head(response: httpx2.Response) -> AsyncIterator[bytes]:
    """The answer's pieces; the first is long enough to be told from a page, however slowly it comes."""
    head = b""
    try:
        async for piece in response.aiter_bytes():
            if len(head) < _HEAD_BYTES:
                head += piece
                if len(head) < _HEAD_BYTES:
                    continue
                yield head
            else:
                yield piece
    except httpx2.RequestError:
        if 0 < len(head) < _HEAD_BYTES:
            yield head
        raise
    if 0 < len(head) < _HEAD_BYTES:
        yield head


def _resume(response: httpx2.Response, transfer: _Transfer) -> RecordingUnavailableError | None:
    """Go on where the transfer stopped, from the beginning where the whole file comes; else the failure."""
    if response.status_code == 416:
        return transfer.changed(f"it ends before {transfer.size or transfer.received} bytes")
    found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", "").strip())
    if response.status_code == 206 and found is not None:
        if transfer.size is not None and found[2] not in ("*", str(transfer.size)):
            return transfer.changed(f"{found[2]} instead of {transfer.size} bytes")
        if int(found[1]) == transfer.received:
            return None
    transfer.restart()
    return transfer.short() if response.status_code == 206 else None


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


def _page_error(status: int, content: bytes, place: Place) -> Bitrix24Error:
    """What a page in the place of audio means: only the portal's words on the credential stop more than this recording."""
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    told = isinstance(body, dict) and body.get("error") is not None
    if status < 300 and not told:
        error = RecordingUnavailableError(
            "not_audio", place.name, status=status, description="a page came in its place"
        )
        # A proxy's page may be gone the next moment.
        error.retryable = True
        return error
    failure = classify(status, body, method=_METHOD)
    if failure is None or failure.retryable:
        return failure or RecordingUnavailableError("refused", place.name, status=status)
    own = place.way != "provider"
    if own and isinstance(failure, Bitrix24AccessError) and failure.code.upper() in _CREDENTIAL_CODES:
        return failure
    gone = status in (404, 410) or "NOT_FOUND" in failure.code.upper()
    return RecordingUnavailableError("gone" if gone else "refused", place.name, status=status, description=failure.code)


_HEAD_BYTES = 512
_PAGE = re.compile(r"""<[!?/a-z]|\{\s*["}]|\[\s*[\[{"\]]""", re.IGNORECASE)
_NOT_IN_TEXT = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")


def _is_page(head: bytes) -> bool:
    """Whether the first bytes are those of HTML, XML or JSON. Everything else is for the probe to judge.

    Audio may begin with anything: a BOM, zeros, ones, the middle of a frame; but not with a page's first letters and text.
    """
    wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = head.decode("utf-16", "ignore") if wide else head.removeprefix(b"\xef\xbb\xbf").decode("latin-1")
    return bool(_PAGE.match(text.lstrip())) and not _NOT_IN_TEXT.search(text)
