"""Operating time of the stand-in portal: counters, blocks, both ways to bill a batch."""

from __future__ import annotations

from typing import Any

from dialog_assets.sandbox.bitrix24_habits import Habits
from dialog_assets.sandbox.bitrix24_operating import Operating

from .bitrix24_portal import make_portal, make_site

KEY = ("webhook 1", "user.get")
QUICK = {"operating_limit": 0.05, "operating_small": 0.001, "operating_window": 30}


def told(body: dict[str, Any]) -> float:
    operating: float = body["time"]["operating"]
    return operating


def test_ten_buckets() -> None:
    """Short calls are not counted; a bucket's part leaves a window after its first call; the crossing call finishes."""
    now = [1000.0]
    counter = Operating(lambda: Habits(operating_limit=10), lambda: now[0])
    counter.add(KEY, 0.1)
    assert counter.level(KEY).operating == 0
    counter.add(KEY, 4)
    now[0] = 1015.0
    counter.add(KEY, 5)
    assert counter.level(KEY).reset_at == 1600.0
    assert not counter.blocked(KEY)
    now[0] = 1100.0
    counter.add(KEY, 6)
    assert counter.blocked(KEY)
    assert not counter.blocked(("webhook 1", "crm.deal.list"))
    assert not counter.blocked(("app x", "user.get"))
    now[0] = 1600.0
    assert (counter.level(KEY).operating, counter.level(KEY).reset_at) == (6, 1700.0)
    now[0] = 1700.0
    assert counter.level(KEY).operating == 0


def test_blocked_method() -> None:
    """A method over its limit gives 429, alone and in a batch; other methods and other credentials go on."""
    site = make_site(make_portal(), latency_ms=30)
    site.server.set_habits(QUICK)
    assert 0.03 <= told(site.ask("user.get").json()) < 10, "seconds"
    while site.ask("user.get").status_code == 200:
        pass
    refused = site.ask("user.get")
    assert (refused.status_code, refused.json()["error"]) == (429, "OPERATION_TIME_LIMIT")
    assert "time" not in refused.json()
    answer = site.batch({"a": "user.get", "b": "scope"})
    assert answer["result_error"]["a"]["error"] == "OPERATION_TIME_LIMIT"
    assert set(answer["result"]) == set(answer["result_time"]) == {"b"}
    assert site.ask_app("user.get").status_code == 200
    assert site.counts()["blocked"] >= 3


def test_batch_billing() -> None:
    """By default the commands' methods are billed; by the switch `batch` is, its commands all tell the same."""
    site = make_site(make_portal(), latency_ms=20)
    site.server.set_habits({"operating_small": 0.001})
    body = site.ask("batch", {"cmd": {"a": "user.get", "b": "user.get"}}).json()
    assert told(body) == 0
    times = body["result"]["result_time"]
    assert times["b"]["operating"] > times["a"]["operating"] > 0
    site.server.reset()
    site.server.set_habits({**QUICK, "billing": "batch"})
    body = site.ask("batch", {"cmd": {"a": "user.get", "b": "scope", "c": "user.get"}}).json()
    assert told(body) >= 0.05
    times = body["result"]["result_time"]
    assert times["a"] == times["b"] == times["c"]
    assert times["a"]["operating"] == 0
    assert site.ask("batch", {"cmd": ["scope"]}).status_code == 429
    assert site.ask("user.get").status_code == 200


def test_faults_429_and_operating() -> None:
    """429 blocks a method at once; "operating" lets the call finish, tells the reset, then blocks; both end in time."""
    site = make_site(make_portal())
    now, state = [1000.0], site.server.portals["demo"]
    state.operating = Operating(lambda: state.habits, lambda: now[0])
    site.faults.set([{"service": "bitrix24", "kind": "429", "match": "user.get", "times": 1, "value": 1.0}])
    assert [site.ask("user.get").status_code for _ in range(2)] == [429, 429]
    assert site.ask("scope").status_code == 200
    now[0] += 1.05
    assert site.ask("user.get").status_code == 200
    site.faults.set([{"service": "bitrix24", "kind": "operating", "match": "user.get", "times": 1, "value": 60}])
    crossing = site.ask("user.get").json()["time"]
    assert crossing["operating"] >= 480
    assert crossing["operating_reset_at"] == int(now[0] + 60)
    assert site.ask("user.get").status_code == 429
    now[0] += 60
    assert site.ask("user.get").status_code == 200


def test_limiter_off() -> None:
    """A self-hosted portal has no operating fields and blocks nothing."""
    site = make_site(make_portal(), latency_ms=10)
    site.server.set_habits({**QUICK, "operating_limit": 0, "limiter": False})
    assert "operating" not in site.ask("user.get").json()["time"]
    assert site.ask("user.get").status_code == 200
