"""Any service that OpenDAL carries, as a provider: https://opendal.apache.org/docs/bindings/python

Objects are named as they are, below the `root` of the options. What the library says it can do is what its client can
send, not what the server does with it, so everything that matters here is tried:

- **Never in place of other bytes.** A conditional write is used where eight writers of other bytes that raced left one
  of them, and a later one was refused; so S3 does, and a folder of OpenDAL does not. Elsewhere the name is looked at
  first, and in this process writers of one name take turns.
- **Whole or absent.** Services of objects show a body when it is complete. Those that write into a file as the body
  arrives are written to in `.tmp`, and the file is renamed when its size is right.
- **A root that was emptied is no empty vault**: `.chatkeep` marks it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from chatkeep.config.storages import OpendalOptions
from chatkeep.providers import base, opendal_errors
from chatkeep.providers.learned import Learned
from chatkeep.providers.memo import Memo
from chatkeep.providers.opendal_service import MARK, MARKED, Service, seconds
from chatkeep.providers.probing import observe
from chatkeep.providers.registry import Opening, ProviderType
from chatkeep.providers.secret_file import read_secret
from chatkeep.providers.turns import Turns

STALE_AFTER: Final = 86_400.0
"""Age in seconds from which what a killed writer left in `.tmp` is removed."""

_STAGING: Final = ".tmp/"
_RACERS: Final = 8

# They write a body into the file as it arrives, as a folder does. `file` is `fs` by another word.
_IN_PLACE: Final = frozenset({"alluxio", "file", "fs", "ftp", "hdfs-native", "webdav", "webhdfs"})
# Their root may be a disk that is unplugged while this runs. The library makes whatever folder a file lacks, the root
# too: what is written then lies on another disk, and is hidden as soon as the right one is back.
_ON_DISKS: Final = frozenset({"file", "fs"})


@dataclasses.dataclass(frozen=True, slots=True)
class Creating:
    """What was found out about a service: `exclusive`, whether writers that raced for one name were kept apart."""

    exclusive: bool


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
        self._memo = memo
        place = hashlib.sha256(repr((service, sorted(options.items()))).encode()).hexdigest()[:32]
        self._creating = Learned(memo, f"create:{place}", Creating)
        self._at = Service(name, service, options, patience)
        self._turns = Turns()
        self._ready = False
        if create:
            with self._at.edge():
                self._at.bounded(0).write(MARK, MARKED)

    def put(self, name: str, body: bytes) -> None:
        base.validate_name(name)
        self._get_ready()
        try:
            if self._is_exclusive():
                self._put_exclusively(name, body)
            else:
                with self._turns.of(name):
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
        return self._at.read(name, start, wanted) if wanted else b""

    def stat(self, name: str) -> base.ObjectStat:
        found = self._at.found(base.validate_name(name))
        if found is None:
            raise self._at.absent(name)
        return base.ObjectStat(name, found.content_length, seconds(found))

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        base.validate_prefix(prefix)
        self._at.must_be_in_use()
        return self._walk(prefix)

    def delete(self, name: str) -> None:
        if self._at.found(base.validate_name(name)) is None:
            # A folder, which must not go with all that is below it; or nothing.
            self._at.must_be_in_use()
            return
        with contextlib.suppress(base.ObjectNotFound), self._at.edge(name):
            self._at.bounded(0).delete(name)

    def probe(self) -> base.Capabilities:
        self._at.must_be_in_use()
        exclusive = self._find_out()
        return dataclasses.replace(observe(self), exclusive_create=exclusive)

    def close(self) -> None:
        self._at.close()

    def _walk(self, prefix: str) -> Iterator[base.ObjectStat]:
        folder = prefix[: prefix.rfind("/") + 1]
        found = self._at.entries(folder)
        for name, size, modified in found:
            if not (name.startswith(prefix) and base.is_name(name)):
                continue
            if size is None:
                stat = self._at.found(name)
                if stat is not None:
                    yield base.ObjectStat(name, stat.content_length, seconds(stat))
            else:
                yield base.ObjectStat(name, size, modified)

    # What is written

    def _get_ready(self) -> None:
        """Before a put, and mostly before the first one of this process."""
        if self._ready:
            if self._service in _ON_DISKS:
                self._at.must_be_in_use()
            return
        self._at.must_be_in_use()
        if self._service in _IN_PLACE:
            for name, _, modified in self._at.entries(_STAGING):
                if modified is not None and time.time() - modified > STALE_AFTER:
                    self._discard(name)
        self._ready = True

    def _is_exclusive(self) -> bool:
        known = self._creating.fresh()
        return self._find_out() if known is None else known.exclusive

    def _remember(self, exclusive: bool) -> bool:
        return self._creating.keep(Creating(exclusive)).exclusive

    def _find_out(self) -> bool:
        """Whether the service keeps writers that race apart, twice. Remembered, unless some got no answer."""
        if self._service in _IN_PLACE or not self._at.bare.capability().write_with_if_not_exists:
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
            with self._at.edge(name):
                return bytes(self._at.bounded(0).read(name)) == winners[0]
        finally:
            self._discard(name)

    def _write_new(self, name: str, body: bytes) -> bool:
        """Writes on condition that the name is free; False where it is taken."""
        with self._at.edge(name):
            try:
                self._at.bounded(len(body)).write(name, body, if_not_exists=True)
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
            # Some gateways keep the first part of a body whose connection broke. It must not be taken for somebody
            # else's when the put comes again, by another process perhaps.
            self._memo.set(f"writing:{name}", b"")
            with self._at.edge(name):
                self._at.bounded(len(body)).write(name, body)
            self._must_be_whole(name, name, body)
            self._memo.delete(f"writing:{name}")
            return
        temporary = f"{_STAGING}.new-{os.urandom(12).hex()}"
        try:
            with self._at.edge(name):
                self._at.bounded(len(body)).write(temporary, body)
            self._must_be_whole(temporary, name, body)
            with self._at.edge(name):
                self._at.bounded(0).rename(temporary, name)
        except base.ProviderError:
            self._discard(temporary)
            raise

    def _must_be_whole(self, place: str, name: str, body: bytes) -> None:
        """A gateway may have answered in the place of the service, which then has nothing, or a part."""
        found = self._at.found(place)
        if found is None or found.content_length != len(body):
            size = found.content_length if found else None
            raise base.Unavailable(
                provider=self.name, object=name, reason="size-differs", expected=len(body), found=size
            )

    def _stands(self, name: str, body: bytes) -> bool:
        """Whether these bytes are already there. Raises ObjectConflict when others are."""
        found = self._at.looked_up(name)
        if found is None:
            return False
        if not found.mode.is_file():
            if self._service in _IN_PLACE:  # a rename to it can take the place of all that is in the folder
                raise base.InvalidName(provider=self.name, object=name)
            return False
        size = found.content_length
        there = self._at.read(name, 0, size) if 0 < size <= len(body) else b""
        if size == len(body) and there == body:
            return True
        if size < len(body) and body.startswith(there) and self._memo.get(f"writing:{name}") is not None:
            return False  # what a put of ours left that broke
        raise base.ObjectConflict(provider=self.name, object=name, size=size)

    def _is_inside(self, name: str) -> bool:
        """Whether the name cannot be, because an object stands where it needs a folder, or the other way round."""
        with contextlib.suppress(base.ProviderError):
            above = name
            while "/" in above:
                above = above.rpartition("/")[0]
                if self._at.found(above) is not None:
                    return True
            return any(True for _ in self._walk(f"{name}/"))
        return False

    def _discard(self, temporary: str) -> None:
        with contextlib.suppress(base.ProviderError), self._at.edge():
            self._at.bounded(0).delete(temporary)


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
