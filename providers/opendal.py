"""Any service that OpenDAL carries, as a provider: https://opendal.apache.org/docs/bindings/python

Objects are named as they are, below the `root` of the options. What the library says it can do is what its client can
send, not what the server does with it, so everything that matters here is tried:

- **Never in place of other bytes.** A conditional write is used where eight writers of other bytes that raced left one
  of them, and a later one was refused; so S3 does, and a folder of OpenDAL does not. Elsewhere the name is looked at
  first, and in this process writers of one name take turns.
- **Whole or absent.** Services of objects show a body when it is complete. Those that write into a file as the body
  arrives are written to in `.tmp`, and the file is renamed when its size is right.
- **Once.** The library tries once, like every provider here; its own layer for trying again is not used.
- **Bounded.** Its layer of time-outs bounds each step.
- **Listings** come from its asynchronous side: the other one keeps every thread of Python waiting for the network.
- **A root that was emptied is no empty vault**: `.chatkeep` marks it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import os
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

from chatkeep.config.storages import OpendalOptions
from chatkeep.providers import base, opendal_errors
from chatkeep.providers.memo import Memo
from chatkeep.providers.opendal_errors import OptionsRefused, Said, ServiceUnknown
from chatkeep.providers.probing import observe
from chatkeep.providers.registry import Opening, ProviderType
from chatkeep.providers.secret_file import read_secret

if TYPE_CHECKING:
    import opendal

T = TypeVar("T")

STALE_AFTER: Final = 86_400.0
"""Age in seconds from which what a killed writer left in `.tmp` is removed."""

_MARK: Final = ".chatkeep"
_MARKED: Final = b"A vault of chatkeep lies here.\n"
_STAGING: Final = ".tmp/"
_RACERS: Final = 8
_SLOWEST: Final = 32 * 1024  # bytes a second; the library bounds the whole of a transfer and not the wait for a byte
_PIECE: Final = 1 << 20
_REQUESTS: Final = 256  # most for one range; each but the last brought bytes

# They write a body into the file as it arrives, as a folder does.
_IN_PLACE: Final = frozenset({"alluxio", "fs", "ftp", "hdfs-native", "webdav", "webhdfs"})


class OpendalProvider:
    """Objects of a service, by OpenDAL. See `base.Provider` for the verbs.

    Args:
        name: the configured name.
        service: what OpenDAL calls the service.
        options: as OpenDAL's page of the service calls them.
        memo: keeps what was found out about the service.
        create: mark the root as one of ours; what `init` does, once.
        patience: most seconds of a request without a body. One with a body has more, by its size.

    Raises:
        ServiceUnknown, OptionsRefused: the library does not take them.
        ProviderError: with `create`, as the service says.
    """

    def __init__(
        self,
        name: str,
        service: str,
        options: Mapping[str, str],
        memo: Memo,
        *,
        create: bool = False,
        patience: float = 60.0,
    ) -> None:
        self.name = name
        self._service = service
        self._address = f"{service}:{options.get('bucket', options.get('container', ''))}{options.get('root', '')}"
        self._memo = memo
        self._patience = patience
        self._key = f"create:{hashlib.sha256(repr((service, sorted(options.items()))).encode()).hexdigest()[:32]}"
        self._bare = _operator(name, service, options)
        self._lock = threading.Lock()
        self._turns: dict[str, tuple[threading.Lock, int]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = False
        if create:
            with self._edge():
                self._for(0).write(_MARK, _MARKED)

    def put(self, name: str, body: bytes) -> None:
        base.validate_name(name)
        self._get_ready()
        try:
            if self._is_exclusive():
                self._put_exclusively(name, body)
            else:
                with self._turn(name):
                    if not self._stands(name, body):
                        self._put_looked_at(name, body)
        except base.ProviderError as problem:
            if isinstance(problem, base.Unavailable | base.ObjectNotFound) and self._is_inside(name):
                raise base.InvalidName(provider=self.name, object=name) from problem
            if isinstance(problem, base.ObjectNotFound):
                raise base.Unavailable(provider=self.name, object=name) from problem
            raise

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if length is not None and length < 0:
            raise ValueError("length")
        # The library calls a range that passes the end an error, and cannot count from the end.
        size = self.stat(name).size
        start = max(0, size + offset) if offset < 0 else min(offset, size)
        wanted = size - start if length is None else min(length, size - start)
        return self._read(name, start, wanted) if wanted else b""

    def stat(self, name: str) -> base.ObjectStat:
        found = self._found(base.validate_name(name))
        if found is None:
            raise self._absent(name)
        return base.ObjectStat(name, found.content_length, _seconds(found))

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        base.validate_prefix(prefix)
        self._must_be_in_use()
        return self._walk(prefix)

    def delete(self, name: str) -> None:
        if self._found(base.validate_name(name)) is None:
            # A folder, which must not go with all that is below it; or nothing.
            self._must_be_in_use()
            return
        with self._edge(name), contextlib.suppress(base.ObjectNotFound):
            self._for(0).delete(name)

    def probe(self) -> base.Capabilities:
        self._must_be_in_use()
        exclusive = self._find_out()
        return dataclasses.replace(observe(self), exclusive_create=exclusive)

    def close(self) -> None:
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    # What is asked

    def _for(self, size: int) -> opendal.Operator:
        """The service, bounded for a transfer of so many bytes."""
        import opendal

        longest = self._patience + size / _SLOWEST
        return self._bare.layer(opendal.layers.TimeoutLayer(timeout=self._patience, io_timeout=longest))

    @contextlib.contextmanager
    def _edge(self, name: str | None = None) -> Iterator[None]:
        """Translates what the library raises. Nothing else in this file does."""
        about = {"provider": self.name} if name is None else {"provider": self.name, "object": name}
        try:
            yield
        except _kinds() as problem:
            told = opendal_errors.refusal(opendal_errors.said(problem), self._address, **about)
        else:
            return
        raise told from None  # why not from the problem: see opendal_errors

    def _found(self, name: str) -> opendal.types.Metadata | None:
        """What the service says about an object; None where there is none, or a folder of that name."""
        found = self._looked_up(name)
        return found if found is not None and found.mode.is_file() else None

    def _looked_up(self, name: str) -> opendal.types.Metadata | None:
        """What the service says about an object or a folder; None where it says that there is neither."""
        what: Said | None = None
        with self._edge(name):
            try:
                found = self._for(0).stat(name)
            except Exception as problem:
                what = opendal_errors.said(problem)
                if not self._says_nothing_there(what) and what.status not in (301, 403):
                    raise
        if what is not None:
            if self._service == "webdav" and what.status == 301:  # Apache sends on to the path of a collection
                return self._looked_up(f"{name}/") if not name.endswith("/") else None
            if what.status in (301, 403):
                # The reply to such a question has no body, in which services say what is wrong with a key. This has.
                self._must_be_in_use()
                raise opendal_errors.refusal(what, self._address, provider=self.name, object=name)
            return None
        if found.mode.is_file() and found.etag is None and found.last_modified is None:
            self._must_be_in_use()  # a network that answers everything with a page to log in has neither
        return found

    def _says_nothing_there(self, what: Said) -> bool:
        if what.kind in ("NotFound", "IsADirectory", "NotADirectory") or what.system in opendal_errors.NOT_THERE:
            return not isinstance(opendal_errors.refusal(what), base.StorageMissing)
        # Apache calls a path below a file a bad request.
        return self._service == "webdav" and what.status == 400

    def _in_use(self) -> bool:
        """Whether the root is one of ours and not a place that was emptied."""
        with self._edge():
            try:
                mark = bytes(self._for(0).read(_MARK))
            except Exception as problem:
                if not self._says_nothing_there(opendal_errors.said(problem)):
                    raise
                mark = None
        if mark is not None and mark != _MARKED:
            raise base.Unavailable(provider=self.name, reason="no-answer")  # of somebody else, in its place
        return mark is not None or any(True for _ in self._walk(""))

    def _must_be_in_use(self) -> None:
        if not self._in_use():
            raise base.StorageMissing(provider=self.name, path=self._address)

    def _absent(self, name: str) -> base.ProviderError:
        if self._in_use():
            return base.ObjectNotFound(provider=self.name, object=name)
        return base.StorageMissing(provider=self.name, object=name, path=self._address)

    def _read(self, name: str, start: int, wanted: int) -> bytes:
        try:
            with self._edge(name):
                body = self._for(wanted).read(name, offset=start, size=wanted)
        except base.Unavailable:
            return self._read_in_pieces(name, start, wanted)
        if len(body) != wanted:
            raise base.Unavailable(provider=self.name, object=name, reason="size-differs")
        return bytes(body)

    def _read_in_pieces(self, name: str, start: int, wanted: int) -> bytes:
        """After a line that broke: `read` throws away what had arrived, and a file of the library gives it."""
        parts: list[bytes] = []
        received = 0
        for _ in range(_REQUESTS):
            before = received
            try:
                with self._edge(name), self._for(wanted).open(name, "rb") as file:
                    file.seek(start + received)
                    while received < wanted and (part := file.read(min(_PIECE, wanted - received))):
                        parts.append(bytes(part))
                        received += len(part)
            except base.Unavailable:
                if received == before:
                    raise
            if received == wanted:
                return b"".join(parts)
            if received == before:
                break
        raise base.Unavailable(provider=self.name, object=name, reason="broken")

    def _walk(self, prefix: str) -> Iterator[base.ObjectStat]:
        folder = prefix[: prefix.rfind("/") + 1]
        with self._edge():
            found = self._run(self._collect(folder))
        for name, size, modified in found:
            if not (name.startswith(prefix) and base.is_name(name)):
                continue
            if size is None:
                stat = self._found(name)
                if stat is not None:
                    yield base.ObjectStat(name, stat.content_length, _seconds(stat))
            else:
                yield base.ObjectStat(name, size, modified)

    async def _collect(self, folder: str) -> Sequence[tuple[str, int | None, float | None]]:
        found = []
        try:
            async for entry in await self._for(0).to_async_operator().list(folder, recursive=True):
                about = entry.metadata
                if about.mode.is_file():  # listings hold folders too, the asked one among them
                    found.append((entry.path, about.content_length, _seconds(about)))
        except Exception as problem:
            if opendal_errors.said(problem).kind != "NotFound":
                raise
        return found

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs it on the loop of this provider, whose thread is started by the first listing."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_run_loop, args=(self._loop,), name="opendal", daemon=True).start()
            loop = self._loop
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    # What is written

    def _get_ready(self) -> None:
        """Before the first put of this process."""
        if self._ready:
            return
        self._must_be_in_use()
        if self._service in _IN_PLACE:
            with self._edge():
                for name, _, modified in self._run(self._collect(_STAGING)):
                    if modified is not None and time.time() - modified > STALE_AFTER:
                        self._discard(name)
        self._ready = True

    def _is_exclusive(self) -> bool:
        kept = self._memo.get(self._key)
        return self._find_out() if kept is None else kept == b"exclusive"

    def _remember(self, exclusive: bool) -> bool:
        self._memo.set(self._key, b"exclusive" if exclusive else b"looked-at")
        return exclusive

    def _find_out(self) -> bool:
        """Whether the service keeps writers that race apart, twice. Remembered, unless some got no answer."""
        if self._service in _IN_PLACE or not self._bare.capability().write_with_if_not_exists:
            return self._remember(False)
        rounds = [self._race(), self._race()]
        return all(rounds) if None in rounds else self._remember(all(rounds))

    def _race(self) -> bool | None:
        """Whether of eight writers one was left, and a later one was refused. None: some got no answer, as from a
        server that stumbles over a race."""
        name = f"{_STAGING}.new-{os.urandom(12).hex()}"
        bodies = [bytes([number]) * 4096 for number in range(_RACERS)]

        def write(body: bytes) -> bool | base.Unavailable:
            try:
                return self._write_new(name, body)
            except base.Unavailable as problem:
                return problem

        try:
            with ThreadPoolExecutor(_RACERS) as pool:
                stored = list(pool.map(write, bodies))
            failed = [each for each in stored if isinstance(each, base.Unavailable)]
            if failed:
                if True in stored:
                    return None
                raise failed[0]
            winners = [body for body, done in zip(bodies, stored, strict=True) if done]
            if len(winners) != 1 or self._write_new(name, b"late"):
                return False
            with self._edge(name):
                return bytes(self._for(0).read(name)) == winners[0]
        finally:
            self._discard(name)

    def _write_new(self, name: str, body: bytes) -> bool:
        """Writes on condition that the name is free; False where it is taken."""
        with self._edge(name):
            try:
                self._for(len(body)).write(name, body, if_not_exists=True)
            except Exception as problem:
                if opendal_errors.said(problem).kind in ("ConditionNotMatch", "AlreadyExists", "Conflict"):
                    return False
                raise
        return True

    def _put_exclusively(self, name: str, body: bytes) -> None:
        if self._write_new(name, body):
            self._must_be_whole(name, name, body)
        elif not self._stands(name, body):
            raise base.Unavailable(provider=self.name, object=name, reason="vanished")

    def _put_looked_at(self, name: str, body: bytes) -> None:
        if self._service not in _IN_PLACE:
            with self._edge(name):
                self._for(len(body)).write(name, body)
            self._must_be_whole(name, name, body)
            return
        temporary = f"{_STAGING}.new-{os.urandom(12).hex()}"
        try:
            with self._edge(name):
                self._for(len(body)).write(temporary, body)
            self._must_be_whole(temporary, name, body)
            with self._edge(name):
                self._for(0).rename(temporary, name)
        except base.ProviderError:
            self._discard(temporary)
            raise

    def _must_be_whole(self, place: str, name: str, body: bytes) -> None:
        """A gateway may have answered in the place of the service, which then has nothing, or a part."""
        found = self._found(place)
        if found is None or found.content_length != len(body):
            size = found.content_length if found else None
            raise base.Unavailable(
                provider=self.name, object=name, reason="size-differs", expected=len(body), found=size
            )

    def _stands(self, name: str, body: bytes) -> bool:
        """Whether these bytes are already there. Raises ObjectConflict when others are."""
        found = self._looked_up(name)
        if found is None:
            return False
        if not found.mode.is_file():
            if self._service in _IN_PLACE:  # a rename to it can take the place of all that is in the folder
                raise base.InvalidName(provider=self.name, object=name)
            return False
        if found.content_length != len(body) or (body and self._read(name, 0, len(body)) != body):
            raise base.ObjectConflict(provider=self.name, object=name, size=found.content_length)
        return True

    def _is_inside(self, name: str) -> bool:
        """Whether the name cannot be, because an object stands where it needs a folder, or the other way round."""
        with contextlib.suppress(base.ProviderError):
            above = name
            while "/" in above:
                above = above.rpartition("/")[0]
                if self._found(above) is not None:
                    return True
            return any(True for _ in self._walk(f"{name}/"))
        return False

    @contextlib.contextmanager
    def _turn(self, name: str) -> Iterator[None]:
        """While no other thread of this process writes the name."""
        with self._lock:
            turn, waiting = self._turns.get(name, (threading.Lock(), 0))
            self._turns[name] = (turn, waiting + 1)
        try:
            with turn:
                yield
        finally:
            with self._lock:
                turn, waiting = self._turns[name]
                if waiting == 1:
                    del self._turns[name]
                else:
                    self._turns[name] = (turn, waiting - 1)

    def _discard(self, temporary: str) -> None:
        with contextlib.suppress(base.ProviderError), self._edge():
            self._for(0).delete(temporary)


def _kinds() -> tuple[type[Exception], ...]:
    """What the library raises: its errors, which have no parent of their own, and what its files raise."""
    from opendal import exceptions

    found = [each for each in vars(exceptions).values() if isinstance(each, type) and issubclass(each, Exception)]
    return (*found, OSError)


def _operator(name: str, service: str, options: Mapping[str, str]) -> opendal.Operator:
    try:
        import opendal
    except ModuleNotFoundError as problem:
        raise base.ClientMissing(provider=name, type="opendal", package="opendal", extra="opendal") from problem
    try:
        return opendal.Operator(service, **options)
    except opendal.exceptions.Unsupported as problem:
        told: base.ProviderError = ServiceUnknown(
            provider=name, service=service, available=", ".join(opendal_errors.available(problem))
        )
    except _kinds():
        told = OptionsRefused(provider=name, service=service)
    raise told from None  # the library's words can repeat an option, and options can be secret


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


def _seconds(about: opendal.types.Metadata) -> float | None:
    return None if about.last_modified is None else about.last_modified.timestamp()


def read_options(text: str) -> dict[str, str] | None:
    """The options in a file: one `key=value` a line; empty lines and those that begin with # are left out. None: it is
    not of that form."""
    found = {}
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not equals or not key.strip():
            return None
        found[key.strip()] = value.strip()
    return found


def _open(opening: Opening) -> OpendalProvider:
    options = opening.options
    assert isinstance(options, OpendalOptions)
    chosen = dict(options.options)
    if options.options_file is not None:
        secret = read_options(read_secret(options.options_file))
        if secret is None:
            raise base.SecretFileRefused(path=str(options.options_file), reason="malformed")
        chosen |= secret
    return OpendalProvider(opening.name, options.service, chosen, opening.memo, create=opening.create)


TYPE: Final[ProviderType] = ProviderType(options=OpendalOptions, open=_open)
