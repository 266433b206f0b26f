"""The prompt files: complete, versioned, and in the order that keeps data before orders."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from dialog_assets.analysis.classification import classification_request
from dialog_assets.analysis.correction import correction_request
from dialog_assets.analysis.criteria import criteria_requests
from dialog_assets.analysis.prompts import prompt
from dialog_assets.analysis.summaries import SummaryInput, summary_request
from dialog_assets.llm.requests import LLMRequest
from dialog_assets_tests.analysis.support import dialog, portal


def requests() -> list[LLMRequest[Any]]:
    """One request a step."""
    item = SummaryInput(datetime(2026, 3, 2, tzinfo=UTC), 1, "greeting", "Приветствие", 7, "Поздоровался.")
    return [
        correction_request(dialog(), portal()),
        classification_request(dialog(), portal()),
        criteria_requests(dialog(), portal(), portal().criteria)[0][1],
        summary_request("Сделка 5", [item], portal()),
    ]


@pytest.mark.parametrize("request_", requests(), ids=lambda request: request.prompt)
def test_prompt_is_whole(request_: LLMRequest[Any]) -> None:
    """No place stays unfilled, the data stand before the task, and the version is the file's."""
    text = request_.system + request_.user
    assert "${" not in text
    assert "Окна Север" in request_.user
    end = request_.user.index("<<<КОНЕЦ ДАННЫХ")
    assert end < request_.user.index("Ответь объектом JSON")
    assert "Окна Север" not in request_.system
    assert re.fullmatch(r"[0-9a-f]{12}", request_.prompt_version)
    assert request_.prompt_version == prompt(request_.prompt).version


@pytest.mark.parametrize("request_", requests(), ids=lambda request: request.prompt)
def test_example_has_the_answer_shape(request_: LLMRequest[Any]) -> None:
    """The example that stands in for a schema at DeepSeek is a valid answer, and the word JSON is there."""
    example = request_.user[request_.user.rindex("\n{") :]
    request_.answer.model_validate(json.loads(example))
    assert "JSON" in request_.system


def test_portal_text_is_no_template() -> None:
    """Dollar signs and braces in data stay what they are."""
    odd = portal(title="Окна ${dialog} $$ {x}")
    assert "Окна ${dialog} $$ {x}" in correction_request(dialog(), odd).user
