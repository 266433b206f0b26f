"""Doctor's look at the LLM vendors and models that the portals name: free of charge, with what a night uses.

Here: the form of keys and addresses before the network, prices and limits, and the vendor's own list of models.
Not here: what a model answers, which costs money.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import httpx2

from dialog_assets import certificates, quiet
from dialog_assets.cli.doctor.examination import Check, Context, Finding, Unwell
from dialog_assets.llm.errors import UnknownPrice
from dialog_assets.llm.prices import model_price, rate
from dialog_assets.portals import ModelChoice, Portal
from dialog_assets.resources.llm import access

SOON = timedelta(days=30)
"""How long before a model's end it is told."""


def checks(context: Context) -> list[Check]:
    """One check a vendor and key, with all models that are asked there."""
    by_key: dict[tuple[str, str], list[tuple[Portal, str, ModelChoice]]] = {}
    for portal in context.portals:
        for use in ("correction", "classification", "criteria", "summary"):
            choice: ModelChoice = getattr(portal.llm, use)
            by_key.setdefault((choice.vendor, choice.api_key_env), []).append((portal, use, choice))
    return [Check(f"LLM {vendor}", partial(examine, uses)) for (vendor, _), uses in by_key.items()]


async def examine(uses: Sequence[tuple[Portal, str, ModelChoice]]) -> Sequence[Finding]:
    """What is found about one key of a vendor, and about the models that portals ask with it."""
    what = f"LLM {uses[0][2].vendor}"
    findings = [finding for portal, use, choice in uses for finding in _reckoned(what, portal, use, choice)]
    try:
        offered = await key(uses[0][2])
    except Unwell as error:
        return [Finding(what, "fail", str(error)), *findings]
    choice = uses[0][2]
    findings.insert(0, Finding(what, "ok", f"key in {choice.api_key_env} is accepted"))
    models = {one.model: f"llm.{use} of {portal.portal}" for portal, use, one in uses}
    for model, where in models.items():
        if offered and not any(name == model or name.startswith(f"{model}-") for name in offered):
            told = f"the account has no model {model} ({where}): correct its name, or ask {choice.vendor} for it."
            findings.append(Finding(what, "fail", told))
    return findings


def _reckoned(what: str, portal: Portal, use: str, choice: ModelChoice) -> list[Finding]:
    """What prices.json says about a model, of which a night would stop or fail calls."""
    now = datetime.now(UTC)
    where = f"llm.{use} of {portal.portal}"
    try:
        price = model_price(choice.model)
        rate(choice.model, now)
    except UnknownPrice as error:
        return [Finding(what, "fail", f"{where}: {error}.")]
    found = []
    if price.provider != choice.vendor:
        found.append(("fail", f"{where}: model {choice.model} belongs to {price.provider}, not to {choice.vendor}."))
    if choice.max_output_tokens > price.caps.max_output:
        found.append(
            (
                "warn",
                f"{where}: max_output_tokens {choice.max_output_tokens} is more than {choice.model} writes "
                f"({price.caps.max_output}); the model's own limit is asked for.",
            )
        )
    if price.shutdown is not None and price.shutdown <= now.date() + SOON:
        gone = price.shutdown <= now.date()
        told = "was switched off" if gone else "will be switched off"
        found.append(
            ("fail" if gone else "warn", f"{where}: model {choice.model} {told} on {price.shutdown}: name another.")
        )
    return [Finding(what, "fail" if state == "fail" else "warn", told) for state, told in found]


async def key(choice: ModelChoice) -> set[str]:
    """The vendor's list of models (empty: it cannot be read), by which it is seen whether it takes the key. Raises Unwell.

    Raises MissingCredential and UnusableCredential before anything is sent.
    """
    from dialog_assets.llm.router import DEFAULT_BASE_URLS
    from dialog_assets.llm.vendors.http import client_options

    quiet.hush()
    secret, address = access(choice)
    base = address or DEFAULT_BASE_URLS[choice.vendor]
    anthropic = {"anthropic-version": "2026-10-21"} if choice.vendor == "anthropic" else {}
    path = "/v1/models?limit=1000" if choice.vendor == "anthropic" else "/models"
    headers = {"Authorization": f"Bearer {secret}", **anthropic}
    async with httpx2.AsyncClient(**client_options(base, timeout_s=20)) as client:
        try:
            answer = await client.get(base.rstrip("/") + path, headers=headers)
        except httpx2.HTTPError as error:
            fault = certificates.fault(error)
            if fault is not None:
                raise Unwell(f"{choice.vendor} cannot be asked: {fault}.") from None
            raise Unwell(f"{choice.vendor} does not answer ({type(error).__name__}): check the network.") from None
    if answer.status_code in (401, 403):
        raise Unwell(f"{choice.vendor} refuses the key in {choice.api_key_env} (HTTP {answer.status_code}).")
    if 300 <= answer.status_code < 400:
        raise Unwell(
            f"{choice.vendor.upper()}_BASE_URL leads elsewhere (HTTP {answer.status_code}), where no dialog is sent: correct it."
        )
    if answer.status_code == httpx2.codes.NOT_FOUND and address is not None:
        return set()  # a compatible service without a list
    if answer.status_code == httpx2.codes.TOO_MANY_REQUESTS or answer.status_code >= 500:
        raise Unwell(f"{choice.vendor} answers HTTP {answer.status_code} to the list of models: try again later.")
    if answer.status_code != httpx2.codes.OK:
        raise Unwell(
            f"{choice.vendor} answers HTTP {answer.status_code} to the list of models: check the account and the address."
        )
    return _names(answer)


def _names(answer: httpx2.Response) -> set[str]:
    try:
        body: Any = answer.json()
    except (ValueError, RecursionError):
        return set()
    rows = body.get("data") if isinstance(body, dict) else None
    named = [row.get("id") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return {name for name in named if isinstance(name, str)}
