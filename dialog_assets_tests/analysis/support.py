"""What the tests of analysis share: a portal, a short dialog, a world with its script."""

from __future__ import annotations

from typing import Any

from dialog_assets.dialogs import Role, Turn, Word
from dialog_assets.portals import Portal
from dialog_assets.sandbox.world.model import Judgement, Script, ScriptTurn, World

HEARD: tuple[tuple[Role, str], ...] = (
    ("operator", "добрый день компания окна север меня зовут анна"),
    ("client", "здравствуйте мне нужен стекло пакет на балкон"),
    ("operator", "запишем вас на замер в четверг в десять утра"),
    ("client", "да четверг меня устраивает спасибо"),
)
TRUE = (
    "Добрый день, компания «Окна Север», меня зовут Анна.",
    "Здравствуйте, мне нужен стеклопакет на балкон.",
    "Запишем вас на замер в четверг в десять утра.",
    "Да, четверг меня устраивает, спасибо.",
)


def dialog(role: Role | None = None) -> list[Turn]:
    """The dialog as recognised; with `role` every turn has that role, as in a mono recording."""
    return [
        Turn(role or side, 0 if side == "operator" else 1, index * 5000, index * 5000 + 4000, text, _words(text, index))
        for index, (side, text) in enumerate(HEARD)
    ]


def _words(text: str, index: int) -> tuple[Word, ...]:
    return tuple(Word(word, index * 5000, index * 5000 + 100) for word in text.split())


def portal(vendor: str = "openai", model: str = "gpt-6-luna", **changes: Any) -> Portal:
    """A portal that uses one model for every step."""
    choice = {"vendor": vendor, "model": model}
    settings: dict[str, Any] = {
        "portal": "okna_sever",
        "title": "Окна Север",
        "domain": "okna.example",
        "time_zone": "Europe/Moscow",
        "start_date": "2026-03-02",
        "bitrix24": {"webhook": "OKNA_SEVER_WEBHOOK"},
        "channels": {"operator": 0},
        "speech": {"vocabulary": ["стеклопакет", "замер"]},
        "llm": {
            "rub_per_usd": "80",
            "correction": choice,
            "classification": choice,
            "criteria": choice,
            "summary": choice,
            "criteria_per_request": 2,
        },
        "summary_max_characters": 300,
        "categories": [
            {
                "name": "new_order",
                "title": "Заявка",
                "description": "Хочет заказать.",
                "criteria": ["greeting", "needs"],
            },
            {
                "name": "complaint",
                "title": "Рекламация",
                "description": "Недоволен.",
                "criteria": ["greeting", "refund"],
            },
        ],
        "criteria": [
            {"name": "greeting", "title": "Приветствие", "text": "Назвал компанию и имя."},
            {"name": "needs", "title": "Потребность", "text": "Выяснил задачу.", "scale": {"min": 1, "max": 5}},
            {"name": "refund", "title": "Возврат", "text": "Предложил решение."},
        ],
        **changes,
    }
    return Portal.model_validate(settings)


def world() -> World:
    """A world with nothing but this dialog's script."""
    speakers: tuple[Any, ...] = tuple(side for side, _ in HEARD)
    script = Script(
        name="balcony",
        portal="okna_sever",
        turns=tuple(
            ScriptTurn(speakers[index], TRUE[index], HEARD[index][1], index * 5000, index * 5000 + 4000)
            for index in range(len(TRUE))
        ),
        categories=(("new_order", 95, "Клиент просит стеклопакет на балкон."),),
        judgements=(
            Judgement("greeting", 10, "Назвал компанию и имя.", ((0, "меня зовут Анна"),)),
            Judgement("needs", 4, "Выяснил, что нужно.", ((2, "Запишем вас на замер"),)),
            Judgement("refund", None, "Жалобы не было."),
        ),
        duration_ms=20_000,
    )
    return World(portals={}, scripts={"balcony": script})
