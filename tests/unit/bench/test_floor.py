"""The floor of a change: which pages differ, and what they take together."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest
import zstandard

from bench.floor import PAGE, allowed, databases, floor, page_digests


def text(rng: random.Random) -> bytes:
    return b"".join(rng.choice((b"one ", b"two ", b"three ", b"four ")) for _ in range(PAGE))[:PAGE]


def test_changed_and_new_pages_together(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    file = tmp_path / "file"
    pages = [text(rng) for _ in range(700)]
    file.write_bytes(b"".join(pages))
    before = page_digests(file)
    changed = sorted(rng.sample(range(700), 40))
    for at in changed:
        pages[at] = text(rng)
    pages += [text(rng), text(rng)]
    file.write_bytes(b"".join(pages))

    found = floor(before, file)

    joined = b"".join(pages[at] for at in [*changed, 700, 701])
    assert found.pages == 42
    assert found.size == len(zstandard.ZstdCompressor(level=3).compress(joined))
    assert found.size < sum(len(zstandard.ZstdCompressor(level=3).compress(pages[at])) for at in [*changed, 700, 701])


def test_nothing_changed_costs_nothing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(10 * PAGE))
    assert floor(page_digests(file), file) == floor(page_digests(file), file)
    assert (floor(page_digests(file), file).pages, floor(page_digests(file), file).size) == (0, 0)


def test_pages_that_are_gone_cost_nothing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(10 * PAGE))
    before = page_digests(file)
    file.write_bytes(bytes(3 * PAGE))
    assert floor(before, file).pages == 0


@pytest.mark.parametrize("length", [1, PAGE, 5 * PAGE + 17, 257 * PAGE])
def test_a_digest_for_each_page(tmp_path: Path, length: int) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(length))
    assert len(page_digests(file)) == 16 * -(-length // PAGE)


def test_what_is_allowed() -> None:
    assert allowed(0) == 48 * 1024
    assert allowed(540_000) == 540_000 * 1.35 + 49_152


def test_databases_are_found_by_content_largest_first(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name, rows in (("small", 1), ("sub/large", 5000)):
        connection = sqlite3.connect(tmp_path / name)
        connection.execute("CREATE TABLE t(x)")
        connection.executemany("INSERT INTO t VALUES(?)", [("x" * 50,)] * rows)
        connection.commit()
        connection.close()
    (tmp_path / "none.db").write_text("SQLite is what it is not")
    (tmp_path / "link").symlink_to("small")
    assert databases(tmp_path) == [tmp_path / "sub/large", tmp_path / "small"]
