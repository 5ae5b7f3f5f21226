"""From the outbox to the providers.

The order is what a reader relies on: **whoever sees a manifest finds everything it stands on.** So a manifest is put
only when every pack of its snapshot, and the manifest before it, has a receipt from that provider; a receipt is
recorded only after a put returned, which is when the object is durable there. Killed between the two, the put is
repeated, which changes nothing. Packs of one snapshot have no order among themselves and go in parallel. A checkpoint
is put when everything before it is there, of all streams: it says what of them lives.

The bytes are compared with their name before each put, so a bit that flipped in the outbox never reaches storage.
Nothing here knows a key or a format.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeAlias

from chatkeep.config.errors import Cancelled, ChatkeepError, Disposition
from chatkeep.daemon.state import Outbox, Queued
from chatkeep.daemon.state.pruning import CHECKPOINTS
from chatkeep.daemon.sync.errors import OutboxDamaged
from chatkeep.providers import base, durable
from chatkeep.providers.wrap import Patience, Retrying

# These are about one object: its stream cannot go on, others can. Every other provider error is about the storage.
_ABOUT_ONE_OBJECT = (OutboxDamaged, base.ObjectConflict, base.ObjectDamaged, base.InvalidName)
_NAP = 0.2  # seconds until a cancelled wait is noticed, at most

StreamId: TypeAlias = bytes


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the upload to one provider is. The totals are those of the queue when it began."""

    provider: str
    objects: int
    bytes: int
    objects_total: int
    bytes_total: int


@dataclass(frozen=True, slots=True)
class UploadResult:
    """What an upload did at one provider.

    Attributes:
        objects, bytes: what got a receipt in this run.
        frontiers: per stream the seq of the newest manifest that got one; only streams that moved.
        problems: why not everything was sent; empty if it was, or if the upload was cancelled.
        cancelled: it stopped because it was asked to.
    """

    provider: str
    objects: int
    bytes: int
    frontiers: Mapping[StreamId, int]
    problems: tuple[ChatkeepError, ...]
    cancelled: bool


@dataclass(frozen=True, slots=True)
class Pace:
    """How hard to try. `threads`: packs on their way at once; each holds one pack (16 MiB) in memory."""

    threads: int = 2
    patience: Patience = field(default_factory=Patience)
    sleep: Callable[[float], None] = time.sleep
    now_ns: Callable[[], int] = time.time_ns


def upload(
    outbox: Outbox,
    provider: base.Provider,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
    cancelled: Callable[[], bool] = lambda: False,
    pace: Pace | None = None,
) -> UploadResult:
    """Sends what `provider` still needs; the queue as it was when the call began.

    A damaged object stops its stream and no other; storage that fails stops the upload. Both are in the result, with
    what was done until then. Calls are repeated as `pace` says, so `provider` is given without `Retrying`.

    Args:
        on_progress: called after each receipt, one call at a time, from any thread.
        cancelled: asked between objects and while waiting to try again; what is on its way is finished.

    Raises:
        StateError: receipts cannot be read or recorded.
    """
    queue = outbox.queue(provider.name)
    run = _Run(outbox, provider, queue, on_progress, cancelled, pace or Pace())
    if queue:
        run.send_all()
        run.note()
    return run.result()


def release(outbox: Outbox, providers: Sequence[str]) -> int:
    """Removes from the outbox what every one of `providers` has acknowledged; returns how many objects.

    `providers` names every provider that is still to receive what waits, also those that are away at the moment: what
    was released can only be copied from one provider to another.

    Raises:
        StateError: as `Outbox.release`. A file that cannot be removed stays until the next start.
    """
    paths = outbox.release(providers)
    for path in paths:
        # Also FileNotFoundError: an earlier run was cut off between the row and here.
        with contextlib.suppress(OSError):
            path.unlink()
    return len(paths)


@dataclass(frozen=True, slots=True)
class _Step:
    """What is left to send of one snapshot."""

    stream: bytes
    packs: Sequence[Queued]
    manifests: Sequence[Queued]  # one, except in a stream where only packs are left


def _steps(queue: Iterable[Queued]) -> list[_Step]:
    snapshots: dict[tuple[bytes, int], list[Queued]] = {}
    for each in queue:
        snapshots.setdefault((each.stream, each.seq), []).append(each)
    return [
        _Step(stream, [each for each in all_of if not each.is_manifest], [each for each in all_of if each.is_manifest])
        for (stream, _), all_of in snapshots.items()
    ]


def _read_sealed(item: Queued) -> bytes:
    """The object's bytes, if they are the ones its name was made from."""
    with _outbox_edge(item):
        body = durable.read_bounded(item.path, item.size)
        _require(item, len(body), hashlib.sha256(body).digest())
    return body


def _check_sealed(item: Queued) -> None:
    """Raises OutboxDamaged unless the object's file holds the bytes its name was made from."""
    with _outbox_edge(item), open(item.path, "rb", buffering=0) as file:
        _require(item, os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").digest())


def _require(item: Queued, size: int, sha256: bytes) -> None:
    if size != item.size:
        raise OutboxDamaged(name=item.name, path=str(item.path), reason="size")
    if sha256 != item.sha256 or not item.name.endswith(sha256.hex()):
        raise OutboxDamaged(name=item.name, path=str(item.path), reason="hash")


@contextlib.contextmanager
def _outbox_edge(item: Queued) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        reason = {errno.ENOENT: "missing", errno.EFBIG: "size"}.get(problem.errno or 0, "unreadable")
        raise OutboxDamaged(name=item.name, path=str(item.path), reason=reason) from problem


class _Run:
    """One upload to one provider."""

    def __init__(
        self,
        outbox: Outbox,
        provider: base.Provider,
        queue: Sequence[Queued],
        on_progress: Callable[[Progress], None],
        cancelled: Callable[[], bool],
        pace: Pace,
    ) -> None:
        self._outbox = outbox
        self._provider = Retrying(provider, pace.patience, self._wait)
        self._adopter = provider if isinstance(provider, base.Adopts) else None
        self._queue = queue
        self._on_progress = on_progress
        self._asked_to_stop = cancelled
        self._pace = pace
        self._lock = threading.Lock()
        self._halted = False
        self._cancelled = False
        self._stopped: set[bytes] = set()
        self._problems: list[ChatkeepError] = []
        self._frontiers: dict[bytes, int] = {}
        self._objects = 0
        self._bytes = 0
        self._bytes_total = sum(each.size for each in queue)

    def send_all(self) -> None:
        """Everything in order, until it is done or must stop."""
        name = f"upload-{self._provider.name}"
        with ThreadPoolExecutor(self._pace.threads, thread_name_prefix=name) as pool:
            every = True
            for step in _steps(self._queue):
                if step.stream == CHECKPOINTS and not every:
                    continue
                sent = [pool.submit(self._send, item) for item in step.packs]
                # Every pack is waited for, whatever became of the others.
                outcomes = [each.result() for each in sent]
                if all(outcomes):
                    outcomes += [self._send(item) for item in step.manifests]
                every = every and all(outcomes)

    def note(self) -> None:
        """Remembers how it ended, for `status`."""
        if self._problems:
            self._outbox.note_upload(self._provider.name, self._pace.now_ns(), self._problems[0].code)
        elif not self._cancelled:
            self._outbox.note_upload(self._provider.name, self._pace.now_ns(), None)

    def result(self) -> UploadResult:
        """What was done."""
        return UploadResult(
            self._provider.name,
            self._objects,
            self._bytes,
            dict(self._frontiers),
            tuple(self._problems),
            self._cancelled,
        )

    def _send(self, item: Queued) -> bool:
        """Sends one object. False: it has no receipt, and what stands on it must not be sent."""
        if self._must_stop(item.stream):
            return False
        try:
            if not self._adopted(item):
                self._provider.put(item.name, _read_sealed(item))
            self._outbox.record_receipt(item.name, self._provider.name, self._pace.now_ns())
        except Cancelled:
            return False
        except (base.ProviderError, OutboxDamaged) as problem:
            self._fail(item.stream, problem)
            return False
        except BaseException:
            # Not about one object nor about the storage (our own records, a mistake): nothing more is begun, and it
            # leaves through the caller.
            self._halted = True
            raise
        self._count(item)
        return True

    def _adopted(self, item: Queued) -> bool:
        """Whether the provider took the very file. One that cannot share this file shares none: it is asked no more."""
        adopter = self._adopter  # once: another thread may end the asking between two looks
        # A checkpoint is copied: grace runs from when it was stored, and a shared file tells when it was written.
        if adopter is None or item.stream == CHECKPOINTS:
            return False
        # The file itself becomes the object: reading it once more proves nothing that sealing did not.
        if not self._outbox.is_proven(item.path):
            _check_sealed(item)
        try:
            if adopter.adopt(item.name, item.path):
                return True
        except base.ProviderError as problem:
            if problem.disposition is not Disposition.RETRY:
                raise
        self._adopter = None
        return False

    def _must_stop(self, stream: bytes) -> bool:
        if self._asked_to_stop():
            self._cancelled = True
        return self._halted or self._cancelled or stream in self._stopped

    def _fail(self, stream: bytes, problem: ChatkeepError) -> None:
        with self._lock:
            if isinstance(problem, _ABOUT_ONE_OBJECT):
                self._stopped.add(stream)
            elif self._halted:
                return  # several threads met the same outage: one report is enough
            else:
                self._halted = True
            self._problems.append(problem)

    def _count(self, item: Queued) -> None:
        with self._lock:
            self._objects += 1
            self._bytes += item.size
            if item.is_manifest:
                self._frontiers[item.stream] = item.seq
            progress = Progress(self._provider.name, self._objects, self._bytes, len(self._queue), self._bytes_total)
            self._on_progress(progress)

    def _wait(self, seconds: float) -> None:
        """Waits before another attempt, in short naps, so that half a minute of it does not outlive a Ctrl-C."""
        while seconds > 0:
            if self._asked_to_stop():
                self._cancelled = True
                raise Cancelled
            self._pace.sleep(min(seconds, _NAP))
            seconds -= _NAP
