"""The two families of CRM methods, crm.{kind}.list and crm.item.list, under one set of words (facts/bitrix24.md 5.1).

Here: how either is asked for a page and names its fields. Not here: paging (reading.py, deals.py), rows (rows.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from dialog_assets.bitrix24.paging import PAGE, Command
from dialog_assets.bitrix24.rows import CrmKind, EntityType

CrmFamily = Literal["classic", "item"]

_TYPE_IDS: dict[EntityType, int] = {"lead": 1, "deal": 2, "contact": 3, "company": 4}
_MULTIFIELDS: dict[EntityType, list[str]] = {kind: ["PHONE", "EMAIL"] for kind in ("contact", "lead", "company")}


def list_method(kind: EntityType, family: CrmFamily) -> str:
    """The list method of `kind`."""
    return f"crm.{kind}.list" if family == "classic" else "crm.item.list"


def list_command(
    kind: EntityType, family: CrmFamily, filter_: Mapping[str, Any], *, after: int | str | None = None, start: int = -1
) -> Command:
    """A page by ascending id with all fields; `filter_` in the family's field names, `after` an id or a link to one."""
    keyset = {} if after is None else {">ID" if family == "classic" else ">id": after}
    if family == "classic":
        params: dict[str, Any] = {"select": ["*", "UF_*", *_MULTIFIELDS.get(kind, [])], "order": {"ID": "ASC"}}
    else:
        # Custom fields keep the names that they have in the other family, so that raw rows can be compared.
        params = {"entityTypeId": _TYPE_IDS[kind], "select": ["*"], "order": {"id": "ASC"}, "useOriginalUfNames": "Y"}
    return list_method(kind, family), {**params, "filter": {**filter_, **keyset}, "start": start}


def id_filter(family: CrmFamily, ids: list[int]) -> dict[str, Any]:
    """These ids."""
    return {"@ID" if family == "classic" else "@id": ids}


def last_id_link(key: str, family: CrmFamily) -> str:
    """A link, inside a batch, to the last id of the full page of command `key`."""
    return f"$result[{key}][{PAGE - 1}][ID]" if family == "classic" else f"$result[{key}][items][{PAGE - 1}][id]"


def owner_field(kind: CrmKind, family: CrmFamily) -> str:
    """The field of a deal that names its contact, lead or company."""
    return f"{kind.upper()}_ID" if family == "classic" else f"{kind}Id"


def owner_filter(kind: CrmKind, family: CrmFamily, owners: list[int]) -> dict[str, Any]:
    """The deals of these owners; contacts are found among all contacts of a deal."""
    field = "contactIds" if (kind, family) == ("contact", "item") else owner_field(kind, family)
    return {field: owners[0]} if len(owners) == 1 else {f"@{field}": owners}
