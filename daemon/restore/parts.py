"""Files on their way: filled from several threads, proven, given attributes and a name in the staging tree."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from chatkeep.daemon.capture.digests import page_digests, page_table_digest
from chatkeep.daemon.capture.errors import TableIncomplete
from chatkeep.daemon.restore.attributes import AttributeWriter
from chatkeep.daemon.restore.errors import ProofFailed, TargetExists, writing
from chatkeep.daemon.restore.needs import Chunk, Pages
from chatkeep.daemon.restore.plan import RestorePlan
from chatkeep.daemon.restore.staging import Staging
from chatkeep.daemon.vault.blob import BlobKind, IdKeys
from chatkeep.daemon.vault.errors import Malformed
from chatkeep.daemon.vault.layers import Extent
from chatkeep.daemon.vault.resolve import DatabasePlan

_PIECE = 1 << 20
_OPEN = 200  # files held open; a process may have 1024, and the provider needs some


class Proof:
    """Whether a file's bytes are what the snapshot says, computed from them alone.

    Raises what `stopped` raises, which is asked once in a mebibyte.
    """

    def __init__(self, ids: IdKeys, stopped: Callable[[], None]) -> None:
        self._ids = ids
        self._stopped = stopped

    def database(self, fd: int, plan: DatabasePlan) -> bool:
        """The page-table digest over the pages in the file (section 12)."""
        if os.fstat(fd).st_size != plan.size:
            return False
        digests = self._page_digests(fd, plan)
        keys = self._ids
        try:
            found = page_table_digest(digests, plan.page_size, plan.page_count, keys.page_table_key, keys.page_seed)
        except (TableIncomplete, ValueError):  # a page whose digest is the mark of none; a file cut while it is read
            return False
        return found == plan.digest

    def file(self, fd: int, extents: Sequence[Extent]) -> bool:
        """The ids of the chunks, and that holes are holes."""
        if os.fstat(fd).st_size != sum(extent.length for extent in extents):
            return False
        offset = 0
        for extent in extents:
            if extent.reference is None:
                if not _is_hole(fd, offset, extent.length):
                    return False
            else:
                self._stopped()
                content = os.pread(fd, extent.length, offset)
                if self._ids.id(BlobKind.CHUNK, content) != extent.reference.id:
                    return False
            offset += extent.length
        return True

    def _page_digests(self, fd: int, plan: DatabasePlan) -> Iterator[bytes]:
        for offset in range(0, plan.size, _PIECE):
            self._stopped()
            piece = os.pread(fd, min(_PIECE, plan.size - offset), offset)
            yield page_digests(piece, plan.page_size, self._ids.page_seed)


def _is_hole(fd: int, offset: int, length: int) -> bool:
    # Asked of the file system and not read: a hole may be larger than anyone can read. One that keeps no holes says
    # that all is data; the file is then restored again, which is slow and right.
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) >= offset + length
    except OSError:
        return True  # ENXIO: no data from here to the end


class _Part:
    __slots__ = ("fd", "made", "needs", "users")

    def __init__(self, needs: int) -> None:
        self.needs = needs
        self.users = 0
        self.made = False
        self.fd = -1


class Parts:
    """The files a restore still has to write. Threads may call `write`; a file is finished by whoever brings its last
    piece.

    `names`: the path of each file in the tree; further paths of it are hard links, made later.
    """

    def __init__(
        self,
        plan: RestorePlan,
        staging: Staging,
        names: Mapping[int, bytes],
        attributes: AttributeWriter,
        proof: Proof,
    ) -> None:
        self._plan, self._staging, self._names = plan, staging, names
        self._attributes, self._proof = attributes, proof
        self._lock = threading.Lock()
        self._parts: dict[int, _Part] = {}
        self._dropped: set[int] = set()
        self._open = 0

    def expect(self, file_ids: Iterable[int], needs: Mapping[int, int]) -> None:
        """How many pieces each of these files will get. Those that get none are made here."""
        for file_id in file_ids:
            self._parts[file_id] = _Part(needs.get(file_id, 0))
            if file_id not in needs:
                self._take(file_id)
                self._finish(file_id)

    def write(self, need: Chunk | Pages, content: bytes) -> int:
        """Put a blob's plaintext where it is needed; bytes written. Raises Malformed, ProofFailed and what writing
        raises."""
        file_id = need.file_id
        if file_id in self._dropped:
            return 0
        fd = self._take(file_id)
        try:
            with writing(self._names[file_id]):
                if isinstance(need, Chunk):
                    if len(content) != need.length:
                        raise Malformed(what="content", reason="length")
                    written = _write_all(fd, content, need.offset)
                else:
                    written = self._write_pages(fd, need, content)
        finally:
            last = self._give_back(file_id)
        if last:  # and still counted as a user, so that nobody shuts it meanwhile
            self._finish(file_id)
        return written

    def drop(self, file_ids: set[int]) -> None:
        """Give these files up: something they need is damaged."""
        with self._lock:
            self._dropped |= file_ids

    def close(self) -> None:
        """Closes what is open; no thread may be writing."""
        for part in self._parts.values():
            self._shut(part)

    def _write_pages(self, fd: int, need: Pages, content: bytes) -> int:
        written = 0
        size = self._plan.databases[need.file_id].page_size
        view = memoryview(content)
        numbers = iter(need.spans)
        for at, first, count in zip(numbers, numbers, numbers, strict=True):
            piece = view[at * size : (at + count) * size]
            if len(piece) != count * size:
                raise Malformed(what="section", reason="length")
            written += _write_all(fd, piece, (first - 1) * size)
        return written

    def _take(self, file_id: int) -> int:
        with self._lock, writing(self._names[file_id]):
            part = self._parts[file_id]
            if part.fd < 0:
                if self._open >= _OPEN:
                    self._shut_idle()
                name = b"%d" % file_id
                if not part.made:
                    part.fd = self._staging.parts.create(name)
                    part.made = True
                    os.ftruncate(part.fd, self._plan.size(file_id))  # all holes, until pieces come
                else:
                    part.fd = self._staging.parts.open(name, os.O_RDWR)
                self._open += 1
            part.users += 1
            return part.fd

    def _give_back(self, file_id: int) -> bool:
        with self._lock:
            part = self._parts[file_id]
            part.needs -= 1
            last = part.needs == 0
            part.users -= 0 if last else 1
            return last

    def _finish(self, file_id: int) -> None:
        part, path = self._parts[file_id], self._names[file_id]
        if file_id in self._dropped:
            return
        database = self._plan.databases.get(file_id)
        with writing(path):
            # Read back from the file: this proves layers, pieces and the writing of them, not only what came in.
            if database is not None and not self._proof.database(part.fd, database):
                raise ProofFailed(path=path, what="database")
            with self._lock:
                self._attributes.set(part.fd, path, self._plan.files[file_id])
                self._shut(part)
                del self._parts[file_id]
                if self._staging.tree.lstat(path) is not None:
                    # Two paths that are one name here, on a file system that folds case: a rename would lose a file.
                    raise TargetExists(path=path, reason="collision")
                self._staging.parts.rename(b"%d" % file_id, self._staging.tree, path)

    def _shut_idle(self) -> None:
        for part in self._parts.values():
            if part.fd >= 0 and not part.users:
                self._shut(part)
                if self._open < _OPEN // 2:
                    return

    def _shut(self, part: _Part) -> None:
        if part.fd >= 0:
            os.close(part.fd)
            part.fd = -1
            self._open -= 1


def _write_all(fd: int, content: bytes | memoryview, offset: int) -> int:
    view = memoryview(content)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
    return len(content)
