"""VoiceKit as a Dagster resource."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import dagster as dg

from dialog_assets.errors import DialogAssetsError
from dialog_assets.hosts import is_loopback
from dialog_assets.resources.environment import api_key
from dialog_assets.speech.port import Recogniser

ENDPOINT = "api.tinkoff.ai:443"
STORAGE_URL = "https://s3.api.tinkoff.ai"
STREAMS = 50
"""Concurrent streams of an account, if VOICEKIT_STREAMS does not say otherwise (facts/voicekit.md section 3.4)."""


PLAIN_HOSTS = "VOICEKIT_PLAIN_HOSTS"


class PlainAddress(DialogAssetsError):
    """An address of VoiceKit or its storage that is not encrypted, at another machine."""


class BadQuota(DialogAssetsError):
    """VOICEKIT_STREAMS is not a number of streams."""


def addresses() -> tuple[str, str]:
    """VoiceKit's address and that of its storage: the vendor's, or those of the environment.

    Raises PlainAddress for one over which voices would cross a network for all to hear, unless its host is allowed by name.
    """
    endpoint = os.environ.get("VOICEKIT_ENDPOINT", "").strip() or ENDPOINT
    storage_url = os.environ.get("VOICEKIT_STORAGE_URL", "").strip() or STORAGE_URL
    plain = {}
    if not endpoint.endswith("443"):
        plain["VOICEKIT_ENDPOINT"] = endpoint.rpartition(":")[0].strip("[]")
    if storage_url.lower().startswith("http://"):
        plain["VOICEKIT_STORAGE_URL"] = urlsplit(storage_url).hostname or ""
    allowed = {one.strip().lower() for one in os.environ.get(PLAIN_HOSTS, "").split(",")}
    for variable, host in plain.items():
        if host and not is_loopback(host) and host.lower() not in allowed:
            raise PlainAddress(
                f"{variable} is an address without TLS, so that voices and the key could be had on their way to {host}: use "
                f"one with TLS (VoiceKit's port ends in 443), or name the host in {PLAIN_HOSTS}."
            )
    return endpoint, storage_url


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

        endpoint, storage_url = addresses()
        async with VoiceKit(
            endpoint=endpoint,
            api_key=api_key("VOICEKIT_API_KEY", "the API key of T-Bank VoiceKit"),
            secret_key=api_key("VOICEKIT_SECRET_KEY", "the secret key of T-Bank VoiceKit"),
            storage_url=storage_url,
        ) as voicekit:
            yield voicekit
