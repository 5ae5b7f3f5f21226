"""The uploader: what is sent, in which order, and what a failure leaves."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chatkeep.daemon.state import Commit, ObjectRow, Queued, SnapshotRow, StackRow, State
from chatkeep.daemon.sync.catching_up import Watch, send_all
from chatkeep.daemon.sync.errors import OutboxDamaged
from chatkeep.daemon.sync.upload import Pace, Progress, release, upload
from chatkeep.providers import base
from chatkeep.providers.folder import FolderProvider
from chatkeep.providers.wrap import Patience
from tests.support.faulty_provider import Call, Fault, FaultyProvider, RecordingProvider
from tests.support.memory_provider import MemoryProvider

VAULT, DEVICE = b"v" * 16, b"d" * 16
HOME, AWAY = "home", "away"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State.open(tmp_path / "state", VAULT, DEVICE) as opened:
        yield opened


@pytest.fixture(params=["folder", "memory"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> base.Provider:
    if request.param == "memory":
        return MemoryProvider(HOME)
    return FolderProvider(HOME, tmp_path / HOME, create=True)


@pytest.fixture
def away(tmp_path: Path) -> base.Provider:
    return FolderProvider(AWAY, tmp_path / AWAY, create=True)


def snapshot(state: State, packs: int = 3, source: str = "chat") -> None:
    """Commits one more snapshot of that many packs, with its files in the outbox."""
    row = state.stream(source)
    seq = row.seq + 1
    objects = []
    for number in range(packs + 1):
        body = f"{source} {seq} {number} ".encode() * (number + 1) * 10
        digest = hashlib.sha256(body)
        (state.outbox.directory / digest.hexdigest()).write_bytes(body)
        prefix = f"d/1/s/{row.stream.hex()}/{seq:012}-" if number == packs else "d/1/p/"
        objects.append(ObjectRow(prefix + digest.hexdigest(), digest.digest(), len(body), is_manifest=number == packs))
    state.commit(
        Commit(
            stream=row.stream,
            source=source,
            next_file_id=1,
            snapshot=SnapshotRow(seq, objects[-1].name, seq, seq, complete=True, statistics=b""),
            head=objects[-1].sha256,
            objects=objects,
            stack=[StackRow(0, each, each, each, each, b"", b"") for each in range(seq, 0, -1)],
        )
    )


class Naps:
    """Waits for nothing and remembers how long it was asked to."""

    def __init__(self) -> None:
        self.asked = 0.0

    def __call__(self, seconds: float) -> None:
        self.asked += seconds


def pace(threads: int = 4, sleep: Callable[[float], None] | None = None) -> Pace:
    return Pace(threads, Patience(attempts=3), sleep or Naps(), now_ns=lambda: 77)


def held(provider: base.Provider) -> set[str]:
    return {found.name for found in provider.list("")}


def is_readable(state: State, provider: base.Provider, queue: list[Queued]) -> None:
    """Asserts what a reader relies on: a manifest that is there has all its packs and its predecessors there."""
    there = held(provider)
    for manifest in (each for each in queue if each.is_manifest and each.name in there):
        below = {each.name for each in queue if each.stream == manifest.stream and each.seq <= manifest.seq}
        assert below <= there


def flip(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 4
    path.write_bytes(body)


def test_everything_is_sent_and_acknowledged(state: State, home: base.Provider) -> None:
    for _ in range(3):
        snapshot(state)
    queue = state.outbox.queue(HOME)
    seen: list[Progress] = []
    result = upload(state.outbox, home, seen.append, pace=pace())
    stream = state.stream("chat").stream
    size = sum(each.size for each in queue)
    assert (result.provider, result.objects, result.bytes) == (HOME, 12, size)
    assert (result.frontiers, result.problems, result.cancelled) == ({stream: 3}, (), False)
    assert state.outbox.frontier(stream, HOME) == 3
    assert held(home) == {each.name for each in queue}
    assert all(home.get(each.name) == each.path.read_bytes() for each in queue)
    assert [each.objects for each in seen] == [*range(1, 13)]
    assert seen[-1] == Progress(HOME, 12, size, 12, size)
    assert state.outbox.uploads()[HOME] == (77, None, None)
    again = upload(state.outbox, home, seen.append, pace=pace())
    assert (again.objects, again.frontiers, len(seen)) == (0, {}, 12)


def test_packs_go_in_parallel_and_manifests_in_order(state: State, home: base.Provider) -> None:
    for _ in range(4):
        snapshot(state, packs=6)
    queue = {each.name: each for each in state.outbox.queue(HOME)}
    three_at_once = threading.Barrier(3)
    waiting_at_manifest: list[list[str]] = []

    def pause(name: str) -> None:
        if queue[name].is_manifest:
            waiting_at_manifest.append([each.name for each in state.outbox.queue(HOME)])
        else:
            three_at_once.wait(10)  # breaks, and fails the test, unless three packs are on their way together

    recording = RecordingProvider(home, pause)
    result = upload(state.outbox, recording, pace=pace(threads=3))
    assert result.problems == ()
    assert recording.most_at_once == 3
    names = [*queue]
    assert waiting_at_manifest == [names[names.index(first[0]) :] for first in waiting_at_manifest]
    calls = {each.name: each for each in recording.calls}
    assert len(calls) == len(recording.calls) == 28
    manifests = [calls[each.name] for each in queue.values() if each.is_manifest]
    assert manifests == sorted(manifests, key=lambda call: call.began)
    for seq, manifest in enumerate(manifests, 1):
        assert all(
            _before(calls[each.name], manifest)
            for each in queue.values()
            if each.seq <= seq and calls[each.name] is not manifest
        )


def _before(first: Call, second: Call) -> bool:
    return first.ended is not None and first.ended < second.began


def test_a_reply_lost_after_the_commit(state: State, home: base.Provider) -> None:
    snapshot(state)
    snapshot(state)
    lost = [Fault("put", base.Unavailable(), after=True, about=about, times=1) for about in ("/p/", "/s/")]
    naps = Naps()
    result = upload(state.outbox, FaultyProvider(home, *lost), pace=pace(sleep=naps))
    assert [each.fired for each in lost] == [1, 1]
    assert result.problems == ()
    assert result.objects == 8
    assert naps.asked > 0
    assert state.outbox.queue(HOME) == []


def test_a_reset_in_the_middle_that_lasts(state: State, home: base.Provider) -> None:
    for _ in range(3):
        snapshot(state)
    queue = state.outbox.queue(HOME)
    reset = Fault("put", base.Unavailable(provider=HOME), skip=5, times=None)
    result = upload(state.outbox, FaultyProvider(home, reset), pace=pace(threads=2))
    assert reset.fired >= 3
    assert [type(each) for each in result.problems] == [base.Unavailable]
    assert result.objects == 5
    assert result.frontiers == {queue[0].stream: 1}
    assert state.outbox.uploads()[HOME] == (None, "unavailable", 77)
    is_readable(state, home, queue)
    assert upload(state.outbox, home, pace=pace()).objects == 7
    assert held(home) == {each.name for each in queue}
    assert state.outbox.uploads()[HOME] == (77, None, None)


@pytest.mark.parametrize("taken", range(9))
def test_a_full_storage_is_resumed_where_it_stopped(taken: int, state: State, home: base.Provider) -> None:
    snapshot(state)
    snapshot(state)
    queue = state.outbox.queue(HOME)
    full = Fault("put", base.QuotaExceeded(provider=HOME), skip=taken, times=None)
    naps = Naps()
    result = upload(state.outbox, FaultyProvider(home, full), pace=pace(sleep=naps))
    assert bool(full.fired) == (taken < 8)
    assert (result.objects, naps.asked) == (taken, 0)
    assert [each.code for each in result.problems] == ["quota-exceeded"][: full.fired]
    is_readable(state, home, queue)
    recording = RecordingProvider(home)
    assert upload(state.outbox, recording, pace=pace()).objects == 8 - taken
    assert len(recording.calls) == 8 - taken  # nothing that had a receipt is sent again
    assert state.outbox.frontier(queue[0].stream, HOME) == 2


def test_killed_between_put_and_receipt(state: State, home: base.Provider) -> None:
    snapshot(state)
    for item in state.outbox.queue(HOME):
        home.put(item.name, item.path.read_bytes())
    result = upload(state.outbox, home, pace=pace())
    assert (result.objects, result.problems) == (4, ())
    assert state.outbox.queue(HOME) == []


@pytest.mark.parametrize("manifest", [False, True])
@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (flip, "hash"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "size"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "size"),
        (lambda path: path.unlink(), "missing"),
        (lambda path: (path.unlink(), path.mkdir()), "unreadable"),
    ],
)
def test_a_damaged_outbox_is_never_sent(
    harm: Callable[[Path], object], reason: str, manifest: bool, state: State, home: base.Provider
) -> None:
    snapshot(state)
    snapshot(state)
    snapshot(state, source="other")
    queue = state.outbox.queue(HOME)
    harmed = queue[3 if manifest else 1]
    harm(harmed.path)
    recording = RecordingProvider(home)
    result = upload(state.outbox, recording, pace=pace())
    assert [type(each) for each in result.problems] == [OutboxDamaged]
    assert result.problems[0].params == {"name": harmed.name, "path": str(harmed.path), "reason": reason}
    assert harmed.name not in {each.name for each in recording.calls}
    # The rest of its stream stays, the other stream is complete.
    other = state.stream("other").stream
    assert result.frontiers == {other: 1}
    assert {each.seq for each in queue if each.name in held(home) and each.stream != other} == {1}
    is_readable(state, home, queue)
    assert state.outbox.uploads()[HOME] == (None, "outbox-damaged", 77)


def test_a_row_whose_name_is_of_other_bytes(state: State, home: base.Provider) -> None:
    row = state.stream("chat")
    body, name = b"body", "d/1/p/" + hashlib.sha256(b"other").hexdigest()
    digest = hashlib.sha256(body).digest()
    (state.outbox.directory / digest.hex()).write_bytes(body)
    objects = [ObjectRow(name, digest, len(body), is_manifest=False)]
    stack = [StackRow(0, 1, 1, 1, 1, b"", b"")]
    state.commit(Commit(row.stream, "chat", 1, SnapshotRow(1, "m", 1, 1, True, b""), b"h" * 32, objects, stack))
    result = upload(state.outbox, home, pace=pace())
    assert [each.code for each in result.problems] == ["outbox-damaged"]
    assert held(home) == set()


def test_a_conflict_stops_its_stream_only(state: State, home: base.Provider) -> None:
    snapshot(state)
    snapshot(state, source="other")
    taken = state.outbox.queue(HOME)[0]
    home.put(taken.name, b"not these bytes")
    result = upload(state.outbox, home, pace=pace())
    assert [type(each) for each in result.problems] == [base.ObjectConflict]
    assert result.frontiers == {state.stream("other").stream: 1}
    assert home.get(taken.name) == b"not these bytes"


def test_an_outage_is_reported_once(state: State, home: base.Provider) -> None:
    snapshot(state, packs=8)
    meeting = threading.Barrier(4)
    gone = Fault("put", base.StorageMissing(provider=HOME), times=None)

    def together(_name: str) -> None:
        meeting.wait(10)

    recording = RecordingProvider(FaultyProvider(home, gone), together)
    result = upload(state.outbox, recording, pace=pace(threads=4))
    assert gone.fired == 4
    assert [type(each) for each in result.problems] == [base.StorageMissing]
    assert result.objects == 0


@pytest.mark.parametrize("after", [0, 1, 3, 4, 5])
def test_it_can_be_cancelled_between_objects(after: int, state: State, home: base.Provider) -> None:
    snapshot(state)
    snapshot(state)
    queue = state.outbox.queue(HOME)
    seen: list[Progress] = []
    result = upload(state.outbox, home, seen.append, lambda: len(seen) >= after, pace(threads=1))
    assert (result.cancelled, result.objects, result.problems) == (True, after, ())
    assert held(home) == {each.name for each in queue[:after]}
    assert HOME not in state.outbox.uploads()
    assert upload(state.outbox, home, pace=pace()).objects == 8 - after


def test_it_can_be_cancelled_while_it_waits(state: State, home: base.Provider) -> None:
    snapshot(state)
    down = Fault("put", base.Throttled(after=20.0), times=None)
    naps = Naps()
    result = upload(
        state.outbox, FaultyProvider(home, down), lambda _: None, lambda: naps.asked > 1, pace(threads=1, sleep=naps)
    )
    assert down.fired == 1
    assert (result.cancelled, result.objects, result.problems) == (True, 0, ())
    assert naps.asked < 2


def test_providers_do_not_hold_each_other_up(state: State, home: base.Provider, away: base.Provider) -> None:
    snapshot(state)
    snapshot(state)
    queue = state.outbox.queue(HOME)
    home_is_done = threading.Event()

    def progress(each: Progress) -> None:
        if each.provider == HOME and each.objects == each.objects_total:
            home_is_done.set()

    slow = RecordingProvider(
        FaultyProvider(away, Fault("put", base.PermissionRefused(provider=AWAY), skip=2, times=None)),
        lambda _name: None if home_is_done.wait(10) else pytest.fail("held up by the other provider"),
    )
    first, second = send_all(state, [slow, home], [slow, home], Watch(progress), pace())
    assert (first.provider, first.objects, [each.code for each in first.problems]) == (AWAY, 2, ["permission-refused"])
    assert (second.provider, second.objects, second.problems) == (HOME, 8, ())
    is_readable(state, away, queue)
    assert send_all(state, [], []) == []


def test_what_all_have_is_released(state: State, home: base.Provider, away: base.Provider) -> None:
    snapshot(state)
    paths = [each.path for each in state.outbox.queue(HOME)]
    upload(state.outbox, home, pace=pace())
    assert release(state.outbox, [HOME, AWAY]) == 0
    assert all(path.exists() for path in paths)
    upload(state.outbox, away, pace=pace())
    paths[0].unlink()  # as after a crash between two of them
    assert release(state.outbox, [HOME, AWAY]) == 4
    assert not any(path.exists() for path in paths)
    assert release(state.outbox, [HOME, AWAY]) == 0


def test_a_mistake_is_not_taken_for_an_outage(state: State, home: base.Provider) -> None:
    snapshot(state, packs=8)

    def mistake(_name: str) -> None:
        raise KeyError("a provider that breaks its contract")

    recording = RecordingProvider(home, mistake)
    with pytest.raises(KeyError):
        upload(state.outbox, recording, pace=pace(threads=1))
    assert len(recording.calls) == 1
    assert state.outbox.uploads() == {}
