"""Hosts in every spelling; a portal's links in every form that portals, proxies and administrators give them."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable

import httpx2
import pytest

from dialog_assets.assets.outcomes import outcome_of
from dialog_assets.bitrix24.client import Bitrix24Client
from dialog_assets.bitrix24.errors import Bitrix24AccessError, RecordingUnavailableError
from dialog_assets.bitrix24.oauth import _base
from dialog_assets.bitrix24.outside import OutsideHosts, is_public
from dialog_assets.bitrix24.own_links import ForeignLinkError, own_link
from dialog_assets.bitrix24.recordings import Recordings, Wanted
from dialog_assets.bitrix24.webhook import Webhook
from dialog_assets.hosts import host_of, origin_of
from dialog_assets_tests.bitrix24.small_portal import SECRET, Freely, Naps, by_method

PATH = f"/rest/7/{SECRET}/download/?token=disk%7CaWQ9"
AUDIO = b"ID3\x04" + bytes(5000)


@pytest.mark.parametrize(
    ("spelling", "host"),
    [
        ("Portal.Example", "portal.example"),
        ("portal.example.", "portal.example"),
        ("портал.рф", host_of("ПОРТАЛ.РФ")),
        ("Портал.РФ.", host_of("портал.рф")),
        (host_of("портал.рф").upper(), host_of("портал.рф")),
        ("портал。рф", host_of("портал.рф")),
        ("in_house.local", "in_house.local"),
        ("[2001:DB8::1]", "2001:db8::1"),
    ],
)
def test_one_host_has_one_spelling(spelling: str, host: str) -> None:
    """Case, a trailing dot, IDNA and full-width dots make no other host; and the form is the one that is sent."""
    assert host_of(spelling) == host
    assert host.isascii()


HOME = "https://portal.example:8443"


@pytest.mark.parametrize(
    "link",
    [
        f"{HOME}{PATH}",
        f"http://portal.example{PATH}",
        f"http://portal.example:80{PATH}",
        f"https://portal.example:443{PATH}",
        f"http://portal.example:8080{PATH}",
        f"https://www.portal.example{PATH}",
        f"HTTPS://PORTAL.EXAMPLE{PATH}",
        f"https://portal.example.{PATH}",
        f"//portal.example{PATH}",
        PATH,
        PATH.removeprefix("/"),
        f"  {HOME}{PATH}\n",
        f"http://bitrix-inner:8893{PATH}",
        f"http://10.0.0.5{PATH}",
        f"{HOME}{PATH}#part",
    ],
)
def test_a_link_of_the_portal_is_brought_home(link: str) -> None:
    """Whatever scheme, port and known name it has, it is fetched at the portal's own address."""
    assert own_link(link, HOME, ["bitrix-inner", "10.0.0.5"]) == f"{HOME}{PATH}"


@pytest.mark.parametrize(
    ("link", "host"),
    [
        (f"https://other.example{PATH}", "other.example"),
        (f"https://portal.example.evil.example{PATH}", "portal.example.evil.example"),
        (f"https://evilportal.example{PATH}", "evilportal.example"),
        (f"//other.example{PATH}", "other.example"),
        (f"http://10.0.0.5{PATH}", "10.0.0.5"),
        (f"http://localhost{PATH}", "localhost"),
        (f"http://[::1]{PATH}", "::1"),
        (f"https://портал.рф{PATH}", host_of("портал.рф")),
    ],
)
def test_a_link_elsewhere_is_told_by_its_host(link: str, host: str) -> None:
    """Another host is not asked."""
    with pytest.raises(ForeignLinkError) as told:
        own_link(link, HOME)
    assert told.value.host == host


@pytest.mark.parametrize(
    "link",
    [f"https://user:pw@portal.example{PATH}", f"https://other.example@portal.example{PATH}", f"ftp://portal.example{PATH}",
     "", "file:///etc/passwd", "https://portal.example:99999/x", "https://portal.example\\@evil.example/x",
     "https://portal.exa mple/x", "javascript:alert(1)", "https://[torn/x"],
)  # fmt: skip
def test_what_is_no_link(link: str) -> None:
    """User names, other schemes, backslashes, blanks and torn addresses are refused before anything is sent."""
    with pytest.raises(ValueError, match=r"\w"):
        own_link(link, HOME)


def fetched(
    base: str, link: str, *, link_hosts: tuple[str, ...] = ()
) -> tuple[bytes | RecordingUnavailableError, list[httpx2.Request]]:
    """One recording of a portal at `base` whose Disk gives `link`, and the downloads that were asked for."""
    downloads: list[httpx2.Request] = []
    batch = by_method({"disk.file.get": lambda _: {"ID": 9, "SIZE": len(AUDIO), "DOWNLOAD_URL": link, "NAME": "a"}})

    def portal(request: httpx2.Request) -> httpx2.Response:
        if request.method == "POST":
            return batch(request)
        downloads.append(request)
        return httpx2.Response(200, content=AUDIO, headers={"content-type": "audio/mpeg"})

    async def go() -> bytes:
        transport = httpx2.MockTransport(portal)
        async with Bitrix24Client(
            f"{base}/rest/7/{SECRET}/", pacer=Freely(), sleep=Naps(), transport=transport, link_hosts=link_hosts
        ) as client:
            recordings, wanted, target = Recordings(client), Wanted(1, 9), io.BytesIO()
            found = await recordings.locate([wanted])
            await recordings.fetch(wanted, found[1], target)
            return target.getvalue()

    try:
        return asyncio.run(go()), downloads
    except RecordingUnavailableError as error:
        return error, downloads


@pytest.mark.parametrize(
    ("base", "link"),
    [
        ("https://portal.example", f"http://portal.example{PATH}"),
        ("https://портал.рф", f"https://{host_of('портал.рф')}{PATH}"),
        (f"https://{host_of('портал.рф')}", f"http://портал.рф:80{PATH}"),
        ("https://portal.example", PATH),
    ],
)
def test_a_recording_comes_over_the_portals_own_address(base: str, link: str) -> None:
    """One download, at the origin of the webhook."""
    content, downloads = fetched(base, link)
    assert content == AUDIO
    assert [origin_of(str(one.url)) for one in downloads] == [origin_of(base)]


def test_a_portal_that_believes_to_be_another_host() -> None:
    """Nothing is sent; the sentence names the host and both ways to mend it; the next run tries again; the setting mends it."""
    link = f"http://bitrix-inner:8893{PATH}"
    error, downloads = fetched("https://portal.example", link)
    assert isinstance(error, RecordingUnavailableError)
    assert downloads == []
    assert "bitrix-inner" in str(error) and "link_hosts" in str(error) and SECRET not in str(error)
    outcome = outcome_of(error)
    assert (outcome.reason, outcome.next_try is not None, outcome.outage) == ("recording_elsewhere", True, False)
    content, downloads = fetched("https://portal.example", link, link_hosts=("bitrix-inner",))
    assert content == AUDIO
    assert [one.url.host for one in downloads] == ["portal.example"]


@pytest.mark.parametrize(
    "address",
    ["::127.0.0.1", "::7f00:1", "fec0::1", "feff::1", "64:ff9b:1::7f00:1", "64:ff9b:1:ffff::1", "::ffff:0:127.0.0.1",
     "2001:db8::1", "100::1", "3fff::1", "2002:a00:1::", "::ffff:10.0.0.1", "2606:2800::5efe:7f00:1", "64:ff9b::a00:1"],
)  # fmt: skip
def test_addresses_that_stand_for_private_ones(address: str) -> None:
    """Old and local forms are as private as what they stand for."""
    assert not is_public(address)


@pytest.mark.parametrize(
    ("endpoint", "good"),
    [
        ("https://new.example/rest/", True),
        ("https://портал.рф/rest/", True),
        ("https://portal.example/rest/", True),
        ("http://portal.example/rest/", False),
        ("http://new.example/rest/", False),
        ("https://127.0.0.1/rest/", False),
        ("https://[::1]/rest/", False),
        ("https://10.0.0.1/rest/", False),
        ("https://2130706433/rest/", False),
        ("https://0x7f000001/rest/", False),
        ("https://127.1/rest/", False),
        ("https://localhost/rest/", False),
        ("https://a@new.example/rest/", False),
        ("https://new.example\\@evil.example/rest/", False),
        ("ftp://new.example/rest/", False),
        ("https://new.example/rest/?x=1", False),
        (["https://new.example/rest/"], False),
        (None, False),
    ],
)
def test_where_the_token_endpoint_may_lead(endpoint: object, *, good: bool) -> None:
    """A name, over https; an address or this machine only from this machine."""
    found = _base(endpoint, "https://portal.example/rest/", "https://oauth.bitrix24.tech/oauth/token/")
    assert (found is not None) is good
    here = _base("http://127.0.0.1:9000/rest/", "https://portal.example/rest/", "http://127.0.0.1:9000/oauth/token/")
    assert here == "http://127.0.0.1:9000/rest/"


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://portal.example/rest/7/s3cr3t/", False),
        ("http://10.0.0.5/rest/7/s3cr3t/", False),
        ("HTTP://Portal.Example:80/rest/7/s3cr3t/", False),
        ("http://127.0.0.1:9000/rest/7/s3cr3t/", True),
        ("http://localhost/rest/7/s3cr3t/", True),
        ("http://[::1]:9000/rest/7/s3cr3t/", True),
        ("https://portal.example/rest/7/s3cr3t/", True),
    ],
)
def test_a_webhook_in_the_clear_must_be_allowed(url: str, *, allowed: bool) -> None:
    """Its secret would cross the network for all to read; the sentence holds the host, not the secret."""
    assert Webhook(url, plain_http=True).origin
    make: Callable[[], Webhook] = lambda: Webhook(url)  # noqa: E731
    if allowed:
        assert make().origin
        return
    with pytest.raises(Bitrix24AccessError, match="plain_http") as told:
        make()
    assert "s3cr3t" not in str(told.value)


def test_recording_hosts_are_known_by_both_spellings() -> None:
    """A name with national letters, its punycode, another case, a trailing dot, the default port."""
    hosts = OutsideHosts(["записи.рф", "pbx.example:8443", "Three.example:443"])
    for url in (
        "https://записи.рф/1.mp3",
        f"https://{host_of('записи.рф')}/1.mp3",
        "https://ЗАПИСИ.РФ.:443/1.mp3",
        "https://PBX.example:8443/1.mp3",
        "https://three.example/1.mp3",
    ):
        assert hosts.names(url), url
    assert not hosts.names("https://pbx.example/1.mp3")
