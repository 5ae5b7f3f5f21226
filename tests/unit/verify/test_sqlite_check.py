"""SQLite looks at a hostile database in a process of its own: what it says, what it may spend, what it may reach."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chatkeep.config.errors import Cancelled
from chatkeep.daemon.verify import sqlite_check
from chatkeep.daemon.verify.sqlite_check import Checked, Outcome, check


def made(folder: Path, *statements: str, journal: str = "DELETE") -> Path:
    path = folder / "db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"PRAGMA journal_mode={journal}")
        for statement in ("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)", "CREATE INDEX i ON t(b)", *statements):
            db.execute(statement).fetchall()
    return path


ROWS = "WITH r(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM r WHERE n<500) INSERT INTO t(b) SELECT hex(n) || 'x' FROM r"


def looked(folder: Path, seconds: int | None = None) -> Checked:
    return check(os.fsencode(folder), seconds=seconds)


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_a_sound_one(tmp_path: Path, journal: str) -> None:
    path = made(tmp_path, ROWS, journal=journal)
    before = path.read_bytes()
    assert looked(tmp_path) == Checked(Outcome.SOUND)
    assert (path.read_bytes(), [one.name for one in tmp_path.iterdir()]) == (before, ["db"])


def test_a_damaged_one(tmp_path: Path) -> None:
    path = made(tmp_path, ROWS)
    raw = bytearray(path.read_bytes())
    at = raw.index(b"313433x")  # of a row, in the table or the index
    raw[at : at + 6] = b"999999"
    path.write_bytes(raw)
    found = looked(tmp_path)
    assert found.outcome is Outcome.DAMAGED
    assert any("index" in problem for problem in found.problems)


@pytest.mark.parametrize("where", [100, 4096, 8192])
def test_pages_of_noise(tmp_path: Path, where: int) -> None:
    path = made(tmp_path, ROWS)
    raw = bytearray(path.read_bytes())
    raw[where : where + 3000] = os.urandom(3000)
    path.write_bytes(raw)
    assert looked(tmp_path).outcome is Outcome.DAMAGED


def test_one_that_only_its_application_reads(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(os.urandom(8192))
    assert looked(tmp_path) == Checked(Outcome.ENCRYPTED)


def test_one_with_a_collation_of_the_applications_own(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as db:
        db.create_collation("theirs", lambda a, b: (a > b) - (a < b))
        db.execute("CREATE TABLE t(a TEXT COLLATE theirs)")
        db.execute("CREATE INDEX i ON t(a)")
        db.executemany("INSERT INTO t VALUES(?)", [("x",), ("y",)])
    found = looked(tmp_path)
    assert found.outcome is Outcome.FOREIGN
    assert "theirs" in found.problems[0]


def costly(folder: Path, work: str) -> None:
    """A table with an indexed column that takes this work to compute, from a schema that nobody ran."""
    with contextlib.closing(sqlite3.connect(made(folder), isolation_level=None)) as db:
        db.execute("CREATE TABLE c(x INTEGER, y AS (x))")
        db.execute("CREATE INDEX ci ON c(y)")
        db.execute("INSERT INTO c VALUES (1), (2), (3)")
        db.execute("PRAGMA writable_schema=ON")
        db.execute(
            "UPDATE sqlite_schema SET sql = 'CREATE TABLE c(x INTEGER, y AS (' || ? || '))' WHERE name='c'", [work]
        )


FOR_EVER = "instr(hex(zeroblob(400000 + x)), hex(zeroblob(200000)) || '1')"


def test_a_bomb_for_the_processor_is_bounded(tmp_path: Path) -> None:
    costly(tmp_path, FOR_EVER)
    begun = time.monotonic()
    assert looked(tmp_path, seconds=1) == Checked(Outcome.UNFINISHED, why="time")
    assert time.monotonic() - begun < 60


def test_a_bomb_for_the_memory_is_bounded(tmp_path: Path) -> None:
    costly(tmp_path, "hex(zeroblob(450000000 + x))")
    assert looked(tmp_path) == Checked(Outcome.UNFINISHED, (), "memory")


def test_views_and_triggers_without_end_do_nothing(tmp_path: Path) -> None:
    endless = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM r) SELECT count(*) AS n FROM r"
    views = [f"CREATE VIEW v AS {endless}"]
    views += [f"CREATE VIEW v{n} AS SELECT * FROM {'v' if n == 0 else f'v{n - 1}'}" for n in range(200)]
    made(tmp_path, ROWS, *views, f"CREATE TRIGGER tr AFTER INSERT ON t BEGIN INSERT INTO t(b) {endless}; END")
    assert looked(tmp_path, seconds=5) == Checked(Outcome.SOUND)


# -- journals ---------------------------------------------------------------------------------------------------------


def cut_off(folder: Path) -> bytes:
    """A database whose transaction was cut off, with its journal; what it held before."""
    path = made(folder, ROWS)
    whole = path.read_bytes()
    code = f"""if True:
        import os, sqlite3
        db = sqlite3.connect({str(path)!r}, isolation_level=None)
        db.execute("PRAGMA cache_size=1")
        db.execute("BEGIN")
        db.execute("UPDATE t SET b = b || 'changed'")
        os._exit(0)
    """
    subprocess.run([sys.executable, "-c", code], check=True)
    assert path.with_name("db-journal").stat().st_size > 512
    assert path.read_bytes() != whole
    return whole


def test_a_transaction_that_was_cut_off_is_rolled_back_first(tmp_path: Path) -> None:
    whole = cut_off(tmp_path)
    assert looked(tmp_path) == Checked(Outcome.SOUND)
    assert (tmp_path / "db").read_bytes()[100:] == whole[100:]


def test_a_journal_that_names_another_file_is_not_played_back(tmp_path: Path) -> None:
    """SQLite would read that file as a list of journals, and delete it."""
    folder, victim = tmp_path / "folder", tmp_path / "victim"
    folder.mkdir()
    victim.write_bytes(b"nothing that is there\0")
    cut_off(folder)
    name = os.fsencode(victim)
    checksum = sum(byte if byte < 128 else byte - 256 for byte in name) % (1 << 32)
    with open(folder / "db-journal", "ab") as journal:
        journal.write((0x40000000 // 4096 + 1).to_bytes(4) + name + len(name).to_bytes(4) + checksum.to_bytes(4))
        journal.write(bytes.fromhex("d9d505f920a163d7"))
    assert looked(folder) == Checked(Outcome.UNFINISHED, why="journal")
    assert victim.exists()
    # So that it is known what was prevented:
    with contextlib.closing(sqlite3.connect(folder / "db")) as db:
        db.execute("SELECT count(*) FROM t").fetchone()
    assert not victim.exists()


# -- the process ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", 0),
        (b"", -11),
        (b'{"outcome":"sound","problems":[]} {"outcome":"sound","problems":[]}', 0),
        (b'{"outcome":"fine","problems":[]}', 0),
        (b'{"outcome":"sound","problems":[],"more":1}', 0),
        (b'{"outcome":"sound"}', 0),
        (json.dumps({"outcome": "damaged", "problems": ["x" * 201]}).encode(), 0),
        (json.dumps({"outcome": "damaged", "problems": ["x"] * 21}).encode(), 0),
        (b"\xff" * 70_000, 0),
    ],
)
def test_an_answer_of_another_form_is_not_believed(raw: bytes, code: int) -> None:
    assert sqlite_check._believed(raw, code) == Checked(Outcome.UNFINISHED, why="crashed")


@pytest.mark.parametrize("code", [-9, -24])
def test_one_that_was_ended_had_no_time_left(code: int) -> None:
    assert sqlite_check._believed(b'{"outcome":"sound","problems":[]}', code).why == "time"


def test_it_is_confined(tmp_path: Path) -> None:
    """Seen from inside, after it confined itself."""
    code = """if True:
        import json, os, sys
        from chatkeep.daemon.verify import sqlite_child
        sqlite_child.confine({"seconds": 7, "memory": 1 << 29, "size": 10, "journal": False})
        status = open("/proc/self/status").read()
        limits = open("/proc/self/limits").read()
        try:
            with open("written", "w") as file:
                file.write("x" * 10)
        except OSError as exc:
            print("errno", exc.errno)
        print(status, limits)
    """
    done = subprocess.run(
        [sys.executable, "-c", "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    rows = {line.split("  ")[0]: line.split() for line in done.stdout.splitlines()}
    assert "errno 27" in done.stdout
    assert "NoNewPrivs:\t1" in done.stdout
    assert rows["Max cpu time"][3] == "7"
    assert rows["Max address space"][3] == str(1 << 29)
    assert rows["Max core file size"][4] == "0"
    assert rows["Max open files"][3] == "32"


def test_before_it_reads_a_byte_it_can_open_nothing_more(tmp_path: Path) -> None:
    """Not a file, not a connection to anywhere, not the session that may be open. Seen from inside, at that moment."""
    with contextlib.closing(sqlite3.connect(tmp_path / "db")) as db:
        db.executescript("CREATE TABLE t(x); INSERT INTO t VALUES (1); CREATE INDEX i ON t(x)")
    (tmp_path / "other").write_text("")
    code = """if True:
        import json, socket, sys
        from chatkeep.daemon.verify import sqlite_child
        real, tried = sqlite_child._checked, []
        def checked(db):
            for act in (lambda: open("other"), lambda: socket.socket(socket.AF_UNIX), lambda: socket.socket()):
                try:
                    act().close()
                    tried.append(0)
                except OSError as exc:
                    tried.append(exc.errno)
            return real(db)
        sqlite_child._checked = checked
        sqlite_child.confine({"seconds": 7, "memory": 1 << 29, "size": 10, "journal": False})
        print(json.dumps([tried, sqlite_child.look(journal=False)]))
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    tried, said = json.loads(done.stdout)
    assert tried == [errno.EMFILE] * 3
    assert said == {"outcome": "sound", "problems": []}


def test_it_has_neither_the_environment_nor_the_modules_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, object]] = []
    real = subprocess.Popen

    def popen(*args: object, **how: object) -> object:
        seen.append(how)
        return real(*args, **how)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setenv("SECRET", "of the command")
    made(tmp_path)
    assert looked(tmp_path).outcome is Outcome.SOUND
    (how,) = seen
    assert how["env"] == {"LANG": "C.UTF-8"}
    assert how["stderr"] == subprocess.DEVNULL
    code = "import sys; import chatkeep.daemon.verify.sqlite_child; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in loaded if name.startswith("chatkeep.daemon.")] == [
        "chatkeep.daemon.verify",
        "chatkeep.daemon.verify.sqlite_child",
    ]
    assert not {"cryptography", "socket", "msgspec"} & set(loaded)


def test_cancelled_it_ends_at_once(tmp_path: Path) -> None:
    costly(tmp_path, FOR_EVER)
    calls: list[int] = []

    def cancelled() -> bool:
        calls.append(1)
        return len(calls) > 2

    begun = time.monotonic()
    with pytest.raises(Cancelled):
        check(os.fsencode(tmp_path), cancelled)
    assert time.monotonic() - begun < 60
