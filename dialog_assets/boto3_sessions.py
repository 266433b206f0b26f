"""The sessions of boto3 that clients of S3 are made from: quiet about what they sign, cheap, each with credentials of its own,
and with bounds on what is read.

Here: what every client of S3 shares, whatever storage it talks to. Not here: addresses, keys, retries, certificates.
"""

from __future__ import annotations

import functools
import logging
import re
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

import boto3
import botocore.session
import urllib3.exceptions
from botocore.exceptions import ConnectionClosedError
from botocore.loaders import Loader

from dialog_assets import certificates

_TELLTALES = ("botocore.auth", "botocore.endpoint")
"""At DEBUG these write whole signed requests, and an API key is a part of the signature's header."""


def new_session() -> boto3.session.Session:
    """A session that reads credentials and addresses anew (boto3's common one keeps the credentials that it read first).

    From the first one on, signed requests stay out of the logs, also at DEBUG. Raises CertificatesUnusable.
    """
    trusted = certificates.bundle()
    for name in _TELLTALES:
        # A filter and not a level, because a level is set again by whoever configures logging.
        logging.getLogger(name).addFilter(_above_debug)
    session = botocore.session.get_session()
    session.register_component("data_loader", _descriptions())
    if trusted is not None:
        session.set_config_variable("ca_bundle", trusted)
    return boto3.session.Session(botocore_session=session)


@functools.cache
def _descriptions() -> Loader:
    """What keeps S3's description, once read: reading it takes five times as long as all the rest of making a client.

    Each session of boto3 adds its folder to the paths that are searched once more, which changes nothing.
    """
    loader: Loader = botocore.session.get_session().get_component("data_loader")
    return loader


def _above_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG


_XML = re.compile(rb"(\xef\xbb\xbf)?\s*(\Z|<(?!!doctype html|html))", re.IGNORECASE)
ANSWER_BYTES = 16 * 1024 * 1024
"""The largest answer that is no object: a listing has at most a thousand rows."""

OBJECT_BYTES = 2 * 1024 * 1024 * 1024
"""No recording is larger."""

ANSWER_S = 120.0
SLOWEST_BYTES_S = 16 * 1024
"""An answer may take ANSWER_S, an object a second more for each so many bytes."""


class AnswerTooLong(Exception):
    """A body that does not end, or comes by drops. None of botocore's own errors, so that nothing asks for it again."""


class NoXml(Exception):
    """A page, JSON or the like where S3 answers in XML. botocore would take it for a fault of the server."""


class LeadsElsewhere(Exception):
    """A service that redirects from http to https, or to another host; `address` is where to, without path and query.

    botocore would follow for ever: it expects only regions of AWS behind a redirect.
    """

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.address = address


def bounded(client: Any) -> Any:
    """A client of boto3 that reads no answer without end; returns it. What is too long raises AnswerTooLong."""
    endpoint = client._endpoint  # boto3 offers no other place where a body is read
    endpoint.http_session = _Bounded(endpoint.http_session)
    return client


class _Bounded:
    """botocore's HTTP session, reading its answers piece by piece against the clock."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def send(self, request: Any) -> Any:
        """As botocore's: the body of an answer that is no stream is read here."""
        stream, request.stream_output = request.stream_output, True
        try:
            response = self._session.send(request)
        finally:
            request.stream_output = stream
        target = _redirect(request.url, response)
        if target is not None:
            response.raw.close()
            raise LeadsElsewhere(target)
        response.raw = _Pieces(response.raw, OBJECT_BYTES if stream else ANSWER_BYTES)
        if not stream:
            try:
                response._content = response.raw.read()
            except urllib3.exceptions.HTTPError as error:
                raise ConnectionClosedError(error=error, request=request, endpoint_url=request.url) from None
            if response.status_code == 200 and not _XML.match(response._content):
                raise NoXml
        return response

    def close(self) -> None:
        """End the connections."""
        self._session.close()


def _redirect(url: str, response: Any) -> str | None:
    """The other origin that an answer leads to; AWS names a bucket's region besides, which botocore understands."""
    location = response.headers.get("location")
    if response.status_code not in (301, 302, 303, 307, 308) or not location:
        return None
    if "x-amz-bucket-region" in response.headers or url.partition("?")[0].split("/")[2].endswith(".amazonaws.com"):
        return None
    try:
        target = urlsplit(urljoin(url, location))
        port = f":{target.port}" if target.port else ""
    except ValueError:
        return "an address that cannot be read"
    return f"{target.scheme}://{target.hostname}{port}"


class _Pieces:
    """The body of an answer: `limit` bytes at most, and not slower than SLOWEST_BYTES_S."""

    def __init__(self, raw: Any, limit: int) -> None:
        self._raw = raw
        self._limit = limit
        self._read = 0
        self._since = time.monotonic()

    def read(self, amt: int | None = None, **more: Any) -> bytes:
        """At most `amt` bytes, fewer where fewer have come; all of them for None."""
        if amt is not None:
            return self._piece(amt, more)
        pieces = []
        while piece := self._piece(1024 * 1024, more):
            pieces.append(piece)
        return b"".join(pieces)

    def _piece(self, amt: int, more: dict[str, Any]) -> bytes:
        piece: bytes = self._raw.read1(amt, **more) or b""
        self._read += len(piece)
        late = time.monotonic() - self._since > ANSWER_S + self._read / SLOWEST_BYTES_S
        if piece and (late or self._read > self._limit):
            self._raw.close()
            raise AnswerTooLong
        return piece

    def stream(self, amt: int = 65_536, **more: Any) -> Iterator[bytes]:
        """As urllib3's."""
        while piece := self._piece(amt, more):
            yield piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)
