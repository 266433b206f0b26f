"""Keys and addresses of LLM vendors are judged before anything is sent, and a key is never repeated."""

from __future__ import annotations

import pytest

from dialog_assets.portals import ModelChoice
from dialog_assets.resources.environment import MissingCredential, UnusableCredential
from dialog_assets.resources.llm import PLAIN_HTTP_HOSTS, access

CHOICE = ModelChoice(vendor="deepseek", model="deepseek-flash")
KEY = "sk-proj_Ab.9/+=:~"


def _set(monkeypatch: pytest.MonkeyPatch, key: str = KEY, address: str = "", plain: str = "") -> None:
    monkeypatch.setenv(CHOICE.api_key_env, key)
    monkeypatch.setenv("DEEPSEEK_BASE_URL", address)
    monkeypatch.setenv(PLAIN_HTTP_HOSTS, plain)


@pytest.mark.parametrize("around", ["", " ", "\n", "\r\n", "\t", "\u00a0"])
def test_blanks_around_a_key_are_no_part_of_it(around: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line's end comes along whenever a key is copied."""
    _set(monkeypatch, around + KEY + around)
    assert access(CHOICE) == (KEY, None)


@pytest.mark.parametrize(
    ("key", "place", "told"),
    [
        ("sk-secrеt", 8, "U+0435 CYRILLIC SMALL LETTER IE"),
        ("«sk-secret»", 1, "U+00AB LEFT-POINTING DOUBLE ANGLE QUOTATION MARK"),
        ("“sk-secret”", 1, "U+201C LEFT DOUBLE QUOTATION MARK"),
        ("'sk-secret'", 1, "U+0027 APOSTROPHE"),
        ("<sk-secret>", 1, "U+003C LESS-THAN SIGN"),
        ("sk\u200b-secret", 3, "U+200B ZERO WIDTH SPACE"),
        ("\ufeffsk-secret", 1, "U+FEFF ZERO WIDTH NO-BREAK SPACE"),
        ("sk-sec\nret", 7, "U+000A a control character"),
        ("sk-sec\r\nX-Other: ret", 7, "U+000D a control character"),
        ("sk sec ret", 3, "U+0020 SPACE"),
        ("sk\u00a0secret", 3, "U+00A0 NO-BREAK SPACE"),
        ("sk–secret", 3, "U+2013 EN DASH"),
        ("sk-sec…ret", 7, "U+2026 HORIZONTAL ELLIPSIS"),
        ("sk-secret\x7f", 10, "U+007F a control character"),
    ],
)
def test_a_key_that_none_is(key: str, place: int, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable, the place and the letter are named, the key is not."""
    _set(monkeypatch, key)
    with pytest.raises(UnusableCredential) as raised:
        access(CHOICE)
    sentence = str(raised.value)
    assert sentence.startswith(
        f"DEEPSEEK_API_KEY cannot hold the API key of deepseek: its character {place} of {len(key)}"
    )
    assert told in sentence
    assert "sec" not in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("key", ["", "  ", "\n"])
def test_no_key(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blanks are no key."""
    _set(monkeypatch, key)
    with pytest.raises(MissingCredential, match="DEEPSEEK_API_KEY is not set"):
        access(CHOICE)


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        ("https://llm.example.ru/v1", ""),
        ("https://llm.example.ru:8443", ""),
        ("http://127.0.0.1:8000/v1", ""),
        ("http://localhost:8000", ""),
        ("http://[::1]:8000", ""),
        ("http://10.0.0.5:8000/v1", "10.0.0.5"),
        ("http://LLM.local/v1", "other.local, llm.LOCAL"),
    ],
)
def test_addresses_that_may_be_asked(address: str, plain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With TLS any, without it this machine and the hosts that are named."""
    _set(monkeypatch, address=f" {address}\n", plain=plain)
    assert access(CHOICE) == (KEY, address)


@pytest.mark.parametrize(
    ("address", "plain", "told"),
    [
        ("http://10.0.0.5:8000/v1", "", "begins with http://"),
        ("http://llm.example.ru", "example.ru", "begins with http://"),
        ("http://127.0.0.1.example.ru/v1", "", "begins with http://"),
        ("http://localhost.example.ru", "localhost", "begins with http://"),
        ("http://user:secret@127.0.0.1/v1", "", "holds a user or password"),
        ("https://secret@llm.example.ru", "", "holds a user or password"),
        ("llm.example.ru/v1", "", "is no address"),
        ("ftp://llm.example.ru", "", "is no address"),
        ("https://", "", "is no address"),
        ("https://llm.example.ru:port/v1", "", "is no address"),
        ("https://llm.example.ru:99999", "", "is no address"),
        ("https://[::1", "", "is no address"),
        ("https://llm. example.ru", "", "is no address"),
    ],
)
def test_addresses_that_may_not_be_asked(address: str, plain: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the key nor what an address holds of a password is repeated."""
    _set(monkeypatch, address=address, plain=plain)
    with pytest.raises(UnusableCredential, match=f"DEEPSEEK_BASE_URL {told}") as raised:
        access(CHOICE)
    assert KEY not in str(raised.value)
    assert "secret" not in str(raised.value)
