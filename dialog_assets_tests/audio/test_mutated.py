"""Recordings with a seeded fault each: every one ends with values or a reason, and the next one is read all the same."""

from __future__ import annotations

import asyncio
import random
import struct
from pathlib import Path

import pytest

from dialog_assets.audio.errors import AudioError
from dialog_assets.audio.gate import gate
from dialog_assets.audio.workers import Inspectors, Limits
from dialog_assets_tests.audio import odd_files
from dialog_assets_tests.audio.files import form_of

LARGEST = 200_000
SIZES = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 0x7FFFF000, 2**32 - 36)
LONG_SIZES = (2**63 - 1, 2**63, 2**63 + 500, 2**64 - 1, 2**64 - 16, 2**40)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Short recordings of every kind that can be made here."""
    made = odd_files.make(tmp_path_factory.mktemp("odd"))
    return [data for path in made.values() if len(data := path.read_bytes()) <= LARGEST]


def bytes_at_random(data: bytearray, chance: random.Random) -> None:
    within = chance.choice((64, 512, len(data)))
    for _ in range(chance.choice((1, 8, 100))):
        data[chance.randrange(min(len(data), within))] = chance.randrange(256)


def a_size(data: bytearray, chance: random.Random) -> None:
    """A field of four or eight bytes says what cannot be; most of a header's fields lie at even places near its start."""
    at = chance.randrange(0, min(len(data) - 8, chance.choice((64, 256, 2048)))) & ~1
    order = chance.choice("<>")
    if chance.random() < 0.5:
        struct.pack_into(f"{order}I", data, at, chance.choice(SIZES))
    else:
        struct.pack_into(f"{order}Q", data, at, chance.choice(LONG_SIZES))


def a_cut(data: bytearray, chance: random.Random) -> None:
    del data[chance.choice((chance.randrange(200), chance.randrange(len(data)))) :]


def a_hole(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    data[at : at + chance.choice((1, 40, 3000))] = bytes(chance.choice((0, 1, 40, 3000)))


def something_in_front(data: bytearray, chance: random.Random) -> None:
    data[:0] = chance.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\n", bytes(600), b"\xff" * 300, chance.randbytes(90)))


def a_piece_again(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    data[at:at] = data[: chance.choice((12, 100, 4000))] * chance.choice((1, 50))


FAULTS = (bytes_at_random, a_size, a_size, a_cut, a_hole, something_in_front, a_piece_again)


def mutated(originals: list[bytes], chance: random.Random) -> bytes:
    data = bytearray(chance.choice(originals))
    for _ in range(chance.choice((1, 1, 2, 4))):
        if len(data) > 16:
            chance.choice(FAULTS)(data, chance)
    if chance.random() < 0.1:
        data += chance.choice(originals)
    return bytes(data)


async def ends(inspectors: Inspectors, path: Path) -> str:
    """How a recording ends that goes through all that a night does with its file."""
    try:
        found = await inspectors.inspect(path)
        assert found.duration_s > 0
        assert 0 < found.bit_rate < 2**31
        gate(found)
        prepared = await inspectors.prepare(path, form_of(found), path.with_suffix(".prepared"))
        if prepared.path != path:
            assert prepared.path.stat().st_size <= form_of(found).prepared_bytes(found.bytes, found.duration_s)
    except AudioError as error:
        assert path.name not in str(error)
        assert "Error in" not in error.detail, f"a fault of ours: {error.detail}"
        return error.reason
    return "read"


@pytest.mark.parametrize(("first", "count"), [(0, 50), pytest.param(1000, 1000, marks=pytest.mark.long)])
def test_a_mutated_recording_ends_with_values_or_a_reason(
    tmp_path: Path, originals: list[bytes], first: int, count: int
) -> None:
    """No system error, no fault of our own code, no values that cannot be; a file that brings its worker down is its own end."""

    async def main() -> list[str]:
        async with Inspectors(2, Limits(seconds=20, memory_megabytes=256, file_megabytes=64)) as inspectors:

            async def one(seed: int) -> str:
                path = tmp_path / f"call_{seed}"
                path.write_bytes(mutated(originals, random.Random(seed)))
                try:
                    return await ends(inspectors, path)
                except (AssertionError, OSError) as error:
                    return f"seed {seed}: {error!r}"
                finally:
                    path.unlink()
                    path.with_suffix(".prepared").unlink(missing_ok=True)

            ended = await asyncio.gather(*map(one, range(first, first + count)))
            assert await ends(inspectors, odd_files.WORLD) == "read"
            return ended

    ended = asyncio.run(main())
    assert not [how for how in ended if how.startswith("seed")]
    assert ended.count("read") > count / 4
