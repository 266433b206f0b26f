"""The outside world of the archive's measurement as one process: a portal with recordings of chosen sizes, and S3.

Prints the environment that leads there and the cases as one line of JSON. The recordings are WAV files of 48 kHz stereo,
the largest that providers make ("hd"), with sound that comes and goes as speech does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import wave
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from dialog_assets.sandbox.server import Sandbox, serve
from dialog_assets.sandbox.world.model import Call, Recording, SandboxPortal, World

RATE, CHANNELS = 48_000, 2
READY = datetime(2026, 3, 2, tzinfo=UTC)
FIRST_FILE = 9000


def write_wav(path: Path, size: int) -> Path:
    """A WAV file of about `size` bytes: noise in bursts, now on one channel, now on the other."""
    chance = np.random.default_rng(1)
    seconds = 10
    noise = chance.normal(0, 3000, (RATE * seconds, CHANNELS))
    envelope = np.repeat(chance.random((seconds * 2, CHANNELS)) > 0.5, RATE // 2, axis=0)
    block = (noise * envelope).astype("<i2").tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(CHANNELS)
        file.setsampwidth(2)
        file.setframerate(RATE)
        left = size
        while left > 0:
            file.writeframesraw(block[:left])
            left -= len(block)
    return path


def world(files: Sequence[Path]) -> World:
    """Portal okna_sever with nothing but these recordings on its Disk."""
    calls = tuple(
        Call(
            number,
            READY,
            {},
            Recording(FIRST_FILE + number, path, path.name, "speech", 2, 0, None, READY),
        )
        for number, path in enumerate(files)
    )
    portal = SandboxPortal(
        portal="okna_sever",
        webhook_user=1,
        webhook_secret="bench",  # noqa: S106 -- of a stand-in
        time_zone="Europe/Moscow",
        users={},
        contacts={},
        leads={},
        companies={},
        deals={},
        calls=calls,
        webhook_env="OKNA_SEVER_WEBHOOK",
    )
    return World({portal.portal: portal})


def main() -> None:
    """Write the files, serve, tell where."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--megabytes", type=int, action="append", required=True)
    arguments = parser.parse_args()
    files = [write_wav(arguments.folder / f"{size}.wav", size << 20) for size in arguments.megabytes]

    def ready(sandbox: Sandbox) -> None:
        told = {size: FIRST_FILE + number for number, size in enumerate(arguments.megabytes)}
        print(json.dumps({"environment": sandbox.environment, "files": told}), flush=True)  # noqa: T201

    asyncio.run(serve(Sandbox(world=world(files)), ready))


if __name__ == "__main__":
    main()
