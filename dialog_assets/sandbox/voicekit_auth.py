"""VoiceKit's gate: whose token a call carries (facts/voicekit.md section 2). Not here: what the call then does.

The signature is checked by hand over the text as received, because vendor examples send both padded and unpadded segments
and JWT libraries re-encode or refuse the padded ones.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import grpc

_SEGMENT = re.compile(r"[A-Za-z0-9_-]+={0,2}")


class RefusedError(Exception):
    """A call that ends with a gRPC status instead of an answer."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        self.code = code
        self.text = text
        super().__init__(text)


def check_token(authorization: str | None, service: str, secrets: Mapping[str, str], now: float) -> str:
    """The API key that signed the token of metadata `authorization` for `service` (its full gRPC name).

    `secrets` holds each API key's secret in base64; `now` is Unix seconds. Raises RefusedError (16) with the reason.
    """
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _refused("no bearer token in metadata authorization")
    segments = token.strip().split(".")
    if len(segments) != 3:
        raise _refused("token is not a JWT of three segments")
    head, claims = _json(segments[0], "header"), _json(segments[1], "claims")
    if head.get("alg") != "HS256":
        raise _refused("token algorithm is not HS256")
    api_key = head.get("kid")
    if not isinstance(api_key, str) or api_key not in secrets:
        raise _refused("unknown api key in token header kid")
    expected = hmac.new(
        decode_secret(secrets[api_key]), f"{segments[0]}.{segments[1]}".encode(), hashlib.sha256
    ).digest()
    try:
        signature = _segment(segments[2])
    except ValueError:
        raise _refused("signature validation failed") from None
    if not hmac.compare_digest(expected, signature):
        raise _refused("signature validation failed")
    _check_claims(claims, service, now)
    return api_key


def decode_secret(text: str) -> bytes:
    """Bytes of base64 in the standard or the URL-safe alphabet, padded or not; ValueError if it is neither."""
    plain = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error


def _segment(text: str) -> bytes:
    """Bytes of a token's segment: base64url only, without padding or with all of it; ValueError if it is neither."""
    if not _SEGMENT.fullmatch(text) or (text.endswith("=") and len(text) % 4):
        raise ValueError("not base64url")
    return decode_secret(text)


def _check_claims(claims: dict[str, Any], service: str, now: float) -> None:
    if not _is_number(claims.get("exp")):
        raise _refused("token has no exp")
    if claims["exp"] <= now:
        raise _refused("token is expired")
    if "nbf" in claims and not (_is_number(claims["nbf"]) and claims["nbf"] <= now):
        raise _refused("token is not valid yet, or its nbf is not a time")
    audience = claims.get("aud")
    if not any(isinstance(one, str) and _covers(one, service) for one in _listed(audience)):
        raise _refused(f"token aud does not cover {service}")


def _covers(audience: str, service: str) -> bool:
    """Whether `audience` is the service's name or a dotted prefix of it, no shorter than its scope (tinkoff.cloud.stt)."""
    scope = ".".join(service.split(".")[:3])
    return f"{service}.".startswith(f"{audience}.") and f"{audience}.".startswith(f"{scope}.")


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _json(segment: str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(_segment(segment))
    except ValueError:
        raise _refused(f"token {what} is not base64url JSON") from None
    if not isinstance(value, dict):
        raise _refused(f"token {what} is not a JSON object")
    return value


def _refused(text: str) -> RefusedError:
    return RefusedError(grpc.StatusCode.UNAUTHENTICATED, text)
