"""How answers of S3 differ between services and the proxies before them: the shape of an answer changed on its way.

Here: the manners by name (`s3_front.py` tells what each does). Not here: which request meets one, a fault of the script.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any

from dialog_assets.sandbox.faults import Fault

MANNERS = ("capitals", "stripped", "doubled", "renamed", "leaves_out", "redirect", "answers", "endless", "drops")

Headers = list[tuple[str, str]]
_META = "x-amz-meta-"


def behave(manner: Fault, app: Any, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """The app's answer, in that manner."""
    if manner.kind == "redirect":
        status, address = manner.value
        start_response(f"{status} Redirect", [("Location", address + environ["RAW_URI"]), ("Content-Length", "0")])
        return []
    if manner.kind == "answers":
        status, content_type, body = manner.value
        data = body.encode()
        start_response(f"{status} Answer", [("Content-Type", content_type), ("Content-Length", str(len(data)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [data]
    told: list[Any] = []

    def keep(status: str, headers: Headers, *_: Any) -> None:
        told[:] = status, headers

    body = b"".join(app(environ, keep))
    status, headers = told
    if manner.kind in ("endless", "drops"):
        start_response(status, [(name, value) for name, value in headers if name.lower() != "content-length"])
        return _drops(body, float(manner.value)) if manner.kind == "drops" else _endless(body)
    if manner.kind == "leaves_out":
        for name in manner.value:
            body = re.sub(rf"<{name}>.*?</{name}>".encode(), b"", body)
    names = {name.lower() for name in manner.value} if manner.kind == "leaves_out" else set()
    if names and body and "content-length" not in names:
        headers = [(name, str(len(body)) if name.lower() == "content-length" else value) for name, value in headers]
    start_response(status, [pair for header in headers for pair in _changed(manner.kind, header, names)])
    return [body]


def _changed(kind: str, header: tuple[str, str], left_out: set[str]) -> Headers:
    name, value = header
    if name.lower() in left_out:
        return []
    if not name.lower().startswith(_META):
        return [header]
    if kind == "stripped":
        return []
    if kind == "doubled":
        return [header, header]
    if kind == "renamed":
        return [("X-Object-Meta-" + name[len(_META) :], value)]
    return [(name.title(), value)] if kind == "capitals" else [header]


def _endless(body: bytes) -> Iterator[bytes]:
    yield body
    while True:
        yield b" " * 65_536


def _drops(body: bytes, pause_s: float) -> Iterator[bytes]:
    for place in itertools.count():
        yield body[place : place + 1] or b" "
        time.sleep(pause_s)
