"""The page's ceremony in a real Chromium, from its process to the secret."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any

import pytest

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.control.ceremony.client import ChildCeremony
from chatkeep.daemon.control.ceremony.events import PageOpened, Retry, Touch
from chatkeep.daemon.control.errors import AlreadyEnrolled, CeremonyCancelled, CeremonyLost, CeremonyTimedOut
from chatkeep.daemon.keys.errors import PasskeyRefused
from chatkeep.daemon.keys.passkey import Question
from tests.support import chromium as c
from tests.support.chromium import Kind, Tab
from tests.support.passkey_provider import PasskeyProvider
from tests.support.rehearsal import Rehearsal
from tests.support.running_out import in_time
from tests.support.soft_key import SoftAuthenticator, SoftCtapDevice
from tests.support.visitor import TooLate, Visitor

WHERE = bytes(range(32))


def enrol(ceremony: ChildCeremony) -> tuple[bytes, bytes, bytes]:
    """A credential, and what it answers when asked twice."""
    made = ceremony.enrol(())
    one, two = (bytes(ceremony.ask([Question(made.credential, WHERE)]).secret) for _ in range(2))
    return made.credential, one, two


def unlock(*credentials: bytes) -> Callable[[ChildCeremony], tuple[bytes, bytes]]:
    """What one of them answers."""

    def act(ceremony: ChildCeremony) -> tuple[bytes, bytes]:
        answer = ceremony.ask([Question(each, WHERE) for each in credentials])
        return answer.credential, bytes(answer.secret)

    return act


def made_with(visitor: Visitor) -> tuple[bytes, bytes]:
    """A credential on whatever the visitor has, and its secret."""
    with Rehearsal(enrol) as rehearsal:
        visitor.visit(rehearsal.ready.url)
        visitor.presses("done")
        credential, one, _ = rehearsal.result()
    return credential, one


def refused(rehearsal: Rehearsal[Any], error: type[ChatkeepError], **params: object) -> None:
    """It ended with this error."""
    with pytest.raises(error) as caught:
        rehearsal.result()
    assert caught.value.params == params


@pytest.fixture
def visitor(tab: Tab) -> Visitor:
    return Visitor(tab)


@pytest.mark.parametrize("kind", [c.HMAC_SECRET, c.HMAC_SECRET_MC, c.PRF], ids=lambda kind: kind.name)
def test_a_passkey_is_made_and_answers_at_another_port(visitor: Visitor, kind: Kind) -> None:
    visitor.tab.authenticator(kind)
    with Rehearsal(enrol) as made:
        visitor.visit(made.ready.url)
        assert visitor.code == made.ready.code
        assert "Ada's chats" in visitor.text
        visitor.presses("done")
        credential, one, two = made.result()
    assert one == two
    assert [event.step for event in made.told if isinstance(event, Touch)] == [1, 2, 3]
    assert not visitor.tab.seen.errors
    with Rehearsal(unlock(credential), steps=1) as later:
        assert later.port != made.port
        visitor.visit(later.ready.url)
        visitor.presses("done")
        assert later.result() == (credential, one)
    assert not visitor.tab.seen.errors


def test_the_secret_is_what_the_specification_says(visitor: Visitor) -> None:
    key = SoftAuthenticator(uv=True)
    PasskeyProvider(SoftCtapDevice(key)).serve(visitor.tab)
    _, secret = made_with(visitor)
    seed = key.credentials[0].random_with_uv
    assert seed is not None
    assert secret == hmac.digest(seed, hashlib.sha256(b"WebAuthn PRF\0" + WHERE).digest(), "sha256")
    assert [each.rp_id for each in key.credentials] == ["localhost"]


def test_whichever_of_several_is_at_hand_answers(visitor: Visitor) -> None:
    away = visitor.tab.authenticator()
    gone, _ = made_with(visitor)
    away.remove()
    visitor.tab.authenticator(c.PRF)
    here, secret = made_with(visitor)
    with Rehearsal(unlock(gone, here), steps=1) as rehearsal:
        visitor.visit(rehearsal.ready.url)
        visitor.presses("done")
        assert rehearsal.result() == (here, secret)


def test_without_prf_nothing_is_made_and_the_page_says_what_to_use(visitor: Visitor) -> None:
    visitor.tab.authenticator(c.NO_PRF)
    with Rehearsal(enrol) as rehearsal:
        visitor.visit(rehearsal.ready.url)
        visitor.presses("over")
        refused(rehearsal, PasskeyRefused, reason="no-prf")
    assert visitor.title == "This passkey cannot open a vault"
    assert "security key" in visitor.text
    assert not visitor.tab.seen.errors


def test_a_provider_that_lost_the_seed(visitor: Visitor) -> None:
    before = visitor.tab.authenticator()
    credential, _ = made_with(visitor)
    kept = before.credentials()
    before.remove()
    after = visitor.tab.authenticator()
    after.add(kept[0])
    with Rehearsal(unlock(credential), steps=1) as rehearsal:
        visitor.visit(rehearsal.ready.url)
        visitor.presses("over")
        refused(rehearsal, PasskeyRefused, reason="no-prf")
    assert after.credentials()[0]["signCount"] > kept[0]["signCount"]  # it did sign
    assert visitor.title == "This passkey cannot open a vault"


@pytest.mark.parametrize("kind", [c.UV_FAILS, c.NO_UV], ids=lambda kind: kind.name)
def test_who_is_not_verified_gets_nothing(visitor: Visitor, kind: Kind) -> None:
    held = visitor.tab.authenticator(kind)
    with Rehearsal(enrol) as rehearsal:
        visitor.visit(rehearsal.ready.url)
        visitor.presses("failed")
        assert rehearsal.event(Retry).reason == "NotAllowedError"
        assert not held.credentials()
        visitor.cancels()
        refused(rehearsal, CeremonyCancelled, reason="page")


def test_an_answer_without_user_verification_is_refused(visitor: Visitor) -> None:
    """By an authenticator that says so itself: a browser that does not insist hands it on."""
    held = visitor.tab.authenticator()
    credential, _ = made_with(visitor)
    held.lie("isBadUV")
    with Rehearsal(unlock(credential), steps=1) as rehearsal:
        visitor.visit(rehearsal.ready.url)
        visitor.presses("over")
        refused(rehearsal, PasskeyRefused, reason="user-verification")
    assert visitor.title == "The passkey was refused"


def test_a_passkey_that_signs_badly_is_not_enrolled(visitor: Visitor) -> None:
    visitor.tab.authenticator().lie("isBogusSignature")
    with Rehearsal(enrol) as rehearsal:
        visitor.visit(rehearsal.ready.url)
        visitor.presses("over")
        refused(rehearsal, PasskeyRefused, reason="signature")


def test_the_second_try_may_work(visitor: Visitor) -> None:
    key = SoftAuthenticator(uv=True)
    PasskeyProvider(SoftCtapDevice(key)).serve(visitor.tab)
    credential, secret = made_with(visitor)
    key.person.finger_matches = False
    with Rehearsal(unlock(credential), steps=1) as rehearsal:
        visitor.visit(rehearsal.ready.url)
        visitor.presses("failed")
        assert rehearsal.event(Retry).reason == "NotAllowedError"
        key.person.finger_matches = True
        visitor.presses("done")
        assert rehearsal.result() == (credential, secret)
    assert not visitor.tab.seen.errors


def test_a_device_without_the_passkey(visitor: Visitor) -> None:
    held = visitor.tab.authenticator()
    credential, _ = made_with(visitor)
    held.clear()
    with Rehearsal(unlock(credential), steps=1) as rehearsal:
        visitor.visit(rehearsal.ready.url)
        visitor.presses("failed")
        assert "not the right passkey" in visitor.text
        assert "recovery key" in visitor.text
        visitor.cancels()
        visitor.sees("over")
        refused(rehearsal, CeremonyCancelled, reason="page")


def test_the_same_device_twice(visitor: Visitor) -> None:
    held = visitor.tab.authenticator()
    credential, _ = made_with(visitor)
    with Rehearsal(lambda ceremony: ceremony.enrol([credential])) as rehearsal:
        visitor.visit(rehearsal.ready.url)
        visitor.presses("over")
        refused(rehearsal, AlreadyEnrolled)
    assert visitor.title == "This device already has a passkey of this vault"
    assert len(held.credentials()) == 1


@pytest.mark.parametrize("state", ["ready", "busy"])
def test_cancelled_in_the_page(visitor: Visitor, state: str) -> None:
    visitor.tab.authenticator(automaticPresenceSimulation=False)
    with Rehearsal(enrol) as rehearsal:
        visitor.visit(rehearsal.ready.url)
        if state == "busy":
            visitor.presses("busy")
        visitor.cancels()
        visitor.sees("over")
        refused(rehearsal, CeremonyCancelled, reason="page")
    assert visitor.title == "Cancelled"
    assert not visitor.tab.seen.errors


def test_the_tab_is_closed(visitor: Visitor) -> None:
    with Rehearsal(enrol) as rehearsal:
        visitor.visit(rehearsal.ready.url)
        visitor.page.close()
        refused(rehearsal, CeremonyCancelled, reason="page")


def test_nobody_presses_the_button(visitor: Visitor) -> None:
    def act(seconds: float) -> None:
        with Rehearsal(enrol, deadline=seconds) as rehearsal:
            visitor.visit(rehearsal.ready.url)
            visitor.sees("over")
            refused(rehearsal, CeremonyTimedOut, seconds=round(seconds))

    in_time(act, 2, TooLate)
    assert visitor.title == "Time is up"
    assert not visitor.tab.seen.errors


def test_nobody_touches_the_device(visitor: Visitor) -> None:
    visitor.tab.authenticator(automaticPresenceSimulation=False)

    def act(seconds: float) -> None:
        with Rehearsal(enrol, deadline=seconds) as rehearsal:
            visitor.visit(rehearsal.ready.url)
            visitor.presses("busy")
            visitor.sees("over")
            refused(rehearsal, CeremonyTimedOut, seconds=round(seconds))

    in_time(act, 3, TooLate)
    assert visitor.title == "Time is up"
    assert not visitor.tab.seen.errors


def test_the_page_of_a_command_that_was_killed(visitor: Visitor) -> None:
    with Rehearsal(enrol) as rehearsal:
        visitor.visit(rehearsal.ready.url)
        rehearsal.abandon()
        visitor.sees("over")
        refused(rehearsal, CeremonyLost, reason="ended", cause="")
    assert visitor.title == "The command has ended"


def test_the_page_is_loaded_again(visitor: Visitor) -> None:
    with Rehearsal(enrol) as rehearsal:
        visitor.visit(rehearsal.ready.url)
        rehearsal.event(PageOpened)
        visitor.page.reload(wait_until="commit")
        visitor.sees("over")
        assert visitor.title == "This page cannot be reloaded"
        visitor.page.close()
        refused(rehearsal, CeremonyCancelled, reason="page")
