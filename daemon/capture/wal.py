"""SQLite's write-ahead log and its shared index, as bytes: parsing only, no files.

Format: https://www.sqlite.org/fileformat2.html section 4, https://www.sqlite.org/walformat.html (the index, `-shm`).
Frames are numbered from 1. Neither the log nor its index depends on what the pages hold, so databases whose pages are
encrypted by the application read just as well.
"""

from __future__ import annotations

import struct
import sys
from array import array
from typing import NamedTuple

HEADER_SIZE = 32
FRAME_HEADER_SIZE = 24
NO_SALTS = bytes(8)  # what the index shows before the first commit to a new log: the name of no generation

_MAGIC_LITTLE, _MAGIC_BIG = 0x377F0682, 0x377F0683  # the byte order of the words that are summed up
_VERSION = 3007000
_HEADER = struct.Struct(">IIII8sII")
_FRAME = struct.Struct(">II8sII")
_MASK = 0xFFFFFFFF

SHM_HEADER_SIZE = 136  # two copies of the header, then what checkpointers and readers share
_SHM_COPY = struct.Struct("=IIIBBHII8s8s8s")
_SHM_BACKFILL = 96
_SHM_BLOCK = 32768  # 4096 page numbers, then their hash table
_SHM_BLOCK_FRAMES = 4096
_SHM_FIRST_FRAMES = _SHM_BLOCK_FRAMES - SHM_HEADER_SIZE // 4

# Sums grow by a factor below 2.62 a step; after 16 steps they are under 2^57 and have not run into the next lane.
_STEPS_PER_MASK = 16


class WalHeader(NamedTuple):
    """`salts` (8 bytes) name the generation: they change whenever the log begins anew."""

    page_size: int
    salts: bytes
    big_endian: bool
    checksum: tuple[int, int]


class FrameHeader(NamedTuple):
    """`page_count` is the size of the database in pages if the frame ends a transaction, else 0."""

    page: int
    page_count: int
    salts: bytes
    checksum: tuple[int, int]


class Commit(NamedTuple):
    """The frame that ended a transaction, and how many pages the database had then."""

    frame: int
    page_count: int


class ShmHeader(NamedTuple):
    """What the living applications agree on. `changes` counts commits; `checksum` is that of frame `mx_frame`."""

    changes: int
    page_size: int
    mx_frame: int
    page_count: int
    checksum: tuple[int, int]
    salts: bytes
    backfilled: int  # frames up to here are in the database file


def valid_page_size(size: int) -> bool:
    """SQLite's page sizes: powers of two, 512 ... 65536."""
    return 512 <= size <= 65536 and size & (size - 1) == 0


def checksum(words: memoryview | bytes, big_endian: bool, state: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """The log's checksum over whole 8-byte groups, continued from `state`."""
    s0, s1 = state
    numbers = struct.unpack(f"{'>' if big_endian else '<'}{len(words) // 4}I", words)
    for first, second in zip(numbers[::2], numbers[1::2], strict=True):
        s0 = (s0 + first + s1) & _MASK
        s1 = (s1 + second + s0) & _MASK
    return s0, s1


def parse_header(raw: bytes) -> WalHeader | None:
    """The header of a log, or None when `raw` is none: SQLite takes such a log for an empty one."""
    if len(raw) < HEADER_SIZE:
        return None
    magic, version, page_size, _, salts, s0, s1 = _HEADER.unpack_from(raw)
    if magic not in (_MAGIC_LITTLE, _MAGIC_BIG) or version != _VERSION or not valid_page_size(page_size):
        return None
    big_endian = magic == _MAGIC_BIG
    if checksum(raw[: HEADER_SIZE - 8], big_endian) != (s0, s1):
        return None
    return WalHeader(page_size, salts, big_endian, (s0, s1))


def frame_offset(frame: int, page_size: int) -> int:
    """Where frame number `frame` begins."""
    return HEADER_SIZE + (frame - 1) * (page_size + FRAME_HEADER_SIZE)


def parse_frame(raw: bytes | memoryview) -> FrameHeader | None:
    """The 24 bytes before a page, or None when there are fewer."""
    if len(raw) < FRAME_HEADER_SIZE:
        return None
    page, page_count, salts, s0, s1 = _FRAME.unpack_from(raw)
    return FrameHeader(page, page_count, salts, (s0, s1))


class FrameChain:
    """Follows a log from its first frame through every valid one, and knows the last commit: SQLite's own recovery.

    `pages` are the page numbers of frames 1 ... `mx_frame`, in order; frames after the last commit are not among them.
    """

    def __init__(self, header: WalHeader) -> None:
        self.header = header
        self.mx_frame = 0
        self.page_count = 0
        self.checksum = header.checksum
        self.commits: list[Commit] = []
        self.pages: list[int] = []
        self._tail: list[int] = []
        self._state = header.checksum
        self._step = _frame_step(header.page_size)

    def feed(self, frames: bytes | memoryview) -> bool:
        """Take the next frames, whole ones. False: the log ended within them, and nothing after counts."""
        size = self.header.page_size + FRAME_HEADER_SIZE
        headers = [_FRAME.unpack_from(frames, at) for at in range(0, len(frames) - size + 1, size)]
        count = next((at for at, found in enumerate(headers) if found[2] != self.header.salts), len(headers))
        sums = _sums(frames, size // 8, count, self.header.big_endian)
        s0, s1 = self._state
        a, b, c, d = self._step
        for (page, page_count, _, stored0, stored1), own0, own1 in zip(headers, *sums, strict=False):
            s0, s1 = (a * s0 + b * s1 + own0) & _MASK, (c * s0 + d * s1 + own1) & _MASK
            if (s0, s1) != (stored0, stored1) or page == 0:
                return False
            self._take(page, page_count, (s0, s1))
        self._state = (s0, s1)
        return count == len(headers)

    def _take(self, page: int, page_count: int, state: tuple[int, int]) -> None:
        self._tail.append(page)
        if not page_count:
            return
        self.pages += self._tail
        self._tail.clear()
        self.mx_frame = len(self.pages)
        self.page_count = page_count
        self.checksum = state
        self.commits.append(Commit(self.mx_frame, page_count))


def parse_shm(raw: bytes) -> ShmHeader | None:
    """The index's header from its first 136 bytes; None when it is torn, never initialised or of another version."""
    if len(raw) < SHM_HEADER_SIZE or raw[:48] != raw[48:96]:
        return None
    version, _, changes, ready, _, size, mx_frame, page_count, sums, salts, own = _SHM_COPY.unpack_from(raw)
    if version != _VERSION or not ready or checksum(raw[:40], sys.byteorder == "big") != struct.unpack("=II", own):
        return None
    page_size = (size & 0xFE00) + ((size & 1) << 16)
    if not valid_page_size(page_size):
        return None
    (backfilled,) = struct.unpack_from("=I", raw, _SHM_BACKFILL)
    return ShmHeader(changes, page_size, mx_frame, page_count, struct.unpack("=II", sums), salts, backfilled)


def shm_page_numbers(first: int, last: int) -> list[tuple[int, int]]:
    """Where the index keeps the page numbers of frames `first` ... `last`: (offset, bytes), native u32 each."""
    pieces = []
    while first <= last:
        block = (first + _SHM_BLOCK_FRAMES - _SHM_FIRST_FRAMES - 1) // _SHM_BLOCK_FRAMES
        end = _SHM_FIRST_FRAMES + block * _SHM_BLOCK_FRAMES  # the last frame of this block
        start = end - (_SHM_FIRST_FRAMES if block == 0 else _SHM_BLOCK_FRAMES) + 1
        count = min(last, end) - first + 1
        base = SHM_HEADER_SIZE if block == 0 else block * _SHM_BLOCK
        pieces.append((base + (first - start) * 4, count * 4))
        first += count
    return pieces


def _frame_step(page_size: int) -> tuple[int, int, int, int]:
    """What a frame does to the running checksum apart from its own content: a 2x2 matrix mod 2^32."""
    a, b, c, d = 1, 0, 0, 1
    for _ in range((page_size + 8) // 8):
        # One step is s0 += x0 + s1; s1 += x1 + s0, so (s0, s1) becomes (s0 + s1, s0 + 2 s1) plus the content's part.
        a, b, c, d = (a + c) & _MASK, (b + d) & _MASK, (a + 2 * c) & _MASK, (b + 2 * d) & _MASK
    return a, b, c, d


def _sums(
    frames: bytes | memoryview, stride: int, count: int, big_endian: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The checksum of each frame's first 8 header bytes and page, begun from zero: its content's part.

    The checksum is linear, so all frames are summed side by side, one 64-bit lane each, in two long integers: a step
    over `count` frames is a handful of additions. Frame by frame it would take nine times as long, and a log that an
    application left behind when it was killed has to be summed up before its last commit is known.
    """
    content = memoryview(frames)[: count * stride * 8]
    if big_endian:
        words = array("I")
        words.frombytes(content)
        words.byteswap()
        content = memoryview(words).cast("B")
    lanes = content.cast("Q")
    low = int.from_bytes(_MASK.to_bytes(8, "little") * count, "little")
    s0 = s1 = 0
    for step, at in enumerate((0, *range(3, stride))):  # the two words after the first are salts, then the checksum
        pair = int.from_bytes(lanes[at::stride].tobytes(), "little")
        s0 += (pair & low) + s1
        s1 += ((pair >> 32) & low) + s0
        if step % _STEPS_PER_MASK == _STEPS_PER_MASK - 1:
            s0 &= low
            s1 &= low
    return _unpacked(s0 & low, count), _unpacked(s1 & low, count)


def _unpacked(lanes: int, count: int) -> tuple[int, ...]:
    return struct.unpack(f"<{count}Q", lanes.to_bytes(8 * count, "little"))
