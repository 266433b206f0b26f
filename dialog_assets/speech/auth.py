"""VoiceKit's access tokens: self-signed JWTs, one for each service (facts/voicekit.md section 2.1). No network here."""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Callable

import jwt

from dialog_assets.speech.errors import RecogniserRefused

LIFETIME_S = 600
RENEW_BEFORE_S = 60

STT = "tinkoff.cloud.stt"
LONGRUNNING = "tinkoff.cloud.longrunning"

_JWT = re.compile(r"eyJ[\w-]+=*\.[\w-]+=*\.[\w-]+=*")


class Tokens:
    """Tokens by audience, made when first asked for and renewed a minute before they end.

    `secret_key` is base64 as the vendor issues it; the URL-safe alphabet and missing padding are accepted too. Raises
    RecogniserRefused if it is not base64. `now` gives Unix seconds.
    """

    def __init__(self, api_key: str, secret_key: str, *, now: Callable[[], float] = time.time) -> None:
        if not api_key.strip():
            raise RecogniserRefused("the VoiceKit API key is empty: set VOICEKIT_API_KEY")
        self._api_key = api_key.strip()
        self._key = _decoded(secret_key)
        self._now = now
        self._tokens: dict[str, tuple[str, float]] = {}

    def token(self, audience: str) -> str:
        """A token for `audience` that is valid for at least another minute."""
        token, ends = self._tokens.get(audience, ("", 0.0))
        now = self._now()
        if now >= ends - RENEW_BEFORE_S:
            ends = int(now) + LIFETIME_S
            claims = {"iss": "dialog-assets", "sub": "dialog-assets", "aud": audience, "exp": int(ends)}
            token = jwt.encode(claims, self._key, algorithm="HS256", headers={"kid": self._api_key})
            self._tokens[audience] = token, ends
        return token

    def forget(self, audience: str) -> None:
        """Make the next `token` a new one, after the service refused the present one."""
        self._tokens.pop(audience, None)

    def hide(self, text: str) -> str:
        """`text` without any credential that it repeats."""
        return _JWT.sub("***", text).replace(self._api_key, "***")

    def __repr__(self) -> str:
        return "Tokens(***)"


def _decoded(secret_key: str) -> bytes:
    text = secret_key.strip().replace("-", "+").replace("_", "/").rstrip("=")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise RecogniserRefused(
            "the VoiceKit secret key is not base64: copy VOICEKIT_SECRET_KEY whole from the account"
        )
    return key
