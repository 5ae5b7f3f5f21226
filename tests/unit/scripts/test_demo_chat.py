"""The demonstration's chat application: what it makes, that its ledger is true, and that a wrong copy is seen."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts import demo_chat
from scripts.demo_chat import (
    Match,
    Writer,
    compare,
    compare_profile,
    damage,
    describe,
    make,
    media_problems,
    read_state,
)
from scripts.demo_profile import SPARSE_SIZE

TOP = Path(__file__).parents[3]


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    made = tmp_path / "profile"
    make(made, seed=7, messages=150, media=12)
    return made


@pytest.fixture
def ledgers(tmp_path: Path) -> Path:
    directory = tmp_path / "ledgers"
    directory.mkdir()
    return directory


@pytest.fixture
def writer(profile: Path, ledgers: Path) -> Iterator[Writer]:
    opened = Writer(profile, ledgers, seed=3)
    yield opened
    opened.close()


def copy(database: Path, to: Path) -> Path:
    """A consistent copy of a live database, made by SQLite itself."""
    with contextlib.closing(sqlite3.connect(database)) as source, contextlib.closing(sqlite3.connect(to)) as target:
        source.backup(target)
    return to


def alter(database: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute(statement).rowcount > 0
        connection.commit()


# --- the profile


def test_one_seed_makes_one_profile(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        make(tmp_path / name, seed=seed, messages=60, media=8)

    def contents(name: str) -> dict[bytes, object]:
        return {path: (facts[0], facts[4:]) for path, facts in describe(tmp_path / name).items()}

    assert contents("one") == contents("again")
    assert contents("one") != contents("other")


def test_a_profile_is_never_made_over_another(profile: Path) -> None:
    with pytest.raises(FileExistsError):
        make(profile)


def test_what_a_profile_holds(profile: Path) -> None:
    messages, contacts = (profile / "messages.db").read_bytes(), (profile / "contacts.db").read_bytes()
    assert messages[16:20] == b"\x10\x00\x02\x02"  # pages of 4096 bytes, WAL
    assert contacts[16:20] == b"\x10\x00\x01\x01"  # rollback journal
    assert (profile / "latest").is_symlink()
    assert list((profile / "drafts").iterdir()) == []
    sparse = (profile / "cache.bin").stat()
    assert sparse.st_size == SPARSE_SIZE
    assert sparse.st_blocks * 512 < SPARSE_SIZE // 10
    assert b"old\xff\nname" in os.listdir(os.fsencode(profile))
    assert not list(profile.glob("*.db-*"))
    state = read_state(profile / "messages.db")
    assert state.last_id == 150
    assert state.counts == {"chats": 12, "media": 12, "messages": 150, "reactions": 16, "receipts": 300, "ticks": 1}
    assert len(list((profile / "media").rglob("*.*"))) == 12
    assert media_problems(profile) == []
    assert damage(profile / "messages.db") == damage(profile / "contacts.db") == []


# --- the writer and its ledger


def test_after_each_step_the_ledger_ends_with_what_is_there(profile: Path, ledgers: Path, writer: Writer) -> None:
    for _ in range(150):
        writer.step()
        for name in demo_chat.LEDGERS:
            verdict = compare(profile / f"{name}.db", ledgers / f"{name}.ledger")
            assert (verdict.match, verdict.commit) == (Match.COMMITTED, verdict.commits - 1)
    assert compare_profile(profile, ledgers)[1] == []


def test_every_kind_of_step_happens(
    profile: Path, ledgers: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_state(profile / "messages.db"), read_state(profile / "contacts.db")
    happened: list[str] = []

    def watched(action: Callable[[], None]) -> Callable[[], None]:
        def act() -> None:
            happened.append(action.__name__)
            action()

        return act

    kinds = {action.__name__ for _, action in writer._steps}
    monkeypatch.setattr(writer, "_steps", tuple((weight, watched(action)) for weight, action in writer._steps))
    for _ in range(400):
        writer.step()
    assert set(happened) == kinds
    assert len(kinds) == 9
    after = read_state(profile / "messages.db"), read_state(profile / "contacts.db")
    assert all(old.last_id < new.last_id for old, new in zip(before, after, strict=True))
    assert after[0].counts["messages"] < after[0].last_id  # something was deleted


def test_what_is_rolled_back_leaves_no_trace(profile: Path, writer: Writer) -> None:
    before = read_state(profile / "messages.db")
    book = writer.books[0]
    with book.transaction(keep=False):
        book.put("chats", id=99, title="x", muted=0)
        assert book.get("chats", id=99)
    assert read_state(profile / "messages.db") == before
    with pytest.raises(sqlite3.OperationalError), book.transaction():
        book.put("chats", no_such_column=1, id=99)
    assert read_state(profile / "messages.db") == before
    with book.transaction():
        pass
    assert read_state(profile / "messages.db").counts == before.counts


def test_the_same_steps_make_the_same_rows(tmp_path: Path) -> None:
    states = []
    for name in ("one", "two"):
        make(tmp_path / name, seed=5, messages=80, media=4)
        (tmp_path / f"{name} ledgers").mkdir()
        demo_chat.write(tmp_path / name, tmp_path / f"{name} ledgers", rate=0, commits=80, seed=9)
        states.append(read_state(tmp_path / name / "messages.db"))
    assert states[0] == states[1]
    assert states[0].last_id > 80


def test_a_copy_made_at_any_time_matches_the_commit_of_that_time(
    profile: Path, ledgers: Path, writer: Writer, tmp_path: Path
) -> None:
    at = []
    for number in range(6):
        for _ in range(10):
            writer.step()
        copied = copy(profile / "messages.db", tmp_path / f"{number}.db")
        verdict = compare(copied, ledgers / "messages.ledger")
        at.append((verdict.commit, verdict.commits))
    assert all(commit == commits - 1 for commit, commits in at)
    again = [compare(tmp_path / f"{number}.db", ledgers / "messages.ledger").commit for number in range(6)]
    assert again == [commit for commit, _ in at]
    assert sorted(set(again)) == again


# --- copies that are wrong


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM messages WHERE id = 77",
        "UPDATE messages SET body = body || '.' WHERE id = 1",
        "UPDATE receipts SET read_ms = read_ms + 1 WHERE message = 5",
        "INSERT INTO reactions(message, sender, sign) VALUES(1, 1, 'x')",
        "UPDATE ticks SET commits = commits + 1",
        "UPDATE sqlite_sequence SET seq = seq + 1",
    ],
)
def test_any_other_row_is_seen(profile: Path, ledgers: Path, writer: Writer, tmp_path: Path, statement: str) -> None:
    copied = copy(profile / "messages.db", tmp_path / "copy.db")
    assert compare(copied, ledgers / "messages.ledger").equal
    alter(copied, statement)
    verdict = compare(copied, ledgers / "messages.ledger")
    assert (verdict.match, verdict.equal) == (Match.NONE, False)


def test_two_states_mixed_are_seen(profile: Path, ledgers: Path, writer: Writer, tmp_path: Path) -> None:
    older = copy(profile / "messages.db", tmp_path / "older.db")
    for _ in range(30):
        writer.step()
    newer = copy(profile / "messages.db", tmp_path / "newer.db")
    assert compare(older, ledgers / "messages.ledger").equal
    assert compare(newer, ledgers / "messages.ledger").equal
    pages = [older.read_bytes(), newer.read_bytes()]
    different = [at for at in range(0, len(pages[0]), 4096) if pages[0][at : at + 4096] != pages[1][at : at + 4096]]
    assert len(different) > 3
    unseen = []
    for at in different:
        newer.write_bytes(pages[1][:at] + pages[0][at : at + 4096] + pages[1][at + 4096 :])
        if not damage(newer) and compare(newer, ledgers / "messages.ledger").equal:
            unseen.append(at // 4096 + 1)
    # The digest sees an old page of a table, SQLite one of an index and of most of the full-text index. It reads
    # words_idx only to find its way.
    assert set(unseen) <= {root_page(older, "words_idx")}


def root_page(database: Path, table: str) -> int:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        return int(page)


def test_a_file_that_is_no_database_is_damage(profile: Path, ledgers: Path, writer: Writer) -> None:
    writer.close()
    (profile / "contacts.db").write_bytes(b"SQLite format 3\x00" + bytes(4000))
    verdicts, problems = compare_profile(profile, ledgers)
    assert set(verdicts) == {"messages"}
    assert len(problems) == 1
    assert problems[0].startswith("contacts.db: ")


def test_an_index_that_lies_is_damage(profile: Path) -> None:
    with contextlib.closing(sqlite3.connect(profile / "messages.db")) as connection:
        connection.execute("DROP TRIGGER words_update")
        connection.execute("UPDATE messages SET body = 'unheard' WHERE id = 9")
        connection.commit()
    assert damage(profile / "messages.db") != []


def test_media_that_is_missing_or_different_is_named(profile: Path) -> None:
    first, second = sorted(path for path in (profile / "media").rglob("*.jpg"))[:2]
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1] + b"x")
    names = [str(path.relative_to(profile)) for path in (first, second)]
    assert media_problems(profile) == [f"{names[0]}: missing", f"{names[1]}: different"]


def test_a_state_about_to_be_committed_counts_only_at_the_end(profile: Path, tmp_path: Path) -> None:
    state = read_state(profile / "messages.db")
    begun = f"2 {state.last_id} {state.digest} begun\n"
    ledger = tmp_path / "ledger"
    ledger.write_text("1 1 00\n" + begun)
    assert compare(profile / "messages.db", ledger).match is Match.COMMITTING
    ledger.write_text(begun + "3 1 00\n")
    assert compare(profile / "messages.db", ledger).match is Match.NONE
    ledger.write_text("")
    assert compare(profile / "messages.db", ledger).match is Match.NONE


def test_reading_a_copy_creates_nothing(profile: Path) -> None:
    before = sorted(os.listdir(profile))
    read_state(profile / "messages.db")
    damage(profile / "messages.db")
    media_problems(profile)
    assert sorted(os.listdir(profile)) == before


def test_describe_sees_every_difference(profile: Path) -> None:
    before = describe(profile)
    assert b"old\xff\nname" in before
    settings = profile / "settings.json"
    times = settings.stat().st_atime_ns, settings.stat().st_mtime_ns
    settings.write_bytes(settings.read_bytes().replace(b"dark", b"pale"))
    os.utime(settings, ns=times)
    (profile / "drafts").chmod(0o700 if before[b"drafts"][0] != "drwx------" else 0o755)
    os.utime(profile / "contacts.db", ns=(1, 1))
    (profile / "latest").unlink()
    (profile / "latest").symlink_to("media")
    after = describe(profile)
    changed = {path for path in before if path and before[path] != after[path]}
    assert changed == {b"settings.json", b"drafts", b"contacts.db", b"latest"}


# --- as a process of its own


@contextlib.contextmanager
def running(profile: Path, ledgers: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A writer that has said that it is ready."""
    command = [sys.executable, "-m", "scripts.demo_chat", "write", str(profile), "--ledgers", str(ledgers), *options]
    with subprocess.Popen(command, cwd=TOP, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def wait_for_commits(ledgers: Path, process: subprocess.Popen[str], count: int) -> None:
    """Until the ledger has `count` lines more; ends by itself when the writer does."""
    with (ledgers / "messages.ledger").open() as file:
        lines = 0
        while lines < count:
            lines += file.read().count("\n")
            assert process.poll() is None


def test_sigterm_ends_a_writer_between_two_commits(profile: Path, ledgers: Path) -> None:
    with running(profile, ledgers, "--rate", "0") as process:
        wait_for_commits(ledgers, process, 40)
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        summary = json.loads(process.stdout.read())
        assert process.wait() == 0
    assert summary["steps"] > 10
    assert summary["slowest_us"] > 0
    verdicts, problems = compare_profile(profile, ledgers)
    assert problems == []
    assert all(one.match is Match.COMMITTED and one.commit == one.commits - 1 for one in verdicts.values())
    assert not list(profile.glob("*.db-*"))


def test_copies_of_a_live_database_match_at_once(profile: Path, ledgers: Path, tmp_path: Path) -> None:
    with running(profile, ledgers, "--rate", "0") as process:
        found = []
        for number in range(5):
            wait_for_commits(ledgers, process, 1)
            copied = copy(profile / "messages.db", tmp_path / f"{number}.db")
            found.append(compare(copied, ledgers / "messages.ledger"))
    assert all(verdict.equal for verdict in found)
    assert found[-1].commit > found[0].commit


def test_a_stop_file_ends_a_writer_that_waits(profile: Path, ledgers: Path, tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    with running(profile, ledgers, "--rate", "0.001", "--stop", str(stop)) as process:
        stop.touch()
        assert process.wait(timeout=30) == 0


def test_a_killed_writer_leaves_a_state_that_its_ledger_knows(profile: Path, ledgers: Path) -> None:
    with running(profile, ledgers, "--rate", "0") as process:
        wait_for_commits(ledgers, process, 60)
        process.kill()
        process.wait()
    assert compare_profile(profile, ledgers)[1] == []
    summary = demo_chat.write(profile, ledgers, rate=0, commits=5)  # and it goes on from there
    assert summary["steps"] == 5
    assert compare_profile(profile, ledgers)[1] == []


@pytest.mark.parametrize("inside", ["x", "drafts/../x", "."])
def test_nothing_of_the_record_may_lie_in_the_profile(profile: Path, ledgers: Path, inside: str) -> None:
    with pytest.raises(ValueError, match="within the profile"):
        Writer(profile, profile / inside)
    with pytest.raises(ValueError, match="within the profile"):
        demo_chat.write(profile, ledgers, stop=profile / inside, commits=0)


def test_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made, kept = str(tmp_path / "made"), str(tmp_path / "kept")
    assert demo_chat.main(["make", made, "--seed", "4", "--messages", "30", "--media", "3"]) == 0
    assert demo_chat.main(["write", made, "--ledgers", kept, "--rate", "0", "--commits", "20"]) == 0
    assert demo_chat.main(["compare", made, "--ledgers", kept]) == 0
    said = capfd.readouterr().out.splitlines()
    assert said[0] == "ready"
    assert json.loads(said[1])["steps"] == 20
    assert json.loads(said[2])["databases"]["messages"]["match"] == "committed"
    alter(tmp_path / "made" / "messages.db", "DELETE FROM receipts WHERE message = 3")
    assert demo_chat.main(["compare", made, "--ledgers", kept]) == 1
    assert json.loads(capfd.readouterr().out)["problems"] == ["messages.db: not a state that was ever committed"]
