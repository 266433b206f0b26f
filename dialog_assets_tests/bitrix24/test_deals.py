"""Deals by their owners: every one, whose it is, and in few requests."""

from __future__ import annotations

import asyncio
import random
import re
from collections import defaultdict
from collections.abc import Collection
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialog_assets.bitrix24.errors import Bitrix24DataError, RowError
from dialog_assets.bitrix24.paging import php_params
from dialog_assets.bitrix24.reading import Deals, crm
from dialog_assets.bitrix24.wire import id_of
from dialog_assets_tests.bitrix24.small_portal import asked, by_id, by_owner, client_of, good


class Crm:
    """crm.*.list and crm.item.list over deals with their contacts (the first one is the row's), links included."""

    def __init__(
        self,
        contacts: dict[int, list[int]],
        *,
        links: bool = True,
        shows_all: bool = True,
        nameless: Collection[int] = (),
    ) -> None:
        self.deals = contacts
        self.nameless = nameless
        self.of_contact: dict[int, list[int]] = defaultdict(list)
        for deal, some in contacts.items():
            for contact in some:
                self.of_contact[contact].append(deal)
        self.links, self.shows_all = links, shows_all
        self.requests = 0

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        """Answer."""
        self.requests += 1
        method, params = asked(request)
        if method == "crm.deal.contact.items.get":
            return good([{"CONTACT_ID": contact} for contact in self.deals[int(params["id"])]])
        results: dict[str, Any] = {}
        totals: dict[str, int] = {}
        for key, text in params["cmd"].items():
            name, _, query = text.partition("?")
            if self.links:
                query = re.sub(r"%24result.+?(?=&)", lambda link: str(self.linked(link[0], results)), query)
            results[key], totals[key] = self.page(name, php_params(query))
        return good({"result": results, "result_error": [], "result_total": totals, "result_next": []})

    @staticmethod
    def linked(link: str, results: dict[str, Any]) -> Any:
        """The value that a link names, the link itself when there is none."""
        node: Any = results
        for step in re.findall(r"%5B(\w+)%5D", link):
            try:
                node = node[int(step)] if isinstance(node, list) else node[step]
            except (IndexError, KeyError):
                return link
        return node

    def page(self, name: str, params: dict[str, Any]) -> tuple[Any, int]:
        """Rows of a page and their number, where it is asked for."""
        classic = name != "crm.item.list"
        asked_filter = {key.lower(): value for key, value in params["filter"].items()}
        if "@id" in asked_filter:
            return [{"ID": one} for one in asked_filter["@id"].values()], 0
        owners = asked_filter.get("@contact_id") or asked_filter.get("@contactids")
        single = asked_filter.get("contact_id") or asked_filter.get("contactids")
        wanted = {int(one) for one in (owners or {"0": single}).values()}
        try:
            after = int(asked_filter[">id"])
        except ValueError:
            after = 0
        ids = sorted({deal for one in wanted for deal in self.of_contact.get(one, ()) if deal > after})
        rows: list[dict[str, Any]] = []
        for deal in ids[:50]:
            if classic:
                one: dict[str, Any] = {"ID": str(deal)} if deal not in self.nameless else {"ID": None, "HIDDEN": deal}
                rows.append({**one, "CONTACT_ID": str(self.deals[deal][0])})
            else:
                more = {"contactIds": self.deals[deal]} if self.shows_all else {}
                one = {"id": deal} if deal not in self.nameless else {"id": "?", "HIDDEN": deal}
                rows.append({**one, "contactId": self.deals[deal][0], **more})
        return (rows if classic else {"items": rows}), len(ids) if int(params["start"]) >= 0 else 0


def read(portal: Crm, owners: list[int], **more: Any) -> dict[int, list[int]]:
    async def go() -> dict[int, list[dict[str, Any]]]:
        async with client_of(portal) as client:
            return await by_owner(Deals(client, "contact", owners, **more))

    return {owner: [id_of(row) or row["HIDDEN"] for row in rows] for owner, rows in asyncio.run(go()).items()}


def expected(portal: Crm, owners: list[int]) -> dict[int, list[int]]:
    return {owner: sorted(portal.of_contact.get(owner, ())) for owner in owners}


@pytest.mark.parametrize("per_owner", [1, 2])
def test_ten_thousand_contacts_and_their_deals(per_owner: int) -> None:
    """At most 1.15 times the fewest possible requests: full pages in full batches."""
    numbers = random.Random(2)
    owners = list(range(1, 10_001))
    portal = Crm({1000 + number: [numbers.choice(owners)] for number in range(10_000 * per_owner)})

    async def contacts() -> int:
        async with client_of(portal) as client:
            return len((await by_id(crm(client, "contact", owners)))[0])

    assert asyncio.run(contacts()) == 10_000
    assert read(portal, owners) == expected(portal, owners)
    fewest = 4 + 4 * per_owner
    assert portal.requests <= 1.15 * fewest


@settings(max_examples=40)
@given(
    owners=st.integers(1, 700),
    some=st.lists(st.lists(st.integers(1, 700), min_size=1, max_size=3, unique=True), max_size=300),
    crowd=st.integers(0, 260),
    family=st.sampled_from(["classic", "item"]),
    links=st.booleans(),
    shows_all=st.booleans(),
    nameless=st.sets(st.integers(5, 600), max_size=40),
)
def test_every_deal_of_every_owner(
    *, owners: int, some: list[list[int]], crowd: int, family: str, links: bool, shows_all: bool, nameless: set[int]
) -> None:
    """Few or many owners, deals with several contacts, a contact with many deals, either family, links or none.

    Deals without a readable ID are there too, each once, behind the others.
    """
    told = shows_all if family == "item" else owners <= 500
    contacts = some if told else [few[:1] for few in some]
    deals_of = dict(enumerate([*contacts, *[[1]] * crowd], start=5))
    portal = Crm(deals_of, links=links, shows_all=shows_all, nameless=nameless)
    asked_for = list(range(1, owners + 1))
    assert read(portal, asked_for, family=family) == {
        owner: sorted(found, key=lambda deal: (deal in nameless, deal))
        for owner, found in expected(portal, asked_for).items()
    }


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("nameless", [{54}, {53, 54, 55}, {5, 54, 104, 153, 154}, set(range(30, 70))])
def test_deals_without_a_readable_id_at_the_end_of_a_page(nameless: set[int], *, links: bool) -> None:
    """The page after such a deal brings it again, and it is there once; the last page is not forgotten for it."""
    portal = Crm({deal: [1] for deal in range(5, 165)}, links=links, nameless=nameless)
    (found,) = read(portal, [1]).values()
    assert found == [*(deal for deal in range(5, 165) if deal not in nameless), *sorted(nameless)]


def test_a_page_of_deals_without_any_readable_id_stops() -> None:
    """There is no way on from it, and a portal that sends such pages speaks differently."""
    with pytest.raises(RowError, match="field ID of a row without a readable ID"):
        read(Crm({deal: [1] for deal in range(1, 71)}, nameless=range(1, 51)), [1])


def test_a_deal_whose_owner_cannot_be_read() -> None:
    """It belongs to the one who asked for it; where many asked, each is asked alone."""

    class Blind(Crm):
        def page(self, name: str, params: dict[str, Any]) -> tuple[Any, int]:
            rows, total = super().page(name, params)
            return [{**row, "CONTACT_ID": {"id": "?"}} for row in rows], total

    for owners in (list(range(1, 6)), list(range(1, 600))):
        portal = Blind({100 + owner: [owner] for owner in owners})
        assert read(portal, owners) == expected(portal, owners)


@pytest.mark.parametrize("deal", [7, 9000])
def test_a_deal_that_shows_a_stranger_makes_every_contact_be_asked(deal: int) -> None:
    """Among many contacts, one deal whose first contact is not asked for, met early or late, shows that rows do not tell
    all owners; what came before counts once."""
    portal = Crm({deal: [9999, 3], 8: [4, 5], **{100 + number: [number] for number in range(1, 600)}})
    asked_for = list(range(1, 600))
    assert read(portal, asked_for) == expected(portal, asked_for)


def test_a_dropped_owner_filter_is_noticed() -> None:
    """When the shown stranger is not even among the deal's contacts, the portal ignored the filter."""

    class Deaf(Crm):
        def page(self, name: str, params: dict[str, Any]) -> tuple[Any, int]:
            return [{"ID": "7", "CONTACT_ID": "9999"}], 0

    with pytest.raises(Bitrix24DataError, match="deal 7 does not fit"):
        read(Deaf({7: [9999]}), [1, 2])
