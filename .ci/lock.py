"""Does every promised Python get one version of each package? Read from requirements.lock's markers, without the network.

A native package of two versions is two libraries to be written and tested for: such a fork fails the check unless it is
declared here, with the code and tests that cover both. Forks of other packages are listed.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.markers import Marker, default_environment

ROOT = Path(__file__).resolve().parents[1]
DECLARED: frozenset[str] = frozenset()
PLATFORMS = ("linux", "darwin", "win32")


def promised() -> list[str]:
    """The Pythons of pyproject.toml's requires-python."""
    first, end = map(
        int, re.findall(r"3\.(\d+)", re.findall(r"requires-python.*", (ROOT / "pyproject.toml").read_text())[0])
    )
    return [f"3.{minor}" for minor in range(first, end)]


def forks(lock: str, pythons: list[str]) -> dict[str, set[str]]:
    """Package → what differs between the Pythons on one platform."""
    found: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for name, version, marker in re.findall(r"^([\w.-]+)==(\S+?)(?: ; (.+?))? \\$", lock, re.MULTILINE):
        for platform in PLATFORMS:
            for python in pythons:
                environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": platform}
                if not marker or Marker(marker).evaluate({**default_environment(), **environment}):
                    found[name, platform][python] = version
    differing: dict[str, set[str]] = defaultdict(set)
    for (name, _), versions in found.items():
        if len(versions) < len(pythons) or len(set(versions.values())) > 1:
            differing[name].add(", ".join(f"{python}: {versions.get(python, 'none')}" for python in pythons))
    return differing


def is_native(name: str) -> bool:
    """Whether its wheel holds compiled code; what is not installed here may."""
    try:
        return "Root-Is-Purelib: false" in (distribution(name).read_text("WHEEL") or "")
    except PackageNotFoundError:
        return True


def main(lock: Path) -> int:
    """Tell what differs; 1 where a native package does."""
    pythons = promised()
    differing = forks(lock.read_text(), pythons)
    print(f"Python {', '.join(pythons)}: {len(differing) or 'no'} packages differ between them.")
    bad = sorted(name for name in differing if is_native(name) and name not in DECLARED)
    for name, how in sorted(differing.items()):
        print(f"  {name}{' (native)' if is_native(name) else ''}: {'; '.join(sorted(how))}")
    if bad:
        print(
            f"{', '.join(bad)}: one version for all promised Pythons, by a bound in pyproject.toml and make lock; or "
            "code and tests for both, and a line in DECLARED."
        )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "requirements.lock"))
