"""Rates: by a clock of the test, and for once by what arrives at a socket."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatkeep.config.amounts import UNLIMITED, Rate, TimeOfDay
from chatkeep.config.errors import Cancelled
from chatkeep.config.limits import Limit, LimitHours, in_force
from chatkeep.providers import base
from chatkeep.providers.wrap import Limited, Narrow, Patience, Retrying
from chatkeep.providers.wrap.bucket import Bucket
from tests.support.memory_provider import MemoryProvider

KB = 1000


class Clock:
    """A clock that sleeping moves on, from an evening in local time."""

    def __init__(self, begin: str = "2026-03-06 21:59:00") -> None:  # a Friday
        self.now = 0.0
        self.slept = 0
        self._begin = datetime.fromisoformat(begin).timestamp()

    def monotonic(self) -> float:
        return self.now

    def local(self) -> time.struct_time:
        return time.localtime(self._begin + self.now)

    def sleep(self, seconds: float) -> None:
        self.slept += 1
        self.now += seconds


class PacedProvider(MemoryProvider):
    """Sends in small parts."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[int] = []

    def put_paced(self, name: str, body: bytes, pace: Callable[[int], None]) -> None:
        for at in range(0, len(body), 65536):
            pace(len(body[at : at + 65536]))
            self.parts.append(at)
        super().put(name, body)


def limited(provider: base.Provider, limit: Limit, clock: Clock) -> Limited:
    return Limited(provider, limit, clock.sleep, clock.monotonic, clock.local)


@pytest.mark.parametrize("provider", [MemoryProvider(), PacedProvider()], ids=["whole", "paced"])
def test_uploads_keep_to_the_rate(provider: MemoryProvider) -> None:
    clock = Clock()
    wrapped = limited(provider, Limit(upload=Rate(100 * KB)), clock)
    for number in range(10):
        wrapped.put(f"a{number}", bytes(100 * KB))
    # Of 1 MB at 100 KB/s the last object (or the last part of it) need not be waited for.
    assert 8.9 <= clock.now <= 10.0
    wrapped.put("b", b"")
    assert 8.9 <= clock.now <= 10.1
    assert wrapped.get("a3") == bytes(100 * KB)


def test_downloads_keep_to_the_rate() -> None:
    clock, provider = Clock(), MemoryProvider()
    provider.put("a", bytes(100 * KB))
    wrapped = limited(provider, Limit(download=Rate(50 * KB)), clock)
    for _ in range(5):
        assert len(wrapped.get("a")) == 100 * KB
    assert 7.9 <= clock.now <= 8.1
    assert len(wrapped.get("a", 10, 20)) == 20
    assert 9.9 <= clock.now <= 10.1


def test_a_paced_object_is_sent_evenly() -> None:
    clock, provider = Clock(), PacedProvider()
    seen: list[float] = []
    real = provider.parts.append

    class Noting(list[int]):
        def append(self, at: int) -> None:
            seen.append(clock.now)
            real(at)

    provider.parts = Noting()
    limited(provider, Limit(upload=Rate(65536)), clock).put("a", bytes(10 * 65536))
    gaps = [after - before for before, after in itertools.pairwise(seen)]
    assert len(gaps) == 9
    assert all(0.89 <= gap <= 1.01 for gap in gaps)


def test_directions_do_not_hold_each_other_up() -> None:
    clock, provider = Clock(), MemoryProvider()
    wrapped = limited(provider, Limit(upload=Rate(KB)), clock)
    wrapped.put("a", bytes(1000 * KB))
    for _ in range(100):
        wrapped.get("a")
    assert clock.now == 0
    wrapped.stat("a")
    assert clock.now == 0


def test_without_a_limit_nothing_waits() -> None:
    clock, provider = Clock(), PacedProvider()
    wrapped = limited(provider, Limit(hours=(LimitHours(TimeOfDay(0), TimeOfDay(1), upload=UNLIMITED),)), clock)
    wrapped.put("a", bytes(10**6))
    assert (clock.slept, provider.parts) == (0, [])


def test_hours_that_begin_end_the_wait() -> None:
    """At 1 KB/s the object would take 1000 seconds; a minute later the night begins, with no limit."""
    clock, provider = Clock(), MemoryProvider()
    night = LimitHours(TimeOfDay(22 * 60), TimeOfDay(6 * 60), upload=UNLIMITED)
    wrapped = limited(provider, Limit(upload=Rate(KB), hours=(night,)), clock)
    wrapped.put("a", bytes(1000 * KB))
    wrapped.put("b", bytes(1000 * KB))
    assert 59 <= clock.now <= 61.5
    wrapped.put("c", bytes(1000 * KB))
    assert clock.now <= 61.5


def test_a_slower_hour_holds_at_once() -> None:
    clock, provider = Clock("2026-03-06 07:59:59"), MemoryProvider()
    day = LimitHours(TimeOfDay(8 * 60), TimeOfDay(18 * 60), ("fri",), Rate(KB))
    wrapped = limited(provider, Limit(upload=Rate(100 * KB), hours=(day,)), clock)
    wrapped.put("a", bytes(100 * KB))
    wrapped.put("b", bytes(10 * KB))
    assert clock.now == pytest.approx(1.0, abs=0.2)
    wrapped.put("c", b"")
    assert clock.now == pytest.approx(11.0, abs=0.5)


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("2026-03-06 21:59", 100),
        ("2026-03-06 22:00", 7),
        ("2026-03-07 05:59", 7),
        ("2026-03-07 06:00", 100),
        ("2026-03-07 22:30", 100),  # not on a Saturday
        ("2026-03-08 05:00", 100),
        ("2026-03-08 12:00", 9),
        ("2026-03-09 11:59", 9),  # a whole day, from noon on Sunday
        ("2026-03-09 12:00", 100),
    ],
)
def test_the_hours_of_a_week(when: str, expected: int) -> None:
    night = LimitHours(TimeOfDay(22 * 60), TimeOfDay(6 * 60), ("fri",), Rate(7))
    sunday = LimitHours(TimeOfDay(12 * 60), TimeOfDay(12 * 60), ("sun",), Rate(9), Rate(1))
    at = datetime.fromisoformat(when)
    limit = Limit(Rate(100), UNLIMITED, (night, sunday))
    assert in_force(limit, at.weekday(), at.hour * 60 + at.minute) == (expected, 1 if expected == 9 else UNLIMITED)


@given(
    st.integers(1, 10**7),
    st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 5)), min_size=1, max_size=50),
)
def test_no_more_than_the_rate_whoever_asks_when(rate: int, asked: list[tuple[int, float]]) -> None:
    """By the time that a sum may be sent, all before it is paid for, but for a tenth of a second."""
    bucket, now, sent = Bucket(), 0.0, 0
    for size, idle in asked:
        now += idle
        while (wait := bucket.wait(Rate(rate), now)) > 0:
            now += wait
        assert sent <= rate * (now + 0.1) * 1.0001 + 1
        bucket.charge(size)
        sent += size


class Stop(Cancelled):
    pass


@pytest.mark.parametrize("swallow", [False, True], ids=["passed on", "swallowed by a library"])
def test_the_wait_inside_an_object_can_be_cancelled(swallow: bool) -> None:
    class Swallowing(PacedProvider):
        def put_paced(self, name: str, body: bytes, pace: Callable[[int], None]) -> None:
            try:
                super().put_paced(name, body, pace)
            except Cancelled as problem:
                if swallow:
                    raise base.Unavailable(provider=self.name) from problem
                raise

    naps: list[float] = []

    def cancel(seconds: float) -> None:
        naps.append(seconds)
        raise Stop

    provider, clock = Swallowing(), Clock()
    wrapped = Limited(provider, Limit(upload=Rate(KB)), clock.sleep, clock.monotonic, clock.local)
    with pytest.raises(Stop):
        Retrying(wrapped, Patience(), cancel).put("a", bytes(10**6))
    assert len(naps) == 1, "it was not tried again"
    assert clock.slept == 0, "the wait is that of whoever retries"
    assert provider.parts == [0]
    assert "a" not in provider.objects


def test_whoever_waits_otherwise_keeps_to_the_same_rate() -> None:
    clock, provider = Clock(), MemoryProvider()
    first = limited(provider, Limit(upload=Rate(10 * KB)), clock)
    second = first.waiting(clock.sleep)
    for number in range(10):
        (first, second)[number % 2].put(f"a{number}", bytes(10 * KB))
    assert 8.8 <= clock.now <= 9.1


def test_who_came_first_goes_first() -> None:
    """Or a connection would be silent for so long, by chance, that the other side gives it up."""
    clock, provider = Clock(), MemoryProvider()
    wrapped = limited(provider, Limit(upload=Rate(10 * KB)), clock)
    wrapped.put("a", bytes(5 * KB))

    def stop(_seconds: float) -> None:
        raise Stop

    tried = 0

    def meanwhile(seconds: float) -> None:
        nonlocal tried
        tried += 1
        clock.sleep(seconds)  # all is paid for now, and whoever waited is still waking up
        with pytest.raises(Stop):
            wrapped.waiting(stop).put("c", bytes(KB))

    wrapped.waiting(meanwhile).put("b", bytes(5 * KB))
    assert (tried, set(provider.objects)) == (1, {"a", "b"})
    wrapped.put("c", bytes(KB))
    assert 0.9 <= clock.now <= 1.1


class Sender(MemoryProvider):
    """Sends to a socket, as a client library does."""

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__()
        self._line = socket.create_connection(address)

    def put(self, name: str, body: bytes) -> None:
        self._line.sendall(body)

    def put_paced(self, name: str, body: bytes, pace: Callable[[int], None]) -> None:
        for at in range(0, len(body), 65536):
            part = body[at : at + 65536]
            pace(len(part))
            self._line.sendall(part)

    def close(self) -> None:
        self._line.close()


@pytest.mark.parametrize(("most", "slow"), [(1, 1), (2, 1), (4, 3)])
def test_slow_uploads_leave_a_connection_to_the_rest(most: int, slow: int) -> None:
    store = PacedProvider()
    store.put("a", b"1")
    narrow = Narrow(store, most)
    begun, go = threading.Semaphore(0), threading.Event()

    def pace(_size: int) -> None:
        begun.release()
        assert go.wait(60)

    threads = [threading.Thread(target=narrow.put_paced, args=(f"b{number}", b"x", pace)) for number in range(6)]
    reading = threading.Thread(target=narrow.get, args=("a",))
    for thread in threads:
        thread.start()
    try:
        for _ in range(slow):
            assert begun.acquire(timeout=60)
        reading.start()
        if most > 1:
            reading.join(60)
            assert not reading.is_alive()
        assert not begun.acquire(blocking=False), "more of them than there may be"
    finally:
        go.set()
        for thread in (*threads, reading):
            thread.join()
    assert [narrow.get(f"b{number}") for number in range(6)] == [b"x"] * 6


def test_a_real_line_carries_no_more_than_the_rate() -> None:
    """Two threads send 1.5 MB at 1 MB/s. What arrives at the socket is counted."""
    rate, total = 10**6, 1_500_000
    arrived: list[tuple[float, int]] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drain() -> None:
            line, _ = server.accept()
            with line:
                while found := len(line.recv(1 << 20)):
                    arrived.append((time.monotonic(), found))

        drained = threading.Thread(target=drain)
        drained.start()
        provider = Sender(server.getsockname()[:2])
        wrapped = Limited(provider, Limit(upload=Rate(rate)))
        begun = time.monotonic()
        threads = [
            threading.Thread(target=wrapped.put, args=(name, bytes(total // 2)), name=f"send-{name}") for name in "ab"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        provider.close()
        drained.join()
    assert sum(size for _, size in arrived) == total
    # At no instant more had arrived than the rate allows since the beginning, but for a part of each thread and the
    # credit for a sleep that ends late. (A machine that is busy delays an arrival; none makes it earlier.)
    summed = 0
    for at, size in arrived:
        summed += size
        assert summed <= rate * (at - begun + 0.1) + 2 * 65536
    assert arrived[-1][0] - begun >= (total - 2 * 65536) / rate - 0.1
    assert len(arrived) > 10, "it came all at once"
