"""What the sandbox's models say: each step's answer, taken from the scripts. The same request always gets the same answer.

Here: answers as JSON texts, and the wrong ones that faults ask for. Not here: wire formats, tokens, money.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from typing import Any

from dialog_assets.sandbox.llm_match import DialogLine, ScriptBook, find_words, tokens
from dialog_assets.sandbox.llm_prompt import Asked, blocks_to_merge, character_limit, dialog_lines, marked_names
from dialog_assets.sandbox.world.model import Judgement, Script

SUMMARY_MARK = "(сводка песочницы)"
NO_JUDGEMENT = "Песочница: в сценарии нет оценки по этому критерию."
NO_SCRIPT = "Песочница: для этого диалога нет сценария."

_SENTENCE = re.compile(r"(?<=[.!?…])\s+")
_DEFAULT_LIMIT = 1500
_QUOTE_FOUND_FROM = 0.5


def answer_text(book: ScriptBook, asked: Asked, *, wrong: bool = False) -> str:
    """The model's words; `wrong`: valid JSON that breaks the step's own rules (unknown names, scores out of scale)."""
    answer = _ANSWERS[asked.step](book, asked) if asked.step in _ANSWERS else _filler(asked.schema or {})
    if wrong:
        _spoil(asked, answer)
    if asked.schema is not None:
        answer = _in_schema_order(answer, asked.schema)
    chance = hashlib.sha256(asked.prompt.encode()).digest()[0]
    text = json.dumps(answer, ensure_ascii=False, indent=2 if chance % 3 == 0 else None)
    if not asked.json_only and chance % 2 == 0:
        return f"```json\n{text}\n```"
    return text


def _correction(book: ScriptBook, asked: Asked) -> dict[str, Any]:
    lines = dialog_lines(asked.prompt)
    script = book.find(lines)
    edits: list[dict[str, str]] = []
    sides: list[Counter[str]] = [Counter() for _ in lines]
    if script is not None:
        texts: list[list[str]] = [[] for _ in lines]
        for word in book.align(script, lines):
            texts[word.line] += word.truth
            if word.turn is not None:
                sides[word.line][script.turns[word.turn].speaker] += 1
        for line, words in zip(lines, texts, strict=True):
            text = " ".join(words)
            if text and text != line.text:
                edits.append({"line": line.id, "text": text})
    speakers = [
        {"line": line.id, "speaker": max(("client", "operator"), key=lambda side: count[side])}
        for line, count in zip(lines, sides, strict=True)
        if line.speaker is None
    ]
    return {"edits": edits, "speakers": speakers}


def _classification(book: ScriptBook, asked: Asked) -> dict[str, Any]:
    script = book.find(dialog_lines(asked.prompt))
    names = marked_names(asked.prompt)
    return {
        "categories": [
            {"name": name, "confidence": confidence, "reason": reason}
            for name, confidence, reason in (script.categories if script is not None else ())
            if name in names
        ]
    }


def _criteria(book: ScriptBook, asked: Asked) -> dict[str, Any]:
    lines = dialog_lines(asked.prompt)
    script = book.find(lines)
    judgements = {judgement.criterion: judgement for judgement in script.judgements} if script is not None else {}
    scores: list[dict[str, Any]] = []
    for name in marked_names(asked.prompt):
        judgement = judgements.get(name)
        if script is None or judgement is None:
            text = NO_SCRIPT if script is None else NO_JUDGEMENT
            scores.append({"criterion": name, "quotes": [], "text": text, "applicable": False, "score": None})
            continue
        scores.append(
            {
                "criterion": name,
                "quotes": _quotes(script, judgement, lines),
                "text": judgement.text,
                "applicable": judgement.score is not None,
                "score": judgement.score,
            }
        )
    return {"scores": scores}


def _quotes(script: Script, judgement: Judgement, lines: list[DialogLine]) -> list[dict[str, str]]:
    """The judgement's quotes as they stand in the prompt, which may be masked, uncorrected or cut into other turns."""
    quotes: list[dict[str, str]] = []
    for turn, words in judgement.quotes:
        wanted = tokens(words)
        sides = (script.turns[turn].speaker, None)
        found = [(find_words(wanted, line.text), line) for line in lines if wanted and line.speaker in sides]
        if not found:
            continue
        (share, text), line = max(found, key=lambda item: item[0][0])
        if share >= _QUOTE_FOUND_FROM:
            quotes.append({"line": line.id, "text": text})
    return quotes


def _summary(book: ScriptBook, asked: Asked) -> dict[str, Any]:  # noqa: ARG001 - same signature as the other steps
    """Whole sentences of the blocks, the first of each block before the second of any, as many as the limit takes."""
    limit = character_limit(asked.prompt) or _DEFAULT_LIMIT
    room = limit - len(SUMMARY_MARK)
    sentences: list[tuple[int, int, str]] = []
    seen: set[str] = set()
    for number, block in enumerate(blocks_to_merge(asked.task)):
        for position, sentence in enumerate(_SENTENCE.split(block.replace(SUMMARY_MARK, "").strip())):
            if sentence and sentence not in seen:
                seen.add(sentence)
                sentences.append((position, number, sentence))
    chosen: list[tuple[int, int, str]] = []
    for position, number, sentence in sorted(sentences):
        if len(sentence) + 1 <= room:
            chosen.append((number, position, sentence))
            room -= len(sentence) + 1
    if not chosen and sentences and room > 2:
        chosen = [(0, 0, f"{sentences[0][2][: room - 2]}…")]
    return {"text": " ".join([*(sentence for _, _, sentence in sorted(chosen)), SUMMARY_MARK])[:limit]}


_ANSWERS = {"edits": _correction, "categories": _classification, "scores": _criteria, "text": _summary}


def _spoil(asked: Asked, answer: dict[str, Any]) -> None:
    if asked.step == "edits":
        answer["edits"].append({"line": "L999", "text": "такой строки нет"})
    elif asked.step == "categories":
        answer["categories"].append({"name": "no_such_category", "confidence": 101, "reason": "такой категории нет"})
    elif asked.step == "scores":
        for score in answer["scores"][:1]:
            score.update(applicable=True, score=99)
    elif asked.step == "text":
        answer["text"] += " лишнее" * (character_limit(asked.prompt) or _DEFAULT_LIMIT)


def _filler(schema: dict[str, Any]) -> Any:
    """The least value of a schema, for a request that is no step of the pipeline (a connection test, say)."""
    kind = schema.get("type", "object")
    if schema.get("enum"):
        return schema["enum"][0]
    if kind == "object":
        found = {name: _filler(part) for name, part in schema.get("properties", {}).items()}
        return found or {"sandbox": "Песочница отвечает только на шаги разбора звонков."}
    plain: dict[str, Any] = {"string": "Песочница", "integer": 0, "number": 0, "boolean": False, "array": []}
    return plain.get(kind) if isinstance(kind, str) else None


def _in_schema_order(value: Any, schema: dict[str, Any], root: dict[str, Any] | None = None) -> Any:
    """`value` with the keys that `schema` has, in its order, as constrained decoding writes them."""
    root = schema if root is None else root
    if "$ref" in schema:
        schema = root.get("$defs", {}).get(schema["$ref"].rsplit("/", 1)[-1], {})
    if isinstance(value, dict) and "properties" in schema:
        return {
            name: _in_schema_order(value[name], part, root)
            for name, part in schema["properties"].items()
            if name in value
        }
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return [_in_schema_order(item, schema["items"], root) for item in value]
    return value
