"""Google Drive as a provider: objects as files in one folder, with the scope `drive.file` (only what this client made).

**Names.** Drive knows files by ids, and any number of files may have one name. So the id of an object is chosen before
it is made (`files.generateIds`), and remembered before the request: a create that is repeated after a lost reply is
refused by Drive (409), and what stands under the id is compared. What this machine does not remember is looked up by a
query for the name, then remembered. Where a name has several files, the oldest is the object (then the smallest id) and
the others are ignored, by every machine alike; `delete` removes all of them.

**What is guaranteed, and what is not.** Drive answers by id at once, and its list late: by seconds, rarely minutes.

- On the machine that put an object, and on one that read it before: as `base.Provider` says.
- On another machine, or after the memo was lost, an object is missing (`ObjectNotFound`, `ObjectConflict` not raised)
  until the list shows it: here, and only here, absence is concluded from a list, because there is nothing else to ask.
  The object is then found some time later. Two machines that put one name within that time make two files, of which the
  older becomes the object; names of the vault end in the hash of their bytes or stand below a device's own prefix, so
  the two are equal. Hence `Capabilities.exclusive_create` is False.
- A file that a person put into the trash is missing, within a minute; so is every file when the folder is
  there, which is `StorageMissing`. Emptied or not, nothing is ever taken out of the trash.

**Client and account.** Another OAuth client, of another project, sees none of these files. Keep the project.

The memo has `id:<name>` (the id of an object, made or about to be made), `upload:<name>` (the session of an upload that
was begun), `folder:`, and the token of a login unless the configuration gives it a file of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from chatkeep.config.storages import DriveOptions
from chatkeep.providers import base
from chatkeep.providers.gdrive_files import GOOGLE, DriveFiles, IdTaken, NotThere
from chatkeep.providers.gdrive_finding import Folder, Ids, Objects
from chatkeep.providers.gdrive_names import in_folder, properties
from chatkeep.providers.gdrive_replies import DriveFile
from chatkeep.providers.gdrive_upload import CHUNK, Uploads
from chatkeep.providers.google_http import BLOCK, Bounds, ForGoogle, Pace, Reply, Transport, split
from chatkeep.providers.google_token import Access, read_client, token_place
from chatkeep.providers.memo import Memo
from chatkeep.providers.probing import observe
from chatkeep.providers.registry import Opening, ProviderType

SMALL: Final = 1024 * 1024
"""Bodies up to here are sent in one request; a session takes two at least, and saves what was sent before a break."""
_ROUNDS: Final = 8  # of one put: each that is not the last found an id taken by a file that was deleted or trashed


class DriveProvider:
    """Objects as files in a folder of Drive. See `base.Provider` for the verbs, the module's page for their limits.

    Args:
        name: the configured name.
        folder: the name of the folder in My Drive.
        files: the calls.
        memo: what is remembered on this machine.
        create: make the folder where there is none; what `init` does, once.
        small, chunk: sizes of uploads, in bytes; `chunk` a multiple of 256 KiB.
        clock: seconds that only grow.

    Raises:
        ProviderError: with `create`, when the folder cannot be made.
    """

    def __init__(
        self,
        name: str,
        folder: str,
        files: DriveFiles,
        memo: Memo,
        *,
        create: bool = False,
        small: int = SMALL,
        chunk: int = CHUNK,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._files = files
        self._small = small
        self._ids = Ids(files)
        self._folder = Folder(files, self._ids, memo, folder, clock)
        self._objects = Objects(files, memo, self._folder, clock)
        self._uploads = Uploads(files, memo, chunk)
        self._reports: str | None = None  # the digest that came with the last file that was made
        if create:
            self._folder.make()

    def put(self, name: str, body: bytes) -> None:
        self._put(name, body, None)

    def put_paced(self, name: str, body: bytes, pace: Pace) -> None:
        """See `base.Paced`."""
        self._put(name, body, pace)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if length is not None and length < 0:
            raise ValueError("length")
        with self._about(base.validate_name(name)):
            for _ in range(2):
                file = self._objects.file(name)
                with contextlib.suppress(NotThere):
                    return self._read(name, file, offset, length)
                # Deleted by another machine since it was described: look again. One word of a download is not enough
                # for that: what is forgotten is missing for as long as this process lives.
                if gone := self._objects.standing(file.id) is None:
                    self._objects.forget(name, file.id)
            if gone:
                raise self._objects.absent(name)
            raise base.Unavailable(provider=self.name, reason="not-readable")

    def stat(self, name: str) -> base.ObjectStat:
        with self._about(base.validate_name(name)):
            file = self._objects.file(name, fresh=True)  # another machine may have deleted it a moment ago
        return base.ObjectStat(name, file.size, file.created)

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        base.validate_prefix(prefix)
        return self._listing(prefix)

    def delete(self, name: str) -> None:
        with self._about(base.validate_name(name)):
            idents = {each.id for each in self._objects.listed(name)}
            if (remembered := self._objects.remembered(name)) is not None:
                idents.add(remembered)
            for ident in sorted(idents):
                with contextlib.suppress(NotThere):
                    self._files.delete(ident)
                # After Drive's answer: killed before this line, the id is asked for once more, and is not there.
                self._objects.forget(name, ident)
            self._uploads.forget(name)

    def probe(self) -> base.Capabilities:
        seen = observe(self)
        # exclusive_create: this machine's own writers share an id; another machine's do not, see the module's page.
        # versions: what is deleted does not go into the trash. No digest can be declared with an upload.
        return dataclasses.replace(
            seen, exclusive_create=False, free_bytes=self._files.free(), reports_digest=self._reports, versions=False
        )

    def requests(self) -> Mapping[str, int]:
        """See `base.Usage`: put, get, list, delete, ids."""
        return dict(self._files.requests)

    def close(self) -> None:
        self._files.google.transport.close()

    def _put(self, name: str, body: bytes, pace: Pace | None) -> None:
        with self._about(base.validate_name(name)):
            sha256 = base.named_sha256(name) or hashlib.sha256(body).hexdigest()
            ident, new, taken = self._objects.remembered(name), False, False
            for _ in range(_ROUNDS):
                if ident is None:
                    # Durable before the create: after a kill the same id is tried again, and makes no second file.
                    ident, new = self._objects.chosen(name, self._ids.new)
                there = None if new and not taken else self._objects.standing(ident)
                if there is not None:
                    self._compare(name, there, body, sha256)
                    return
                if taken:  # by a file that was deleted, or is in the trash and stays there: an id is never free again
                    self._objects.forget(name, ident)
                    ident, taken = None, False
                    continue
                try:
                    made = self._create(name, ident, body, sha256, pace)
                except IdTaken:
                    taken = True  # by us, and the reply was lost; or by another caller: compared in the next round
                    continue
                except NotThere:
                    raise self._folder.missing() from None
                self._made(name, made, body, sha256)
                return
            raise base.Unavailable(provider=self.name, reason="ids-refused")

    def _create(self, name: str, ident: str, body: bytes, sha256: str, pace: Pace | None) -> DriveFile:
        metadata = {
            "id": ident,
            "name": name,
            "parents": [self._folder.id()],
            "appProperties": properties(name),
        }
        if len(body) > self._small:
            return self._uploads.upload(name, metadata, body, sha256, pace)
        for start in range(0, len(body) if pace is not None else 0, BLOCK):
            assert pace is not None
            pace(min(BLOCK, len(body) - start))
        return self._files.create(metadata, body)

    def _compare(self, name: str, there: DriveFile, body: bytes, sha256: str) -> None:
        same = there.size == len(body) and self._matches(there, body, sha256)
        if same is None:  # Drive tells no digest of it
            same = self._read(name, there, 0, None) == body
        if not same:
            raise base.ObjectConflict(provider=self.name, object=name, size=there.size)
        self._objects.keep(name, there)
        self._uploads.forget(name)

    def _made(self, name: str, made: DriveFile, body: bytes, sha256: str) -> None:
        """What was just stored is what was sent, or is removed again; the next attempt takes another id."""
        self._reports = "sha256" if made.sha256 is not None else "md5" if made.md5 is not None else None
        if made.trashed:  # with its folder, a moment ago
            raise self._folder.missing()
        if made.name == name and made.size == len(body) and self._matches(made, body, sha256) is not False:
            self._objects.keep(name, made)
            return
        with contextlib.suppress(NotThere):
            self._files.delete(made.id)
        self._objects.forget(name, made.id)
        if hashlib.sha256(body).hexdigest() != sha256:  # the caller's bytes are not what their name says
            raise base.ObjectDamaged(provider=self.name, object=name, reason="not-as-named")
        raise base.Unavailable(provider=self.name, object=name, reason="damaged-on-the-way")

    @staticmethod
    def _matches(there: DriveFile, body: bytes, sha256: str) -> bool | None:
        """Whether the digest that Drive tells is that of the body; None where it tells none. It tells SHA-256 of every
        file that has bytes, some old ones aside."""
        if there.sha256 is not None:
            return there.sha256 == sha256  # for nearly all, the one in the name: nothing is hashed here
        if there.md5 is not None:
            return there.md5 == hashlib.md5(body, usedforsecurity=False).hexdigest()
        return None

    def _read(self, name: str, file: DriveFile, offset: int, length: int | None) -> bytes:
        """Asks again for what a broken reply did not bring, as long as each brings something. Raises NotThere."""
        start = max(0, file.size + offset) if offset < 0 else min(offset, file.size)
        end = file.size if length is None else min(start + length, file.size)
        if start == end and self._objects.standing(file.id) is None:  # no bytes to ask for that would not be there
            raise NotThere
        found = b""
        while len(found) < end - start:
            at = start + len(found)
            piece = self._piece(file, self._files.read(file.id, at, end - 1), at, end)
            if not piece:
                raise base.Unavailable(provider=self.name, object=name, reason="body-cut")
            found = found + piece if found else piece
        return found

    def _piece(self, file: DriveFile, reply: Reply, at: int, end: int) -> bytes:
        """What the reply has of the bytes from `at` to `end`."""
        if reply.status == 206 and reply.headers.get("content-range", "").startswith(f"bytes {at}-"):
            return reply.body[: end - at]
        # 200: all of it, although a range was asked for, as RFC 9110 section 14.2 lets a server do.
        if reply.status == 200 and (not reply.whole or len(reply.body) == file.size):
            return reply.body[at:end]
        raise base.Unavailable(provider=self.name, reason="other-range", status=reply.status)

    def _listing(self, prefix: str) -> Iterator[base.ObjectStat]:
        """Oldest first, so that the first file of a name is the object. Files of one instant are held back until a
        later one comes, because among them the smallest id is it."""
        given: set[str] = set()
        held: list[DriveFile] = []
        for page in self._objects.pages(in_folder(self._folder.id(), prefix), "createdTime"):
            for file in page:
                if held and held[0].order[0] != file.order[0]:
                    yield from _listed(held, given)
                    held = []
                if not (file.folder or file.trashed) and file.name.startswith(prefix) and base.is_name(file.name):
                    held.append(file)
        yield from _listed(held, given)

    @contextlib.contextmanager
    def _about(self, name: str) -> Iterator[None]:
        """Says in errors which object they are about."""
        try:
            yield
        except base.ProviderError as problem:
            problem.params.setdefault("object", name)
            raise


def _listed(held: list[DriveFile], given: set[str]) -> Iterator[base.ObjectStat]:
    for file in sorted(held, key=lambda each: each.order):
        if file.name not in given:
            given.add(file.name)
            yield base.ObjectStat(file.name, file.size, file.created)


def open_drive(
    opening: Opening,
    *,
    endpoint: str | None = None,
    bounds: Bounds | None = None,
    now: Callable[[], float] = time.time,
    small: int = SMALL,
    chunk: int = CHUNK,
    clock: Callable[[], float] = time.monotonic,
) -> DriveProvider:
    """Opens it as configured.

    Args:
        endpoint: origin of the API in place of Google's, to which the client file's addresses may then point too, and
            which is spoken to directly, without a proxy. For tests; there is no key for it.
        bounds, now, small, chunk, clock: as in `Transport`, `Access`, `DriveProvider`.

    Raises:
        ClientMissing: Google's client library is not installed.
        SecretFileRefused: the client file.
        ProviderError: with `create`, when the folder cannot be made.
    """
    options: DriveOptions = opening.options
    try:
        for each in ("googleapiclient.discovery", "google.oauth2.credentials", "httplib2"):
            importlib.import_module(each)
    except ImportError as problem:
        raise base.ClientMissing(
            provider=opening.name, type="gdrive", package="google-api-python-client", extra="gdrive"
        ) from problem
    client = read_client(options.client_file, endpoint)
    origins = (endpoint or GOOGLE, split(client.token_uri)[0])
    transport = Transport(opening.name, origins, bounds, proxies=endpoint is None)
    access = Access(opening.name, client, token_place(options.token_file, opening.memo), transport, now)
    files = DriveFiles(opening.name, ForGoogle(transport, access.authorization), endpoint or GOOGLE)
    return DriveProvider(
        opening.name,
        options.folder,
        files,
        opening.memo,
        create=opening.create,
        small=small,
        chunk=chunk,
        clock=clock,
    )


TYPE: Final = ProviderType(DriveOptions, open_drive)
