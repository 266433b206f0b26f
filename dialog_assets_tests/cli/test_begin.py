"""A project begins where the package alone is installed: in an empty folder, from the files that the wheel brings."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from dialog_assets.cli import instance, world
from dialog_assets.cli.instance import NotInProject, begin_project
from dialog_assets.cli.world import SandboxFailed, sandbox_process
from dialog_assets.portals import load_portals
from dialog_assets_tests.conftest import ROOT


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a wheel lays beside the package, by pyproject.toml; this process stands in an empty folder."""
    files = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    for folder, patterns in files.items():
        (tmp_path / "prefix" / folder).mkdir(parents=True, exist_ok=True)
        for path in (path for pattern in patterns for path in ROOT.glob(pattern)):
            (tmp_path / "prefix" / folder / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(instance, "SHIPPED", tmp_path / "prefix" / "share" / "dialog_assets")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return tmp_path / "empty"


def test_in_an_empty_folder(installed: Path) -> None:
    """All that a command needs; what is changed afterwards stays."""
    begin_project()
    instance.check_folder()
    assert (installed / "workspace.yaml").exists()
    assert [portal.portal for portal in load_portals(installed / "portals")] == ["avto_ural", "okna_sever"]
    (installed / "dagster.yaml").write_text("telemetry: {enabled: true}")
    begin_project()
    assert (installed / "dagster.yaml").read_text() == "telemetry: {enabled: true}"


def test_not_among_other_files(installed: Path) -> None:
    """Nothing is laid into a folder that holds something else."""
    (installed / "letter.txt").touch()
    with pytest.raises(NotInProject, match="in an empty one"):
        begin_project()
    assert [path.name for path in installed.iterdir()] == ["letter.txt"]


def test_without_the_sandboxs_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence with the extra's name, before a process is started."""
    monkeypatch.setattr(world, "_PACKAGES", ("starlette", "no_such_package"))
    with (
        pytest.raises(SandboxFailed, match=r"\(no_such_package\): pip install 'dialog-assets\[sandbox\]'"),
        sandbox_process(),
    ):
        pass
