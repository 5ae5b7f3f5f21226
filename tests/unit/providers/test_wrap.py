from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from chatkeep.config.errors import Cancelled
from chatkeep.providers import base
from chatkeep.providers.folder import FolderProvider
from chatkeep.providers.memo import MemoryMemo
from chatkeep.providers.used import DAYS, Used
from chatkeep.providers.wrap import Daily, Patience, Retrying, Unopened
from tests.support.faulty_provider import Fault, FaultyProvider, Verb
from tests.support.memory_provider import MemoryProvider


@pytest.fixture
def folder(tmp_path: Path) -> FolderProvider:
    return FolderProvider("disk", tmp_path / "vault", create=True)


class Sleeper:
    """Remembers how long it was asked to wait."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.waits.append(seconds)


def retrying(provider: base.Provider, sleep: Sleeper, patience: Patience | None = None) -> Retrying:
    return Retrying(provider, patience, sleep, chance=lambda: 1.0)


VERBS: tuple[Verb, ...] = ("put", "get", "stat", "delete", "probe")


def call(provider: base.Provider, verb: Verb) -> None:
    if verb == "put":
        provider.put("a", b"body")
    elif verb == "probe":
        provider.probe()
    else:
        getattr(provider, verb)("a")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("after", [False, True])
def test_a_passing_fault_passes(verb: Verb, after: bool, folder: FolderProvider) -> None:
    folder.put("a", b"body")
    fault = Fault(verb, base.Unavailable(provider="disk"), after=after, times=2)
    sleep = Sleeper()
    call(retrying(FaultyProvider(folder, fault), sleep), verb)
    assert fault.fired == 2
    assert sleep.waits == [0.5, 1.0]


def test_a_lost_reply_of_a_put_is_no_conflict(folder: FolderProvider) -> None:
    fault = Fault("put", base.Unavailable(), after=True)
    retrying(FaultyProvider(folder, fault), Sleeper()).put("a", b"body")
    assert fault.fired == 1
    assert folder.get("a") == b"body"


@pytest.mark.parametrize(
    "kind",
    [
        base.QuotaExceeded,
        base.PermissionRefused,
        base.StorageMissing,
        base.ObjectConflict,
        base.ObjectNotFound,
        base.ObjectDamaged,
        base.InvalidName,
    ],
)
def test_what_does_not_pass_is_not_repeated(kind: type[base.ProviderError], folder: FolderProvider) -> None:
    fault = Fault("put", kind(provider="disk"), times=None)
    sleep = Sleeper()
    with pytest.raises(kind) as caught:
        retrying(FaultyProvider(folder, fault), sleep).put("a", b"")
    assert caught.value is fault.error
    assert fault.fired == 1
    assert sleep.waits == []


def test_it_gives_up_with_the_last_error(folder: FolderProvider) -> None:
    fault = Fault("get", base.Unavailable(provider="disk"), times=None)
    sleep = Sleeper()
    with pytest.raises(base.Unavailable):
        retrying(FaultyProvider(folder, fault), sleep, Patience(attempts=9, first=1, longest=20)).get("a")
    assert fault.fired == 9
    assert sleep.waits == [1, 2, 4, 8, 16, 20, 20, 20]


def test_the_jitter_keeps_half_of_the_wait() -> None:
    patience, error = Patience(first=4.0), base.Unavailable()
    assert patience.wait(1, error, 0.0) == 2.0
    assert patience.wait(2, error, 0.5) == 6.0


def test_a_storage_that_says_when_is_waited_for() -> None:
    patience = Patience(first=1.0, longest=30.0)
    assert patience.wait(1, base.Throttled(after=12.5), 1.0) == 12.5
    assert patience.wait(4, base.Throttled(after=0.1), 1.0) == 8.0
    assert patience.wait(1, base.Throttled(), 1.0) == 1.0
    assert patience.wait(1, base.Throttled(after=31.0), 1.0) is None
    assert patience.wait(5, base.Throttled(after=1.0), 1.0) is None


def test_the_wait_can_be_cancelled(folder: FolderProvider) -> None:
    def cancel(_seconds: float) -> None:
        raise Cancelled

    fault = Fault("put", base.Unavailable(), times=None)
    with pytest.raises(Cancelled):
        Retrying(FaultyProvider(folder, fault), sleep=cancel).put("a", b"")
    assert fault.fired == 1


def test_a_listing_that_breaks_off_goes_on_without_repeating(folder: FolderProvider) -> None:
    for number in range(10):
        folder.put(f"a/{number}", b"")
    faults = [Fault("list", base.Unavailable(), skip=skip) for skip in (3, 4, 9)]
    sleep = Sleeper()
    listed = sorted(found.name for found in retrying(FaultyProvider(folder, *faults), sleep).list("a/"))
    assert [fault.fired for fault in faults] == [1, 1, 1]
    assert listed == [f"a/{number}" for number in range(10)]


def test_a_listing_that_moves_is_not_given_up(folder: FolderProvider) -> None:
    for number in range(10):
        folder.put(f"a/{number}", b"")
    # Breaks off eight times, each time one entry further on: more often than one call would be tried.
    faults = [Fault("list", base.Unavailable(), skip=sum(range(1, length + 1))) for length in range(1, 9)]
    listed = [*retrying(FaultyProvider(folder, *faults), Sleeper()).list("a/")]
    assert sum(fault.fired for fault in faults) == 8
    assert len(listed) == 10


def test_a_listing_that_never_moves_ends(folder: FolderProvider) -> None:
    folder.put("a", b"")
    fault = Fault("list", base.Unavailable(), times=None)
    with pytest.raises(base.Unavailable):
        [*retrying(FaultyProvider(folder, fault), Sleeper()).list("")]
    assert fault.fired == 5


def test_inside_of_the_retries_every_attempt_is_counted(folder: FolderProvider) -> None:
    fault, within, around = Fault("put", base.Unavailable()), MemoryMemo(), MemoryMemo()
    inside = Daily(FaultyProvider(folder, fault), within)
    outside = Daily(retrying(inside, Sleeper()), around)
    outside.put("a", b"12345")
    outside.get("a", -2)
    outside.stat("a")
    assert len([*outside.list("")]) == 1
    with pytest.raises(base.ObjectNotFound):
        outside.get("b")
    outside.delete("a")
    outside.close()
    inside.close()
    assert fault.fired == 1
    once = Counter(put=1, get=2, stat=1, list=1, delete=1)
    for memo, requests in ((around, once), (within, once + Counter(put=1))):
        days = [Used.decode(raw) for _, raw in memo.items(DAYS)]  # midnight may have come between
        assert sum((Counter(day.requests) for day in days), Counter()) == requests
        assert (sum(day.sent for day in days), sum(day.received for day in days)) == (5, 2)
    assert outside.name == "disk"


def test_what_could_not_be_opened_yet_holds_objects_as_soon_as_it_can() -> None:
    """Asked once whether it can, when the daemon begins: with a no its locks would run out, and nobody would say so."""

    class Locking(MemoryProvider):
        def retain(self, name: str, until: float) -> None:
            held[name] = until

    held: dict[str, float] = {}
    there: list[base.Provider] = []

    def opening() -> base.Provider:
        if not there:
            raise base.ClientMissing(provider="cloud", type="s3")
        return there[0]

    provider = Retrying(Unopened("cloud", opening))
    assert isinstance(provider, base.Retains)
    with pytest.raises(base.ClientMissing):
        provider.retain("a", 7.0)
    there.append(Locking())
    provider.retain("a", 7.0)
    assert held == {"a": 7.0}
    without = Retrying(Unopened("cloud", MemoryProvider))
    assert isinstance(without, base.Retains)
    with pytest.raises(base.PermissionRefused):
        without.retain("a", 7.0)
