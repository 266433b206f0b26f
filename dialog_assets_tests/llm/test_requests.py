"""The key under which an answer is bought, and the schema that goes with the question."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import BaseModel, Field

from dialog_assets.analysis.classification import ClassificationAnswer
from dialog_assets.analysis.correction import CorrectionAnswer
from dialog_assets.analysis.criteria import CriteriaAnswer
from dialog_assets.analysis.summaries import SummaryAnswer
from dialog_assets.llm.requests import LLMRequest, Subject, json_schema, request_key
from dialog_assets_tests.llm.support import SUBJECT, Number, question


class Other(BaseModel):
    """Another shape."""

    number: int
    reason: str


def test_key_is_the_same_in_another_process() -> None:
    """The key depends on nothing but the question and its subject; if this value changes, paid answers are lost."""
    assert request_key(question(), SUBJECT) == request_key(
        question(), Subject("okna_sever", "classifications", call_id=7)
    )
    assert request_key(question(), SUBJECT) == "3428991f28f2d253454fa3c68419c2cafaabebdee2a27c35174b312f5e6f9b52"


@pytest.mark.parametrize(
    "changed",
    [
        question(prompt_version="v2"),
        question(system="Иначе."),
        question(user="Иначе."),
        question(answer=Other),
    ],
)
def test_key_changes_with_the_question(changed: LLMRequest[Number]) -> None:
    """Whatever is asked is part of its key."""
    assert request_key(changed, SUBJECT) != request_key(question(), SUBJECT)


@pytest.mark.parametrize(
    "changed",
    [
        question(vendor="deepseek", model="deepseek-flash"),
        question(model="gpt-6.1-terra"),
        question(max_output_tokens=1000),
    ],
)
def test_key_stays_where_another_model_is_asked_the_same(changed: LLMRequest[Number]) -> None:
    """An answer in hand is not bought again because the model or its limit was changed meanwhile."""
    assert request_key(changed, SUBJECT) == request_key(question(), SUBJECT)


@pytest.mark.parametrize(
    "changed",
    [
        replace(SUBJECT, portal="avto_ural"),
        replace(SUBJECT, step="fixed_dialogs"),
        replace(SUBJECT, call_id=8),
        replace(SUBJECT, entity_type="contact"),
        replace(SUBJECT, call_id=None, entity_id=7),
    ],
)
def test_key_changes_with_the_subject(changed: Subject) -> None:
    """Two subjects with the same words are two purchases, and so is asking again."""
    assert request_key(question(), changed) != request_key(question(), SUBJECT)
    assert request_key(question(), SUBJECT, attempt=1) != request_key(question(), SUBJECT)


@pytest.mark.parametrize("answer", [CorrectionAnswer, ClassificationAnswer, CriteriaAnswer, SummaryAnswer])
def test_schemas_of_the_steps_are_closed(answer: type[BaseModel]) -> None:
    """Each step's answer has a schema that strict vendors accept: closed objects, every field required."""
    schema = json_schema(answer)
    nodes = [schema, *schema.get("$defs", {}).values()]
    assert all(node["additionalProperties"] is False for node in nodes)
    assert all(node["required"] == list(node["properties"]) for node in nodes)


def test_evidence_comes_before_the_score() -> None:
    """The schema's order is the order in which a model writes: quotes, text, applicable, score."""
    fields = list(json_schema(CriteriaAnswer)["$defs"]["CriterionScore"]["properties"])
    assert fields == ["criterion", "quotes", "text", "applicable", "score"]


def test_refused_schemas() -> None:
    """What a vendor would refuse is refused here, before it is paid for."""

    class Limits(BaseModel):
        number: int = Field(ge=1)

    class Free(BaseModel):
        values: dict[str, int]

    class Optional(BaseModel):
        number: int = 1

    for answer in (Limits, Free, Optional):
        with pytest.raises(TypeError, match=answer.__name__):
            json_schema(answer)
