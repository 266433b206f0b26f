"""Doctor's look at the certificates that are trusted, which every other service rests on."""

from __future__ import annotations

from dialog_assets import certificates
from dialog_assets.cli.doctor.examination import Check, Context


def checks(_: Context) -> list[Check]:
    """One check for all services together."""
    return [Check("certificates", trusted)]


async def trusted() -> str:
    """Whom TLS connections trust. Raises CertificatesUnusable."""
    return f"trusted: {certificates.check()}"
