"""The whole ceremony but for a browser: the real process, the real server, a passkey and a page made of Python."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chatkeep.daemon.control.ceremony.client import ChildCeremony
from chatkeep.daemon.control.ceremony.events import PageOpened, Ready, Refused, Retry, Touch
from chatkeep.daemon.control.errors import (
    AlreadyEnrolled,
    CeremonyCancelled,
    CeremonyError,
    CeremonyLost,
    CeremonyTimedOut,
)
from chatkeep.daemon.keys.errors import PasskeyRefused, WrongPasskey
from chatkeep.daemon.keys.passkey import Question
from tests.support.running_out import in_time
from tests.support.soft_passkey import UP, Person, SoftPage, SoftPasskey

EVALUATION = bytes(range(32))


@pytest.fixture(autouse=True)
def _nothing_on_the_terminal(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """The process has the terminal for a PIN. What it printed there would be a library's words, or a secret."""
    yield
    assert capfd.readouterr() == ("", "")


@contextlib.contextmanager
def ceremony(
    act: Callable[[SoftPage], object], steps: int = 1, deadline: float = 60
) -> Iterator[tuple[ChildCeremony, Person]]:
    person = Person(act)
    with ChildCeremony(
        "browser",
        vault="Family",
        user="Family backup key",
        steps=steps,
        tell=person.tell,
        deadline=deadline,
        open_browser=False,
    ) as asked:
        yield asked, person


def ask(passkey: SoftPasskey) -> list[Question]:
    return [Question(passkey.credential, EVALUATION)]


def test_a_passkey_is_made_and_asked_twice() -> None:
    passkey = SoftPasskey()
    seen: dict[str, object] = {}

    def act(page: SoftPage) -> None:
        seen["opening"] = page.begin()
        step = page.say(say="next")
        seen["user"] = step["options"]["user"]["name"]
        step = page.created(step, passkey)
        step = page.got(step, passkey)
        seen["end"] = page.got(step, passkey)

    with ceremony(act, steps=3) as (asked, person):
        made = asked.enrol([])
        first, second = asked.ask(ask(passkey)), asked.ask(ask(passkey))
        asked.end()
    person.leave()
    assert made == (passkey.credential, False)
    assert first.credential == second.credential == passkey.credential
    assert first.secret == second.secret == passkey.prf(EVALUATION)
    ready = person.told[0]
    assert isinstance(ready, Ready)
    assert ready.code == asked.code
    assert len(ready.code) == 6
    assert not ready.opened
    assert person.told[1:] == [PageOpened(), Touch(1, 3), Touch(2, 3), Touch(3, 3)]
    opening = seen["opening"]
    assert isinstance(opening, dict)
    assert (opening["vault"], opening["code"], opening["steps"]) == ("Family", asked.code, 3)
    assert seen["user"] == "Family backup key"
    assert seen["end"] == {"do": "end", "ok": True, "code": ""}


def test_one_of_several_passkeys_answers() -> None:
    passkey, other = SoftPasskey(), SoftPasskey()

    def act(page: SoftPage) -> None:
        page.begin()
        page.got(page.say(say="next"), passkey)

    with ceremony(act) as (asked, person):
        answer = asked.ask([*ask(other), Question(passkey.credential, bytes(32))])
        asked.end()
    person.leave()
    assert (answer.credential, bytes(answer.secret)) == (passkey.credential, passkey.prf(bytes(32)))


@pytest.mark.parametrize(
    ("passkey", "secret", "reason"),
    [
        (SoftPasskey(flags=UP), None, "user-verification"),
        (SoftPasskey(rp_id="example.com"), None, "rp-id"),
        (SoftPasskey(), bytes(31), "prf-length"),
        (SoftPasskey(), bytes(33), "prf-length"),
        (SoftPasskey(), b"", "prf-length"),
    ],
)
def test_an_answer_that_is_not_to_be_used(passkey: SoftPasskey, secret: bytes | None, reason: str) -> None:
    ends = []

    def act(page: SoftPage) -> None:
        page.begin()
        ends.append(page.got(page.say(say="next"), passkey, secret))

    with pytest.raises(PasskeyRefused) as caught, ceremony(act) as (asked, person):
        asked.ask(ask(passkey))
    person.leave()
    assert caught.value.params == {"reason": reason}
    assert ends == [{"do": "end", "ok": False, "code": f"passkey-refused:{reason}"}]


def test_the_answer_of_another_passkey() -> None:
    def act(page: SoftPage) -> None:
        page.begin()
        page.got(page.say(say="next"), SoftPasskey())

    with pytest.raises(PasskeyRefused) as caught, ceremony(act) as (asked, person):
        asked.ask(ask(SoftPasskey()))
    person.leave()
    assert caught.value.params == {"reason": "other-credential"}


def test_an_answer_is_taken_once() -> None:
    passkey = SoftPasskey()
    replies: list[Any] = []

    def act(page: SoftPage) -> None:
        page.begin()
        step = page.say(say="next")
        again = page.got(step, passkey)
        replies.extend((again, page.got(step, passkey)))  # the answer to the last question is none to this one
        page.say(say="stop")

    with ceremony(act) as (asked, person):
        asked.ask(ask(passkey))
        with pytest.raises(CeremonyCancelled):
            asked.ask(ask(passkey))
    person.leave()
    assert replies[0]["id"] == replies[1]["id"]
    assert replies[0]["options"]["challenge"] == replies[1]["options"]["challenge"]


@pytest.mark.parametrize(
    ("said", "error", "params"),
    [
        ("no-prf", PasskeyRefused, {"reason": "no-prf"}),
        ("there", AlreadyEnrolled, {}),
        ("stop", CeremonyCancelled, {"reason": "page"}),
        ("nonsense", PasskeyRefused, {"reason": "malformed"}),
        ("created", PasskeyRefused, {"reason": "malformed"}),  # without what was
        ("got", PasskeyRefused, {"reason": "malformed"}),  # nothing was asked for
    ],
)
def test_what_the_page_reports(said: str, error: type[Exception], params: dict[str, str]) -> None:
    ends = []

    def act(page: SoftPage) -> None:
        page.begin()
        ends.append(page.say(say=said, id=page.say(say="next")["id"]))

    with pytest.raises((CeremonyError, PasskeyRefused)) as caught, ceremony(act, steps=3) as (asked, person):
        asked.enrol([])
    person.leave()
    assert type(caught.value) is error
    assert getattr(caught.value, "params", None) == params
    assert ends[0]["do"] == "end"
    assert not ends[0]["ok"]


def test_a_gesture_that_failed_can_be_tried_again_with_a_new_challenge() -> None:
    passkey = SoftPasskey()
    steps = []

    def act(page: SoftPage) -> None:
        page.begin()
        steps.append(page.say(say="next"))
        steps.append(page.say(say="failed", id=steps[0]["id"], name="NotAllowedError"))
        steps.append(page.say(say="failed", id=steps[1]["id"], name="<b>Odd</b>"))
        page.got(steps[2], passkey)

    with ceremony(act) as (asked, person):
        asked.ask(ask(passkey))
        asked.end()
    person.leave()
    assert [step["again"] for step in steps] == [False, True, True]
    assert len({step["options"]["challenge"] for step in steps}) == 3
    retries = [event for event in person.told if isinstance(event, Retry)]
    assert retries == [Retry("NotAllowedError"), Retry("UnknownError")]


def test_the_link_works_once_and_a_second_use_is_told() -> None:
    passkey = SoftPasskey()
    second: list[Any] = []

    def act(page: SoftPage) -> None:
        page.begin()
        second.extend(page.post("begin", b"{}", token=page.token) for _ in range(2))
        second.append(page.post("next", b'{"say":"next"}', token=page.token))
        page.got(page.say(say="next"), passkey)

    with ceremony(act) as (asked, person):
        asked.ask(ask(passkey))
        asked.end()
    person.leave()
    assert [status for status, _ in second] == [410, 410, 403]
    assert [event for event in person.told if isinstance(event, Refused)] == [Refused("used"), Refused("token")]


@pytest.mark.parametrize("token", ["", "x", "A" * 43, "ü"])
def test_another_token_opens_nothing(token: str) -> None:
    passkey = SoftPasskey()
    found = []

    def act(page: SoftPage) -> None:
        found.append(page.post("begin", b"{}", token=token)[0])
        found.append(page.post("next", b'{"say":"next"}', token=token)[0])
        found.append(page.post("over", b"{}", token=token)[0])
        page.begin()
        page.got(page.say(say="next"), passkey)

    with ceremony(act) as (asked, person):
        asked.ask(ask(passkey))
        asked.end()
    person.leave()
    assert found == [403, 403, 403]
    assert Refused("token") in person.told


def test_nobody_comes() -> None:
    def act(seconds: float) -> None:
        with pytest.raises(CeremonyTimedOut) as caught, ceremony(SoftPage.begin, deadline=seconds) as (asked, person):
            asked.ask(ask(SoftPasskey()))
        assert caught.value.params == {"seconds": round(seconds)}
        person.leave()  # who found no page is no proof

    in_time(act, 0.5, Exception)


def test_the_page_is_closed() -> None:
    def act(page: SoftPage) -> None:
        page.begin()
        page.say(say="next")
        page.watch().close()

    with pytest.raises(CeremonyCancelled) as caught, ceremony(act) as (asked, person):
        asked.ask(ask(SoftPasskey()))
    person.leave()
    assert caught.value.params == {"reason": "page"}


def test_the_process_is_killed() -> None:
    def act(page: SoftPage) -> None:
        page.begin()
        os.kill(asked._process.pid, signal.SIGKILL)

    with pytest.raises(CeremonyLost) as caught, ceremony(act) as (asked, person):
        asked.ask(ask(SoftPasskey()))
    person.leave()
    assert caught.value.params["reason"] == "ended"


def test_ctrl_c_ends_the_process_and_tells_the_page() -> None:
    ends: list[Any] = []

    def act(page: SoftPage) -> None:
        page.begin()
        page.say(say="next")
        watching = page.watch()
        # As the terminal does: to both.
        os.kill(asked._process.pid, signal.SIGINT)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        ends.append(json.loads(watching.getresponse().read()))
        watching.close()

    with pytest.raises(CeremonyCancelled) as caught, ceremony(act) as (asked, person):
        asked.ask(ask(SoftPasskey()))
    person.leave()
    assert caught.value.params == {"reason": "terminal"}
    assert asked._process.returncode is not None
    assert ends == [{"do": "end", "ok": False, "code": "ceremony-cancelled:terminal"}]


def test_an_error_of_the_command_is_shown_in_the_page() -> None:
    passkey = SoftPasskey()
    ends = []

    def act(page: SoftPage) -> None:
        page.begin()
        ends.append(page.got(page.say(say="next"), passkey))

    def command() -> None:
        asked.ask(ask(passkey))
        raise WrongPasskey(kind="webauthn-prf", wrong_secret=1, slots=[])

    with pytest.raises(WrongPasskey), ceremony(act) as (asked, person):
        command()
    person.leave()
    assert ends == [{"do": "end", "ok": False, "code": "wrong-passkey"}]


def test_the_process_cannot_be_looked_into_and_has_no_link_in_its_arguments() -> None:
    passkey = SoftPasskey()
    found: dict[str, bytes] = {}

    def act(page: SoftPage) -> None:
        place = Path(f"/proc/{asked._process.pid}")
        found["arguments"] = (place / "cmdline").read_bytes()
        found["limits"] = (place / "limits").read_bytes()
        found["owner"] = str(place.joinpath("mem").stat().st_uid).encode()
        found["token"] = page.token.encode()
        page.begin()
        page.got(page.say(say="next"), passkey)

    with ceremony(act) as (asked, person):
        asked.ask(ask(passkey))
        asked.end()
    person.leave()
    assert found["token"] not in found["arguments"]
    core = next(line for line in found["limits"].splitlines() if line.startswith(b"Max core file size"))
    assert core.split()[4:6] == [b"0", b"0"]
    assert found["owner"] == b"0"  # what is not dumpable belongs to root, in /proc
