"""The demonstration: a chat application that keeps writing is backed up, sealed, restored, and compared.

    scripts/demo [--keep] [--seed N] [--messages N] [--snapshots N]

Everything happens in a temporary directory, with the commands that a person would type. Whatever is not equal ends it
with an error.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chatkeep.daemon.cli.measures import counted, duration, size
from chatkeep.daemon.cli.output import fields
from scripts.demo_chat import LEDGERS, compare_profile, describe, make
from scripts.demo_daemon import Daemon, Made, running
from scripts.demo_proof import Failed, Proof, hidden, needles, rows_equal, squeezed

RATE = 40  # changes a second: a busy evening in many chats
COMMITS_BETWEEN = 40  # transactions of the application between two snapshots
DEADLINE = 60.0  # seconds to wait for the application; it needs two
SOURCE = "ExampleChat"


class Show:
    """What is told, and the commands that are run."""

    def __init__(self, room: Path) -> None:
        self.room = room
        self.profile = room / "ExampleChat"
        self.vault = room / "disk" / "chatkeep"
        self.ledgers = room / "ledgers"
        self.key = room / "recovery-key.txt"
        self.started = time.monotonic()

    def say(self, text: str = "") -> None:
        """A line."""
        print(text, flush=True)

    def chapter(self, text: str) -> None:
        """What comes next."""
        self.say(f"\n{text}")

    def chatkeep(self, *words: str, shown: bool = True) -> dict[str, Any]:
        """Runs a command as a person would, and returns what --json says. Raises Failed."""
        if shown:
            self.say(f"  $ chatkeep {shlex.join(words).replace(str(self.room), '~')}")
        begun = time.monotonic()
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "chatkeep.daemon.cli.main",
                "--config",
                str(self.room / "chatkeep.yaml"),
                "--json",
                *words,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise Failed(f"chatkeep {words[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")
        found: dict[str, Any] = json.loads(done.stdout)
        found["took"] = time.monotonic() - begun
        return found


@contextlib.contextmanager
def application(show: Show, seed: int) -> Iterator[subprocess.Popen[str]]:
    """The chat application, writing, in a process of its own."""
    command = [sys.executable, "-m", "scripts.demo_chat", "write", str(show.profile), "--ledgers", str(show.ledgers)]
    process = subprocess.Popen([*command, "--rate", str(RATE), "--seed", str(seed)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise Failed("the application did not start")
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(DEADLINE)
        if process.stdout is not None:
            process.stdout.close()


def commits(show: Show) -> int:
    """How many transactions the application has committed so far, as it says itself."""
    return sum(
        1
        for name in LEDGERS
        for line in (show.ledgers / f"{name}.ledger").read_text().splitlines()
        if line.count(" ") == 2
    )


def wait_for(show: Show, process: subprocess.Popen[str], count: int) -> int:
    """Waits until the application has committed so many transactions; returns how many it has. Raises Failed."""
    until = time.monotonic() + DEADLINE
    while (now := commits(show)) < count:
        if process.poll() is not None or time.monotonic() > until:
            raise Failed("the application stopped writing")
        time.sleep(0.02)
    return now


def prepare(show: Show, options: argparse.Namespace) -> None:
    """The profile, the configuration, the vault."""
    show.chapter("A chat application's profile is made")
    make(show.profile, seed=options.seed, messages=options.messages, media=60)
    show.ledgers.mkdir()
    files = [path for path in show.profile.rglob("*") if path.is_file() and not path.is_symlink()]
    databases = sum(path.stat().st_size for path in files if path.suffix == ".db")
    show.say(f"  {options.messages:,} messages with a full-text index, contacts: 2 databases, {size(databases)}")
    show.say(f"  {counted(len(files) - 2, 'file')}: pictures, notes, a sparse file, a name that is no text, links")

    show.chapter("A vault is made for it, on a disk that is not trusted")
    show.vault.parent.mkdir()
    (show.room / "chatkeep.yaml").write_text(
        f"sources: [{show.profile}]\n"
        f"providers: [{{name: disk, type: folder, path: {show.vault}}}]\n"
        f"state_dir: {show.room / 'state'}\n"
        "watch: {quiet: 1 second, max_delay: 2 seconds, min_interval: 2 seconds}\n"
    )
    made = show.chatkeep("init", "--recovery-key-file", str(show.key))
    show.say(f"  vault {made['vault']}; the recovery key has 8 lines and is kept elsewhere")


def keep(show: Show, options: argparse.Namespace, process: subprocess.Popen[str], daemon: Daemon) -> list[Made]:
    """The daemon takes snapshots by itself while the application writes: locked, unlocked, and locked again."""
    seen = wait_for(show, process, COMMITS_BETWEEN)
    made = [told(show, daemon.snapshot_after(0), f"{counted(seen, 'commit')} so far")]
    daemon.until(lambda: daemon.said("held"), "what waits for an unlock")
    if daemon.stored():
        raise Failed("the daemon uploaded before the vault was unlocked")
    show.say("    sealed on this machine; nothing is sent before somebody has unlocked the vault")

    show.chapter("The vault is unlocked, once: what waits is sent, and what comes next")
    show.chatkeep("unlock", "--key-file", str(show.key))
    made += more(show, process, daemon, made[-1], options.snapshots)
    show.chapter("It is locked again: whoever has the machine reads nothing, and the backup goes on")
    show.chatkeep("lock")
    return made + more(show, process, daemon, made[-1], 1)


def more(show: Show, process: subprocess.Popen[str], daemon: Daemon, last: Made, count: int) -> list[Made]:
    """So many snapshots more, each with something new, until storage has them."""
    made = [last]
    for _ in range(count):
        before = commits(show)
        now = wait_for(show, process, before + COMMITS_BETWEEN)
        newest = daemon.snapshots()[-1].seq
        made.append(told(show, daemon.snapshot_after(newest), f"{counted(now - before, 'commit')} later", daemon))
    return made[1:]


def told(show: Show, one: Made, written: str, daemon: Daemon | None = None) -> Made:
    """A snapshot in one line; with a daemon: once storage has it, and when that was."""
    where = ""
    if daemon is not None:
        daemon.until(lambda: daemon.stored() >= one.seq, f"snapshot {one.seq} in storage")
        where = f"   in storage {duration(time.monotonic() - one.seen)} later"
    show.say(f"    snapshot {one.seq:<3} {written:<18} sealed {size(one.stored):>8}{where}")
    return one


def one_backup(show: Show, written: str) -> dict[str, Any]:
    """One snapshot, told in one line."""
    done = show.chatkeep("backup", shown=False)
    source = done["sources"][0]
    if source["problems"] or source["pending"] or source["busy"]:
        raise Failed(f"the snapshot is not complete: {source}")
    changed = source["changed"]
    row = {
        "seq": source["last_seq"],
        "written": written,
        "changed": f"{counted(changed['databases'], 'database')}, {counted(changed['files'], 'file')}",
        "new": source["new_bytes"],
        "stored": source["stored_bytes"],
        "seconds": source["seconds"],
        "made": source["snapshots"],
    }
    words = f"{row['changed']} changed: {size(row['new'])}" if row["made"] else "nothing changed"
    cost = f"stored {size(row['stored']):>7}   {duration(row['seconds'])}"
    show.say(f"    snapshot {row['seq']}  {written:<17} {words:<39} {cost}")
    return row


def restore(show: Show, snap: str, name: str) -> tuple[Path, dict[str, Any]]:
    """A snapshot into a new directory, with nothing but the storage and the recovery key."""
    target = show.room / name
    words = ["restore", snap, "--target", str(target), "--from", str(show.vault), "--key-file", str(show.key)]
    return target, show.chatkeep(*words)


def prove_copy(show: Show, proof: Proof, snap: str, name: str) -> None:
    """A restored copy is a state that the application committed, row by row."""
    target, done = restore(show, snap, name)
    verdicts, problems = compare_profile(target, show.ledgers)
    if problems:
        raise Failed("; ".join(problems))
    told = done["restored"]
    about = f"snapshot {done['snapshot']['seq']}"
    databases, files = counted(told["databases_proven"], "database"), counted(told["files_proven"], "file")
    proof.add(about, f"restored: {databases} proven by the digest over all pages, {files} by content")
    proof.add(about, "SQLite's integrity check finds nothing, in the full-text index neither")
    for base, one in verdicts.items():
        rows = sum(one.state.counts.values())
        proof.add(
            about, f"{base}.db: its {rows:,} rows are those of the application's commit {one.commit:,}, all equal"
        )


def prove_end(show: Show, proof: Proof) -> None:
    """The application has ended: the copy and the original are compared directly, to the last bit."""
    show.chapter("The application ends; one more snapshot, restored and compared with the original")
    last = one_backup(show, "closed")
    again = one_backup(show, "once more")
    if again["made"]:
        raise Failed("a snapshot was made although nothing changed")
    target, _ = restore(show, str(last["seq"]), "restored-end")
    here, there = describe(show.profile), describe(target)
    different = sorted(path for path in here.keys() | there.keys() if here.get(path) != there.get(path))
    if different:
        raise Failed(f"different after the restore: {different[:5]}")
    count = sum(rows_equal(show.profile / f"{name}.db", target / f"{name}.db") for name in LEDGERS)
    about = f"snapshot {last['seq']}"
    proof.add(about, f"restored: {count:,} rows compared with the original's one by one, all equal")
    proof.add(about, f"{counted(len(here), 'path')} equal: names, contents, modes, owners, times, links")


def prove_sealed(show: Show, proof: Proof, wanted: list[bytes]) -> None:
    """Nothing of the profile can be read in what storage holds, nor in what waits on this machine to be uploaded."""
    show.chapter("What storage sees")
    objects, total, found = hidden(show.vault, wanted)
    show.say(f"  {counted(objects, 'object')}, {size(total)}; one of them begins: {first_bytes(show.vault)}")
    if found:
        raise Failed(f"plaintext in the vault: {found[:3]}")
    before, after = squeezed(show.vault)
    if after < before * 0.98:
        raise Failed(f"the vault compresses from {before} to {after} bytes: it is not encrypted throughout")
    proof.add("sealed", f"none of {len(wanted):,} texts, names and file headers of the profile is in the vault")
    proof.add("sealed", "(the same search finds every one of them in the profile)")
    proof.add("sealed", f"the vault does not compress: {size(before)} stay {size(after)}")


def first_bytes(vault: Path) -> str:
    """The beginning of the largest object after its magic."""
    largest = max((path for path in vault.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    return largest.read_bytes()[8:28].hex(" ")


def finish(show: Show, made: list[Made], proof: Proof) -> None:
    """The summary at the end."""
    stored = [one.stored for one in made]
    show.say()
    for line in fields(proof.rows()):
        show.say(line)
    show.say(f"\nThe first snapshot stored {size(stored[0])}, the others shown {size(max(stored[1:]))} at most.")
    show.say(f"All of it in {duration(time.monotonic() - show.started)}.")


def demonstrate(show: Show, options: argparse.Namespace) -> None:
    """All chapters. Raises Failed."""
    show.say("Chatkeep: a chat application is backed up while it writes, sealed, restored and compared")
    prepare(show, options)
    wanted = needles(show.profile)
    _, _, readable = hidden(show.profile, wanted)
    if len(readable) != len(wanted):  # a search that finds nothing anywhere would prove nothing
        raise Failed(f"the search finds only {len(readable)} of {len(wanted)} texts in the profile itself")
    proof = Proof()
    show.chapter(f"The daemon keeps it while it writes, {RATE} changes a second")
    show.say("  $ chatkeep run")
    with running(show.room / "chatkeep.yaml", show.vault) as daemon:
        with application(show, options.seed) as process:
            made = keep(show, options, process, daemon)
            show.chapter("Meanwhile two snapshots are restored, with the storage and the recovery key alone")
            prove_copy(show, proof, "latest", "restored-latest")
            prove_copy(show, proof, str(made[1].seq), f"restored-{made[1].seq}")
        by_itself = len(daemon.snapshots())
        prove_end(show, proof)
        proof.add("the daemon", f"took {counted(by_itself, 'snapshot')} because something had changed, asked by nobody")
        proof.add("the daemon", f"sent none before the unlock, and all; ended cleanly in {duration(daemon.end())}")
    prove_sealed(show, proof, wanted)
    show.chapter("The storage is checked, first without a key, then with it")
    checked = show.chatkeep("verify", "--deep", "--key-file", str(show.key))
    seen = checked["deep"]
    proof.add("verified", f"{counted(checked['providers'][0]['checked_objects'], 'object')} checked without any key")
    proof.add(
        "verified", f"{counted(seen['blobs'], 'blob')} of {counted(seen['snapshots'], 'snapshot')} opened and checked"
    )
    finish(show, made, proof)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description="Shows Chatkeep at work.")
    parser.add_argument("--keep", action="store_true", help="leave the directory with everything in it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--messages", type=int, default=6000)
    parser.add_argument("--snapshots", type=int, default=5, help="incremental ones")
    options = parser.parse_args(arguments)
    room = Path(tempfile.mkdtemp(prefix="chatkeep-demo-"))
    try:
        demonstrate(Show(room), options)
        return 0
    except Failed as exc:
        print(f"\nFAILED: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 6
    finally:
        if options.keep:
            print(f"\nEverything is in {room}")
        else:
            shutil.rmtree(room)


if __name__ == "__main__":
    os.umask(0o077)
    raise SystemExit(main())
