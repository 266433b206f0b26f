"""What a measurement is told as: a table on the terminal, and the same in bench/results/ with machine and date."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


@dataclass
class Section:
    """One table: what was done, in one sentence, then columns and rows of text; a row beginning with `**` is ours."""

    title: str
    about: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)

    def markdown(self) -> str:
        """As a file shows it."""
        lines = [
            f"## {self.title}",
            "",
            self.about,
            "",
            _line(self.columns),
            _line(["---", *["---:"] * (len(self.columns) - 1)]),
        ]
        return "\n".join([*lines, *map(_line, self.rows), ""])

    def show(self, console: Console) -> None:
        """As a terminal shows it."""
        table = Table(title=self.title, caption=self.about, title_justify="left", caption_justify="left")
        for number, name in enumerate(self.columns):
            table.add_column(name, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*(cell.replace("**", "") for cell in row), style="bold" if row[0].startswith("**") else None)
        console.print(table)


def machine(versions: Mapping[str, str]) -> str:
    """Facts of the machine and of what ran, one a line, and how busy it was: figures of a busy machine say little."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"
    facts = {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "machine": f"{_processor()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / (1 << 30):.0f} GB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "load before": f"{load} (1, 5, 15 minutes)",
        **versions,
    }
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def tell(part: str, facts: str, sections: Sequence[Section], *, to_file: bool) -> None:
    """Print the sections, and write them to bench/results/<date>-<part>.md."""
    console = Console(width=None if Console().is_terminal else 200)
    console.print(facts, highlight=False)
    for section in sections:
        section.show(console)
    if not to_file:
        return
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-{part}.md"
    text = "\n".join([f"# Measured: {part}", "", facts, "", *(section.markdown() for section in sections)])
    path.write_text(text, encoding="utf-8")
    console.print(f"Written to {path}")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()
