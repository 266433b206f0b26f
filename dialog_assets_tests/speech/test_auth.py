"""VoiceKit's tokens."""

from __future__ import annotations

import base64

import jwt
import pytest

from dialog_assets.speech.auth import LONGRUNNING, STT, Tokens
from dialog_assets.speech.errors import RecogniserRefused

KEY = bytes(range(200, 240))
SECRET = base64.b64encode(KEY).decode()


def test_a_token_is_what_the_reference_asks_for() -> None:
    """HS256 over the decoded secret, kid in the header, one audience, ten minutes."""
    token = Tokens("api/key+=", SECRET, now=lambda: 1000.5).token(STT)
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT", "kid": "api/key+="}
    claims = jwt.decode(token, KEY, algorithms=["HS256"], audience=STT, options={"verify_exp": False})
    assert claims["exp"] == 1600


@pytest.mark.parametrize("secret", [SECRET, SECRET.rstrip("="), base64.urlsafe_b64encode(KEY).decode(), f" {SECRET}\n"])
def test_the_secret_may_be_any_base64(secret: str) -> None:
    """Standard or URL-safe, padded or not, with the spaces of copying: the same signature."""
    assert Tokens("k", secret, now=lambda: 0).token(STT) == Tokens("k", SECRET, now=lambda: 0).token(STT)


def _refusal(secret: str) -> RecogniserRefused:
    with pytest.raises(RecogniserRefused) as caught:
        Tokens("k", secret)
    return caught.value


@pytest.mark.parametrize("secret", ["", "не base64", "A", "a*b="])
def test_a_secret_that_is_not_base64_is_refused(secret: str) -> None:
    """At once, with the variable's name and without the secret."""
    with pytest.raises(RecogniserRefused, match="VOICEKIT_SECRET_KEY") as caught:
        Tokens("k", secret)
    assert str(caught.value) == str(_refusal(""))


def test_tokens_are_kept_and_renewed_before_their_end() -> None:
    """One token for nine minutes, each audience its own, a new one in the last minute or when asked."""
    clock = [0.0]
    tokens = Tokens("k", SECRET, now=lambda: clock[0])
    first = tokens.token(STT)
    assert tokens.token(LONGRUNNING) != first
    clock[0] = 539.0
    assert tokens.token(STT) == first
    clock[0] = 540.0
    second = tokens.token(STT)
    assert second != first
    tokens.forget(STT)
    clock[0] = 541.0
    assert tokens.token(STT) != second


def test_hiding() -> None:
    """Any JWT and the API key are taken out of a text; the object itself shows nothing."""
    tokens = Tokens("api-key-1", SECRET)
    text = f"refused Bearer {tokens.token(STT)} of api-key-1, try again"
    assert tokens.hide(text) == "refused Bearer *** of ***, try again"
    assert repr(tokens) == "Tokens(***)"
