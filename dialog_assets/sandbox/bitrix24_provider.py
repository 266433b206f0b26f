"""The telephony provider's own host: the copies of recordings that CALL_RECORD_URL names (facts/bitrix24.md 4.1).

Here: GET /records/{portal}/{file}.mp3. No credential is asked for, as such hosts do; ranges work. Not here: the portal.

Fault kinds for the service "bitrix24" with the label "provider": all those of answers and downloads; "private_redirect"
is a 302 to a private address, `value` or the cloud's metadata service.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from dialog_assets.sandbox.bitrix24_calling import MethodError, PortalState
from dialog_assets.sandbox.bitrix24_disk import file_answer, open_file
from dialog_assets.sandbox.bitrix24_faults import DOWNLOAD_ANSWERS, faulty_answer, faulty_file, struck
from dialog_assets.sandbox.books import Books
from dialog_assets.sandbox.faults import Faults

SERVICE, LABEL = "bitrix24", "provider"
PRIVATE = "http://169.254.169.254/latest/meta-data/"
_PATH = re.compile(r"/records/([^/]+)/(\d+)\.mp3")


async def provider_answer(
    request: Request, portals: Mapping[str, PortalState], books: Books, faults: Faults
) -> Response:
    """The answer to one request; the books count "provider_downloads", and "bytes" by file."""
    slow = struck(faults, books, LABEL, "slow")
    if slow is not None:
        await asyncio.sleep(float(slow.value or 1))
    redirect = struck(faults, books, LABEL, "private_redirect")
    if redirect is not None:
        return RedirectResponse(str(redirect.value or PRIVATE), 302)
    fault = struck(faults, books, LABEL, *DOWNLOAD_ANSWERS)
    if fault is not None:
        return faulty_answer(fault, request)
    path = _PATH.fullmatch(request.url.path)
    state = portals.get(path.group(1)) if path else None
    if path is None or state is None:
        return PlainTextResponse("not found", 404)
    try:
        recording = open_file(state, int(path.group(2)))
    except MethodError:
        return PlainTextResponse("not found", 404)
    books.count(SERVICE, "provider_downloads")
    return faulty_file(
        lambda media_type: file_answer(recording, request.headers.get("range"), media_type),
        recording.file_id,
        LABEL,
        books,
        faults,
    )
