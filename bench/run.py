"""The command: `python -m bench.run [store] [bitrix24] [speech] …`; without a part, all of them."""

from __future__ import annotations

import click

from bench import bitrix24, report, speech, store

PARTS = ("store", "bitrix24", "speech")


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option(
    "--large", is_flag=True, help="bitrix24: 500,000 calls too, and 50 and 200 ms a command for 20,000 calls."
)
@click.option("--size", "sizes", type=int, multiple=True, help="bitrix24: these numbers of calls instead.")
@click.option("--latency-ms", default=4.0, show_default=True, help="bitrix24: what a command takes at the portal.")
@click.option("--flat", is_flag=True, help="bitrix24: counting rows and passing over rows are free at the portal.")
@click.option("--contacts", default=10_000, show_default=True, help="bitrix24: contacts to read by id; 0: none.")
@click.option("--recordings", default=500, show_default=True, help="bitrix24: recordings to fetch; 0: none.")
@click.option("--best-of", default=2, show_default=True, help="bitrix24: runs of each client.")
@click.option("--rows", default=200_000, show_default=True, help="store: calls to write.")
@click.option("--repetitions", default=3, show_default=True, help="store: how often all is repeated.")
@click.option(
    "--chunk", "chunks", type=int, multiple=True, help="store: calls a write; 500, 2,500 and 10,000 by default."
)
@click.option("--time-scale", default=0.1, show_default=True, help="speech: by what all times are multiplied.")
def main(
    parts: tuple[str, ...],
    large: bool,  # noqa: FBT001 -- click passes flags by position
    sizes: tuple[int, ...],
    latency_ms: float,
    flat: bool,  # noqa: FBT001 -- click passes flags by position
    contacts: int,
    recordings: int,
    best_of: int,
    rows: int,
    repetitions: int,
    chunks: tuple[int, ...],
    time_scale: float,
) -> None:
    """Measure, print tables of ratios, and write them with machine and date to bench/results/."""
    for part in parts or PARTS:
        facts = report.machine({})
        if part == "store":
            sections, versions = store.measure(rows, repetitions, chunks or (500, 2500, 10_000))
        elif part == "speech":
            sections, versions = speech.measure(speech.Scale(time_scale=time_scale))
        else:
            scale = bitrix24.Scale(
                sizes=sizes or ((20_000, 130_000, 200_000, 500_000) if large else (20_000, 130_000, 200_000)),
                latency_ms=latency_ms,
                contacts=contacts,
                recordings=recordings,
                best_of=best_of,
                flat=flat,
            )
            sections, versions = bitrix24.measure(scale)
            for slower in (50.0, 200.0) if large else ():
                more, _ = bitrix24.measure(bitrix24.Scale((20_000,), slower, 0, 0, 1, slow_too=False))
                sections += more
        report.write(part, "\n".join([facts, *(f"- {name}: {value}" for name, value in versions.items())]), sections)


if __name__ == "__main__":
    main()
