"""What a service says through OpenDAL, and whether the root is one of ours.

The library tries once, like every provider here: its own layer for trying again is not used. Its layer of time-outs
bounds each step. Listings come from its asynchronous side: the other one keeps every thread of Python waiting for the
network.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from chatkeep.providers import base, opendal_errors
from chatkeep.providers.opendal_errors import OptionsRefused, Said, ServiceUnknown
from chatkeep.providers.paging import Pages

if TYPE_CHECKING:
    import opendal

T = TypeVar("T")

MARK: Final = ".chatkeep"
MARKED: Final = b"A vault of chatkeep lies here.\n"
"""The object that marks a root as one of ours, and its bytes."""

_SLOWEST: Final = 32 * 1024  # bytes a second; the library bounds the whole of a transfer and not the wait for a byte
_PIECE: Final = 1 << 20
_REQUESTS: Final = 256  # most for one range; each but the last brought bytes


class Service:
    """A service as OpenDAL opens it. Any thread may ask.

    Attributes:
        word: what OpenDAL calls the service.
        bare: the library's object, without bounds.
        address: what a person knows the place by; nothing secret.

    Args:
        name, word, options: see `opendal.OpendalProvider`.
        patience: most seconds of a request without a body.

    Raises:
        ServiceUnknown, OptionsRefused, ClientMissing: the library does not take them, or is not there.
    """

    def __init__(self, name: str, word: str, options: Mapping[str, str], patience: float) -> None:
        self.name = name
        self.word = word
        self.address = f"{word}:{options.get('bucket', options.get('container', ''))}{options.get('root', '')}"
        self.bare = _operator(name, word, options)
        self._patience = patience
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def bounded(self, size: int) -> opendal.Operator:
        """The service, bounded for a transfer of so many bytes."""
        import opendal

        longest = self._patience + size / _SLOWEST
        return self.bare.layer(opendal.layers.TimeoutLayer(timeout=self._patience, io_timeout=longest))

    @contextlib.contextmanager
    def edge(self, name: str | None = None) -> Iterator[None]:
        """Translates what the library raises. Nothing else in this file does."""
        about = {"provider": self.name} if name is None else {"provider": self.name, "object": name}
        try:
            yield
        except _kinds() as problem:
            told = opendal_errors.refusal(opendal_errors.said(problem), self.address, **about)
        else:
            return
        raise told from None  # why not from the problem: see opendal_errors

    def found(self, name: str) -> opendal.types.Metadata | None:
        """What the service says about an object; None where there is none, or a folder of that name."""
        found = self.looked_up(name)
        return found if found is not None and found.mode.is_file() else None

    def looked_up(self, name: str) -> opendal.types.Metadata | None:
        """What the service says about an object or a folder; None where it says that there is neither."""
        what: Said | None = None
        with self.edge(name):
            try:
                found = self.bounded(0).stat(name)
            except Exception as problem:
                what = opendal_errors.said(problem)
                if not self._says_nothing_there(what) and what.status not in (301, 403):
                    raise
        if what is not None:
            if self.word == "webdav" and what.status == 301:  # Apache sends on to the path of a collection
                return self.looked_up(f"{name}/") if not name.endswith("/") else None
            if what.status in (301, 403):
                # The reply to such a question has no body, in which services say what is wrong with a key. This has.
                self.must_be_in_use()
                raise opendal_errors.refusal(what, self.address, provider=self.name, object=name)
            return None
        if found.mode.is_file() and found.etag is None and found.last_modified is None:
            self.must_be_in_use()  # a network that answers everything with a page to log in has neither
        return found

    def _says_nothing_there(self, what: Said) -> bool:
        if what.kind in ("NotFound", "IsADirectory", "NotADirectory") or what.system in opendal_errors.NOT_THERE:
            return not isinstance(opendal_errors.refusal(what), base.StorageMissing)
        # Apache calls a path below a file a bad request.
        return self.word == "webdav" and what.status == 400

    def in_use(self) -> bool:
        """Whether the root is one of ours and not a place that was emptied."""
        with self.edge():
            try:
                mark = bytes(self.bounded(0).read(MARK))
            except Exception as problem:
                if not self._says_nothing_there(opendal_errors.said(problem)):
                    raise
                mark = None
        if mark is not None and mark != MARKED:
            raise base.Unavailable(provider=self.name, reason="no-answer")  # of somebody else, in its place
        return mark is not None or any(base.is_name(name) for name, _, _ in self.entries(""))

    def must_be_in_use(self) -> None:
        """Raises `StorageMissing` where the root is not one of ours."""
        if not self.in_use():
            raise base.StorageMissing(provider=self.name, path=self.address)

    def absent(self, name: str) -> base.ProviderError:
        """What a missing object means: the place is gone, or there is none."""
        if self.in_use():
            return base.ObjectNotFound(provider=self.name, object=name)
        return base.StorageMissing(provider=self.name, object=name, path=self.address)

    def read(self, name: str, start: int, wanted: int) -> bytes:
        """Bytes of an object that has them: never fewer than wanted."""
        try:
            with self.edge(name):
                body = self.bounded(wanted).read(name, offset=start, size=wanted)
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
                with self.edge(name), self.bounded(wanted).open(name, "rb") as file:
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

    def entries(self, folder: str) -> Sequence[tuple[str, int | None, float | None]]:
        """Name, size and time of the objects below a folder ("" or one with a slash at the end)."""
        with self.edge():
            return self._run(self._collect(folder))

    async def _collect(self, folder: str) -> Sequence[tuple[str, int | None, float | None]]:
        found = []
        pages = Pages(self.name)  # the library asks for page after page by itself: each entry stands for one
        try:
            async for entry in await self.bounded(0).to_async_operator().list(folder, recursive=True):
                about = entry.metadata
                if pages.new([entry.path]) and about.mode.is_file():  # folders are listed too, the asked one among them
                    found.append((entry.path, about.content_length, seconds(about)))
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
        try:
            return asyncio.run_coroutine_threadsafe(work, loop).result()
        except concurrent.futures.CancelledError as problem:
            raise base.Unavailable(provider=self.name, reason="closed") from problem

    def close(self) -> None:
        """Ends the thread of listings, and those that are on their way."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)


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
    # Whoever waits for a listing would wait for ever.
    left = asyncio.all_tasks(loop)
    for each in left:
        each.cancel()
    if left:
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.close()


def seconds(about: opendal.types.Metadata) -> float | None:
    """When it was stored, where that is told."""
    return None if about.last_modified is None else about.last_modified.timestamp()
