"""The command: `python -m bench.run [store] [bitrix24] [archive] [audio] [speech]`; without a part, all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from bench import archive, audio, bitrix24, report, speech, store
from bench.bitrix24.calls import Window

PARTS = ("store", "bitrix24", "archive", "audio", "speech")
CHUNKS = (500, 2500, 10_000)
RECORDINGS_MB = (1, 500)
MADE_CALLS = (60, 300)


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option("--large", is_flag=True, help="All sizes, all latencies: an hour instead of six minutes.")
@click.option("--only", multiple=True, type=click.Choice(bitrix24.PARTS), help="bitrix24: these tables.")
@click.option("--size", "sizes", type=int, multiple=True, help="bitrix24: windows of so many calls instead.")
@click.option("--latency-ms", default=4.0, show_default=True, help="bitrix24, with --size: what a command takes.")
@click.option("--free", is_flag=True, help="bitrix24, with --size: counting rows and passing over rows cost nothing.")
@click.option("--contacts", type=int, help="bitrix24: contacts to read by id.")
@click.option("--recordings", type=int, help="bitrix24: recordings to fetch.")
@click.option("--best-of", type=int, help="bitrix24: runs of each client, where they are short.")
@click.option("--rows", default=200_000, show_default=True, help="store: calls to write.")
@click.option("--repetitions", default=3, show_default=True, help="store, archive, audio: how often all is repeated.")
@click.option("--chunk", "chunks", type=int, multiple=True, help="store: calls a write.")
@click.option("--time-scale", default=0.1, show_default=True, help="speech: by what all times are multiplied.")
@click.option("--no-file", is_flag=True, help="Print, and write nothing to bench/results/.")
def main(
    parts: tuple[str, ...],
    large: bool,  # noqa: FBT001 -- click passes flags by position
    only: tuple[str, ...],
    sizes: tuple[int, ...],
    latency_ms: float,
    free: bool,  # noqa: FBT001 -- click passes flags by position
    contacts: int | None,
    recordings: int | None,
    best_of: int | None,
    rows: int,
    repetitions: int,
    chunks: tuple[int, ...],
    time_scale: float,
    no_file: bool,  # noqa: FBT001 -- click passes flags by position
) -> None:
    """Measure, print tables of ratios, and write them with machine and date to bench/results/."""
    for part in parts or PARTS:
        facts = report.machine({})
        if part == "store":
            sections, versions = store.measure(rows, repetitions, chunks or (CHUNKS if large else CHUNKS[1:2]))
        elif part == "archive":
            sections, versions = archive.measure(RECORDINGS_MB, repetitions)
        elif part == "audio":
            sections, versions = audio.measure(repetitions, MADE_CALLS[large])
        elif part == "speech":
            sections, versions = speech.measure(speech.Scale(time_scale=time_scale))
        else:
            scale = bitrix24.LARGE if large else bitrix24.Scale()
            given: dict[str, Any] = {
                "parts": only,
                "windows": tuple(Window(size, latency_ms, free) for size in sizes),
                "contacts": contacts,
                "recordings": recordings,
                "best_of": best_of,
            }
            scale = replace(scale, **{name: value for name, value in given.items() if value})
            sections, versions = bitrix24.measure(scale)
        told = "\n".join([facts, *(f"- {name}: {value}" for name, value in versions.items())])
        report.tell(part, told, sections, to_file=not no_file)


if __name__ == "__main__":
    main()
