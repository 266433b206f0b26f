"""Transport of the stand-in portal: paths, bodies, envelope, refusals, bucket, costs."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog_assets.sandbox.bitrix24_bucket import Bucket
from dialog_assets.sandbox.bitrix24_php import as_map, parse_query, shape, to_int

from .bitrix24_portal import STATISTIC, command, make_calls, make_portal, make_site


@pytest.mark.parametrize("path", ["user.get", "user.get.json", "USER.Get", "User.GET.json", "user.get/"])
@pytest.mark.parametrize("verb", ["GET", "POST"])
def test_method_spelling(path: str, verb: str) -> None:
    """A method is found in any case, with and without .json, by GET and by POST."""
    response = make_site(make_portal()).send(verb, f"/rest/1/s3cret/{path}")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert [row["ID"] for row in response.json()["result"]] == ["10", "11"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"json": {"FILTER": {">ID": 3, "<=ID": "5"}, "SORT": "ID", "ORDER": "DESC"}},
        {"data": {"FILTER[>ID]": "3", "FILTER[<=ID]": "5", "SORT": "ID", "ORDER": "DESC"}},
        {"params": {"FILTER[>ID]": "3", "FILTER[<=ID]": "5", "SORT": "ID", "ORDER": "DESC"}},
    ],
    ids=["json", "form", "query"],
)
def test_parameters_in_three_forms(arguments: dict[str, Any]) -> None:
    """JSON, a form with PHP brackets and a query string mean the same."""
    response = make_site(make_portal(make_calls(9))).send("POST", f"/rest/1/s3cret/{STATISTIC}", **arguments)
    assert [row["ID"] for row in response.json()["result"]] == ["5", "4"]


def test_json_body_wins_over_query() -> None:
    """A parameter of the JSON body replaces the query's."""
    site = make_site(make_portal(make_calls(9)))
    response = site.send("POST", f"/rest/1/s3cret/{STATISTIC}?FILTER[ID]=1", json={"FILTER": {"ID": 2}})
    assert [row["ID"] for row in response.json()["result"]] == ["2"]


def test_broken_json_has_no_parameters() -> None:
    """A JSON body that cannot be read is a call without parameters, not an error."""
    site = make_site(make_portal(make_calls(9)))
    response = site.send(
        "POST",
        f"/rest/1/s3cret/{STATISTIC}",
        content=b'{"FILTER": {"ID": 2}',
        headers={"Content-Type": "application/json"},
    )
    assert response.json()["total"] == 9


def test_envelope() -> None:
    """An answer carries `time` with the portal server's offset, and slashes are escaped as PHP does."""
    response = make_site(make_portal(make_calls(1))).ask(STATISTIC)
    times = response.json()["time"]
    assert isinstance(times["start"], int)
    assert times["finish"] >= times["start"]
    assert str(datetime.fromisoformat(times["date_start"]).utcoffset()) == "5:00:00"
    portal = make_portal(users={1: {"ID": "1", "ACTIVE": True, "NAME": "a/b"}})
    assert rb'"a\/b"' in make_site(portal).ask("user.get").content


def test_refusals() -> None:
    """Wrong secret, no credential, unknown method, missing scope: each with its code and status, without `time`."""
    site = make_site(make_portal())
    site.server.portals["demo"].scopes.remove("crm")
    answers = [
        (site.ask("user.get", secret="wrong"), 401, "INVALID_CREDENTIALS"),
        (site.send("POST", "/rest/user.get.json"), 401, "NO_AUTH_FOUND"),
        (site.ask("user.gett"), 404, "ERROR_METHOD_NOT_FOUND"),
        (site.ask("crm.deal.list"), 403, "insufficient_scope"),
    ]
    for response, status, error in answers:
        assert (response.status_code, response.json()["error"]) == (status, error)
        assert "time" not in response.json()
        assert "s3cret" not in response.text
    assert site.counts()["unauthorised"] == 2


def test_portals_are_told_apart_by_webhook() -> None:
    """User and secret together name the portal; one portal's secret opens no other."""
    other = make_portal(portal="other", webhook_user=7, webhook_secret="0ther", users={})
    site = make_site(make_portal(), other)
    assert len(site.ask("user.get").json()["result"]) == 2
    assert site.send("POST", "/rest/7/0ther/user.get").json()["result"] == []
    assert site.send("POST", "/rest/7/s3cret/user.get").status_code == 401


def test_bucket_refuses_on_arrival() -> None:
    """Request number X+1 gets 503; downloads and refused requests fill the bucket too; other portals have their own."""
    other = make_portal(portal="other", webhook_user=7, webhook_secret="0ther")
    site = make_site(make_portal(), other, bucket_size=3, drain_per_second=0.001)
    assert [site.ask("profile").status_code for _ in range(2)] == [200, 200]
    site.send("GET", "/rest/1/s3cret/download/?token=x")
    refused = site.ask("profile")
    assert (refused.status_code, refused.json()["error"]) == (503, "QUERY_LIMIT_EXCEEDED")
    assert site.send("POST", "/rest/7/0ther/profile").status_code == 200
    assert site.counts()["refused"] == 1
    assert site.counts()["requests"] == 5


def test_bucket_drains() -> None:
    """The level falls by Y a second, and a refused arrival postpones the next one that fits."""
    now = [0.0]
    bucket = Bucket(3, 2.0, lambda: now[0])
    assert [bucket.admit() for _ in range(5)] == [True, True, True, False, False]
    now[0] = 1.0
    assert not bucket.admit()
    now[0] = 2.0
    assert bucket.admit()


def test_batch_is_one_request_of_the_bucket() -> None:
    """Fifty commands in a batch fill the bucket by one."""
    site = make_site(make_portal(), bucket_size=1, drain_per_second=0.001)
    assert len(site.batch({f"k{n}": "profile" for n in range(50)})["result"]) == 50
    assert site.ask("profile").status_code == 503
    assert site.counts()["commands"] == 50
    assert site.books.as_dict()["bitrix24"]["items"]["method"] == {"batch": 1, "profile": 50}


def test_costs() -> None:
    """Every command costs the latency; counting and offset depth cost more; start=-1 is spared both."""
    site = make_site(make_portal(make_calls(60)), latency_ms=5)
    site.server.count_ms_per_1000 = 1000
    site.server.offset_ms_per_1000 = 1000

    def seconds(commands: list[str]) -> float:
        started = time.perf_counter()
        site.batch(commands)
        return time.perf_counter() - started

    assert seconds([command(STATISTIC, start=-1)] * 4) >= 0.02
    assert seconds([command(STATISTIC, start=0)]) >= 0.065
    assert seconds([command(STATISTIC, start=50)]) >= 0.115


def test_php_brackets() -> None:
    """Bracket names become nested arrays; `[]` appends; 0..n-1 is a list, other keys a map."""
    assert parse_query("a%5Bb%5D%5B0%5D=c&a[b][]=d&x=1&x=2&e.f=&g[5]=h&i[j]") == {
        "a": {"b": ["c", "d"]},
        "x": "2",
        "e_f": "",
        "g": {"5": "h"},
        "i": {"j": ""},
    }
    assert parse_query("a[>=b]=1") == {"a_>": "b]=1"}
    assert shape({"a": {}, "b": {"0": {"0": 1}, "1": 2}}) == {"a": [], "b": [[1], 2]}
    assert [to_int(value) for value in ("12abc", "x", "-1", None, True, [5], [], 7.9)] == [12, 0, -1, 0, 1, 1, 0, 7]


@given(st.dictionaries(st.text("abcAB", min_size=1, max_size=4), st.lists(st.text(max_size=5), min_size=1, max_size=4)))
def test_php_brackets_round_trip(tree: dict[str, list[str]]) -> None:
    """Whatever a client writes in brackets is read back, also values with brackets, signs and Cyrillic."""
    text = urlencode(
        [(f"p[{key}][{index}]", value) for key, values in tree.items() for index, value in enumerate(values)]
    )
    assert as_map(parse_query(text).get("p")) == tree
