"""batch of the stand-in portal: order, limits, links, errors by command."""

from __future__ import annotations

from .bitrix24_portal import STATISTIC, command, make_calls, make_portal, make_site

KEYSET = {"SORT": "ID", "ORDER": "ASC", "start": -1}


def test_sections_and_shapes() -> None:
    """Sections are maps by key, `[]` when empty, lists when the keys are 0..n-1."""
    site = make_site(make_portal(make_calls(60)))
    named = site.batch({"who": "profile", "calls": command(STATISTIC)})
    assert set(named["result"]) == set(named["result_time"]) == {"who", "calls"}
    assert named["result_error"] == []
    assert named["result_total"] == {"calls": 60}
    assert named["result_next"] == {"calls": 50}
    listed = site.batch(["user.get", "USER.GET.json?FILTER[ID]=11"])
    assert [len(rows) for rows in listed["result"]] == [2, 1]
    assert listed["result_total"] == [2, 1]
    partly = site.batch({"0": "user.get", "1": "no.such", "2": "user.get"})
    assert set(partly["result"]) == {"0", "2"}
    assert set(partly["result_error"]) == {"1"}
    assert site.batch([]) == {name: [] for name in named}


def test_urlencoded_batch() -> None:
    """A batch can come as a form, its commands encoded twice."""
    site = make_site(make_portal(make_calls(5)))
    response = site.send("POST", "/rest/1/s3cret/batch", data={"cmd[a]": command(STATISTIC, **{"FILTER[>ID]": 3})})
    assert response.json()["result"]["result_total"] == {"a": 2}


def test_rows_keep_their_shape_inside_a_batch() -> None:
    """Only the sections are PHP maps: an empty object inside a row stays one."""
    site = make_site(make_portal())
    assert site.batch(["user.get"])["result"][0][0]["TIMESTAMP_X"] == {}


def test_length_limit() -> None:
    """The first 50 commands run, each further one has its own error."""
    answer = make_site(make_portal()).batch({f"k{n}": "profile" for n in range(53)})
    assert list(answer["result"]) == [f"k{n}" for n in range(50)]
    assert {key: error["error"] for key, error in answer["result_error"].items()} == dict.fromkeys(
        ["k50", "k51", "k52"], "ERROR_BATCH_LENGTH_EXCEEDED"
    )


def test_errors_stay_with_their_command() -> None:
    """Unknown methods, missing scopes, bad ids and forbidden methods fail alone; the status stays 200."""
    site = make_site(make_portal())
    site.server.portals["demo"].scopes.remove("disk")
    answer = site.batch(
        {
            "a": "no.such",
            "b": "disk.file.get?id=1",
            "c": "crm.deal.get?id=77",
            "d": "batch?cmd[x]=profile",
            "e": "download?token=x",
            "f": "Upload",
            "ok": "crm.deal.get?id=1",
        }
    )
    errors = {key: error["error"] for key, error in answer["result_error"].items()}
    banned = "ERROR_BATCH_METHOD_NOT_ALLOWED"
    assert errors == {
        "a": "ERROR_METHOD_NOT_FOUND",
        "b": "insufficient_scope",
        "c": "",
        "d": banned,
        "e": banned,
        "f": banned,
    }
    assert answer["result"]["ok"]["TITLE"] == "Окна на дачу"


def test_halt() -> None:
    """With halt on, later keys are in neither section; "false" counts as on, "0" and false as off."""
    site = make_site(make_portal())
    commands = {"a": "profile", "b": "no.such", "c": "profile"}
    for halt in (1, "1", True, "false", "N"):
        answer = site.batch(commands, halt)
        assert (set(answer["result"]), set(answer["result_error"])) == ({"a"}, {"b"})
    for off in (0, "0", "", False, None):
        assert set(site.batch(commands, off)["result"]) == {"a", "c"}


def test_keyset_chain_over_links() -> None:
    """A chain of linked commands reads page after page; behind the short page the link no longer is an id."""
    site = make_site(make_portal(make_calls(130)))
    commands = {"p0": command(STATISTIC, **KEYSET)}
    for number in range(1, 4):
        last = f"$result[p{number - 1}][49][ID]"
        commands[f"p{number}"] = command(STATISTIC, **{"FILTER[>ID]": last}, **KEYSET)
    pages = [[int(row["ID"]) for row in page] for page in site.batch(commands)["result"].values()]
    assert pages[0] + pages[1] + pages[2] == list(range(1, 131))
    assert pages[3] == list(range(2, 52)), "an unresolved link is the array of rows, which casts to 1"


def test_links_inside_text_and_whole() -> None:
    """A whole value may become an array; inside text only scalars are put in; $total and $error exist too."""
    site = make_site(make_portal(make_calls(12)))
    answer = site.batch(
        {
            "deal": "crm.deal.list?order[ID]=ASC",
            "user": "user.get?FILTER[ID]=11",
            "whole": "crm.contact.list?filter[@ID]=$result[deal][0][CONTACT_ID]&select[]=ID",
            "text": "user.get?FILTER[NAME]=Ол$result[none]ег",
            "inner": f"{STATISTIC}?FILTER[>%3DID]=1$result[deal][1][ID]",
            "array": "crm.contact.list?filter[@ID]=$result[user][0][UF_DEPARTMENT]&select[]=ID",
            "total": f"{STATISTIC}?FILTER[ID]=$total[deal]",
        }
    )
    assert answer["result"]["whole"] == [{"ID": "5"}]
    assert answer["result"]["text"] == []
    assert [row["ID"] for row in answer["result"]["inner"]] == ["12"]
    assert answer["result"]["array"] == [{"ID": "1"}]
    assert [row["ID"] for row in answer["result"]["total"]] == ["2"]


def test_partial_failure_by_script() -> None:
    """A fault can fail one command of a batch and leave the others alone."""
    site = make_site(make_portal())
    rule = {"kind": "command_error", "match": "user.get", "after": 1, "times": 1, "value": "INTERNAL_SERVER_ERROR"}
    site.faults.set([{"service": "bitrix24", **rule}])
    answer = site.batch({"a": "user.get", "b": "user.get", "c": "user.get"})
    assert set(answer["result"]) == {"a", "c"}
    assert answer["result_error"]["b"]["error"] == "INTERNAL_SERVER_ERROR"
