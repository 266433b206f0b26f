"""Doctor's look at what every connection rests on: the certificates that are trusted, and the proxies on the way."""

from __future__ import annotations

from dialog_assets import certificates, proxies
from dialog_assets.cli.doctor.examination import Check, Context, Finding


def checks(_: Context) -> list[Check]:
    """One check each for all services together."""
    return [Check("certificates", trusted), Check("proxies", on_the_way)]


async def trusted() -> str:
    """Whom TLS connections trust. Raises CertificatesUnusable."""
    return f"trusted: {certificates.check()}"


async def on_the_way() -> list[Finding]:
    """Which proxies are followed, and what would wrongly go through them. Raises ProxyUnusable."""
    found = [Finding("proxies", "ok", proxies.check())]
    caught = proxies.caught()
    if caught:
        found.append(
            Finding(
                "proxies",
                "warn",
                f"{', '.join(caught)} is on this machine and would be asked for through the proxy: add its host to NO_PROXY.",
            )
        )
    return found
