"""Portal files: every mistake is named with its file, line and place, all of them at once, and no secret is repeated."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog_assets.portals import (
    Criterion,
    LLMSettings,
    ModelChoice,
    Portal,
    PortalsError,
    Scale,
    load_portals,
    readable_portals,
)
from dialog_assets_tests.conftest import ROOT

SECRET = "https://acme.bitrix24.ru/rest/1/q1w2e3r4t5y6u7i8/"

GOOD = """\
portal: acme
title: Acme
domain: acme.bitrix24.ru
time_zone: Europe/Moscow
start_date: 2026-03-02
bitrix24:
  webhook: ACME_WEBHOOK
channels:
  operator: 0
llm:
  rub_per_usd: "80.00"
  correction: {vendor: openai, model: m}
  classification: {vendor: openai, model: m}
  criteria: {vendor: openai, model: m}
  summary: {vendor: openai, model: m}
categories:
  - name: order
    title: Заявка
    description: Клиент хочет заказать
    criteria: [greeting, needs]
  - name: complaint
    title: Жалоба
    description: Клиент недоволен
    criteria: [needs]
criteria:
  - name: greeting
    title: Приветствие
    text: Поздоровался?
  - name: needs
    title: Потребность
    text: Выяснил?
    scale: {min: 1, max: 5}
"""


def write(folder: Path, text: str = GOOD, name: str = "acme.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def mistakes_of(folder: Path) -> list[str]:
    with pytest.raises(PortalsError) as caught:
        load_portals(folder)
    assert str(caught.value).splitlines() == caught.value.mistakes, "one line a mistake"
    return caught.value.mistakes


def line_of(text: str, start: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if line.strip().startswith(start))


def test_a_good_file_is_read_whole(tmp_path: Path) -> None:
    """What the file says is what the portal is, and what it does not say has its default."""
    write(tmp_path)
    [portal] = load_portals(tmp_path)
    assert (portal.portal, portal.start_date.isoformat(), portal.zone.key) == ("acme", "2026-03-02", "Europe/Moscow")
    assert (portal.nightly_at, portal.trailing_days, portal.bitrix24.bucket_size) == ("03:15", 3, 50)
    assert portal.llm.correction.api_key_env == "OPENAI_API_KEY"
    assert (portal.dialogs.pause_ms, portal.dialogs.backchannel_ms, portal.dialogs.company_names) == (1500, 1000, ())
    write(tmp_path, GOOD.replace("operator: 0", 'operator: 0\n  by_line: {reg133788: 1, "3": 0}'))
    assert load_portals(tmp_path)[0].channels.by_line == {"reg133788": 1, "3": 0}


def test_readable_files_beside_broken_ones(tmp_path: Path) -> None:
    """The good portals are had, with the mistakes of the others; only when no file is good there is nothing to have."""
    broken = write(tmp_path, "portal: [shop", "shop.yaml")
    with pytest.raises(PortalsError, match=r"shop\.yaml:1: "):
        readable_portals(tmp_path)
    write(tmp_path)
    portals, mistakes = readable_portals(tmp_path)
    assert [portal.portal for portal in portals] == ["acme"]
    assert mistakes == mistakes_of(tmp_path)
    broken.unlink()
    assert readable_portals(tmp_path) == (load_portals(tmp_path), [])


def test_a_portal_with_two_files(tmp_path: Path) -> None:
    """`acme.yaml` and `acme.yml` are one portal twice: the first is used, the second is a mistake."""
    write(tmp_path)
    write(tmp_path, GOOD, "acme.yml")
    assert mistakes_of(tmp_path) == ["acme.yml: portal acme has another file already; keep one of the two"]
    assert [portal.portal for portal in readable_portals(tmp_path)[0]] == ["acme"]


def test_the_portals_of_the_project_are_good() -> None:
    """The two files that everyone copies have no mistake, and come in order of their names."""
    assert [portal.portal for portal in load_portals(ROOT / "portals")] == ["avto_ural", "okna_sever"]


REPLACED = [
    ("portal: acme", "portal: Acme!", "portal", "portal: expected lower-case Latin letters, digits and _"),
    ("title: Acme", "title: ''", "title", "title: string should have at least 1 character, found ''"),
    ("title: Acme", "name: Acme", "name", "name: unknown setting; check its spelling"),
    ("domain: acme.bitrix24.ru", f"domain: {SECRET}", "domain", "domain: expected the portal's host name"),
    ("time_zone: Europe/Moscow", "time_zone: Moscow", "time_zone", "IANA time zone such as Europe/Moscow, found 'Moscow'"),
    ("time_zone: Europe/Moscow", "time_zone: ../etc", "time_zone", "time_zone: expected an IANA time zone"),
    ("start_date: 2026-03-02", "start_date: 2026-02-30", "start_date", "day value is outside expected range, found '2026-02-30'"),
    ("start_date: 2026-03-02", "start_date: soon", "start_date", "start_date: input should be a valid date"),
    ("bitrix24:", "nightly_at: 25:00\nbitrix24:", "nightly_at", "nightly_at: expected"),
    ("bitrix24:", "nightly_at: 13:15\nbitrix24:", "nightly_at", "nightly_at: expected text, in quotes"),
    ("bitrix24:", "trailing_days: 32\nbitrix24:", "trailing_days", "input should be less than or equal to 31, found '32'"),
    ("  webhook: ACME_WEBHOOK", "  webhook: acme_webhook", "webhook", "bitrix24.webhook: expected the NAME of an environment"),
    ("  webhook: ACME_WEBHOOK", "  bucket_size: 50", "bitrix24", "bitrix24: expected exactly one of `webhook`"),
    ("  operator: 0", "  operator: 2", "operator", "channels.operator: input should be 0 or 1, found '2'"),
    ("  operator: 0", "  operator: 0\n  by_line: {a: 3}", "by_line", "channels.by_line.a: input should be 0 or 1, found '3'"),
    ("  operator: 0", "  operator: 0\n  by_line: {3: 1}", "by_line", "channels.by_line[3].[key]: expected text, in quotes"),
    ("llm:", "dialogs:\n  pause_ms: -1\nllm:", "pause_ms", "dialogs.pause_ms: input should be greater than or equal to 0"),
    ("llm:", "dialogs:\n  backchannel_ms: 1 s\nllm:", "backchannel_ms", "dialogs.backchannel_ms: input should be a valid integer"),
    ("llm:", "dialogs:\n  company_names: Acme\nllm:", "company_names", "dialogs.company_names: input should be a valid"),
    ("llm:", "dialogs:\n  names: [Acme]\nllm:", "names", "dialogs.names: unknown setting; check its spelling"),
    ('"80.00"', '"0"', "rub_per_usd", "llm.rub_per_usd: input should be greater than 0, found '0'"),
    ('"80.00"', "many", "rub_per_usd", "llm.rub_per_usd: input should be a valid decimal, found 'many'"),
    ("correction: {vendor: openai", "correction: {vendor: opena", "correction", "llm.correction.vendor: input should be 'openai'"),
    ("max: 5", "max: 1", "scale", "criteria[1].scale: min 1 must be below max 1"),
    ("name: complaint", "name: order", "name: order", "categories[1].name: categories has the name order more than once"),
    ("name: needs", "name: greeting", "name: greeting", "criteria[1].name: criteria has the name greeting more than once"),
    ("criteria: [needs]", "criteria: [neds]", "criteria: [neds]", "categories[1].criteria[0]: unknown criterion neds"),
    ("title: Acme", "title: Acme\ntitle: Akme", "title", "key title is given twice"),
    ("webhook: ACME_WEBHOOK", "webhook: ACME_WEBHOOK\n  webhook: B", "webhook", "key webhook is given twice"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "start", "expected"), REPLACED, ids=[row[3][:50] for row in REPLACED])
def test_a_mistake_is_named_with_file_line_place_and_expectation(
    tmp_path: Path, old: str, new: str, start: str, expected: str
) -> None:
    """One wrong setting gives `file:line: path: what was expected` at the line where it stands."""
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    write(tmp_path, text)
    lines = [number for number, line in enumerate(text.splitlines(), 1) if line.strip().lstrip("- ").startswith(start)]
    found = [mistake for mistake in mistakes_of(tmp_path) if expected in mistake]
    assert len(found) == 1, mistakes_of(tmp_path)
    assert any(found[0].startswith(f"acme.yaml:{number}: ") for number in lines), (found, lines)


def test_all_mistakes_of_all_files_come_at_once(tmp_path: Path) -> None:
    """Someone who repairs the files sees everything that is wrong in one go, in order of file and line."""
    text = (
        GOOD.replace("portal: acme", "portal: acne")
        .replace("Europe/Moscow", "Nowhere")
        .replace("operator: 0", "operator: 7")
        .replace("[greeting, needs]", "[greting, neds]")
        .replace("criteria: [needs]", "criteria: [knees]")
        .replace("title: Acme", "title: Acme\ntitle: Acme")
    )
    write(tmp_path, text)
    write(tmp_path, GOOD.replace("Europe/Moscow", "Elsewhere").replace("acme", "beta"), "beta.yaml")
    write(tmp_path, "- a\n- b\n", "list.yaml")
    write(tmp_path, "a: [1\nb: 2\n", "torn.yaml")
    mistakes = mistakes_of(tmp_path)
    assert [mistake.partition(": ")[0] for mistake in mistakes] == [
        "acme.yaml:1",
        "acme.yaml:3",
        "acme.yaml:5",
        "acme.yaml:10",
        "acme.yaml:21",
        "acme.yaml:21",
        "acme.yaml:25",
        "beta.yaml:4",
        "list.yaml",
        "torn.yaml:2",
    ]
    assert "expected the file's name 'acme', found 'acne'" in mistakes[0]
    assert "unknown criterion greting" in mistakes[4]
    assert "unknown criterion neds" in mistakes[5]
    assert "unknown criterion knees" in mistakes[6]
    assert mistakes[8] == "list.yaml: expected a mapping of settings, found list"


BROKEN: list[tuple[str, bytes, str]] = [
    ("unclosed", b"a: [1, 2\nb: 3\n", "acme.yaml:2: not valid YAML"),
    ("tab", b"a:\n\tb: 1\n", "acme.yaml:2: not valid YAML"),
    ("colon in a value", b"title: a\ndomain: b: c\n", "acme.yaml:2: not valid YAML: mapping values are not allowed"),
    ("alias of nothing", b"a: *b\n", "acme.yaml:1: not valid YAML"),
    ("object tag", b"a: !!python/object:os.system {}\n", "acme.yaml:1: not valid YAML"),
    ("two documents", b"a: 1\n---\nb: 2\n", "acme.yaml:2: not valid YAML"),
    ("list as a key", b"? [a, b]\n: 1\n", "acme.yaml:1: not valid YAML"),
    ("number that is none", b"a: !!int x\n", "acme.yaml: not valid YAML: a value does not fit its tag"),
    ("control character", b"a: 1\x07\n", "acme.yaml: not valid YAML: character #x07"),
    ("Windows encoding", "title: Окна\n".encode("cp1251"), "acme.yaml: not UTF-8 text: save the file in UTF-8"),
    ("empty", b"", "acme.yaml: expected a mapping of settings, found NoneType"),
    ("without end", b"a: &a [*a]\n", "acme.yaml: not a portal file: it is nested without end"),
]


@pytest.mark.parametrize(("content", "expected"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_broken_yaml_is_one_sentence(tmp_path: Path, content: bytes, expected: str) -> None:
    """A file that is no YAML gives one line that begins with its place, never a traceback."""
    (tmp_path / "acme.yaml").write_bytes(content)
    [mistake] = mistakes_of(tmp_path)
    assert mistake.startswith(expected)


def test_missing_and_empty_folders_say_what_to_do(tmp_path: Path) -> None:
    """No folder, and a folder without portal files, are explained."""
    assert "set DIALOG_ASSETS_PORTALS" in mistakes_of(tmp_path / "no")[0]
    assert "holds no portal file (*.yaml)" in mistakes_of(tmp_path)[0]


def test_a_broken_file_hides_no_good_one(tmp_path: Path) -> None:
    """Nothing is loaded while one file is broken: a portal must not disappear from the graph unnoticed."""
    write(tmp_path)
    write(tmp_path, "a: [", "beta.yaml")
    assert len(mistakes_of(tmp_path)) == 1


SECRETS: list[Callable[[str], str]] = [
    lambda secret: GOOD.replace("ACME_WEBHOOK", secret),
    lambda secret: GOOD.replace("ACME_WEBHOOK", f"'{secret}'\n  token: {secret}"),
    lambda secret: GOOD.replace("  webhook: ACME_WEBHOOK", f"  webhook_url: {secret}"),
    lambda secret: GOOD.replace("bitrix24:\n  webhook: ACME_WEBHOOK", f"bitrix24: {secret}"),
    lambda secret: GOOD.replace("webhook: ACME_WEBHOOK", f"webhook: [{secret}]"),
    lambda secret: GOOD.replace("acme.bitrix24.ru", secret),
    lambda secret: GOOD.replace("Europe/Moscow", secret),
    lambda secret: GOOD.replace("correction: {vendor: openai, model: m}", f"correction: '{secret}'"),
    lambda secret: GOOD.replace("vendor: openai", f"vendor: '{secret}'", 1),
    lambda secret: GOOD.replace("vendor: openai", f"vendor: openai, api_key: '{secret}'", 1),
    lambda secret: GOOD.replace("portal: acme", f"portal: {secret}"),
    lambda secret: GOOD.replace("start_date: 2026-03-02", f"start_date: {secret}"),
    lambda secret: GOOD.replace("operator: 0", f"operator: {secret}"),
    lambda secret: GOOD.replace('"80.00"', secret),
]


SHORT = "q1w2e3r4t5y6u7i8"
LONG_ONLY = (5, 6, 8, 10, 11, 12, 13)
"""Where no credential is ever wanted, a word too short to be a whole one is shown; the host name must not be a URL."""


@pytest.mark.parametrize(
    ("place", "secret"),
    [
        (place, secret)
        for place in range(len(SECRETS))
        for secret in (SECRET, "sk-proj-Ab3dEf6hIj9kLmN0pQr", SHORT)
        if (secret != SHORT or place not in LONG_ONLY) and (secret == SECRET or place != 5)
    ],
)
def test_a_secret_in_the_wrong_place_is_not_repeated(tmp_path: Path, place: int, secret: str) -> None:
    """Whoever pastes a credential where a name belongs does not find it in the terminal, the log or the UI."""
    write(tmp_path, SECRETS[place](secret))
    text = "\n".join(mistakes_of(tmp_path))
    assert secret not in text
    assert secret[:20] not in text
    assert SHORT[:8] not in text


def test_a_number_as_webhook_is_asked_for_by_name(tmp_path: Path) -> None:
    """A secret of digits only is a number to YAML, and is not repeated either."""
    write(tmp_path, GOOD.replace("ACME_WEBHOOK", "123456789"))
    assert mistakes_of(tmp_path) == [
        "acme.yaml:7: bitrix24.webhook: expected the NAME of an environment variable (never the secret itself)"
    ]


def model_settings() -> LLMSettings:
    choice = ModelChoice(vendor="openai", model="m")
    return LLMSettings(
        rub_per_usd=Decimal("83.47"), correction=choice, classification=choice, criteria=choice, summary=choice
    )


@given(st.one_of(st.decimals(0, 1000, places=9), st.decimals(0, "0.0001", places=9)), st.integers(1, 60))
def test_shares_add_up_to_the_whole(cost_usd: Decimal, parts: int) -> None:
    """However a request's cost is split over its results, nothing of it is lost or made up."""
    settings = model_settings()
    shares = settings.shares(cost_usd, parts)
    assert len(shares) == parts
    assert sum(shares) == settings.roubles(cost_usd)
    assert max(shares) - min(shares) <= Decimal("0.000001") * parts
    assert all(share == share.quantize(Decimal("0.000001")) for share in shares)
    assert min(shares) >= 0, "a result never costs less than nothing"


def test_nothing_bought_has_no_shares() -> None:
    """A request without results is split over nothing."""
    assert model_settings().shares(Decimal(1), 0) == []


CRITERION = Criterion(name="a", title="T", text="X")


@pytest.mark.parametrize(
    "changed",
    [{"title": "U"}, {"text": "Y"}, {"scale": Scale(min=0, max=5)}, {"scale": Scale(min=1, max=10)}],
)
def test_a_changed_wording_is_a_new_version(changed: dict[str, object]) -> None:
    """Whatever the model is asked differently is scored anew."""
    assert CRITERION.model_copy(update=changed).version != CRITERION.version


def test_the_include_flag_is_no_new_version() -> None:
    """The flag chooses what a summary uses; the scores stay valid, and are not bought again."""
    flagged = CRITERION.model_copy(update={"include_in_entity_description": True})
    assert flagged.version == CRITERION.version
    assert flagged.label == CRITERION.label == f"a@{CRITERION.version}"


@given(st.text(min_size=1, max_size=4), st.text(min_size=1, max_size=4), st.text(min_size=1, max_size=4))
def test_text_does_not_move_between_title_and_text_unnoticed(left: str, middle: str, right: str) -> None:
    """Two different wordings have different versions even if they read the same end to end."""
    one = CRITERION.model_copy(update={"title": left + middle, "text": right})
    two = CRITERION.model_copy(update={"title": left, "text": middle + right})
    assert one.version != two.version or "\x1f" in left + middle + right


def test_a_category_changes_with_what_the_classifier_sees(tmp_path: Path) -> None:
    """A category's version follows its title and description, not the criteria it selects."""
    write(tmp_path)
    [portal] = load_portals(tmp_path)
    category = portal.categories[0]
    assert category.model_copy(update={"description": "other"}).version != category.version
    assert category.model_copy(update={"title": "other"}).version != category.version
    assert category.model_copy(update={"criteria": ("needs",)}).version == category.version


def test_criteria_of_categories_come_once_in_the_files_order(portals: list[Portal]) -> None:
    """Whatever the order and the overlap of the categories, each criterion comes once, as in the file."""
    portal = portals[1]
    order = [criterion.name for criterion in portal.criteria]
    for names in (["price_talk", "new_order"], ["new_order", "price_talk"], ["complaint"], [], ["unknown"]):
        found = [criterion.name for criterion in portal.criteria_of(names)]
        wanted = {name for category in portal.categories if category.name in names for name in category.criteria}
        assert found == [name for name in order if name in wanted]
    assert portal.criteria_of(["price_talk"])[0].name == "objections"


BOMB = "bomb: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text.replace("title: Acme", 'title: "a\\0b"'), "acme.yaml:2: title: expected text"),
        (lambda text: text.replace("title: Acme", 'title: "a\\eb"'), "acme.yaml:2: title: expected text"),
        (lambda text: text.replace("title: Acme", 'title: "\\uD800"'), "acme.yaml:2: title: "),
        (lambda text: text.replace("Выяснил?", '"a\\x01"'), "criteria[1].text: expected text"),
        (lambda text: text.replace("title: Acme", f"title: {'a' * 100_001}"), "acme.yaml:2: title: "),
        *(
            (lambda text, rate=rate: text.replace('"80.00"', rate), "llm.rub_per_usd: ")
            for rate in ("1e999999", ".inf", "1e26", '"NaN"', "-.inf", "1.0e+26", '"Infinity"', "9" * 4000)
        ),
        (lambda text: text + "trailing_days: 1e9\n", "trailing_days: "),
        (lambda text: text + "audio: {min_duration_s: .inf}\n", "audio.min_duration_s: "),
        (lambda text: text + "audio: {min_duration_s: .nan}\n", "audio.min_duration_s: "),
        (lambda text: text + "audio: {min_duration_s: 1.0e300}\n", "audio.min_duration_s: "),
        (lambda text: text.replace("max: 5", "max: 99999999999"), "scale.max: expected a number"),
        (lambda text: text.replace("2026-03-02", "0001-01-01"), "start_date: "),
        (lambda text: text + BOMB, "nested without end"),
        (lambda text: text + "x: &x [*x]\n", "nested without end"),
        (lambda text: text + "#" * 500_000, "acme.yaml: not a portal file: it is larger than 500 kB"),
    ],
)
def test_what_would_break_a_night_is_told_when_the_file_is_read(
    tmp_path: Path, change: Callable[[str], str], told: str
) -> None:
    """Characters that the database refuses, numbers without bounds, a file that unfolds without end: one sentence each."""
    write(tmp_path, change(GOOD))
    [mistake] = [sentence for sentence in mistakes_of(tmp_path) if told in sentence][:1]
    assert len(mistake) < 250
    assert "\n" not in mistake


@pytest.mark.parametrize(
    ("second", "environment", "told"),
    [
        ({"domain: acme.bitrix24.ru": "domain: other.bitrix24.ru"}, {}, "bitrix24.webhook is ACME_WEBHOOK, as for portal acme"),
        ({"ACME_WEBHOOK": "TWIN_WEBHOOK"}, {}, "domain is acme.bitrix24.ru, as for portal acme"),
        (
            {"ACME_WEBHOOK": "TWIN_WEBHOOK", "domain: acme.bitrix24.ru": "domain: other.bitrix24.ru"},
            {"ACME_WEBHOOK": "https://acme.bitrix24.ru/rest/1/s3cr3t/", "TWIN_WEBHOOK": "https://acme.bitrix24.ru/rest/1/s3cr3t"},
            "TWIN_WEBHOOK holds the same credential as ACME_WEBHOOK, that of portal acme",
        ),
        ({"ACME_WEBHOOK": "TWIN_WEBHOOK", "domain: acme.bitrix24.ru": "domain: other.bitrix24.ru"}, {}, None),
    ],
)  # fmt: skip
def test_one_portal_under_two_names(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    second: dict[str, str],
    environment: dict[str, str],
    told: str | None,
) -> None:
    """The same variable, the same credential or the same domain: its calls would be bought twice, so the second is refused."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    text = GOOD.replace("portal: acme\n", "portal: twin\n")
    for old, new in second.items():
        text = text.replace(old, new)
    write(tmp_path)
    write(tmp_path, text, "twin.yaml")
    portals, mistakes = readable_portals(tmp_path)
    assert [portal.portal for portal in portals] == (["acme"] if told else ["acme", "twin"])
    assert len(mistakes) == (told is not None)
    assert told is None or (told in mistakes[0] and "s3cr3t" not in mistakes[0])
