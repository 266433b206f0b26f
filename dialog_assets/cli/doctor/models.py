"""Doctor's look at the LLM vendors that the portals' models name."""

from __future__ import annotations

import os
from functools import partial

import httpx2

from dialog_assets import certificates
from dialog_assets.cli.doctor.examination import Check, Context, Unwell
from dialog_assets.portals import ModelChoice
from dialog_assets.resources.environment import required


def checks(context: Context) -> list[Check]:
    """One check a vendor and key."""
    choices = {
        (choice.vendor, choice.api_key_env): choice
        for portal in context.portals
        for choice in (portal.llm.correction, portal.llm.classification, portal.llm.criteria, portal.llm.summary)
    }
    return [Check(f"LLM {choice.vendor}", partial(key, choice)) for choice in choices.values()]


async def key(choice: ModelChoice) -> str:
    """Whether the vendor takes the key: it is asked for its list of models, which is free. Raises Unwell."""
    from dialog_assets.llm.router import DEFAULT_BASE_URLS

    secret = required(choice.api_key_env, f"the API key of {choice.vendor}")
    base = os.environ.get(f"{choice.vendor.upper()}_BASE_URL") or DEFAULT_BASE_URLS[choice.vendor]
    anthropic = {"anthropic-version": "2026-10-21"} if choice.vendor == "anthropic" else {}
    path = "/v1/models" if choice.vendor == "anthropic" else "/models"
    async with httpx2.AsyncClient(timeout=20, verify=certificates.context()) as client:
        try:
            answer = await client.get(
                base.rstrip("/") + path, headers={"Authorization": f"Bearer {secret}", **anthropic}
            )
        except httpx2.HTTPError as error:
            fault = certificates.fault(error)
            if fault is not None:
                raise Unwell(f"{choice.vendor} cannot be asked: {fault}.") from None
            raise Unwell(f"{choice.vendor} does not answer ({type(error).__name__}): check the network.") from None
    if answer.status_code in (401, 403):
        raise Unwell(f"{choice.vendor} refuses the key in {choice.api_key_env} (HTTP {answer.status_code}).")
    if answer.status_code != httpx2.codes.OK:
        raise Unwell(f"{choice.vendor} answers HTTP {answer.status_code} to the list of models: try again later.")
    return f"key in {choice.api_key_env} is accepted"
