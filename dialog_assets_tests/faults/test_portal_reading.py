"""A portal read while it fails, changes and moves: the rows and bytes of a calm reading, or one clear error."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import httpx2
import pytest

from dialog_assets.bitrix24.errors import (
    Bitrix24AccessError,
    Bitrix24Error,
    Bitrix24UnavailableError,
    RecordingUnavailableError,
)
from dialog_assets.bitrix24.families import CrmFamily
from dialog_assets.sandbox.bitrix24_events import read_events
from dialog_assets_tests.faults import portal_scripts as scripts
from dialog_assets_tests.faults.portal import (
    CREDENTIALS,
    DAYS,
    FAMILIES,
    FIRST,
    NAME,
    PHASES,
    RECORDING_BYTES,
    TRAILING,
    CredentialKind,
    Read,
    Site,
    read,
    site,
)
from dialog_assets_tests.faults.portal_scripts import FINAL, FINAL_DOWNLOAD, Final, Rule

SEEDS = 50


class Portal:
    """The stand-in in a loop of its own, which runs one test after another."""

    def __init__(self, runner: asyncio.Runner, found: Site) -> None:
        self.site = found
        self._runner = runner
        self._calm: dict[tuple[str, CrmFamily], dict[Any, Any]] = {}

    def calm(self, phase: str, family: CrmFamily = "classic") -> dict[Any, Any]:
        """What an undisturbed reading of a phase gives."""
        if (phase, family) not in self._calm:
            self.site.reset()
            result = self.read(phase, family=family)
            assert result.error is None
            assert result.doubled == []
            self._calm[phase, family] = result.found
        return self._calm[phase, family]

    def read(
        self,
        phase: str,
        *rules: Rule,
        credential: CredentialKind = "webhook",
        family: CrmFamily = "classic",
        on_take: Callable[[int], None] = lambda _: None,
        **client: Any,
    ) -> Read:
        """One phase with a client of its own, among faults."""

        async def go() -> Read:
            self.site.faults.set(rules)
            async with self.site.client(credential, on_take, **client) as opened:
                return await read(phase, opened, family)

        return self._runner.run(go())

    def run(self, disturbed: Disturbed) -> None:
        """All phases with one client."""

        async def go() -> None:
            async with self.site.client(disturbed.credential, disturbed.on_take) as client:
                for phase in PHASES:
                    disturbed.begin(phase)
                    disturbed.check(phase, await read(phase, client, disturbed.family))

        self._runner.run(go())


@pytest.fixture(scope="module")
def portal() -> Iterator[Portal]:
    with asyncio.Runner() as runner:
        opened = site()
        yield Portal(runner, runner.run(opened.__aenter__()))
        runner.run(opened.__aexit__(None, None, None))


@pytest.fixture(autouse=True)
def _afresh(portal: Portal) -> None:
    portal.site.reset()


@dataclass
class Disturbed:
    """One seed: what it reads with, what disturbs it, and what each phase must give all the same."""

    seed: int
    portal: Portal

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.credential: CredentialKind = self.chance.choice(CREDENTIALS)
        self.family: CrmFamily = self.chance.choice(FAMILIES)
        self.calm = {phase: self.portal.calm(phase, self.family) for phase in PHASES}
        self.site = self.portal.site
        self.site.reset()
        self._final_phase = self.chance.choice((*PHASES, None, None))
        self._final: Final | None = None
        self._moments: dict[int, Callable[[], object]] = {self.chance.randint(2, 60): self._rename}
        self._taken = 0
        self._changes: list[Rule] = []

    def on_take(self, number: int) -> None:
        """What happens when a request is about to leave."""
        self._taken = number
        if number in self._moments:
            self._moments[number]()

    def begin(self, phase: str) -> None:
        """Set the faults and changes of a phase."""
        rules = scripts.passing(self.chance, phase, oauth=self.credential == "oauth")
        self._final = None
        if phase == self._final_phase:
            self._final, rule = scripts.final(self.chance, phase)
            rules = [rule]
        self.site.books.reset()
        self.site.faults.set(rules)
        self.site.server.set_events([])
        if phase == "calls":
            self._changes = scripts.changes_of_calls(self.chance, NAME, sorted(self.calm["calls"]))
            self.site.server.set_events(self._changes)
        if phase == "recordings":
            self.files = scripts.changes_of_files(self.chance, NAME, sorted(self.calm[phase]), RECORDING_BYTES)
            for change in self.files:
                moment = self._taken + self.chance.randint(1, 20)
                self._moments[moment] = partial(self.site.server.set_events, [change])

    def check(self, phase: str, result: Read) -> None:
        """Compare what a phase gave."""
        told = f"seed {self.seed}: {phase}, {self.credential}, {self.family}, final {self._final}"
        assert result.doubled == [], told
        if phase == "recordings":
            assert result.error is None, told
            self._check_recordings(result.found, told)
        elif self._final is not None:
            assert_final(result.error, self._final, self.site, told)
        else:
            assert result.error is None, f"{told}: {result.error}"
            self._check_rows(phase, result.found, told)
            return

    def _check_rows(self, phase: str, found: Mapping[Any, Any], told: str) -> None:
        if phase == "last_days":
            assert found == {one: row for one, row in self._present_calls().items() if _is_late(row)}, told
        elif phase == "calls":
            calm, now = self.calm["calls"], self._present_calls()
            gone = calm.keys() - now.keys()
            assert calm.keys() - gone <= found.keys() <= calm.keys() | now.keys(), told
            strange = [one for one, row in found.items() if row not in (calm.get(one), now.get(one))]
            assert strange == [], told
        else:
            assert found == self.calm[phase], told

    def _check_recordings(self, found: Mapping[int, Any], told: str) -> None:
        """Each its bytes, or the error that was meant for it, and no other one."""
        calm = self.calm["recordings"]
        assert found.keys() == calm.keys(), told
        changed = {event.file: event for event in read_events(self.files)}
        struck = 0
        for file, outcome in found.items():
            event = changed.get(file)
            if isinstance(outcome, Bitrix24Error):
                gone = isinstance(outcome, RecordingUnavailableError) and outcome.reason == "gone"
                if gone and event is not None and event.kind in ("delete_file", "trash_file"):
                    continue
                struck += 1
                assert self._final is not None, f"{told}: {file} {event}: {outcome}"
                assert_final(outcome, self._final, self.site, f"{told}: {file}")
            elif event is not None and event.kind == "replace":
                assert outcome in (calm[file], present_bytes(self.site, file)), f"{told}: {file}"
            else:
                assert outcome == calm[file], f"{told}: {file}"
        assert bool(struck) == (self._final is not None), told

    def _rename(self) -> None:
        self.site.server.set_habits({"renamed_to": self.site.renamed}, NAME)

    def _present_calls(self) -> dict[int, Any]:
        """The portal's calls as they are by now."""
        table, calm = self.site.server.portals[NAME].calls, self.calm["calls"]
        touched = {event.call for event in read_events(self._changes)}
        return {
            number: json.loads(table.text(number)) if number in touched or number not in calm else calm[number]
            for number in table.ids
        }


def present_bytes(found: Site, file: int) -> bytes:
    """A recording as it is by now."""
    stored = found.server.portals[NAME].files.get(file)
    assert stored is not None
    return stored.recording.read(0, stored.recording.size or 0)


def _is_late(row: Mapping[str, Any]) -> bool:
    return datetime.fromisoformat(row["CALL_START_DATE"]) >= FIRST + timedelta(days=DAYS - TRAILING)


def assert_final(error: Bitrix24Error | None, expected: Final, found: Site, told: str) -> None:
    """One typed error with the vendor's code, in one line, without a secret."""
    assert type(error) is expected.error, f"{told}: {error!r}"
    assert error.code == expected.code, f"{told}: {error!r}"
    assert "\n" not in str(error), told
    assert not [secret for secret in found.secrets() if secret in f"{error} {error!r}"], told


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_strikes_the_rows_and_bytes_are_those_of_a_calm_reading(seed: int, portal: Portal) -> None:
    """Faults at random over calls, users, CRM and recordings, while calls and files change and the portal moves.

    Every row once and every recording whole; where a fault is final, exactly its error, and the next phase goes on.
    """
    portal.run(Disturbed(seed, portal))


@pytest.mark.parametrize("credential", CREDENTIALS)
@pytest.mark.parametrize("kind", [*scripts.PASSING, *scripts.PASSING_COMMAND, "expired_token"])
def test_each_passing_fault_strikes_and_passes(kind: str, credential: CredentialKind, portal: Portal) -> None:
    """Alone, once, so that it is known that it strikes at all."""
    if kind == "expired_token" and credential == "webhook":
        pytest.skip("a webhook has no token")
    calm = portal.calm("users")
    portal.site.reset()
    result = portal.read("users", scripts.rule(kind, "users"), credential=credential)
    assert (result.error, result.found) == (None, calm)
    assert portal.site.items("fault") == {kind: 1}


@pytest.mark.parametrize("kind", scripts.PASSING_DOWNLOAD)
def test_each_passing_fault_of_a_download_strikes_and_passes(kind: str, portal: Portal) -> None:
    """Alone, once."""
    calm = portal.calm("recordings")
    portal.site.reset()
    result = portal.read("recordings", scripts.rule(kind, "recordings"))
    assert (result.error, result.found) == (None, calm)
    assert portal.site.items("fault") == {kind: 1}


@pytest.mark.parametrize("credential", CREDENTIALS)
@pytest.mark.parametrize("fault", FINAL, ids=str)
def test_each_final_fault_is_one_clear_error(fault: Final, credential: CredentialKind, portal: Portal) -> None:
    """Persistent from the first request on: its error, after no more requests than may be sent for one."""
    result = portal.read("users", scripts.final_rule(fault, "users")[1], credential=credential)
    assert_final(result.error, fault, portal.site, credential)
    assert result.found == {}
    if fault.kind != "429":
        assert portal.site.counts()["requests"] <= scripts.ATTEMPTS + (credential == "oauth") * scripts.ATTEMPTS


@pytest.mark.parametrize("kind", scripts.PASSING_COMMAND)
@pytest.mark.parametrize(("family", "method"), [("classic", "crm.deal.list"), ("item", "crm.item.list")])
def test_commands_that_link_to_each_other_get_over_a_fault(
    family: CrmFamily, method: str, kind: str, portal: Portal
) -> None:
    """Linked pages of deals wait for a blocked method's reset, however often it is refused until then."""
    calm = portal.calm("entities", family)
    portal.site.reset()
    rule = {**scripts.rule(kind, "entities"), "match": method, "after": 3}
    result = portal.read("entities", rule, family=family)
    assert (result.error, result.found) == (None, calm)
    assert portal.site.items("fault") == {kind: 1}


@pytest.mark.parametrize("fault", FINAL_DOWNLOAD, ids=str)
@pytest.mark.parametrize("credential", CREDENTIALS)
def test_each_final_fault_of_downloads_is_one_clear_error_a_recording(
    fault: Final, credential: CredentialKind, portal: Portal
) -> None:
    """No recording comes, each says why, and an application has tried the activity's link too where that may help."""
    calm = portal.calm("recordings")
    portal.site.reset()
    result = portal.read("recordings", scripts.final_rule(fault, "recordings")[1], credential=credential)
    assert result.error is None
    assert result.found.keys() == calm.keys()
    for file, error in result.found.items():
        assert_final(error, fault, portal.site, f"{credential}: {file}")


def test_an_authorisation_that_is_over_is_one_clear_error(portal: Portal) -> None:
    """A refresh token that the vendor does not know any more: what to do, after one question to the vendor."""
    portal.site.server.oauth._refresh.clear()
    result = portal.read("users", credential="oauth")
    assert_final(result.error, Final("", Bitrix24AccessError, "invalid_grant"), portal.site, "")
    assert portal.site.counts()["requests"] == 1


@pytest.mark.parametrize("kind", ["503", "500", "502_html", "200_error", "html_200", "reset"])
def test_the_vendors_token_endpoint_may_fail_and_recover(kind: str, portal: Portal) -> None:
    """Twice is waited for; for good it is an outage, not a lost authorisation."""
    calm = portal.calm("users")
    portal.site.reset()
    rule = {"service": "bitrix24", "kind": kind, "match": "oauth/token"}
    result = portal.read("users", {**rule, "times": 2}, credential="oauth")
    assert (result.error, result.found) == (None, calm)
    portal.site.reset()
    broken = portal.read("users", rule, credential="oauth")
    assert_final(broken.error, Final(kind, Bitrix24UnavailableError, "token_endpoint"), portal.site, kind)


def test_an_answer_that_does_not_come_in_time_is_asked_for_again(portal: Portal) -> None:
    """One answer takes longer than the client waits for it."""
    portal.site.reset()
    calm = portal.read("users").found
    asked = portal.site.counts()["requests"]
    portal.site.reset()
    slow = {"service": "bitrix24", "kind": "slow", "match": "batch", "times": 1, "value": 8.0}
    result = portal.read("users", slow, timeout=httpx2.Timeout(60.0, read=3.0))
    assert (result.error, result.found) == (None, calm)
    assert portal.site.counts()["requests"] == asked + 1


@pytest.mark.parametrize("credential", CREDENTIALS)
@pytest.mark.parametrize("place", [2, 3, 12, 21])
def test_a_portal_that_moves_while_recordings_are_fetched(
    place: int, credential: CredentialKind, portal: Portal
) -> None:
    """Links of the old address are asked for anew at the new one, and no link is followed there."""
    calm = portal.calm("recordings")
    portal.site.reset()

    def move(number: int) -> None:
        if number == place:
            portal.site.server.set_habits({"renamed_to": portal.site.renamed}, NAME)

    result = portal.read("recordings", credential=credential, on_take=move)
    assert (result.error, result.found) == (None, calm)
    assert portal.site.counts()["moved"] >= 1


def test_replaced_recordings_come_as_they_are_now(portal: Portal) -> None:
    """Longer or shorter ones than the Disk had said a moment before: whole, in their newest version."""
    calm = portal.calm("recordings")
    portal.site.reset()
    files = sorted(calm)

    def replace(number: int) -> None:
        if number == 2:  # the first download: every place is known by then
            changes = [{"portal": NAME, "kind": "replace", "file": file, "size": 90_000} for file in files[::2]]
            changes += [{"portal": NAME, "kind": "replace", "file": file, "size": 190_000} for file in files[1::2]]
            portal.site.server.set_events(changes)

    result = portal.read("recordings", on_take=replace)
    assert result.found == {file: present_bytes(portal.site, file) for file in files}


def sent(found: Site) -> dict[int, int]:
    """Bytes that left the portal, by recording."""
    return {int(file): size for file, size in found.items("bytes").items()}


@pytest.mark.parametrize("credential", CREDENTIALS)
def test_a_cut_costs_only_the_rest_of_the_file(credential: CredentialKind, portal: Portal) -> None:
    """Each recording is cut in the middle: not a byte of any leaves the portal twice."""
    calm = portal.calm("recordings")
    portal.site.reset()
    cut = {"service": "bitrix24", "kind": "truncated", "match": "download", "times": len(calm)}
    result = portal.read("recordings", cut, credential=credential)
    assert result.found == calm
    assert portal.site.items("fault") == {"truncated": len(calm)}
    assert sent(portal.site) == {file: len(content) for file, content in calm.items()}


def test_a_cut_costs_only_the_rest_when_the_link_has_died_too(portal: Portal) -> None:
    """The token in the link expires between the two halves: the rest comes by a new link."""
    calm = portal.calm("recordings")
    portal.site.reset()
    cut = {"service": "bitrix24", "kind": "truncated", "match": "download", "times": 1}
    dies = {"service": "bitrix24", "kind": "expired_token", "match": "download", "after": 1, "times": 1}
    result = portal.read("recordings", cut, dies, credential="oauth")
    assert result.found == calm
    assert portal.site.items("fault") == {"expired_token": 1, "truncated": 1}
    assert portal.site.counts()["refreshes"] == 2
    assert sent(portal.site) == {file: len(content) for file, content in calm.items()}
