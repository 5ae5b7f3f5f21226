"""A digest scan of a whole database, measured in a process of its own: python -m bench.scan DATABASE WORK-DIR

Prints one line of JSON. The table that the pages are compared with is the database's own, except for some entries:
exactly those pages must be found.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import time
from pathlib import Path

from chatkeep.daemon.capture.buffer import Buffer
from chatkeep.daemon.capture.database import DatabaseFile, probe
from chatkeep.daemon.capture.digests import DIGEST_SIZE, UNKNOWN, DigestTable, page_digests
from chatkeep.daemon.capture.dirty import DirtySet

CHANGED = 300  # pages, about what a hundred messages touch
_ROOM = 32 << 20
_SEED = 0x5EED
_STEP = 1 << 20


class WrongScan(Exception):
    """The scan found other pages than those that differ."""


def scan(database: Path, table_file: Path, rng: random.Random) -> dict[str, float]:
    """Compare every page once: CPU seconds of this thread, wall seconds, bytes read. Raises WrongScan."""
    kind = probe(os.fsencode(database))
    if kind is None:
        raise WrongScan(f"{database} is no database")
    with DigestTable(table_file, kind.page_size, bytes(16)) as table:
        pages = _learn(database, table)
        changed = sorted(rng.sample(range(1, pages + 1), min(CHANGED, pages)))
        table.apply((page, UNKNOWN) for page in changed)
        dirty, buffer = DirtySet(), Buffer(_ROOM)
        with DatabaseFile(os.fsencode(database)) as file:
            cpu, wall = time.thread_time(), time.monotonic()
            mark = file.scan(table, dirty, _SEED, buffer)
            cpu, wall = time.thread_time() - cpu, time.monotonic() - wall
    if list(dirty) != changed:
        raise WrongScan(f"{len(dirty)} pages found, {len(changed)} differ")
    return {"cpu": cpu, "wall": wall, "bytes": mark.bytes_read}


def _learn(database: Path, table: DigestTable) -> int:
    first = 1
    with database.open("rb") as file:
        while block := file.read(_STEP):
            digests = page_digests(block, table.page_size, _SEED)
            table.apply([(first, digests)])
            first += len(digests) // DIGEST_SIZE
    return first - 1


def main(arguments: list[str]) -> int:
    """The command line."""
    database, work = map(Path, arguments)
    found = scan(database, work / "scan.digests", random.Random(1))
    found["rss"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
