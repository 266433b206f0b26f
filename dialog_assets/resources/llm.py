"""The LLM vendors as a Dagster resource."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import dagster as dg

from dialog_assets.portals import ModelChoice
from dialog_assets.resources.environment import required

if TYPE_CHECKING:
    from dialog_assets.llm.router import LLMRouter


class LLMResource(dg.ConfigurableResource[None]):
    """Opens a router to the vendor of one step's model; *_BASE_URL are set for another address than the vendor's."""

    timeout_s: float = 120.0

    @asynccontextmanager
    async def router(self, choice: ModelChoice) -> AsyncIterator[LLMRouter]:
        """A router for the length of one step. Raises MissingCredential."""
        # The vendors' SDKs take seconds to import.
        from dialog_assets.llm.router import LLMRouter

        key = required(choice.api_key_env, f"the API key of {choice.vendor}")
        address = os.environ.get(f"{choice.vendor.upper()}_BASE_URL")
        async with LLMRouter(
            {choice.vendor: key},
            {choice.vendor: address} if address else {},
            timeout_s=self.timeout_s,
            key_names={choice.vendor: choice.api_key_env},
        ) as router:
            yield router
