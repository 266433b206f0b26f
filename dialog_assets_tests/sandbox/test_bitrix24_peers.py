"""Two independent clients against the stand-in portal, fast_bitrix24 over http and b24pysdk over https (facts 10).

What one of them refuses is a suspect in the stand-in, unless the facts list it as the client's own. Skipped where the
packages are not installed: they are no dependency of the project.
"""

from __future__ import annotations

import asyncio
import importlib
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from dialog_assets.sandbox.crowd import crowd_world
from dialog_assets.sandbox.server import Sandbox

CALLS, CONTACTS = 3000, 120
STATISTIC = "voximplant.statistic.get"


@pytest.fixture(scope="module")
def portal() -> Iterator[Sandbox]:
    """A crowd over http and https in a thread of its own."""
    sandbox = Sandbox(world=crowd_world(CALLS, contacts=CONTACTS, recordings=2, days=30), bitrix_https_port=0)
    up, down = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def live() -> None:
        loops.append(asyncio.get_running_loop())
        async with sandbox:
            up.set()
            await down.wait()

    thread = threading.Thread(target=lambda: asyncio.run(live()), daemon=True)
    thread.start()
    assert up.wait(150)
    yield sandbox
    loops[0].call_soon_threadsafe(down.set)
    thread.join(60)
    assert not thread.is_alive()


@pytest.fixture
def calm(portal: Sandbox) -> Sandbox:
    """Empty buckets, books and script."""
    portal.bitrix24.reset()
    portal.books.reset()
    portal.faults.set([])
    return portal


def refused(sandbox: Sandbox) -> int:
    counts: dict[str, int] = sandbox.books.as_dict()["bitrix24"]["counts"]
    return counts.get("refused", 0)


@pytest.mark.skipif(find_spec("fast_bitrix24") is None, reason="fast_bitrix24 is not installed")
@pytest.mark.filterwarnings("ignore::UserWarning")
class TestFastBitrix24:
    """fast_bitrix24 1.8."""

    @pytest.fixture
    def client(self, calm: Sandbox) -> Any:
        """The client on the crowd's webhook."""
        fast_bitrix24 = importlib.import_module("fast_bitrix24")
        return fast_bitrix24.Bitrix(calm.environment["CROWD_WEBHOOK"], verbose=False)

    def test_get_all(self, client: Any, calm: Sandbox) -> None:
        """Calls by unordered offset, contacts and users in order: every row once, no refusal."""
        assert {row["ID"] for row in client.get_all(STATISTIC)} == {str(n) for n in range(1, CALLS + 1)}
        contacts = client.get_all("crm.contact.list", {"select": ["ID", "PHONE"]})
        assert sorted(int(row["ID"]) for row in contacts) == list(range(1, CONTACTS + 1))
        assert len(client.get_all("user.get")) == 40
        assert len(client.get_all("crm.item.list", {"entityTypeId": 3})) == CONTACTS
        assert refused(calm) == 0

    def test_get_by_id_and_batch(self, client: Any) -> None:
        """Objects by id, and a batch with a link."""
        assert set(client.get_by_ID("crm.contact.get", [1, 2, 3])) == {"1", "2", "3"}
        commands = {"me": "profile", "contact": "crm.contact.get?id=$result[me][ID]"}
        assert client.call_batch({"halt": 0, "cmd": commands})["contact"]["LAST_NAME"] == "Вымышленный-1"

    def test_recovers_from_503(self, client: Any, calm: Sandbox) -> None:
        """One refusal costs it time only."""
        calm.faults.set([{"service": "bitrix24", "kind": "503", "match": "profile", "times": 1}])
        assert client.get_all("profile")["ID"] == "1"


@pytest.mark.skipif(find_spec("b24pysdk") is None, reason="b24pysdk is not installed")
class TestB24PySdk:
    """b24pysdk 1.3."""

    @pytest.fixture
    def sdk(self, monkeypatch: pytest.MonkeyPatch, calm: Sandbox) -> Any:
        """The package, trusting the sandbox's certificate."""
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", calm.addresses["bitrix24_certificate"])
        return importlib.import_module("b24pysdk")

    @pytest.fixture
    def webhook(self, sdk: Any, calm: Sandbox) -> Any:
        """The crowd's webhook."""
        return sdk.BitrixWebhook(domain=domain(calm), webhook_token="1/crowd-secret")

    def test_call_method(self, webhook: Any) -> None:
        """Results and the time field are what it expects."""
        answer = webhook.call_method("profile")
        assert answer["result"]["ID"] == "1"
        assert {"start", "finish", "duration", "processing", "operating"} <= set(answer["time"])

    def test_lists(self, webhook: Any, calm: Sandbox) -> None:
        """The offset list and the keyset chain over links give every row once."""
        assert len({row["ID"] for row in webhook.call_list(STATISTIC)["result"]}) == CALLS
        for method, params, count in (
            ("crm.contact.list", {"select": ["ID", "NAME"]}, CONTACTS),
            ("crm.item.list", {"entityTypeId": 3}, CONTACTS),
            ("user.get", {}, 40),
        ):
            listed = webhook.call_list(method, params)["result"]
            fast = list(webhook.call_list_fast(method, params)["result"])
            assert len(listed) == len(fast) == count, method
        assert refused(calm) == 0

    def test_batch_and_typed_errors(self, sdk: Any, webhook: Any) -> None:
        """Sub-errors stay with their command; errors become the exceptions of their code."""
        errors = importlib.import_module("b24pysdk.errors")
        commands = {"me": ("profile", {}), "none": ("crm.deal.get", {"id": 99_999})}
        result = webhook.call_batch(commands)["result"]
        assert result["result"]["me"]["ID"] == "1"
        assert result["result_error"]["none"]["error_description"] == "Not found"
        with pytest.raises(errors.BitrixAPINotFound):
            webhook.call_method("no.such.method")
        with pytest.raises(errors.BitrixAPIInvalidArgValue):
            webhook.call_method("crm.item.list", {"entityTypeId": 3, "filter": {"noSuch": 1}})

    def test_application_and_file(self, sdk: Any, calm: Sandbox) -> None:
        """An application's token works, and its file requester gets a recording through the URL of an application."""
        requesters = importlib.import_module("b24pysdk.api.requesters")
        token = sdk.BitrixToken(
            domain=domain(calm),
            auth_token=calm.environment["CROWD_ACCESS_TOKEN"],
            bitrix_app=sdk.BitrixApp(
                client_id=calm.environment["CROWD_CLIENT_ID"],
                client_secret=calm.environment["CROWD_CLIENT_SECRET"],
            ),
        )
        file = token.call_method("disk.file.get", {"id": 1_000_001})["result"]
        assert "/rest/download.json?auth=" in file["DOWNLOAD_URL"]
        got = requesters.BitrixFileRequester(file["DOWNLOAD_URL"]).call()
        assert len(got["content"]) == int(file["SIZE"])
        assert got["name"] == file["NAME"]


def domain(sandbox: Sandbox) -> str:
    """Host and port of the https portal."""
    return sandbox.addresses["bitrix24_https"].partition("://")[2]
