"""`dialog-assets`: what an engineer does outside the Dagster UI.

Exit code 0 is success, 1 an error told in one sentence, 2 wrong usage, 130 stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import signal
import sys
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal, NoReturn

import click
from dotenv import load_dotenv

from dialog_assets.errors import DialogAssetsError
from dialog_assets.portals import Portal

DAY = click.DateTime(["%Y-%m-%d"])


class _Group(click.Group):
    """Turns this project's errors into one sentence and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal may lack letters of a portal's texts, or of a path
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _stopped("Stopped; what was done stays, and the same command does the rest.")
        except DialogAssetsError as error:
            from dialog_assets.cli.running import Interrupted

            if isinstance(error, Interrupted):
                _stopped(str(error))
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever read the output has had enough
                raise
            place = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else ""
            raise click.ClickException(
                f"The machine refuses ({error.strerror or type(error).__name__}){place}."
            ) from error
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            from dialog_assets.store.faults import fault_of, sentence

            fault = fault_of(error)
            if fault is None:
                raise
            # Nothing of the statement, its parameters or the server's address.
            told = sentence(fault)
            raise click.ClickException(f"{told[0].upper()}{told[1:]}.") from None


def _stopped(sentence: str) -> NoReturn:
    """Tell that the command ends because it was told to."""
    click.echo(sentence, err=True)
    sys.exit(130)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="dialog-assets")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Nightly phone calls of Bitrix24 portals: archive, recognise, correct, classify, score, summarise.

    Start it in the project's folder. Settings come from the environment, or from the file .env there (see .env.example).
    """
    # Ended like Ctrl-C: what the command has started is stopped, and the run that goes on is ended in Dagster.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    ctx.call_on_close(lambda: signal.signal(signal.SIGTERM, before))
    if ctx.invoked_subcommand != "sandbox":  # the outside world needs none of our secrets
        _load_settings(Path(".env"))


def _load_settings(path: Path) -> None:
    try:
        load_dotenv(path)
    except ValueError:  # bytes that are no UTF-8, and a value with a NUL; the error's text may hold a secret
        raise click.ClickException(
            f"{path.resolve()} cannot be read as settings: save it as plain text in UTF-8, one NAME=value a line."
        ) from None


def _portals() -> list[Portal]:
    from dialog_assets.cli.instance import check_folder
    from dialog_assets.portals import portals_folder, readable_portals

    check_folder()
    portals, mistakes = readable_portals(portals_folder())
    for mistake in mistakes:
        click.echo(f"Left out: {mistake}", err=True)
    return portals


def _chosen(names: Sequence[str]) -> list[Portal]:
    from dialog_assets.cli.running import find_portal

    known = _portals()
    return [find_portal(known, name) for name in names] if names else known


def _day(value: datetime) -> date:
    return value.date()


def _week_end(value: str) -> date | Literal["yesterday"]:
    if value == "yesterday":
        return "yesterday"
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither YYYY-MM-DD nor yesterday", param_hint="--week-ends") from None


def _bounds(first: datetime | None, last: datetime | None) -> tuple[date | None, date | None]:
    from dialog_assets.cli.running import BadRequest

    if first and last and first > last:
        raise BadRequest(f"The range ends ({_day(last)}) before it begins ({_day(first)}).")
    return (_day(first) if first else None, _day(last) if last else None)


@main.command("setup-portals")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def setup_portals(as_json: bool) -> None:
    """Migrate the database, and make partitions and views for every portal file. Safe to run again."""
    from dialog_assets.cli.instance import find_database
    from dialog_assets.store import schema

    portals = _portals()
    new = schema.setup_portals(find_database(), portals)
    if as_json:
        click.echo(json.dumps({"portals": [portal.portal for portal in portals], "new": new}))
        return
    for portal in portals:
        state = "tables made" if portal.portal in new else "tables were there"
        click.echo(f"{portal.portal}: {portal.title}, {portal.time_zone}, from {portal.start_date}: {state}")


@main.command("drop-portal")
@click.option("--portal", "name", required=True, help="Portal id.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop_portal(name: str, yes: bool) -> None:
    """Remove everything that the database holds of a portal whose file is gone. Its recordings stay in the bucket."""
    from dialog_assets.cli import instance
    from dialog_assets.cli.leftovers import drop, holdings

    _portals()
    url = instance.find_database()
    held = asyncio.run(holdings(url, name))
    click.echo(
        f"{name}: {held['calls']} calls and all that was made of them, {held['purchases']} purchases of {held['cost_rub']:.2f} RUB."
    )
    if (
        not yes
        and click.prompt("There is no way back but a backup. To remove them, type the portal's id", default="") != name
    ):
        raise click.ClickException("That is not the portal's id: nothing was removed.")
    asyncio.run(drop(url, name))
    click.echo(f"{name} is removed from the database; its recordings are still in the bucket, under {name}/.")


@main.command()
@click.option("--portal", "name", required=True, help="Portal id, the name of its file.")
@click.option("--date", "day", type=DAY, help="One day; by default the night's work: yesterday and the trailing days.")
@click.option(
    "--step", "steps", multiple=True, help="Only this step, e.g. criteria_scores; may be given several times."
)
@click.option("--retry-failed", is_flag=True, help="Try calls again that failed for good.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def run(name: str, day: datetime | None, steps: tuple[str, ...], retry_failed: bool, as_json: bool) -> None:
    """Run a portal's Dagster job here and now: one day, or what its schedule would do tonight."""
    from dialog_assets.cli import instance
    from dialog_assets.cli.running import BadRequest, find_portal, tonight

    portal = find_portal(_portals(), name)
    if day is not None:
        first = last = _day(day)
    else:
        days = asyncio.run(tonight(instance.prepare(), portal))
        if days is None:
            raise BadRequest(f"{name} begins on {portal.start_date}: there is no finished day yet.")
        first, last = days
    _run(portal, first, last, steps, retry_failed=retry_failed, as_json=as_json)


@main.command()
@click.option("--portal", "name", required=True, help="Portal id, the name of its file.")
@click.option("--from", "first", type=DAY, required=True, help="First day, YYYY-MM-DD.")
@click.option("--to", "last", type=DAY, required=True, help="Last day, included.")
@click.option(
    "--step", "steps", multiple=True, help="Only this step, e.g. criteria_scores; may be given several times."
)
@click.option("--retry-failed", is_flag=True, help="Try calls again that failed for good.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def backfill(
    name: str, first: datetime, last: datetime, steps: tuple[str, ...], retry_failed: bool, as_json: bool
) -> None:
    """Run a portal's Dagster job over a range of days, as one run (or runs of the portal's days_per_run)."""
    from dialog_assets.cli.running import find_portal

    portal = find_portal(_portals(), name)
    _run(portal, _day(first), _day(last), steps, retry_failed=retry_failed, as_json=as_json)


def _run(portal: Portal, first: date, last: date, steps: Sequence[str], *, retry_failed: bool, as_json: bool) -> None:
    from dialog_assets.cli import instance, progress, running, tables

    running.check_request(portal, first, last, steps)
    url = instance.prepare()
    running.check_credentials(portal, steps)
    from dialog_assets.definitions import defs

    if retry_failed:
        asyncio.run(running.retry_failed(url, portal, first, last, steps))
    with progress.watched(url, portal, first, last, shown=not as_json) as watch:
        results = running.run_days(defs, portal, first, last, steps)
    days = asyncio.run(tables.read_days(url, [portal], first, last))
    ran = {(portal.portal, day) for day in days[portal.portal]}
    if as_json:
        told = {
            "runs": [vars(result) for result in results],
            "bought": watch.bought,
            "days": tables.as_json(days, ran),
        }
        click.echo(json.dumps(told, default=str))
    else:
        tables.print_days(days, ran)
        tables.print_reasons(days, asyncio.run(tables.read_failed(url, days)))
        if steps and "calls" not in steps and not tables.has_calls(days):
            click.echo("No call of these days has been read yet: run them without --step first.", err=True)
        tables.print_bought(watch.bought)
        for result in results:
            click.echo(f"Run {result.run_id}: make ui, then http://127.0.0.1:3000/runs/{result.run_id}")
            for error in result.errors:
                click.echo(f"Error: {error}", err=True)
    if not all(result.success for result in results):
        sys.exit(1)


@main.command()
@click.option("--portal", "names", multiple=True, help="Portal id; all portals by default.")
@click.option("--from", "first", type=DAY, help="First day; the portal's start by default.")
@click.option("--to", "last", type=DAY, help="Last day, included; yesterday by default.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def coverage(names: tuple[str, ...], first: datetime | None, last: datetime | None, as_json: bool) -> None:
    """Show for every day and step how many calls are done, skipped, failed or waiting, and why; and the days not run."""
    from dialog_assets.cli import instance, leftovers, tables

    bounds = _bounds(first, last)
    portals = _chosen(names)
    url = instance.prepare()
    days = asyncio.run(tables.read_days(url, portals, *bounds))
    ran = tables.days_run(days)
    if as_json:
        click.echo(json.dumps(tables.as_json(days, ran)))
        return
    tables.print_days(days, ran)
    tables.print_reasons(days, asyncio.run(tables.read_failed(url, days)))
    if not names:
        for sentence in asyncio.run(leftovers.sentences(url, portals)):
            click.echo(sentence, err=True)


@main.command()
@click.option("--portal", "names", multiple=True, help="Portal id; all portals by default.")
@click.option("--from", "first", type=DAY, help="First day.")
@click.option("--to", "last", type=DAY, help="Last day, included.")
@click.option("--by-purchase", is_flag=True, help="The days are those of the purchase, as on a bill, not of the call.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def costs(
    names: tuple[str, ...], first: datetime | None, last: datetime | None, by_purchase: bool, as_json: bool
) -> None:
    """Show what was bought for the calls of the days, from whom, for how much, by portal, step and model."""
    from dialog_assets.cli import instance, leftovers, tables

    bounds = _bounds(first, last)
    known = [portal.portal for portal in _portals()]
    url = instance.find_database()
    chosen = asyncio.run(leftovers.chosen(url, known, names))
    rows = asyncio.run(tables.read_costs(url, chosen, *bounds, by_purchase=by_purchase))
    if as_json:
        click.echo(json.dumps(rows, default=str))
    else:
        tables.print_costs(rows, *bounds, by_purchase=by_purchase)


@main.command()
@click.option("--portal", "names", multiple=True, help="Portal id; all portals by default.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def doctor(names: tuple[str, ...], as_json: bool) -> None:
    """Check the portal files, the database and every service that the portals need; buys nothing."""
    from dialog_assets.cli.doctor import examine
    from dialog_assets.cli.instance import check_folder
    from dialog_assets.cli.running import find_portal
    from dialog_assets.portals import PortalsError, portals_folder, readable_portals

    check_folder()
    try:
        known, mistakes = readable_portals(portals_folder())
    except PortalsError as error:
        if names:
            raise
        known, mistakes = [], error.mistakes
    findings = asyncio.run(
        examine([find_portal(known, name) for name in names] if names else known, () if names else mistakes)
    )
    if as_json:
        click.echo(json.dumps([{**vars(finding), "ok": finding.ok} for finding in findings]))
    else:
        for finding in findings:
            click.echo(f"{finding.state:4}  {finding.what}: {finding.sentence}")
    if not all(finding.ok for finding in findings):
        sys.exit(1)


@main.command()
@click.option("--bitrix-port", type=int, default=0, show_default="any free one", help="Bitrix24 REST and downloads.")
@click.option("--bitrix-https-port", type=int, help="The same over https; 0 is any free one. Not served by default.")
@click.option("--voicekit-port", type=int, default=0, show_default="any free one", help="VoiceKit gRPC, plaintext.")
@click.option(
    "--voicekit-tls-port",
    type=int,
    help="The same over TLS; must end in 443, 0 is any free such. Not served by default.",
)
@click.option("--inbound-port", type=int, default=0, show_default="any free one", help="VoiceKit's storage.")
@click.option("--inbound-https-port", type=int, help="The same over https; 0 is any free one. Not served by default.")
@click.option("--s3-port", type=int, default=0, show_default="any free one", help="S3.")
@click.option("--llm-port", type=int, default=0, show_default="any free one", help="OpenAI, Anthropic, DeepSeek.")
@click.option("--control-port", type=int, default=0, show_default="any free one", help="Books, faults, clock.")
@click.option(
    "--week-ends",
    default="yesterday",
    show_default=True,
    help="The last day with calls, YYYY-MM-DD; a --state folder keeps the one that it began with.",
)
@click.option(
    "--state", type=click.Path(file_okay=False, path_type=Path), help="Folder that keeps objects between lives."
)
@click.option(
    "--env-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write the addresses and test credentials to, in the form of .env; only its owner may read it.",
)
@click.option("--latency-ms", type=float, default=0.0, show_default=True, help="Delay of every answer.")
@click.option("--json", "as_json", is_flag=True, help="Print addresses and credentials as one JSON line.")
def sandbox(
    bitrix_port: int,
    bitrix_https_port: int | None,
    voicekit_port: int,
    voicekit_tls_port: int | None,
    inbound_port: int,
    inbound_https_port: int | None,
    s3_port: int,
    llm_port: int,
    control_port: int,
    week_ends: str,
    state: Path | None,
    env_file: Path | None,
    latency_ms: float,
    as_json: bool,
) -> None:
    """Serve the fictional outside world on loopback until stopped: Bitrix24, VoiceKit, S3 and three LLM vendors."""
    from dialog_assets.cli.world import check_environment_file, check_packages, write_environment

    check_packages()
    from dialog_assets.sandbox.server import Sandbox, serve

    if env_file is not None:
        check_environment_file(env_file)

    def ready(world: Sandbox) -> None:
        if env_file is not None:
            write_environment(env_file, world.environment)
        if as_json:
            click.echo(json.dumps({"addresses": world.addresses, "environment": world.environment, "week": world.week}))
            sys.stdout.flush()
            return
        click.echo("Sandbox: a fictional world, test credentials. Stop it with Ctrl-C.\n")
        click.echo(f"  calls from {world.week[0]} to {world.week[1]}\n")
        for service, address in world.addresses.items():
            click.echo(f"  {service:10} {address}")
        click.echo("\nFor a .env file or your shell:\n")
        for variable, value in world.environment.items():
            click.echo(f"{variable}={value}")
        click.echo(f"\nWhat it was asked, and what that would have cost: {world.addresses['control']}/books")

    asyncio.run(
        serve(
            Sandbox(
                bitrix_port=bitrix_port,
                bitrix_https_port=bitrix_https_port,
                voicekit_port=voicekit_port,
                voicekit_tls_port=voicekit_tls_port,
                inbound_port=inbound_port,
                inbound_https_port=inbound_https_port,
                s3_port=s3_port,
                llm_port=llm_port,
                control_port=control_port,
                week_ends=_week_end(week_ends),
                state=state,
                latency_ms=latency_ms,
            ),
            ready,
        )
    )


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def demo(as_json: bool) -> None:
    """Run the whole graph on the sandbox's week and show what came of it. `make demo` does this."""
    from dialog_assets.cli.instance import begin_project
    from dialog_assets.cli.world import sandbox_process
    from dialog_assets.folders import data_part
    from dialog_assets.portals import load_portals

    begin_project()
    # Always the fictional portals, wherever the real ones are.
    portals = load_portals(Path("portals"))
    with sandbox_process(state=data_part("sandbox")) as starting:
        # Imported while the sandbox starts: Dagster takes as long as it does.
        from dialog_assets.cli.demo import play

        code = play(portals, starting, as_json=as_json)
    sys.exit(code)


@main.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": ["--help"]}
)
@click.pass_context
def psql(ctx: click.Context) -> None:
    """Open psql on the application database; options and what is piped in go to psql, e.g. -c "SELECT 1"."""
    from dialog_assets.cli.psql import run_psql

    sys.exit(run_psql(ctx.args))


@main.command()
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Port of the Dagster UI.")
def ui(port: int) -> None:
    """Serve the Dagster UI and its daemon on the same data; with the sandbox where only its portals are configured."""
    from dialog_assets.cli.ui import serve_ui

    sys.exit(serve_ui(_portals(), port))
