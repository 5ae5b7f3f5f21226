"""What is remembered: by one process, by several that race, by one that is killed, in a file that is damaged."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chatkeep.providers import memo as memo_module
from chatkeep.providers.memo import FileMemo, Memo, MemoryMemo, MemoUnusable


@pytest.fixture(params=["memory", "file"])
def memo(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Memo]:
    made: Memo = MemoryMemo() if request.param == "memory" else FileMemo(tmp_path / "providers" / "x.db")
    yield made
    made.close()
    made.close()


def test_values(memo: Memo) -> None:
    assert memo.get("a") is None
    memo.set("a", b"1")
    memo.set("a", b"2\0\xff")
    assert memo.get("a") == b"2\0\xff"
    assert memo.add("a", b"3") == b"2\0\xff"
    assert memo.add("b", b"") == b""
    assert memo.get("b") == b""
    memo.delete("a")
    memo.delete("a")
    assert memo.get("a") is None


def test_a_change_sees_what_is_there(memo: Memo) -> None:
    assert memo.change("n", lambda raw: str(int(raw or b"0") + 1).encode()) == b"1"
    assert memo.change("n", lambda raw: str(int(raw or b"0") + 1).encode()) == b"2"
    with pytest.raises(ZeroDivisionError):
        memo.change("n", lambda _raw: str(1 // 0).encode())
    assert memo.get("n") == b"2"


def test_the_keys_of_a_kind(memo: Memo) -> None:
    for key in ("id:b", "id:a", "idea", "up:a", "id", "id:%", "Id:c"):
        memo.set(key, key.encode())
    assert memo.items("id:") == [("id:%", b"id:%"), ("id:a", b"id:a"), ("id:b", b"id:b")]
    assert [key for key, _ in memo.items("")] == sorted(["id:b", "id:a", "idea", "up:a", "id", "id:%", "Id:c"])


def test_threads_that_race_get_one_value(memo: Memo) -> None:
    got: list[bytes] = []
    begin = threading.Barrier(8)

    def race(number: int) -> None:
        begin.wait()
        for key in range(20):
            got.append(memo.add(f"k{key}", f"{number}".encode()))
            memo.change("count", lambda raw: str(int(raw or b"0") + 1).encode())

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 160
    assert memo.get("count") == b"160"
    assert {value for _, value in memo.items("k")} <= set(got)


RACER = """
import sys
from pathlib import Path
from chatkeep.providers.memo import FileMemo
sys.stdin.readline()
memo = FileMemo(Path(sys.argv[1]))
for number in range(60):
    print(memo.add(f"k{number}", sys.argv[2].encode()).decode())
    memo.change("count", lambda raw: str(int(raw or b"0") + 1).encode())
"""


def test_processes_that_race_get_one_value(tmp_path: Path) -> None:
    file = tmp_path / "memo.db"
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(file), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in "ab"
    ]
    for racer in racers:  # both are there, and neither has opened the file
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = [racer.communicate()[0].split() for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0]
    assert said[0] == said[1]
    assert len(said[0]) == 60
    memo = FileMemo(file)
    assert [memo.get(f"k{number}") for number in range(60)] == [value.encode() for value in said[0]]
    assert memo.get("count") == b"120"
    assert memo.set_aside is None
    memo.close()


WRITER = """
import sys
from pathlib import Path
from chatkeep.providers.memo import FileMemo
memo = FileMemo(Path(sys.argv[1]))
number = int(memo.get("last") or b"0")
while True:
    number += 1
    memo.set(f"n{number}", b"x" * 3000)
    memo.set("last", str(number).encode())
    print(number, flush=True)
"""


def test_a_writer_that_is_killed_leaves_what_it_was_told_is_written(tmp_path: Path) -> None:
    chosen = random.Random(random.randrange(2**32))  # from the seed of the run, which pytest prints
    file, told = tmp_path / "memo.db", 0
    for _ in range(6):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(file)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        for _ in range(chosen.randrange(1, 40)):
            told = int(writer.stdout.readline())
        writer.kill()
        assert writer.wait() == -signal.SIGKILL
        told = max([told, *map(int, writer.stdout.read().split()[:-1])])
        writer.stdout.close()
        memo = FileMemo(file)
        last = int(memo.get("last") or b"0")
        assert memo.set_aside is None
        assert last >= told
        assert all(memo.get(f"n{number}") == b"x" * 3000 for number in range(1, last + 1))
        memo.close()


def no_database(file: Path) -> None:
    file.write_bytes(b"this is no database" * 300)


def torn(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[4096:] = os.urandom(len(raw) - 4096)
    file.write_bytes(raw)


def another(file: Path) -> None:
    file.unlink()
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE memo(other)")
    connection.close()


@pytest.mark.parametrize("damage", [no_database, torn, another])
def test_a_damaged_file_is_set_aside_and_that_is_said(
    damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "memo.db"
    memo = FileMemo(file)
    for number in range(50):
        memo.set(f"k{number}", os.urandom(500))
    memo.close()
    damage(file)
    broken = file.read_bytes()
    memo = FileMemo(file)
    assert memo.get("k1") is None
    assert memo.add("k1", b"new") == b"new"
    assert memo.set_aside is not None
    assert memo.set_aside.read_bytes()[100:] == broken[100:]  # SQLite marks the header of a file that it opens
    assert "memo-damaged" in caplog.text
    assert str(memo.set_aside) in caplog.text
    memo.close()
    again = FileMemo(file)
    assert (again.get("k1"), again.set_aside) == (b"new", None)
    again.close()


def test_of_two_that_find_the_damage_one_sets_it_aside(tmp_path: Path) -> None:
    file = tmp_path / "memo.db"
    FileMemo(file).close()
    first, second = FileMemo(file), FileMemo(file)
    assert first.get("a") is None  # both have it open
    for name in ("memo.db", "memo.db-wal"):
        if (tmp_path / name).exists():
            (tmp_path / name).write_bytes(b"x" * 8192)
    second.set("b", b"2")
    first.set("a", b"1")
    assert len([path for path in tmp_path.iterdir() if re.search(r"\.damaged-\d+$", path.name)]) == 1
    assert [first.set_aside is None, second.set_aside is None].count(False) == 1
    assert (second.get("a"), first.get("b")) == (b"1", b"2")
    first.close()
    second.close()


def test_a_file_that_was_removed_is_made_again(tmp_path: Path) -> None:
    memo = FileMemo(tmp_path / "a" / "x.db")
    memo.set("a", b"1")
    for path in (tmp_path / "a").iterdir():
        path.unlink()
    (tmp_path / "a").rmdir()
    memo.set("b", b"2")
    other = FileMemo(tmp_path / "a" / "x.db")
    assert (other.get("a"), other.get("b")) == (None, b"2")
    memo.close()
    other.close()


def test_only_this_user_may_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        memo = FileMemo(tmp_path / "providers" / "x.db")
        memo.set("a", b"1")
        found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "providers").iterdir()}
        memo.close()
    finally:
        os.umask(before)
    assert found["x.db"] == 0o600
    assert set(found.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "providers").stat().st_mode) == 0o700


def test_what_the_system_refuses_has_a_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MemoUnusable) as caught:
        FileMemo(tmp_path / "file" / "x.db")
    assert caught.value.params["path"] == str(tmp_path / "file" / "x.db")
    assert caught.value.params["errno"] in (errno.EEXIST, errno.ENOTDIR)
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(MemoUnusable):
        FileMemo(tmp_path / "folder.db")


def test_a_process_that_stopped_while_it_opened_the_file_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memo_module, "_PATIENCE", 0.05)
    path = tmp_path / "x.db"
    with (tmp_path / "x.db.lock").open("w") as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        with pytest.raises(MemoUnusable) as caught:
            FileMemo(path)
        assert caught.value.params["errno"] == errno.EBUSY
    memo = FileMemo(path)
    memo.set("a", b"1")
    memo.close()


def test_a_full_disk_is_no_damage(tmp_path: Path) -> None:
    memo = FileMemo(tmp_path / "x.db")
    memo.set("a", b"1")
    connection = memo._connection
    assert connection is not None
    connection.execute("PRAGMA max_page_count=3")
    with pytest.raises(MemoUnusable) as caught:
        memo.set("b", b"x" * 100_000)
    assert caught.value.params["errno"] == errno.ENOSPC
    assert (memo.get("a"), memo.get("b"), memo.set_aside) == (b"1", None, None)
    memo.close()
