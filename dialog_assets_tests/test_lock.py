"""The check that one version of each native package serves every promised Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dialog_assets_tests.conftest import ROOT


def checked(lock: Path) -> tuple[int, str]:
    done = subprocess.run([sys.executable, ROOT / ".ci" / "lock.py", lock], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_the_lock_has_one_version_for_all_pythons() -> None:
    code, told = checked(ROOT / "requirements.lock")
    assert code == 0, told


def test_a_fork_of_a_native_package_fails_and_of_another_one_is_listed(tmp_path: Path) -> None:
    """PyAV has had one; a package that only some Pythons need is told too."""
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        "av==18.1.0 ; python_full_version < '3.12' \\\n    --hash=sha256:0\n"
        "av==19.0.2 ; python_full_version >= '3.12' \\\n    --hash=sha256:0\n"
        "click==8.1 ; python_version >= '3.13' \\\n    --hash=sha256:0\n"
        "pytest==9.1 ; sys_platform == 'win32' \\\n    --hash=sha256:0\n"
    )
    code, told = checked(lock)
    assert code == 1
    assert "av (native): 3.11: 18.1.0, 3.12: 19.0.2" in told
    assert "  click: 3.11: none, 3.12: none, 3.13: 8.1" in told
    assert "pytest" not in told
    lock.write_text(lock.read_text().partition("av==")[0] + "click==8.1 ; python_version >= '3.13' \\\n")
    assert checked(lock)[0] == 0
