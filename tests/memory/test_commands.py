"""The real commands: in the middle of their work, and when they are about to end."""

from __future__ import annotations

import os
import pty
import select
import subprocess
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import pytest

from chatkeep.daemon.service.asking import Session
from chatkeep.daemon.service.session import find
from tests.support.memory_play import DEADLINE, expect, give, is_ended, nothing
from tests.support.memory_scan import Scanner, flags
from tests.support.memory_vault import BIG, SIZE, Vault
from tests.support.seam import TOP

END = TOP / "tests/support/memory_end"


class Running:
    """A command that stops before it ends. Killed when the block is left.

    Args:
        terminal: what a person would type goes to a terminal that is its standard input.
    """

    def __init__(self, vault: Vault, *words: object, json: bool = False, terminal: bool = False) -> None:
        told, self._telling = os.pipe()
        going, self._going = os.pipe()
        self._told = told
        environment = {
            **os.environ,
            "TZ": "UTC",
            "TERM": "dumb",
            "XDG_RUNTIME_DIR": str(vault.station.runtime),
            "PYTHONPATH": str(END),
            "MEMORY_END": f"{self._telling},{going}",
        }
        argv = [*vault.station.argv(*words), *(["--json"] if json else [])]
        self._keyboard, theirs = pty.openpty() if terminal else (-1, subprocess.DEVNULL)
        pipes: dict[str, Any] = {"stdin": theirs, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            argv, env=environment, pass_fds=(self._telling, going), bufsize=0, **pipes
        )
        self._said = b""
        for descriptor in (self._telling, going, theirs):
            if descriptor >= 0:
                os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        self.process.kill()
        self.process.communicate()
        for descriptor in (self._told, self._going, self._keyboard):
            if descriptor >= 0:
                os.close(descriptor)

    @property
    def pid(self) -> int:
        return self.process.pid

    def hears(self, words: str) -> str:
        """Waits until these words are said, and returns what was said until then."""
        assert self.process.stderr is not None
        poll = select.poll()
        poll.register(self.process.stderr, select.POLLIN)
        while words.encode() not in self._said:
            assert poll.poll(DEADLINE * 1000), self._said
            piece = os.read(self.process.stderr.fileno(), 4096)
            assert piece, self._said
            self._said += piece
        said, _, self._said = self._said.partition(words.encode())
        return said.decode()

    def types(self, text: str) -> None:
        """As a person does."""
        os.write(self._keyboard, text.encode() + b"\n")

    def begins_to_write(self) -> int:
        """Waits for the first bytes of its output, of which there is more than a pipe holds; how many they are."""
        assert self.process.stdout is not None
        first = os.read(self.process.stdout.fileno(), 1)
        assert first
        return len(first)

    def at_the_end(self) -> int:
        """Waits until it is about to end, and takes what it writes until then; how much that was."""
        assert self.process.stdout is not None
        out, taken = self.process.stdout.fileno(), 0
        poll = select.poll()
        poll.register(out, select.POLLIN)
        poll.register(self._told, select.POLLIN)
        while True:
            ready = dict(poll.poll(DEADLINE * 1000))
            assert ready, "it never came to be so"
            if ready.get(out, 0) & select.POLLIN:
                taken += len(os.read(out, 1 << 20))
            else:
                assert ready.get(self._told, 0) & select.POLLIN, "it ended"
                assert os.read(self._told, 1) == b"e"
                return taken

    def ends(self) -> int:
        """Goes on to the end; its exit code."""
        os.write(self._going, b"g")
        self.process.communicate(timeout=DEADLINE)
        return self.process.returncode


@pytest.fixture(autouse=True)
def _locked(vault: Vault) -> Iterator[None]:
    """Each test begins without a session, whatever became of the one before."""
    yield
    vault.station.ok("lock")


@pytest.fixture
def keys(vault: Vault) -> Scanner:
    """Looks for what opens the vault, and not for the keys of single objects.

    `unlock` proves manifests, and is seen to keep half of the key of one on its stack until it ends: the dynamic linker
    saves the vector registers there when a function is looked up at its first call. (With LD_BIND_NOW it does not.)
    """
    return Scanner(vault.secrets)


@pytest.fixture
def session(vault: Vault, keys: Scanner) -> int:
    """A session of the vault, begun by the command, in which then is nothing: the process that holds the keys."""
    with Running(vault, "unlock", "--key-file", vault.file("recovery"), json=True) as unlock:
        unlock.at_the_end()
        nothing(keys.look(unlock.pid), keys)
        assert unlock.ends() == 0
    with found(vault) as there:
        return there.pid


def found(vault: Vault) -> Session:
    """The session of the vault."""
    there = find(vault.vault_id, vault.station.runtime / "chatkeep")
    assert there is not None
    return there


def test_a_command_that_is_given_a_secret(vault: Vault, scanner: Scanner) -> None:
    with Running(vault, "cat", "latest", BIG, "--key-file", vault.file("recovery")) as cat:
        taken = cat.begins_to_write()
        found = scanner.look(cat.pid)
        expect(found, vault.held)
        assert not found.names & (vault.certifies | vault.typed), found.told()
        taken += cat.at_the_end()
        assert taken == SIZE
        nothing(scanner.look(cat.pid), scanner)
        assert cat.ends() == 0


@pytest.mark.parametrize("kind", ["recovery", "passphrase"])
def test_a_command_that_is_given_a_wrong_secret(vault: Vault, kind: str) -> None:
    scanner = Scanner({**vault.secrets, **vault.wrong(kind)})
    option = "--key-file" if kind == "recovery" else "--passphrase-file"
    with Running(vault, "unlock", option, vault.file(f"wrong-{kind}"), json=True) as unlock:
        unlock.at_the_end()
        nothing(scanner.look(unlock.pid), scanner)
        assert unlock.ends() == 3


def test_a_passphrase_that_is_typed(vault: Vault) -> None:
    scanner = Scanner({**vault.secrets, **vault.wrong("passphrase")})
    with Running(vault, "unlock", "--passphrase", json=True, terminal=True) as unlock:
        for name in ("wrong-passphrase", "passphrase"):
            said = unlock.hears("Passphrase: ")
            assert ("not the passphrase" in said) is (name == "passphrase")
            nothing(scanner.look(unlock.pid), scanner)
            unlock.types(vault.file(name).read_text().strip())
        unlock.at_the_end()
        nothing(scanner.look(unlock.pid), scanner)
        assert unlock.ends() == 0


def test_a_recovery_key_that_is_typed(vault: Vault, keys: Scanner) -> None:
    with Running(vault, "unlock", "--recovery-key", json=True, terminal=True) as unlock:
        for number, line in enumerate(vault.file("recovery").read_text().splitlines(), 1):
            unlock.hears(f"line {number}: ")
            unlock.types(line)
        unlock.at_the_end()
        nothing(keys.look(unlock.pid), keys)
        assert unlock.ends() == 0


@pytest.mark.parametrize("right", [True, False])
def test_a_passkey(vault: Vault, right: bool) -> None:
    scanner = Scanner({**vault.secrets, **vault.wrong("passkey")})
    with Running(vault, "unlock", "--passkey") as unlock:
        unlock.hears("http://")
        url = "http://" + unlock.hears("\n").strip()
        nothing(scanner.look(unlock.pid), scanner)
        end = give(url, vault.passkey if right else vault.wrong_passkey)
        assert end["ok"] is right
        unlock.at_the_end()
        nothing(scanner.look(unlock.pid), scanner)
        assert unlock.ends() == (0 if right else 3)


def test_a_session_that_was_used(vault: Vault, keys: Scanner, session: int) -> None:
    """The keys are made anew for each use: of that nothing stays but what is in memory of its own."""
    vault.station.ok("verify", "--deep")
    with found(vault) as there:
        assert there.about.opened >= 4
    seen, left = flags(session), keys.look(session)
    expect(left, {"open 1", "open 2", "checkpoint 2"})
    assert left.names == {"open 1", "open 2", "checkpoint 2"}, left.told()
    for hit in left.hits:
        assert {"lo", "dd"} <= seen[hit.region], f"{hit}: {seen[hit.region]}"


def test_a_command_that_uses_a_session(vault: Vault, scanner: Scanner, keys: Scanner, session: int) -> None:
    with Running(vault, "cat", "latest", BIG) as cat:
        taken = cat.begins_to_write()
        # What opens the vault is in the session; the command has the keys of those objects that it reads.
        expect(keys.look(session), {"open 1", "open 2"})
        nothing(keys.look(cat.pid), keys)
        has = scanner.look(cat.pid).names
        assert has, "it reads, and has the key of nothing"
        vault.station.ok("lock")
        nothing(keys.look(cat.pid), keys)
        taken += cat.at_the_end()
        assert taken == SIZE
        nothing(scanner.look(cat.pid), scanner)
        assert cat.ends() == 0
    assert is_ended(session)
