"""The HTTP client beneath both SDKs: no redirect is followed, and no answer is larger than one can be.

Here: what holds for every vendor's connection. Not here: retries, total times (router), what an answer says (the adapters).
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx2

from dialog_assets import certificates
from dialog_assets.hosts import is_loopback
from dialog_assets.llm.errors import LLMRefused
from dialog_assets.llm.vendors.port import VendorFailure

MOST_BYTES = 16 * 2**20
"""What an answer may hold: the longest that a model writes is a tenth of it."""
CONNECT_S = 20.0

_NOT_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.WriteError,
    httpx2.WriteTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
    httpx2.LocalProtocolError,
)


def client_options(
    base_url: str, *, timeout_s: float, transport: httpx2.AsyncBaseTransport | None = None
) -> dict[str, Any]:
    """Arguments for an SDK's own kind of `httpx2.AsyncClient`.

    A prompt is never sent on to where a redirect leads. What listens on this machine is not asked through a proxy.
    """
    options: dict[str, Any] = {
        "follow_redirects": False,
        "timeout": httpx2.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s)),
        "trust_env": not is_loopback(urlsplit(base_url).hostname or ""),
        "headers": {"accept-encoding": "identity"},
        "event_hooks": {"response": [_bound]},
        "verify": certificates.context(),
    }
    return options if transport is None else {**options, "transport": transport}


def unusable_setting(error: Exception) -> LLMRefused:
    """What it means that no client can be made: the environment names a proxy that is none."""
    return LLMRefused(
        f"no connection to an LLM vendor can be prepared ({type(error).__name__}): correct the proxy in the environment "
        "(HTTP_PROXY, HTTPS_PROXY and ALL_PROXY hold http://… or https://…)"
    )


def failure_of_connection(error: BaseException) -> VendorFailure:
    """The failure that a broken exchange stands for. What was sent may have been worked on, and be on the bill."""
    cause = error if isinstance(error, httpx2.HTTPError) else error.__cause__
    fault = certificates.fault(error)
    if fault is not None:
        return VendorFailure("untrusted", fault)
    if isinstance(cause, _NOT_SENT):
        return VendorFailure("transient", "no connection")
    if isinstance(cause, httpx2.TimeoutException):
        return VendorFailure("timeout", "timeout", perhaps_paid=True)
    if isinstance(cause, httpx2.DecodingError):
        return VendorFailure("transient", "an answer that cannot be read", perhaps_paid=True)
    return VendorFailure("transient", "the connection broke", perhaps_paid=True)


async def _bound(response: httpx2.Response) -> None:
    """Put a bound around the body before it is read; what is packed although it was not asked for is unpacked within it."""
    packed = response.headers.pop("content-encoding", "identity").strip().lower()
    response.stream = _Bounded(response.stream, packed)


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: Any, packed: str) -> None:
        self._stream = stream
        self._packed = packed

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        unpack = _unpacker(self._packed)
        async for chunk in self._stream:
            plain = chunk if unpack is None else _unpacked(unpack, chunk, MOST_BYTES - size + 1)
            size += len(plain)
            if size > MOST_BYTES:
                raise httpx2.DecodingError("an answer that is too large")
            yield plain

    async def aclose(self) -> None:
        await self._stream.aclose()


def _unpacker(packed: str) -> Any:
    if packed in ("identity", ""):
        return None
    if packed in ("gzip", "x-gzip", "deflate"):
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | (32 if packed != "deflate" else 0))
    raise httpx2.DecodingError("an answer that is packed in an unknown way")


def _unpacked(unpack: Any, chunk: bytes, most: int) -> bytes:
    try:
        plain: bytes = unpack.decompress(chunk, most)
    except zlib.error:
        raise httpx2.DecodingError("an answer that cannot be unpacked") from None
    return plain
