"""The LLM vendors as a Dagster resource."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import dagster as dg

from dialog_assets.hosts import is_loopback
from dialog_assets.portals import ModelChoice
from dialog_assets.resources.environment import UnusableCredential, api_key

if TYPE_CHECKING:
    from dialog_assets.llm.router import LLMRouter


PLAIN_HTTP_HOSTS = "LLM_PLAIN_HTTP_HOSTS"
"""Variable with the hosts that may be asked without TLS, separated by commas: a model in the company's own network."""


def access(choice: ModelChoice) -> tuple[str, str | None]:
    """The key of a model's vendor, and its address if it is not the vendor's own; nothing is sent.

    Raises MissingCredential, and UnusableCredential for a key or an address of a form that cannot be right.
    """
    key = api_key(choice.api_key_env, f"the API key of {choice.vendor}")
    name = f"{choice.vendor.upper()}_BASE_URL"
    address = os.environ.get(name, "").strip()
    if not address:
        return key, None
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if host is None or parts.scheme not in ("http", "https") or any(letter.isspace() for letter in address):
        raise UnusableCredential(f"{name} is no address: it begins with https:// and a host follows.")
    if parts.username is not None or parts.password is not None:
        raise UnusableCredential(f"{name} holds a user or password: put the key into {choice.api_key_env} instead.")
    allowed = {one.strip().lower() for one in os.environ.get(PLAIN_HTTP_HOSTS, "").split(",")}
    if parts.scheme == "http" and not is_loopback(host) and host.lower() not in allowed:
        raise UnusableCredential(
            f"{name} begins with http://, so that key and dialogs could be read on their way to {host}: use https://, or name "
            f"the host in {PLAIN_HTTP_HOSTS}."
        )
    return key, address


class LLMResource(dg.ConfigurableResource[None]):
    """Opens a router to the vendor of one step's model; *_BASE_URL are set for another address than the vendor's."""

    timeout_s: float = 120.0

    @asynccontextmanager
    async def router(self, choice: ModelChoice) -> AsyncIterator[LLMRouter]:
        """A router for the length of one step. Raises MissingCredential and UnusableCredential."""
        # The vendors' SDKs take seconds to import.
        from dialog_assets.llm.router import LLMRouter

        key, address = access(choice)
        async with LLMRouter(
            {choice.vendor: key},
            {choice.vendor: address} if address else {},
            timeout_s=self.timeout_s,
            key_names={choice.vendor: choice.api_key_env},
        ) as router:
            yield router
