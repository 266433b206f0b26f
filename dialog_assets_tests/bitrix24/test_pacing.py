"""The bucket on our side never lets the portal's overflow."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog_assets.bitrix24.pacing import JITTER_S, LeakyBucket


class Time:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Now."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Let the time pass."""
        assert seconds > 0
        self.now += seconds


def portal_overflows(arrivals: list[float], size: int, drain: float) -> bool:
    """The portal's own bucket: whether any request finds it too full."""
    level, seen = 0.0, arrivals[0]
    for moment in sorted(arrivals):
        level = max(0.0, level - (moment - seen) * drain) + 1
        seen = moment
        if level > size + 1e-3:
            return True
    return False


@given(
    size=st.sampled_from([20, 50, 250]),
    drain=st.sampled_from([0.5, 2.0, 5.0]),
    pauses=st.lists(st.one_of(st.just(0.0), st.floats(0, 40)), min_size=1, max_size=150),
    delays=st.lists(st.floats(0, JITTER_S), min_size=1, max_size=20),
)
def test_the_portal_never_refuses(size: int, drain: float, pauses: list[float], delays: list[float]) -> None:
    """Whatever the pauses between requests and their delays on the way, the portal's bucket does not overflow."""

    async def send() -> list[float]:
        time = Time()
        bucket = LeakyBucket(size, drain, clock=time, sleep=time.sleep)
        arrivals: list[float] = []
        for pause in [*pauses, *[0.0] * size]:
            time.now += pause
            await bucket.take()
            arrivals.append(time.now + delays[len(arrivals) % len(delays)])
        return arrivals

    assert not portal_overflows(asyncio.run(send()), size, drain)


def test_simultaneous_senders_share_one_count() -> None:
    """Sixty senders at once: the burst fits the bucket less its margin, then the drain sets the pace, in order of arrival."""

    async def send() -> tuple[list[int], list[float]]:
        time = Time()
        bucket = LeakyBucket(50, 2.0, clock=time, sleep=time.sleep)
        order: list[int] = []
        moments: list[float] = []

        async def one(number: int) -> None:
            await bucket.take()
            order.append(number)
            moments.append(time.now - 1000)

        await asyncio.gather(*(one(number) for number in range(60)))
        return order, moments

    order, moments = asyncio.run(send())
    assert order == list(range(60))
    assert moments[:48] == [0.0] * 48
    assert moments[48:] == pytest.approx([0.25 + 0.5 * step for step in range(12)])


def test_a_cancelled_waiter_takes_no_place() -> None:
    """Who gives up while waiting neither counts nor blocks the next."""

    async def go() -> None:
        time = Time()
        gate = asyncio.Event()

        async def stuck(seconds: float) -> None:
            await gate.wait()
            time.now += seconds

        bucket = LeakyBucket(1, 1.0, clock=time, sleep=stuck)
        await bucket.take()
        waiter = asyncio.create_task(bucket.take())
        await asyncio.sleep(0)
        waiter.cancel()
        gate.set()
        await bucket.take()
        assert time.now == pytest.approx(1001)

    asyncio.run(go())


def test_impossible_buckets_are_refused() -> None:
    """A bucket without size or drain would wait for ever."""
    with pytest.raises(ValueError, match="bucket"):
        LeakyBucket(0, 2.0)
