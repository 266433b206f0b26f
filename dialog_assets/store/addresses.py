"""The address of a Postgres as a person writes it, and as libpq, psycopg and SQLAlchemy all read it alike.

A password with `@`, `/` or `%` in it that is not percent-encoded is cut in other places by each reader, and then parts of it
stand where a host or a port is shown. So an address is checked here before anybody else reads it, and no text of a reader
that may quote it is ever passed on.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict

from dialog_assets.store.errors import DatabaseUnreachable

Parts = dict[str, str]

SCHEME = "postgresql"
_URL = re.compile(r"^postgres(?:ql)?(?:\+\w+)?://(?P<rest>.*)$", re.DOTALL)


def parts(text: str, variable: str = "DATABASE_URL") -> Parts:
    """The parameters of an address by libpq's names: a URL (`postgres://` too) or `host=… dbname=…`.

    `variable`: where it was set, for the error. Raises DatabaseUnreachable, which quotes nothing of it.
    """
    match = _URL.match(text.strip())
    if match is not None:
        if not _is_clear(match["rest"]):
            raise DatabaseUnreachable(
                f"{variable} cannot be read for certain: percent-encode every character of user and password but "
                "letters, digits and - . _ ~ (@ is %40, / is %2F, % is %25, a space is %20)."
            )
        text = f"{SCHEME}://{match['rest']}"
    elif "=" not in text:
        raise DatabaseUnreachable(
            f"{variable} is no address of a Postgres: it is to be like postgresql://user:password@host:5432/database."
        )
    try:
        found = {name: str(value) for name, value in conninfo_to_dict(text.strip()).items() if value is not None}
    except psycopg.ProgrammingError:
        found = {}
    if not found or not re.fullmatch(r"[\d,]*", found.get("port", "")):
        raise DatabaseUnreachable(
            f"{variable} cannot be read: it is to be like postgresql://user:password@host:5432/database, with special "
            "characters percent-encoded."
        )
    return found


def url(found: Parts, scheme: str = SCHEME) -> str:
    """A URL of these parameters, every value encoded."""
    rest = dict(found)
    user, password = rest.pop("user", None), rest.pop("password", None)
    host, port = rest.get("host", ""), rest.get("port", "")
    place = ""
    # Sockets' folders, and several hosts, stand in the query, where all readers find them.
    if re.fullmatch(r"[\w.:-]+", host) and "," not in port:
        place = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
        rest.pop("host")
        rest.pop("port", None)
    who = "" if user is None else quote(user, safe="")
    if password is not None:
        who += f":{quote(password, safe='')}"
    if who:
        who += "@"
    database = quote(rest.pop("dbname", ""), safe="")
    query = urlencode(rest, quote_via=quote, safe="/,")
    return f"{scheme}://{who}{place}/{database}" + (f"?{query}" if query else "")


def without_secrets(text: str, found: Parts) -> str:
    """A server's words without the passwords of the address."""
    for name in ("password", "sslpassword", "passfile", "oauth_client_secret"):
        secret = found.get(name)
        if secret:
            text = text.replace(secret, "…").replace(quote(secret, safe=""), "…")
    return text


def _is_clear(rest: str) -> bool:
    """Whether every reader finds user, password, host and database of `//…` in the same places."""
    if re.search(r"%(?![0-9A-Fa-f]{2})|%00|[\x00-\x1f\x7f]", rest):
        return False
    head, _, query = rest.partition("?")
    if "@" in head:
        who, _, _ = head.rpartition("@")
        return re.search(r"[@/\s\[\]]", who) is None
    # Without a user there: a password with a question mark would be cut at it, and what is before it stand for host and port.
    return re.search(r"\s", head) is None and ("@" not in query or re.search(r":\D|:\d+\D", head.split("/")[0]) is None)
