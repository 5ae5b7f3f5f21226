"""The PIN of a security key, typed at a real terminal, at a ceremony in a real process, of a key in another one."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fido2.ctap2.pin import ClientPin

from chatkeep.daemon.control.ceremony import security_key_person, security_key_pin
from chatkeep.daemon.control.ceremony.events import Event
from chatkeep.daemon.control.ceremony.security_key_finding import Key
from chatkeep.daemon.control.ceremony.security_key_person import Person
from chatkeep.daemon.control.ceremony.security_key_pin import question
from chatkeep.daemon.control.errors import CeremonyLost
from tests.support.running_out import in_time
from tests.support.soft_key import PluggedKey, Ports
from tests.support.terminal import Answer, converse

TOP = Path(__file__).parents[3]
PIN = "4711-Geheim"
WRONG = "0000-falsch"
ASKED = bytes(range(32))
ENROL: list[Any] = [["enrol", []], ["ask", ["made"], ASKED.hex()], ["ask", ["made"], ASKED.hex()]]
PROMPT = "PIN of the security key: "
CTRL_C = "\x03"


@pytest.fixture(scope="module")
def desk() -> Iterator[Ports]:
    with Ports() as found:
        yield found


@pytest.fixture
def ports(desk: Ports) -> Ports:
    desk.clear()
    return desk


class Ran:
    """What a ceremony at a terminal left behind."""

    def __init__(self, report: Path, shown: str) -> None:
        self.shown = shown
        self._report = json.loads(report.read_text())
        self.error: dict[str, Any] | None = self._report["error"]
        self.answers: list[Any] = self._report["answers"]
        self.echo: bool = self._report["echo"]
        self.events: list[dict[str, Any]] = self._report["events"]

    def everything(self) -> bytes:
        """All that came out of it: what was shown, told, sent, and given to the process."""
        wire = bytes.fromhex(self._report["wire"])
        assert wire
        assert self._report["started"]
        return self.shown.encode() + wire + "\n".join(self._report["started"]).encode() + repr(self._report).encode()


class Command:
    def __init__(self, ports: Ports, tmp_path: Path) -> None:
        self.environment = {**ports.environment()}
        path = self.environment["PYTHONPATH"]
        self.environment["PYTHONPATH"] = f"{path}{os.pathsep}{TOP}"
        self._report = tmp_path / "report"

    def argv(self, do: Sequence[Any], deadline: float = 60.0) -> list[str]:
        plan = json.dumps({"do": do, "deadline": deadline})
        return [sys.executable, "-m", "tests.support.soft_key.command", plan, str(self._report)]

    def run(self, do: Sequence[Any], *talk: tuple[str, Answer], deadline: float = 60.0) -> Ran:
        code, shown = converse(self.argv(do, deadline), talk, self.environment)
        assert code == 0, shown
        assert "Traceback" not in shown
        ran = Ran(self._report, shown)
        assert ran.echo, "the terminal was left without echo"
        return ran

    def without_terminal(self, do: Sequence[Any]) -> Ran:
        done = subprocess.run(
            self.argv(do),
            env={**os.environ, **self.environment},
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return Ran(self._report, done.stdout + done.stderr)


@pytest.fixture
def command(ports: Ports, tmp_path: Path) -> Command:
    return Command(ports, tmp_path)


def by_hand(key: PluggedKey, random: str = "random_with_uv") -> str:
    salt = hashlib.sha256(b"WebAuthn PRF\0" + ASKED).digest()
    return hmac.digest(bytes.fromhex(key.export()[0][random]), salt, "sha256").hex()


@pytest.mark.parametrize(
    "kind",
    [{"protocols": [2]}, {"protocols": [1]}, {"protocols": [1], "ctap20": True}, {"synced": True}],
    ids=["protocol 2", "protocol 1", "CTAP 2.0", "synced"],
)
def test_enrolled_with_one_pin_and_three_touches(ports: Ports, command: Command, kind: dict[str, Any]) -> None:
    key = ports.key("one", PIN, **kind)
    ran = command.run(ENROL, (PROMPT, PIN))
    assert ran.error is None
    [made, synced], *asked = ran.answers
    assert synced is kind.get("synced", False)
    assert asked == [[made, by_hand(key)]] * 2
    [kept] = key.export()
    assert (kept["id"], kept["rp_id"], kept["protect"], kept["discoverable"]) == (made, "localhost", 3, True)
    assert [event["step"] for event in ran.events if event["event"] == "touch"] == [1, 2, 3]
    assert ran.shown.count(PROMPT) == 1
    assert key.state["blinked"] == 3


def test_the_pin_and_the_other_secret_are_nowhere(ports: Ports, command: Command) -> None:
    key = ports.key("one", PIN)
    ran = command.run(ENROL, (PROMPT, WRONG), (PROMPT, PIN))
    assert ran.error is None
    found = ran.everything()
    assert bytes.fromhex(by_hand(key)) in found  # the hunt sees what did go through the channel
    hashed = hashlib.sha256(PIN.encode()).digest()
    for pin in (PIN, WRONG):
        for spelling in (pin.encode(), pin.encode().hex().encode(), json.dumps(pin).encode()):
            assert spelling not in found
    assert hashed[:16] not in found
    assert bytes.fromhex(by_hand(key, "random_without_uv")) not in found


def test_a_wrong_pin_is_told_and_asked_for_again(ports: Ports, command: Command) -> None:
    key = ports.key("one", PIN)
    ran = command.run(ENROL[:1], (PROMPT, WRONG), (PROMPT, PIN))
    assert ran.error is None
    assert f"That PIN is wrong: 7 tries left.\n{PROMPT}" in ran.shown
    assert [(event["retries"], event["wrong"]) for event in ran.events if event["event"] == "pin"] == [
        (8, False),
        (7, True),
    ]
    assert key.state["pin_retries"] == 8


def test_wrong_three_times_in_a_row_until_it_is_plugged_in_again(ports: Ports, command: Command) -> None:
    key = ports.key("one", PIN)
    ran = command.run(ENROL, *[(PROMPT, WRONG)] * 3)
    assert ran.error == {"code": "pin-blocked", "reason": "replug"}
    assert key.state["pin_retries"] == 5
    again = command.run(ENROL)  # not asked for what the key would not look at
    assert again.error == {"code": "pin-blocked", "reason": "replug"}
    assert PROMPT not in again.shown
    key.pull()
    key.plug()
    replugged = command.run(ENROL[:1], ("PIN of the security key (5 tries left): ", PIN))
    assert replugged.error is None


def test_wrong_until_the_last_and_for_good(ports: Ports, command: Command) -> None:
    key = ports.key("one", PIN)
    key.pin_left(2)
    ran = command.run(ENROL, ("(2 tries left): ", WRONG), (PROMPT, WRONG))
    assert "That PIN is wrong: last try before the key locks for good." in ran.shown
    assert ran.error == {"code": "pin-blocked", "reason": "reset"}
    key.pull()
    key.plug()
    again = command.run(ENROL)
    assert again.error == {"code": "pin-blocked", "reason": "reset"}
    assert PROMPT not in again.shown


def test_nothing_typed_is_no(ports: Ports, command: Command) -> None:
    key = ports.key("one", PIN)
    assert command.run(ENROL, (PROMPT, "")).error == {"code": "ceremony-cancelled", "reason": "terminal"}
    assert command.run(ENROL, (PROMPT, "\x04")).error == {"code": "ceremony-cancelled", "reason": "terminal"}
    assert key.state["pin_retries"] == 8
    ran = command.run(ENROL, (PROMPT, WRONG), (PROMPT, ""))
    assert ran.error == {"code": "pin-wrong", "retries": 7}
    assert key.export() == []


def test_interrupted_at_the_pin(ports: Ports, command: Command) -> None:
    key = ports.key("one", PIN)
    ran = command.run(ENROL, (PROMPT, CTRL_C))
    assert ran.error == {"code": "ceremony-cancelled", "reason": "terminal"}
    assert key.state["pin_retries"] == 8


def test_what_cannot_be_a_pin_costs_no_try(ports: Ports, command: Command) -> None:
    key = ports.key("one", PIN)
    ran = command.run(ENROL[:1], (PROMPT, "123"), (PROMPT, "x" * 64), (PROMPT, PIN))
    assert ran.error is None
    assert ran.shown.count("No try was used.") == 2
    assert ran.shown.count("That PIN is wrong") == 0
    assert key.state["pin_retries"] == 8


def test_a_pin_of_any_keyboard(ports: Ports, command: Command) -> None:
    composed = unicodedata.normalize("NFC", "höhlenbär")
    typed = unicodedata.normalize("NFD", composed)
    assert typed != composed
    ports.key("one", composed)
    assert command.run(ENROL[:1], (PROMPT, typed)).error is None


def test_nobody_types(ports: Ports, command: Command) -> None:
    ports.key("one", PIN)

    def act(seconds: float) -> None:
        ran = command.run(ENROL, deadline=seconds)
        assert ran.error == {"code": "ceremony-timed-out", "seconds": round(seconds)}
        assert PROMPT in ran.shown

    in_time(act, 3, AssertionError)


def test_nowhere_to_type(ports: Ports, command: Command) -> None:
    key = ports.key("one", PIN)
    assert command.without_terminal(ENROL).error == {"code": "no-terminal", "what": "pin"}
    assert key.state["pin_retries"] == 8


def test_the_finger_and_then_the_pin(ports: Ports, command: Command) -> None:
    key = ports.key("one", PIN, uv=True)
    made = command.run(ENROL)
    assert made.error is None  # by the finger, without a PIN
    key.person(finger=False)
    ran = command.run([["ask", [made.answers[0][0]], ASKED.hex()]], (PROMPT, PIN))
    assert ran.answers == made.answers[1:2]
    assert [event["reason"] for event in ran.events if event["event"] == "retry"] == ["fingerprint"] * 2
    assert key.state["uv_retries"] < 3


def test_a_finger_that_gives_no_token_is_not_used(ports: Ports, command: Command) -> None:
    key = ports.key("one", PIN, uv=True, ctap20=True, protocols=[1])
    ran = command.run(ENROL, (PROMPT, PIN))
    assert ran.error is None
    assert ran.answers[1][1] == by_hand(key)


@pytest.mark.parametrize("said", ["\x1b]0;owned\x07", b"\x1b[2J", -1, 10**6, True, None, [1]])
def test_a_key_that_counts_its_tries_in_words_writes_nothing_to_the_terminal(
    said: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(security_key_person, "ClientPin", lambda _: SimpleNamespace(get_pin_retries=lambda: (said, 0)))
    monkeypatch.setattr(security_key_pin, "TERMINAL", "/nonexistent/terminal")  # it is not even opened
    told: list[Event] = []
    key = cast("Key", SimpleNamespace(trusts_fingers=False, ctap=None))
    person = Person(key, told.append, lambda _: None)
    person.pin_was_wrong()
    with pytest.raises(CeremonyLost) as caught:
        person.request_pin(ClientPin.PERMISSION.GET_ASSERTION, "localhost")
    assert caught.value.params == {"reason": "key", "cause": "PIN_RETRIES"}
    assert told == []


def test_each_key_has_its_own_pin(ports: Ports, command: Command) -> None:
    first, second = ports.key("first", PIN, ctap20=True, protocols=[1]), ports.key("second", "another-pin")
    second.person(touch="never")
    made = command.run(ENROL, (PROMPT, PIN)).answers[0][0]
    first.person(touch="never")
    second.person(touch="yes")

    def other(shown: str) -> str:
        first.person(touch="yes")
        return PIN

    # The one that is touched does not have it; the other, which is left, is used without being chosen.
    ran = command.run([["ask", [made], ASKED.hex()]], (PROMPT, "another-pin"), (PROMPT, other))
    assert ran.answers == [[made, by_hand(first)]]
    told = [event for event in ran.events if event["event"] in {"choose", "retry"}]
    assert told == [{"event": "choose", "keys": 2}, {"event": "retry", "reason": "not-on-this-key"}]
    assert (first.state["pin_retries"], second.state["pin_retries"]) == (8, 8)


@pytest.mark.parametrize(
    ("retries", "wrong", "shown"),
    [
        (8, False, PROMPT),
        (None, False, PROMPT),
        (5, False, "PIN of the security key (5 tries left): "),
        (1, False, "PIN of the security key (last try before the key locks for good): "),
        (None, True, f"That PIN is wrong.\n{PROMPT}"),
        (4, True, f"That PIN is wrong: 4 tries left.\n{PROMPT}"),
    ],
)
def test_questions(retries: int | None, wrong: bool, shown: str) -> None:
    assert question(retries, wrong=wrong) == shown
