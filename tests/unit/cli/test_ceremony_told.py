"""What is said to whoever sits at the terminal while a passkey is asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from chatkeep.daemon.cli.ceremony import Asking, Means, Purpose, passkey_name, ssh_forward, told
from chatkeep.daemon.cli.output import Output
from chatkeep.daemon.control.ceremony import client, events
from chatkeep.daemon.control.ceremony.talk import FAILURES

URL = "http://localhost:41234/#token"
SSH = {"SSH_CONNECTION": "198.51.100.7 50000 203.0.113.5 22"}


def ready(*, opened: bool, purpose: Purpose = "unlock", environment: Mapping[str, str] | None = None) -> list[str]:
    event = events.Ready(URL, "012345", opened)
    return told(event, "browser", purpose, "Chats", environment=environment or {}).splitlines()


@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize("purpose", ["unlock", "enrol"])
def test_the_link_and_the_code_are_always_shown(opened: bool, purpose: Purpose) -> None:
    lines = ready(opened=opened, purpose=purpose)
    assert f"  {URL}" in lines
    assert "012 345" in lines[-1]
    assert "the vault Chats" in lines[0]
    assert ("unlock" in lines[0]) == (purpose == "unlock")
    assert ("Opening the browser" in lines[0]) == opened


def test_over_ssh_the_way_to_the_page_is_told() -> None:
    lines = ready(opened=False, environment=SSH)
    assert lines[1].startswith("  ssh -N -L 41234:localhost:41234 ")
    assert lines[1].endswith("@203.0.113.5")  # and nothing behind it: it is copied as a line
    assert lines.index(f"  {URL}") > 1
    assert not any("on this machine" in line for line in lines)
    assert not any("ssh" in line for line in ready(opened=True, environment=SSH))  # a browser opened: it is there


@pytest.mark.parametrize(
    ("connection", "expected"),
    [
        ("198.51.100.7 50000 203.0.113.5 22", "ssh -N -L 41234:localhost:41234 {}@203.0.113.5"),
        ("2001:db8::7 50000 2001:db8::5 2222", "ssh -N -L 41234:localhost:41234 -p 2222 {}@2001:db8::5"),
        ("198.51.100.7 50000 \x1b[2J 22", "ssh -N -L 41234:localhost:41234 {}@\\x1b[2J"),
        ("nonsense", ""),
        ("", ""),
    ],
)
def test_the_command_for_ssh(monkeypatch: pytest.MonkeyPatch, connection: str, expected: str) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "ada")
    assert ssh_forward(URL, {"SSH_CONNECTION": connection}) == expected.format("ada")


def test_somebody_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise OSError("No username set in the environment")

    monkeypatch.setattr("getpass.getuser", nameless)
    assert ssh_forward(URL, SSH).endswith(" you@203.0.113.5")


@pytest.mark.parametrize("means", ["browser", "security-key"])
def test_the_three_steps_differ(means: Means) -> None:
    steps = [told(events.Touch(step, 3), means, "enrol", "Chats") for step in (1, 2, 3)]
    assert len(set(steps)) == 3
    assert all(f"{step} of 3" in text for step, text in enumerate(steps, 1))
    assert "of" not in told(events.Touch(1, 1), means, "unlock", "Chats").split()


def test_every_refusal_and_retry_has_its_words() -> None:
    refusals = {
        told(events.Refused(reason), "browser", "unlock", "x") for reason in ("used", "token", "host", "origin", "user")
    }
    assert len(refusals) == 5
    retries = {
        told(events.Retry(reason), "security-key", "unlock", "x")
        for reason in ("fingerprint", "timeout", "not-on-this-key")
    }
    assert len(retries) == 3
    page = {told(events.Retry(reason), "browser", "unlock", "x") for reason in FAILURES}
    assert len(page) == 1  # browsers do not tell these apart for sure
    assert "in the page" in page.pop()


@pytest.mark.parametrize("name", events.EVENTS)
def test_no_event_is_a_surprise(name: str) -> None:
    """Those of which a person hears elsewhere are silent: the PIN is asked for by the process that gets it."""
    kind = events.EVENTS[name]
    values = {"url": URL, "code": "012345", "opened": True, "reason": "new", "keys": 2, "step": 1, "steps": 3}
    values |= {"retries": 3, "wrong": False}
    event = kind(**{field.name: values[field.name] for field in dataclasses.fields(kind)})
    assert bool(told(event, "browser", "enrol", "Chats")) == (name not in {"pin", "page-opened"})


def test_two_passkeys_of_one_name_are_told_apart_where_they_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    minute = 60 * 10**9
    when = 1_769_846_759 * 10**9  # 2026-01-31 08:05:59 UTC
    assert passkey_name("Chats", when) == "Chats 2026-01-31 08:05 UTC: backup key, do not delete"
    assert passkey_name("Chats", when) != passkey_name("Chats", when + minute)
    assert "08:05 UTC" in passkey_name("m" * 40, when)[:64]  # a security key may keep no more
    given: list[str] = []

    class Given(Exception):
        pass

    def child(_: object, *, user: str, **__: object) -> None:
        given.append(user)
        raise Given

    monkeypatch.setattr(client, "ChildCeremony", child)
    monkeypatch.setattr("time.time_ns", lambda: when)
    with pytest.raises(Given), Asking(Output(), "browser", "enrol", "Chats") as asked:
        asked.enrol([])
    assert given == [passkey_name("Chats", when)]


def test_a_name_cannot_drive_the_terminal() -> None:
    event = events.Ready(URL, "012345", opened=True)
    assert "\x1b" not in told(event, "browser", "unlock", "a\x1b[2Jb", environment={})
