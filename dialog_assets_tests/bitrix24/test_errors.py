"""Answers become the right type of error."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from dialog_assets.bitrix24.errors import (
    Bitrix24AccessError,
    Bitrix24Error,
    Bitrix24LimitError,
    Bitrix24RequestError,
    Bitrix24UnavailableError,
    RowError,
    classify,
)

A, L, U, R = Bitrix24AccessError, Bitrix24LimitError, Bitrix24UnavailableError, Bitrix24RequestError


@pytest.mark.parametrize(
    ("status", "body", "kind", "retryable"),
    [
        (503, {"error": "QUERY_LIMIT_EXCEEDED"}, L, True),
        (429, {"error": "OPERATION_TIME_LIMIT"}, L, True),
        (None, {"error": "OPERATION_TIME_LIMIT"}, L, True),
        (503, {"error": "OVERLOAD_LIMIT"}, A, False),
        (500, {"error": "INTERNAL_SERVER_ERROR"}, U, True),
        (200, {"error": "INTERNAL_SERVER_ERROR"}, U, True),
        (500, {"error": "ERROR_CORE", "error_description": "Mysql query error"}, U, True),
        (400, {"error": "ERROR_CORE"}, R, False),
        (401, {"error": "INVALID_CREDENTIALS"}, A, False),
        (403, {"error": "INVALID_CREDENTIALS"}, A, False),
        (401, {"error": "expired_token"}, A, False),
        (None, {"error": "insufficient_scope"}, A, False),
        (400, {"error": "ACCESS_DENIED"}, A, False),
        (404, {"error": "ERROR_METHOD_NOT_FOUND"}, A, False),
        (500, {"error": "PORTAL_DELETED"}, A, False),
        (400, {"error": "", "error_description": "Not found"}, R, False),
        (400, {"error": "", "error_description": "Access denied."}, A, False),
        (400, {"error": 0, "error_description": "wrong"}, R, False),
        (200, {"error": 100}, R, False),
        (200, {"error": "SOMETHING_NEW"}, R, False),
        (422, {"error": {"code": "BITRIX_REST_V3_EXCEPTION_X", "message": "no"}}, R, False),
        (502, None, U, True),
        (200, None, U, True),
        (200, [], U, True),
        (403, None, A, False),
        (404, None, A, False),
        (302, None, A, False),
    ],
)
def test_code_first_status_second(*, status: int | None, body: Any, kind: type[Bitrix24Error], retryable: bool) -> None:
    """The vendor's code decides, the status only where the code says nothing; both error shapes, HTML and empty bodies."""
    error = classify(status, body, method="crm.contact.list")
    assert type(error) is kind
    assert error.retryable is retryable
    assert error.status == status


def test_a_result_without_an_error_key_is_a_success() -> None:
    """A success is no error, also when its result is empty or null."""
    results: list[Any] = [[], None, False, {"x": 1}]
    for result in results:
        assert classify(200, {"result": result, "time": {}}) is None


def test_texts_hide_secrets_and_people() -> None:
    """What the portal wrote reaches the text without URLs, tokens, e-mails and phones."""
    words = (
        "Bad https://p.example/rest/1/abc/x.json for ivan@example.com <b>+7 (963) 883-59-76</b> token a1b2c3d4e5f6g7h8"
    )
    text = str(classify(400, {"error": "X", "error_description": words}, method="user.get"))
    assert text == "Bitrix24 user.get: X (HTTP 400), Bad … for … … token …"


def test_errors_survive_copies() -> None:
    """Errors can be copied and pickled with all they know."""
    error = RowError("user.get", "ID", "a whole number", 5)
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is RowError
        assert (str(twin), twin.field, twin.row_id) == (str(error), "ID", 5)


def test_both_shapes_give_code_and_text() -> None:
    """v2's strings and numbers and v3's object are read alike."""
    old = classify(400, {"error": 100, "error_description": "no such id"})
    new = classify(422, {"error": {"code": "BITRIX_REST_V3_EXCEPTION_FILTER", "message": "bad filter"}})
    assert old is not None
    assert new is not None
    assert (old.code, old.description) == ("100", "no such id")
    assert (new.code, new.description) == ("BITRIX_REST_V3_EXCEPTION_FILTER", "bad filter")
