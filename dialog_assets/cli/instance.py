"""Dagster's instance for the commands: the project's dagster.yaml over the database beside the application's."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from dialog_assets.errors import DialogAssetsError
from dialog_assets.folders import data_folder, data_part, other_data
from dialog_assets.store import server

CONFIGURATION = Path("dagster.yaml")
SHIPPED = Path(sys.prefix) / "share" / "dialog_assets"
"""The project's files as a wheel brings them: pyproject.toml's data-files."""


class NotInProject(DialogAssetsError):
    """A command was started where the project's files are not."""


def check_folder() -> None:
    """Raises NotInProject where the project's files, and so .env and the data, are not."""
    if not CONFIGURATION.exists():
        raise NotInProject(f"There is no dagster.yaml in {Path.cwd()}: run this command in the project's folder.")


def begin_project() -> None:
    """In a folder that is empty, of an installed wheel: lay out the project's files. Raises NotInProject where that cannot be."""
    here = Path.cwd()
    try:
        if SHIPPED.is_dir() and not CONFIGURATION.exists() and not any(here.iterdir()):
            shutil.copytree(SHIPPED, here, dirs_exist_ok=True)
            click.echo(f"A project begins in {here}: dagster.yaml, workspace.yaml and two fictional portals.", err=True)
    except OSError as error:
        raise NotInProject(f"A project cannot begin in {here} ({error.strerror}): choose another folder.") from None
    if not CONFIGURATION.exists():
        raise NotInProject(
            f"There is no dagster.yaml in {here}: run this command in the project's folder, or, with the package alone "
            "installed, dialog-assets demo in an empty one."
        )


def find_database() -> str:
    """The application database's URL; tells on the error stream where its data are if they are here.

    Raises DatabaseUnreachable, FolderUnusable.
    """
    if not os.environ.get("DATABASE_URL"):
        click.echo(f"Data: {data_folder()}", err=True)
        other = other_data()
        if other is not None:
            click.echo(f"Another database, of an earlier version and not used since, is in {other}.", err=True)
    return server.database_url()


def prepare() -> str:
    """Find the databases and set what Dagster's own processes read; returns the application database's URL.

    Sets DATABASE_URL, DAGSTER_POSTGRES_URL, DAGSTER_HOME (a folder of its own, so that Dagster's run files stay out of
    the project's root). Raises DatabaseUnreachable, FolderUnusable, NotInProject.
    """
    check_folder()
    url = find_database()
    os.environ["DATABASE_URL"] = url
    os.environ["DAGSTER_POSTGRES_URL"] = server.dagster_url(url)
    home = data_part("dagster_home")
    shutil.copyfile(CONFIGURATION, home / CONFIGURATION.name)
    os.environ["DAGSTER_HOME"] = str(home)
    return url
