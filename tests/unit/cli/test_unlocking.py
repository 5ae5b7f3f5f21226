"""Which secret unlocks, how often a person is asked for it, and what is left of it."""

from __future__ import annotations

import io
import sys
from types import TracebackType
from typing import Any, Self

import click
import pytest

from chatkeep.daemon.cli import ask, unlocking
from chatkeep.daemon.cli.frame import Frame
from chatkeep.daemon.cli.output import Output
from chatkeep.daemon.cli.unlocking import OPTIONS, Secret, secret_options
from chatkeep.daemon.control.ceremony import client
from chatkeep.daemon.control.ceremony.events import Ready
from chatkeep.daemon.control.errors import CeremonyCancelled, CeremonyTimedOut
from chatkeep.daemon.keys.errors import NoSlotOpened, WrongPasskey
from chatkeep.daemon.keys.methods import PasskeyMethod
from chatkeep.daemon.vault.create import Way, create_vault
from chatkeep.daemon.vault.errors import NoVault, VaultLocked
from chatkeep.providers.base import Unavailable
from tests.support.memory_provider import MemoryProvider
from tests.support.passkeys import AtHand
from tests.support.vaults import NOW, passphrase, recovery

CREDENTIAL = b"c" * 32
READY = Ready("http://localhost:41234/#token", "012345", opened=True)
RANDOM = {CREDENTIAL: b"r" * 32}


class Ceremonies:
    """In place of the process of a ceremony: somebody who answers at once. `begun`: how it was asked for; `ended`: how
    each was left."""

    def __init__(self, hand: AtHand) -> None:
        self.hand = hand
        self.begun: list[dict[str, Any]] = []
        self.ended: list[str] = []
        self.fails: BaseException | None = None

    def __call__(self, kind: str, **how: Any) -> OneCeremony:
        self.begun.append({"kind": kind, **how})
        return OneCeremony(self)


class OneCeremony:
    def __init__(self, all_of_them: Ceremonies) -> None:
        self._all = all_of_them

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        if error is not None:
            self._all.ended.append(getattr(error, "code", type(error).__name__))
        if isinstance(error, KeyboardInterrupt):
            raise CeremonyCancelled(reason="terminal")

    def ask(self, questions: Any) -> Any:
        self._all.begun[-1]["tell"](READY)
        if self._all.fails is not None:
            raise self._all.fails
        return self._all.hand.ask(questions)

    def end(self) -> None:
        self._all.ended.append("ok")


@pytest.fixture
def ceremonies(monkeypatch: pytest.MonkeyPatch) -> Ceremonies:
    found = Ceremonies(AtHand(RANDOM))
    monkeypatch.setattr(client, "ChildCeremony", found)
    return found


@pytest.fixture
def at_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask, "has_terminal", lambda: True)


@pytest.fixture
def notes() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def out(notes: io.StringIO) -> Output:
    return Output(err=notes)


def vault(*providers: MemoryProvider, phrase: bool = False, passkey: bool = True) -> None:
    ways = [Way(recovery(), "paper")]
    ways += [Way(AtHand(RANDOM).method(), "passkey")] if passkey else []
    ways += [Way(passphrase(), "passphrase")] if phrase else []
    create_vault(providers, ways, NOW)


class Away(MemoryProvider):
    """Cannot be asked. `asked`: how often it was."""

    asked = 0

    def list(self, prefix: str) -> Any:
        self.asked += 1
        raise Unavailable(provider=self.name)


def test_one_gesture_for_all_providers(ceremonies: Ceremonies, out: Output, notes: io.StringIO) -> None:
    away, one, two = Away("away"), MemoryProvider("one"), MemoryProvider("two")
    vault(one, two)
    with unlocking.unlock(out, [away, one, two], Secret("passkey")) as opened:
        assert opened.slot_id
    assert away.asked
    assert len(ceremonies.hand.asked) == 1
    assert [begun["kind"] for begun in ceremonies.begun] == ["browser"]
    assert ceremonies.ended == ["ok"]
    assert "Another way" not in notes.getvalue()  # it was named: nobody has to hear of others


def test_a_provider_that_lost_the_rest_costs_no_second_gesture(ceremonies: Ceremonies, out: Output) -> None:
    """The slot answers at the first provider, what follows is missing there, and the next one has it."""
    one, two = MemoryProvider("one"), MemoryProvider("two")
    vault(one, two)
    fails: list[str] = []

    def opened(provider: Any, method: Any) -> Any:
        from chatkeep.daemon.vault.unlock import unlock

        found = unlock(provider, method)
        if provider is one:
            found.wipe()
            fails.append(provider.name)
            raise Unavailable(provider=provider.name)
        return found

    with unlocking.unlocked_by(out, [one, two], Secret("security-key"), opened) as (found, _):
        found.wipe()
    assert fails == ["one"]
    assert len(ceremonies.hand.asked) == 1
    assert [begun["kind"] for begun in ceremonies.begun] == ["security-key"]


def test_nobody_is_asked_where_there_is_no_vault_or_no_passkey(ceremonies: Ceremonies, out: Output) -> None:
    with pytest.raises(NoVault):
        unlocking.unlock(out, [MemoryProvider("empty")], Secret("passkey"))
    provider = MemoryProvider("one")
    vault(provider, passkey=False)
    with pytest.raises(NoSlotOpened) as caught:
        unlocking.unlock(out, [provider], Secret("passkey"))
    assert caught.value.params["reason"] == "absent"
    assert not ceremonies.begun


@pytest.mark.usefixtures("at_terminal")
@pytest.mark.parametrize("phrase", [True, False])
def test_a_passkey_is_asked_for_first_and_the_others_are_named(
    ceremonies: Ceremonies, out: Output, notes: io.StringIO, phrase: bool
) -> None:
    provider = MemoryProvider("one")
    vault(provider, phrase=phrase)
    with unlocking.unlock(out, [provider], Secret()):
        pass
    assert ceremonies.begun[0]["kind"] == "browser"
    named = ["--security-key", *(["--passphrase"] if phrase else []), "--recovery-key"]
    assert notes.getvalue().endswith(f"must show the same.\nAnother way to unlock: {', '.join(named)}\n")


@pytest.mark.usefixtures("at_terminal")
def test_a_passkey_slot_that_one_provider_damaged_is_asked_for_all_the_same(
    ceremonies: Ceremonies, out: Output
) -> None:
    one, two = MemoryProvider("one"), MemoryProvider("two")
    vault(one, two)
    damaged = 0
    for name, raw in one.objects.items():
        if name.startswith("slots/") and b"webauthn-prf" in raw:
            one.objects[name] = raw[:-1]
            damaged += 1
    assert damaged == 1
    with unlocking.unlock(out, [one, two], Secret()) as opened:
        assert opened.findings
    assert [begun["kind"] for begun in ceremonies.begun] == ["browser"]


@pytest.mark.usefixtures("at_terminal")
def test_without_a_passkey_a_passphrase_and_else_the_paper(
    ceremonies: Ceremonies, out: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def typed(*_: object) -> str:
        asked.append("passphrase")
        return "correct horse"

    def written(*_: object) -> object:
        asked.append("paper")
        return recovery()._key

    monkeypatch.setattr(ask, "passphrase", typed)
    monkeypatch.setattr(ask, "recovery_key", written)
    for phrase in (True, False):
        provider = MemoryProvider("one")
        vault(provider, phrase=phrase, passkey=False)
        with unlocking.unlock(out, [provider], Secret()):
            pass
    assert asked == ["passphrase", "paper"]
    assert not ceremonies.begun


def test_without_a_terminal_nothing_is_begun_unless_it_was_named(ceremonies: Ceremonies, out: Output) -> None:
    provider = MemoryProvider("one")
    vault(provider)
    with pytest.raises(VaultLocked):
        unlocking.unlock(out, [provider], Secret())
    assert not ceremonies.begun
    with unlocking.unlock(out, [provider], Secret("passkey", patience=7.5)):
        pass
    assert ceremonies.begun[0]["deadline"] == 7.5
    assert ceremonies.begun[0]["steps"] == 1


def test_the_page_learns_what_went_wrong(ceremonies: Ceremonies, out: Output) -> None:
    provider = MemoryProvider("one")
    vault(provider)
    ceremonies.hand.credentials[CREDENTIAL] = b"another secret".ljust(32)
    with pytest.raises(WrongPasskey):
        unlocking.unlock(out, [provider], Secret("passkey"))
    assert ceremonies.ended == ["wrong-passkey"]
    ceremonies.fails = CeremonyTimedOut(seconds=1)
    with pytest.raises(CeremonyTimedOut):
        unlocking.unlock(out, [provider], Secret("passkey"))
    ceremonies.fails = KeyboardInterrupt()
    with pytest.raises(CeremonyCancelled):
        unlocking.unlock(out, [provider], Secret("passkey"))
    assert ceremonies.ended == ["wrong-passkey", "ceremony-timed-out", "KeyboardInterrupt"]


def test_a_cancelled_ceremony_is_not_tried_at_the_next_provider(ceremonies: Ceremonies, out: Output) -> None:
    one, two = MemoryProvider("one"), MemoryProvider("two")
    vault(one, two)
    ceremonies.fails = CeremonyCancelled(reason="page")
    with pytest.raises(CeremonyCancelled):
        unlocking.unlock(out, [one, two], Secret("passkey"))
    assert len(ceremonies.begun) == 1


def test_what_the_passkey_answered_is_gone_afterwards(
    ceremonies: Ceremonies, out: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, wiped = MemoryProvider("one"), []
    vault(provider)
    monkeypatch.setattr(PasskeyMethod, "wipe", lambda method: wiped.append(len(method._held)))
    with unlocking.unlocked_newest(out, [provider], Secret("passkey"), None) as (agreed, method):
        assert ceremonies.ended == ["ok"]  # the page is told at once, not when the command is done
        assert not wiped
        agreed.enrolment.wipe()
        # Whoever changes the keys tries the way in again, without another gesture.
        from chatkeep.daemon.vault.unlock import unlock

        unlock(provider, method).wipe()
    assert wiped == [1]
    assert len(ceremonies.hand.asked) == 1


def test_the_paper_is_wiped_also_when_it_is_wrong(
    out: Output, monkeypatch: pytest.MonkeyPatch, ceremonies: Ceremonies
) -> None:
    provider = MemoryProvider("one")
    vault(provider)
    wrong = recovery(3)._key
    monkeypatch.setattr(ask, "recovery_key", lambda *_: wrong)
    with pytest.raises(NoSlotOpened):
        unlocking.unlock(out, [provider], Secret("recovery"))
    with pytest.raises(Exception, match="secret-wiped"):
        wrong.secret()
    assert not ceremonies.begun


def secret_of(*words: str) -> Secret:
    """What these options mean."""
    found: list[Secret] = []

    @click.command()
    @secret_options
    def command(secret: Secret) -> None:
        found.append(secret)

    command.main(list(words), standalone_mode=False, obj=Frame())
    return found[0]


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ([], None),
        (["--passkey"], "passkey"),
        (["--browser"], "passkey"),
        (["--security-key"], "security-key"),
        (["--passphrase"], "passphrase"),
        (["--passphrase-file", "f"], "passphrase"),
        (["--recovery-key"], "recovery"),
        (["--key-file", "f"], "recovery"),
        (["--recovery-key", "--key-file", "f"], "recovery"),
    ],
)
def test_the_options(words: list[str], kind: str | None) -> None:
    assert secret_of(*words).kind == kind


SECRETS = ["--passkey", "--security-key", "--passphrase", "--recovery-key", "--key-file=f", "--passphrase-file=f"]
BESIDE = {frozenset({"--passphrase", "--passphrase-file=f"}), frozenset({"--recovery-key", "--key-file=f"})}


@pytest.mark.parametrize("one", SECRETS)
@pytest.mark.parametrize("two", SECRETS)
def test_two_secrets_contradict_each_other(one: str, two: str) -> None:
    if one == two or frozenset({one, two}) in BESIDE:
        assert secret_of(one, two).kind in OPTIONS
        return
    with pytest.raises(click.UsageError, match=r"One secret unlocks: --.* and --.* contradict each"):
        secret_of(one, two)


@pytest.mark.parametrize("seconds", ["0", "-1", "3601", "nan", "1e3", "soon"])
def test_how_long_is_within_reason(seconds: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        secret_of("--passkey-timeout", seconds)
    assert "--passkey-timeout" in caught.value.format_message()
    assert secret_of("--passkey-timeout", "90").patience == 90


def test_no_browser_is_imported_for_other_secrets(out: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = MemoryProvider("one")
    vault(provider)
    monkeypatch.setattr(ask, "recovery_key", lambda *_: recovery()._key)
    for name in [name for name in sys.modules if name.startswith("chatkeep.daemon.control")]:
        monkeypatch.delitem(sys.modules, name)
    with unlocking.unlock(out, [provider], Secret("recovery")):
        pass
    assert not [name for name in sys.modules if name.startswith("chatkeep.daemon.control")]
