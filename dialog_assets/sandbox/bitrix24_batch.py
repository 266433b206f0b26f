"""batch of the stand-in: commands one after another, links between them, errors by command (facts/bitrix24.md 2.3).

Here: the order, the limits and the links. Not here: how one command is carried out and what it costs.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from dialog_assets.sandbox.bitrix24_calling import Answer, MethodError
from dialog_assets.sandbox.bitrix24_php import as_map, is_on, parse_query, section
from dialog_assets.sandbox.bitrix24_rows import RowPage

MAX_COMMANDS = 50
_FORBIDDEN = ("batch", "upload", "download")
_LINK = re.compile(r"\$(result|error|total|next)((?:\[[^\]]*\])+)")

Carry = Callable[[str, dict[str, Any]], Awaitable[tuple[Answer, dict[str, Any]]]]


async def run_batch(params: dict[str, Any], carry: Carry) -> dict[str, Any]:
    """Run the commands of `cmd` with `carry(method, parameters)`, which gives an answer and its `time` field.

    The result is the `result` of the batch.

    An error of one command stands in its place and the rest go on, unless `halt` is on: then later keys are absent.
    """
    sections: dict[str, dict[str, Any]] = {name: {} for name in ("result", "error", "total", "next", "time")}
    halt = is_on(params.get("halt"))
    for number, (key, command) in enumerate(as_map(params.get("cmd")).items()):
        try:
            if number >= MAX_COMMANDS:
                raise MethodError("ERROR_BATCH_LENGTH_EXCEEDED", "Max batch length exceeded")
            await _run_command(key, str(command), sections, carry)
        except MethodError as error:
            sections["error"][key] = error.body()
            if halt:
                break
    return {name if name == "result" else f"result_{name}": section(values) for name, values in sections.items()}


async def _run_command(key: str, command: str, sections: dict[str, dict[str, Any]], carry: Carry) -> None:
    name, _, query = command.partition("?")
    method = method_name(name)
    if method in _FORBIDDEN:
        raise MethodError("ERROR_BATCH_METHOD_NOT_ALLOWED", "Method is not allowed for batch usage", 405)
    params = {name: resolve(value, sections) for name, value in parse_query(query).items()}
    answer, sections["time"][key] = await carry(method, params)
    sections["result"][key] = answer.result
    if answer.total is not None:
        sections["total"][key] = answer.total
    if answer.next is not None:
        sections["next"][key] = answer.next


def method_name(text: str) -> str:
    """A method as the portal knows it: lower case, without `.json`."""
    return text.strip().strip("/").lower().removesuffix(".json")


def resolve(value: Any, sections: dict[str, dict[str, Any]]) -> Any:
    """Replace `$result[key][0][ID]` and its like by what earlier commands gave.

    As the whole value a link may become an array, inside a text only a scalar replaces it. A path that does not exist
    resolves to the deepest node that does: a chain over a short page goes on with that page's rows instead of an id.
    """
    if isinstance(value, dict):
        return {key: resolve(item, sections) for key, item in value.items()}
    if isinstance(value, list):
        return [resolve(item, sections) for item in value]
    whole = _LINK.fullmatch(value)
    if whole:
        return _follow(whole, sections)

    def inside(link: re.Match[str]) -> str:
        found = _follow(link, sections)
        return link.group(0) if isinstance(found, dict | list) else _text(found)

    return _LINK.sub(inside, value)


def _follow(link: re.Match[str], sections: dict[str, dict[str, Any]]) -> Any:
    node: Any = sections[link.group(1)]
    for key in re.findall(r"\[([^\]]*)\]", link.group(2)):
        child = _child(node, key)
        if child is None:
            break
        node = child
    return node.rows if isinstance(node, RowPage) else node


def _child(node: Any, key: str) -> Any:
    if isinstance(node, RowPage):
        return node[int(key)] if key.isdigit() and int(key) < len(node) else None
    return as_map(node).get(key)


def _text(value: Any) -> str:
    """PHP's `(string)`."""
    if value is None or value is False:
        return ""
    return "1" if value is True else str(value)
