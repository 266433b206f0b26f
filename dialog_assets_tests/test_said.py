"""What strangers say reaches no log, error, page or terminal as they said it."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog_assets.assets.figures import failure_table, list_of
from dialog_assets.bitrix24.errors import classify
from dialog_assets.cli.tables import console
from dialog_assets.errors import DialogAssetsError
from dialog_assets.said import LONGEST, markdown, printable, said, said_code, visible

ESC = "\x1b[2J\x1b]0;title\x07"
BIDI = "\u202e\u2066\u200f"
PHONES = (
    "+7 (963) 883-59-76",
    "8.963.883.59.76",
    "8\u2011963\u2011883\u201159\u201176",
    "+7\u00a0963\u00a0883\u00a059\u00a076",
    "８９６３８８３５９７６",
    "٠٩٦٣٨٨٣٥٩٧٦",
    "8 – 963 – 883 – 59 – 76",
    "8_963_883_59_76",
    "8/963/883-59-76",
    "89638835976",
)
CREDENTIALS = (
    "https://p.example/rest/1/abcdefabcdef/",
    "/rest/7/q1w2e3/disk.file.get",
    "%2Frest%2F7%2Fq1w2e3",
    "eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl",
    "access_token=onlyletters",
    "X-Amz-Signature=abcdef",
    "sk-proj-a1b2c3d4e5f6g7h8",
    "ivan@example.com",
    "AUTH_ID = zzzz",
    '"access_token":"onlyletters"',
    "Authorization: Bearer only-letters-onlyletters",
    "sk-proj-onlyletters",
)


@pytest.mark.parametrize("secret", [*PHONES, *CREDENTIALS])
@pytest.mark.parametrize("around", ["{}", "Bad value ({}) given", "до\n{}\nпосле", "<b>{}</b>"])
def test_people_and_credentials_go(secret: str, around: str) -> None:
    """A phone in whatever spelling, an address, a token: only an ellipsis is left."""
    told = said(around.format(secret))
    digits = "".join(str(unicodedata.digit(char)) for char in told if char.isdigit())
    assert len(digits) < 7
    assert secret not in told
    assert not any(part in told for part in ("abcdefabcdef", "q1w2e3", "onlyletters", "ivan", "zzzz", "a1b2c3d4"))


@given(st.text())
def test_nothing_invisible_is_left(text: str) -> None:
    """No control, format or lone surrogate character, one line, of bounded length, and cleaning twice changes nothing."""
    for told in (said(text), visible(text), printable(text).replace("\n", "").replace("\t", "")):
        assert not [char for char in told if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")]
    assert len(said(text)) <= 200
    assert visible(visible(text)) == visible(text)


@pytest.mark.parametrize("letter", ["a", "1", "a1", "a-", "a.", "@", "<", "<a", "=", "eyJ", "token", "/rest", "+7 "])
def test_a_flood_is_bounded(letter: str) -> None:
    """Half a megabyte of anything is looked at only at its beginning, and a word cut there does not half remain."""
    assert len(said(letter * 500_000)) <= 200
    secret = "a1b2c3d4e5f6g7h8"
    text = "x " * (LONGEST // 2 - 4) + secret
    assert secret[:6] not in said(text, limit=LONGEST)


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("QUERY_LIMIT_EXCEEDED", "QUERY_LIMIT_EXCEEDED"),
        ("603-S", "603-S"),
        (100, "100"),
        ("BITRIX_REST_V3_EXCEPTION_FILTER", "BITRIX_REST_V3_EXCEPTION_FILTER"),
        ("+79638835976", "…"),
        ("8-963-883-59-76", "…"),
        ("AKIAIOSFODNN7EXAMPLE", "…"),
        ("sk_live_4eC39HqLyjWDarjtT1zdp7dc", "…"),
        (f"A{ESC}{BIDI}B", "A2J0titleB"),
        ("x" * 100_000, "x" * 80),
    ],
)
def test_a_code_is_a_word(code: object, word: str) -> None:
    """Known codes stay as they are; what looks like a phone or a key is no code."""
    assert said_code(code) == word


def test_every_exit_is_clean(capsys: pytest.CaptureFixture[str]) -> None:
    """An error's text, a table of the UI and a terminal obey nothing of what a portal writes."""
    words = f"{ESC}{BIDI}see [here](https://evil.example) | <img src=x> `rm -rf`"
    error = classify(400, {"error": f"X{ESC}", "error_description": words}, method="user.get")
    for told in (str(error), str(DialogAssetsError(words))):
        assert not {"\x1b", "\x07", "\u202e", "\u2066", "\u200f"} & set(told)
    table = str(failure_table([{"day": 1, "call_id": 2, "reason": "r", "detail": words, "attempts": 1}]).value)
    assert "\\[here\\](" in table
    assert "\\<img" in table
    assert table.splitlines()[-1].replace("\\|", "").count("|") == 6
    assert "\\[here\\]" in str(list_of([words]).value)
    assert markdown("CALL_VOTE (1)") == "CALL_VOTE (1)"
    console().print(f"dialog: {words}", markup=False)
    assert not {"\x1b", "\u202e"} & set(capsys.readouterr().out)
