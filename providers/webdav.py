"""A WebDAV server as a provider: Nextcloud, Apache, and others. RFC 4918.

Objects are files below the root collection, named and spread as a folder's are (`folder`), so that the same vault can
be read as a folder on the server.

- **Whole or absent.** Some servers write a body into the file as it arrives, and leave a part of it when the connection
  breaks. So a body goes to a name in `.tmp` that nobody reads, its size is compared with what the server says it has,
  and MOVE gives it its name.
- **Never in place of other bytes.** MOVE with `Overwrite: F` is refused where the name is taken (412), which is found
  out once for each server, because some ignore it; there, the name is looked at first. Neither that nor `If-None-Match`
  holds against writers that race: Apache and wsgidav look first and rename afterwards, and were seen to let two of
  eight through. `exclusive_create` is therefore never claimed. In this process puts of one name take turns.
- **Nothing is deleted but files**: a DELETE of a collection would take everything below it.
- **A root that was emptied is no empty vault.** `.tmp` marks it, as in a folder; without it and without any object's
  collection it is `StorageMissing`.
- Collections are listed one level at a time: servers refuse `Depth: infinity`, or fall over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

from chatkeep.config.storages import WebdavOptions
from chatkeep.providers import base
from chatkeep.providers.learned import Learned
from chatkeep.providers.memo import Memo
from chatkeep.providers.probing import observe
from chatkeep.providers.registry import Opening, ProviderType
from chatkeep.providers.secret_file import read_secret
from chatkeep.providers.turns import Turns
from chatkeep.providers.webdav_reading import Reading
from chatkeep.providers.webdav_root import STAGING, Root

if TYPE_CHECKING:
    import httpx

    from chatkeep.providers.webdav_wire import Wire

STALE_AFTER: Final = 86_400.0
"""Age in seconds, by the server's clock, from which what a killed writer left in `.tmp` is removed."""

_LEFT: Final = ".new-"
_SHARDED: Final = re.compile(r"(?P<folder>(?:.+/)?p/)(?P<hash>(?P<shard>[0-9a-f]{2})[0-9a-f]{62})")
_INSIDE_SHARD: Final = re.compile(r"(?:.+/)?p/[0-9a-f]{2}/.+")
_SHARD: Final = re.compile(r"[0-9a-f]{2}")
_STORED: Final = (200, 201, 204)
# What a MOVE and a DELETE say when they are done. 200 is also what a gateway says with a page of its own, and 202 that
# it is not yet done: then it is looked at.
_MOVED: Final = (201, 204)
_DELETED: Final = (204, 404)


@dataclasses.dataclass(frozen=True, slots=True)
class Habits:
    """What was found out about a server by asking it.

    Attributes:
        refuses: MOVE with `Overwrite: F` did not replace.
        form: how the server takes a Destination.
        checksum: the kind of OC-Checksum that it compares; "" for none.
    """

    refuses: bool
    form: str
    checksum: str


class WebdavProvider:
    """Objects as files below a URL. See `base.Provider` for the verbs, `base.Paced` for `put_paced`.

    Args:
        wire: speaks to the server.
        memo: keeps its habits.
        create: make the root (not its parents) and mark it as one; what `init` does, once.

    Raises:
        ProviderError: with `create`, as the server says.
    """

    def __init__(self, wire: Wire, memo: Memo, *, create: bool = False) -> None:
        self.name = wire.name
        self._wire = wire
        self._root = Root(wire)
        self._turns = Turns()
        self._doubtful: set[str] = set()  # names whose put failed: the object may be there all the same
        self._made: set[str] = set()  # collections that this process knows to be there
        # Another root may be on another server: what holds for one is not remembered for the other.
        address = hashlib.sha256(wire.destination("", "whole").encode()).hexdigest()[:32]
        self._habits = Learned(memo, f"habits:{address}", Habits)
        self._staged = False
        if create:
            try:
                self._root.mark()
            except BaseException:
                wire.close()
                raise

    def put(self, name: str, body: bytes) -> None:
        self.put_paced(name, body, lambda _: None)

    def put_paced(self, name: str, body: bytes, pace: Callable[[int], None]) -> None:
        """See `base.Paced`."""
        place = self._place(name)
        habits = self._known_habits()
        if (not habits.refuses or name in self._doubtful) and self._stands(name, place, body):
            return
        self._wire.greet()
        self._doubtful.add(name)
        temporary = f"{STAGING}{_LEFT}{os.urandom(12).hex()}"
        moved = False
        try:
            self._send(temporary, name, body, pace, habits)
            with self._turns.of(name):
                if not habits.refuses and self._stands(name, place, body):
                    return
                moved = self._move(temporary, place, name, habits)
                if not moved:
                    self._compare(name, place, body)
        finally:
            if not moved:
                self._discard(temporary)
        self._doubtful.discard(name)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        place = self._place(name)
        if length is not None and length < 0:
            raise ValueError("length")
        if length == 0:
            self.stat(name)
            return b""
        described, absent = partial(self._root.described, place, name), partial(self._root.absent, name)
        return Reading(self._wire, name, place, described, absent, offset, length).read()

    def stat(self, name: str) -> base.ObjectStat:
        found = self._root.described(self._place(name), name)
        if found is None or found.collection:
            raise self._root.absent(name)
        if found.size is None:
            raise base.Unavailable(provider=self.name, object=name, reason="no-size")
        return base.ObjectStat(name, found.size, found.modified)

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        base.validate_prefix(prefix)
        self._root.must_be_in_use()
        return self._walk("", "", prefix)

    def delete(self, name: str) -> None:
        place = self._place(name)
        found = self._root.described(place, name)
        if found is None:
            self._root.must_be_in_use()
            return
        if found.collection:  # no object has that name, and DELETE would take all that is below it
            return
        response = self._wire.ask("DELETE", place)
        if response.status_code in _DELETED:
            return
        if response.status_code not in (*_STORED, 202) or self._root.described(place, name) is not None:
            raise self._root.refused(response, name)

    def probe(self) -> base.Capabilities:
        habits = self._habits.keep(self._find_out())
        seen = observe(self)
        return dataclasses.replace(
            seen,
            exclusive_create=False,
            free_bytes=self._root.free(),
            refuses_damage=habits.checksum.lower() or None,
        )

    def close(self) -> None:
        self._wire.close()

    def _place(self, name: str) -> str:
        place = _placed(base.validate_name(name))
        if place is None:
            raise base.InvalidName(provider=self.name, object=name)
        return place

    # What is written

    def _known_habits(self) -> Habits:
        if not self._staged:
            self._stage()
        return self._habits.fresh() or self._habits.keep(self._find_out())

    def _stage(self) -> None:
        """Finds or makes the collection of temporary files, and removes what killed writers left there, once in a
        process."""
        found = self._root.children(STAGING)
        if found is None:
            self._root.must_be_in_use()
            self._root.mark()
        self._staged = True
        for each in found or ():
            age = 0.0 if each.modified is None or each.collection else time.time() - each.modified
            if each.path.startswith(_LEFT) and age > STALE_AFTER:
                self._discard(STAGING + each.path)

    def _find_out(self) -> Habits:
        """Asks the server what it refuses, with two small files in the place of temporary ones."""
        self._stage()
        first, second = (f"{STAGING}{_LEFT}{os.urandom(12).hex()}" for _ in range(2))
        try:
            checksum = ""
            declared = {"OC-Checksum": f"SHA1:{'0' * 40}"}
            response = self._wire.ask("PUT", first, declared, b"first")
            if response.status_code not in _STORED:
                checksum = "SHA1"
                self._stored(self._wire.ask("PUT", first, None, b"first"))
            self._stored(self._wire.ask("PUT", second, None, b"second"))
            form, refuses = self._try_forms(first, second)
            return Habits(refuses, form, checksum)
        finally:
            self._discard(first)
            self._discard(second)

    def _try_forms(self, source: str, taken: str) -> tuple[str, bool]:
        for form in self._wire.forms:
            headers = {"Destination": self._wire.destination(taken, form), "Overwrite": "F"}
            response = self._wire.ask("MOVE", source, headers)
            if response.status_code not in (400, 403, 502):
                break
        if response.status_code == 412:
            return form, True
        if response.status_code in _STORED:
            return form, False
        raise self._root.refused(response)

    def _stored(self, response: httpx.Response) -> None:
        if response.status_code not in _STORED:
            raise self._root.refused(response)

    def _send(self, temporary: str, name: str, body: bytes, pace: Callable[[int], None], habits: Habits) -> None:
        headers = {"Content-Type": "application/octet-stream"}
        if habits.checksum:
            headers["OC-Checksum"] = f"SHA1:{hashlib.sha1(body, usedforsecurity=False).hexdigest()}"
        response = self._wire.send("PUT", temporary, headers, body, pace)
        if response.status_code in (404, 409):
            self._root.must_be_in_use()
            self._staged = False  # somebody removed it; the next put makes it
            raise base.Unavailable(provider=self.name, object=name, status=response.status_code)
        if response.status_code == 500 and self._is_full(len(body)):
            raise base.QuotaExceeded(provider=self.name, object=name, status=500)
        if response.status_code not in _STORED:
            raise self._root.refused(response, name)
        found = self._root.described(temporary, name)
        if found is None or (found.size is not None and found.size != len(body)):
            # Seen behind gateways that ran out of room for the body they were passing on.
            size = found.size if found else None
            raise base.Unavailable(
                provider=self.name, object=name, reason="size-differs", expected=len(body), found=size
            )

    def _is_full(self, size: int) -> bool:
        """Whether the room that is left explains why a put failed: not every server says so."""
        with contextlib.suppress(base.ProviderError):
            free = self._root.free()
            return free is not None and free < size
        return False

    def _move(self, temporary: str, place: str, name: str, habits: Habits) -> bool:
        """Gives the file its name; False where the name is taken."""
        headers = {"Destination": self._wire.destination(place, habits.form), "Overwrite": "F"}
        parent = place.rpartition("/")[0]
        if parent not in self._made:
            self._make(parent, name)
            self._made.add(parent)
        response = self._wire.ask("MOVE", temporary, headers)
        # A missing parent is 409 by the book, and 500 or 404 at some servers: it was removed, or is a file.
        if response.status_code in (400, 403, 404, 409, 500):
            self._made.clear()
            self._make(parent, name, doubtful=True)
            response = self._wire.ask("MOVE", temporary, headers)
        if response.status_code in _MOVED:
            return True
        if response.status_code == 412:
            return False
        found = self._root.described(place, name)
        if found is not None and found.collection:
            raise base.InvalidName(provider=self.name, object=name)
        if found is not None:  # another writer was faster, and the server stumbled over it
            return False
        if response.status_code in (400, 403, 502):
            # Perhaps it takes a Destination in another way since: other software, or a gateway before it.
            self._habits.forget()
        raise self._root.refused(response, name)

    def _make(self, folder: str, name: str, *, doubtful: bool = False) -> None:
        """Makes a collection below the root, and those above it that are missing.

        Args:
            folder: its path; "" is the root, which is never made here.
            name: of the object that needs it, for errors.
            doubtful: 405 is not taken for a collection that is there: it may be a file.
        """
        if not folder:
            self._root.must_be_in_use()
            return
        response = self._wire.ask("MKCOL", f"{folder}/")
        if response.status_code == 201 or (response.status_code == 405 and not doubtful):
            return
        found = self._root.described(folder, name)
        if found is not None and not found.collection:
            raise base.InvalidName(provider=self.name, object=name)
        if found is not None:
            return
        if response.status_code not in (400, 404, 409):
            raise self._root.refused(response, name)
        self._make(folder.rpartition("/")[0], name, doubtful=True)
        response = self._wire.ask("MKCOL", f"{folder}/")
        if response.status_code not in (201, 405):
            raise self._root.refused(response, name)

    def _stands(self, name: str, place: str, body: bytes) -> bool:
        """Whether these bytes are already there. Raises ObjectConflict when others are."""
        found = self._root.described(place, name)
        if found is None:
            return False
        self._compare(name, place, body)
        return True

    def _compare(self, name: str, place: str, body: bytes) -> None:
        """The name is taken: done if by these bytes."""
        found = self._root.described(place, name)
        if found is None:  # deleted a moment ago
            raise base.Unavailable(provider=self.name, object=name, reason="vanished")
        if found.collection:
            raise base.InvalidName(provider=self.name, object=name)
        if found.size == len(body) and self.get(name) == body:
            self._doubtful.discard(name)
            return
        raise base.ObjectConflict(provider=self.name, object=name, size=found.size)

    def _discard(self, temporary: str) -> None:
        """Removes a temporary file if it can; what stays is swept by a later process."""
        with contextlib.suppress(base.ProviderError):
            self._wire.ask("DELETE", temporary)

    # What is listed

    def _walk(self, place: str, logical: str, prefix: str) -> Iterator[base.ObjectStat]:
        """`logical` is what the names in this collection begin with; a shard adds nothing to it."""
        for entry in self._root.children(place) or ():  # none: deleted meanwhile
            name = logical + entry.path
            if not base.is_name(name):
                continue
            if entry.collection:
                shard = f"/{logical}".endswith("/p/") and _SHARD.fullmatch(entry.path)
                begins = name if shard else f"{name}/"
                if begins.startswith(prefix) or prefix.startswith(begins):
                    yield from self._walk(f"{place}{entry.path}/", logical if shard else begins, prefix)
            elif name.startswith(prefix) and _placed(name) == place + entry.path and entry.size is not None:
                yield base.ObjectStat(name, entry.size, entry.modified)


def _placed(name: str) -> str | None:
    """Where the object lies; None for a name inside a shard, which would share its file with the pack there."""
    if _INSIDE_SHARD.fullmatch(name):
        return None
    sharded = _SHARDED.fullmatch(name)
    return f"{sharded['folder']}{sharded['shard']}/{sharded['hash']}" if sharded else name


def _open(opening: Opening) -> WebdavProvider:
    options = opening.options
    assert isinstance(options, WebdavOptions)
    try:
        from chatkeep.providers.webdav_wire import Password, Token, Wire, secure
    except ModuleNotFoundError as problem:
        raise base.ClientMissing(
            provider=opening.name, type="webdav", package=problem.name or "httpx", extra="webdav"
        ) from problem
    credential: Password | Token | None = None
    if options.token_file is not None:
        token = read_secret(options.token_file)
        if not (token.isascii() and token.isprintable()):
            # It cannot stand in a header, and would be quoted by what refuses it there.
            raise base.SecretFileRefused(path=str(options.token_file), reason="malformed")
        credential = Token(token)
    elif options.user:
        password = "" if options.password_file is None else read_secret(options.password_file)
        credential = Password(options.user, password)
    trusted = secure(options.ca_file) if options.ca_file is not None else None
    return WebdavProvider(Wire(opening.name, options.url, credential, trusted), opening.memo, create=opening.create)


TYPE: Final = ProviderType(options=WebdavOptions, open=_open)
