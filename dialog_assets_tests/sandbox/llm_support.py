"""A small world and a real server of the stand-in LLM vendors for the tests of this folder."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from dialog_assets.sandbox.books import Books
from dialog_assets.sandbox.faults import Faults
from dialog_assets.sandbox.llm import LLMServer
from dialog_assets.sandbox.world.model import Judgement, Script, ScriptTurn, World

OPENAI_KEY, ANTHROPIC_KEY, DEEPSEEK_KEY = "sk-openai-test-0001", "sk-ant-test-0002", "sk-deepseek-test-0003"

WINDOWS = Script(
    name="windows",
    portal="okna_sever",
    turns=(
        ScriptTurn(
            "operator",
            "Добрый день! Компания «Окна Север», меня зовут Анна.",
            "добрый день компания акна север меня зовут анна",
            0,
            4000,
        ),
        ScriptTurn(
            "client",
            "Здравствуйте. Сколько стоит трёхстворчатое окно с установкой?",
            "здравствуйте сколько стоит трёх створчатое окно с установкой",
            4000,
            8000,
        ),
        ScriptTurn(
            "operator",
            "С установкой — от сорока тысяч рублей. Запишем вас на замер?",
            "с установкой от сорока тысяч рублей запишем вас на замёр",
            8000,
            12000,
        ),
        ScriptTurn(
            "client",
            "Да, давайте на четверг, телефон плюс семь девятьсот двенадцать.",
            "да давайте на четверг телефон плюс семь девятьсот двенадцать",
            12000,
            16000,
        ),
    ),
    categories=(("sale", 95, "Клиент спрашивает цену окна."), ("measuring", 80, "Договорились о замере.")),
    judgements=(
        Judgement(
            "greeting", 10, "Оператор поздоровался и представился.", ((0, "Добрый день! Компания «Окна Север»"),)
        ),
        Judgement("objections", None, "Возражений не было."),
    ),
    duration_ms=16000,
)

CAR = Script(
    name="car",
    portal="avto_ural",
    turns=(
        ScriptTurn(
            "operator", "Добрый день! Автосервис «Урал», слушаю вас.", "добрый день автосервис урал слушаю вас", 0, 3000
        ),
        ScriptTurn(
            "client",
            "Здравствуйте. Стучит подвеска на кочках, можно приехать?",
            "здравствуйте стучит под веска на кочках можно приехать",
            3000,
            7000,
        ),
    ),
    categories=(("repair", 90, "Просит ремонт."),),
    judgements=(Judgement("greeting", 7, "Поздоровался, но не назвал имя.", ((0, "Добрый день!"),)),),
    duration_ms=7000,
)


HEARD = "\n".join(
    f"L{number:03d} {'ОПЕРАТОР' if turn.speaker == 'operator' else 'КЛИЕНТ'}: {turn.heard}"
    for number, turn in enumerate(WINDOWS.turns, 1)
)
TRUE = "\n".join(
    f"L{number:03d} {'ОПЕРАТОР' if turn.speaker == 'operator' else 'КЛИЕНТ'}: {turn.text}"
    for number, turn in enumerate(WINDOWS.turns, 1)
)


def closed(properties: dict[str, Any]) -> dict[str, Any]:
    """A strict object schema."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def listed(properties: dict[str, Any]) -> dict[str, Any]:
    """A list of strict objects."""
    return {"type": "array", "items": closed(properties)}


STRING, INTEGER = {"type": "string"}, {"type": "integer"}
EDITS = closed(
    {"edits": listed({"line": STRING, "text": STRING}), "speakers": listed({"line": STRING, "speaker": STRING})}
)
CATEGORIES = closed({"categories": listed({"reason": STRING, "name": STRING, "confidence": INTEGER})})
SCORES = closed(
    {
        "scores": listed(
            {
                "criterion": STRING,
                "quotes": listed({"line": STRING, "text": STRING}),
                "text": STRING,
                "applicable": {"type": "boolean"},
                "score": {"type": ["integer", "null"]},
            }
        )
    }
)
SUMMARY = closed({"text": STRING})


@dataclass
class Running:
    """A server on a real socket."""

    url: str
    books: Books
    faults: Faults

    def book(self, service: str) -> dict[str, Any]:
        """The books of one vendor."""
        found: dict[str, Any] = self.books.as_dict()[service]
        return found


@contextmanager
def running(world: World | None = None, *, latency_ms: int = 0) -> Iterator[Running]:
    """The server in a thread for the time of the block."""
    books, faults = Books(), Faults()
    server = LLMServer(
        world if world is not None else World({}, {script.name: script for script in (WINDOWS, CAR)}),
        books,
        faults,
        openai_key=OPENAI_KEY,
        anthropic_key=ANTHROPIC_KEY,
        deepseek_key=DEEPSEEK_KEY,
        latency_ms=latency_ms,
    )
    config = uvicorn.Config(
        server.app, host="127.0.0.1", port=0, log_level="critical", lifespan="off", timeout_keep_alive=75
    )
    ready = threading.Event()

    class _Announced(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            ready.set()

    runner = _Announced(config)
    thread = threading.Thread(target=runner.run, daemon=True)
    thread.start()
    try:
        assert ready.wait(60)
        port = runner.servers[0].sockets[0].getsockname()[1]
        yield Running(f"http://127.0.0.1:{port}", books, faults)
    finally:
        runner.should_exit = True
        thread.join(10)


def parsed(text: str | None) -> dict[str, Any]:
    """An answer's JSON object."""
    assert text is not None
    found: dict[str, Any] = json.loads(text)
    return found
