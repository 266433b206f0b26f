"""VoiceKit as a Dagster resource."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import dagster as dg

from dialog_assets.errors import DialogAssetsError
from dialog_assets.resources.environment import api_key
from dialog_assets.speech.port import Recogniser

ENDPOINT = "api.tinkoff.ai:443"
STORAGE_URL = "https://s3.api.tinkoff.ai"
STREAMS = 50
"""Concurrent streams of an account, if VOICEKIT_STREAMS does not say otherwise (facts/voicekit.md section 3.4)."""


class BadQuota(DialogAssetsError):
    """VOICEKIT_STREAMS is not a number of streams."""


class VoiceKitResource(dg.ConfigurableResource[None]):
    """Opens the recogniser; VOICEKIT_ENDPOINT and VOICEKIT_STORAGE_URL are set for another address than the vendor's."""

    def streams(self) -> int:
        """The account's concurrent streams, which all portals and runs share: VOICEKIT_STREAMS. Raises BadQuota."""
        given = os.environ.get("VOICEKIT_STREAMS", "").strip() or str(STREAMS)
        if not given.isdecimal() or not int(given):
            raise BadQuota(
                f"VOICEKIT_STREAMS is {given!r}: it holds the number of the account's streams, such as {STREAMS}."
            )
        return int(given)

    @asynccontextmanager
    async def recogniser(self) -> AsyncIterator[Recogniser]:
        """A recogniser for the length of one step. Raises MissingCredential, UnusableCredential."""
        # grpc is wanted only where speech is recognised, and takes long to import.
        from dialog_assets.speech.voicekit import VoiceKit

        async with VoiceKit(
            endpoint=os.environ.get("VOICEKIT_ENDPOINT") or ENDPOINT,
            api_key=api_key("VOICEKIT_API_KEY", "the API key of T-Bank VoiceKit"),
            secret_key=api_key("VOICEKIT_SECRET_KEY", "the secret key of T-Bank VoiceKit"),
            storage_url=os.environ.get("VOICEKIT_STORAGE_URL") or STORAGE_URL,
        ) as voicekit:
            yield voicekit
