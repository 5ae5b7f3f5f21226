"""The ceremony with a security key: the command's side in this process, the ceremony in a second one, the keys in a
third. Keys with a fingerprint reader, so that nothing is typed; PINs are in test_security_key_pin."""

from __future__ import annotations

import hashlib
import hmac
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fido2 import hid
from fido2.client import DefaultClientDataCollector, Fido2Client
from fido2.hid.base import HidDescriptor

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.control.ceremony import security_key, security_key_finding
from chatkeep.daemon.control.ceremony.client import ChildCeremony
from chatkeep.daemon.control.ceremony.events import Choose, Event, Insert, Retry, Touch
from chatkeep.daemon.control.ceremony.security_key_person import Limits
from chatkeep.daemon.control.errors import (
    AlreadyEnrolled,
    CeremonyCancelled,
    CeremonyTimedOut,
    NoPin,
    NoSecurityKey,
    NotOnSecurityKey,
    PinBlocked,
    SecurityKeyRemoved,
    SecurityKeyUnsupported,
)
from chatkeep.daemon.keys.errors import PasskeyRefused
from chatkeep.daemon.keys.passkey import Answer, NewCredential, Question
from tests.support.nobody import as_nobody
from tests.support.running_out import in_time
from tests.support.soft_key import Lie, PluggedKey, Ports, SoftAuthenticator, SoftCtapDevice

ASKED = hashlib.sha256(b"asked").digest()
OTHER = hashlib.sha256(b"another slot").digest()


@pytest.fixture(scope="module")
def desk() -> Iterator[Ports]:
    with Ports() as found:
        yield found


@pytest.fixture
def ports(desk: Ports, monkeypatch: pytest.MonkeyPatch) -> Ports:
    desk.clear()
    for name, value in desk.environment().items():
        monkeypatch.setenv(name, value)
    return desk


class Session:
    """Ceremonies, and what they told. `on`: what somebody does when an event is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.on: dict[type[Event], Callable[[], None]] = {}

    def start(self, deadline: float = 60.0) -> ChildCeremony:
        return ChildCeremony("security-key", vault="v", user="u", steps=3, tell=self._tell, deadline=deadline)

    def _tell(self, event: Event) -> None:
        self.events.append(event)
        if act := self.on.pop(type(event), None):
            act()

    def enrol(self, *exclude: bytes, deadline: float = 60.0) -> NewCredential:
        with self.start(deadline) as ceremony:
            made = ceremony.enrol(exclude)
            ceremony.end()
        return made

    def ask(self, *credentials: bytes, asked: bytes = ASKED, deadline: float = 60.0) -> Answer:
        with self.start(deadline) as ceremony:
            answer = ceremony.ask([Question(each, asked) for each in credentials])
            ceremony.end()
        return answer

    def fails(self, act: Callable[[], object], expected: ChatkeepError) -> None:
        with pytest.raises(type(expected)) as caught:
            act()
        assert (caught.value.code, caught.value.params) == (expected.code, expected.params)


def run_out(session: Session, keys: list[PluggedKey]) -> None:
    """Nobody touches any of these, which blink, until the time is up."""

    def act(seconds: float) -> None:
        before = [key.state["blinked"] for key in keys]
        session.fails(lambda: session.enrol(deadline=seconds), CeremonyTimedOut(seconds=round(seconds)))
        assert all(key.state["blinked"] > one for key, one in zip(keys, before, strict=True))

    in_time(act, 3, AssertionError)


@pytest.fixture
def session() -> Session:
    return Session()


def by_hand(exported: list[dict[str, Any]], credential: bytes, asked: bytes = ASKED) -> bytes:
    [kept] = [each for each in exported if each["id"] == credential.hex()]
    salt = hashlib.sha256(b"WebAuthn PRF\0" + asked).digest()
    return hmac.digest(bytes.fromhex(kept["random_with_uv"]), salt, "sha256")


def made_by(key: PluggedKey, site: str = "localhost", **traits: Any) -> bytes:
    """A credential as a browser makes it, put on the key."""
    soft = SoftAuthenticator(uv=True, **traits)
    credential = created(soft, site)
    key.restore(soft.export())
    return credential


def created(soft: SoftAuthenticator, site: str = "localhost") -> bytes:
    client = Fido2Client(SoftCtapDevice(soft), DefaultClientDataCollector(f"http://{site}"))
    options = {
        "rp": {"id": site, "name": "n"},
        "user": {"id": os.urandom(16), "name": "n", "displayName": "n"},
        "challenge": os.urandom(32),
        "pubKeyCredParams": [{"type": "public-key", "alg": -7}, {"type": "public-key", "alg": -257}],
        "authenticatorSelection": {"residentKey": "required", "userVerification": "required"},
        "extensions": {"prf": {}},
    }
    return client.make_credential(options).raw_id  # type: ignore[arg-type]


def asserted(soft: SoftAuthenticator, credential: bytes, asked: bytes = ASKED) -> bytes:
    """The secret, as a page asks for it."""
    client = Fido2Client(SoftCtapDevice(soft), DefaultClientDataCollector("http://localhost"))
    options = {
        "rpId": "localhost",
        "challenge": os.urandom(32),
        "userVerification": "required",
        "allowCredentials": [{"type": "public-key", "id": credential}],
        "extensions": {"prf": {"eval": {"first": asked}}},
    }
    answer = client.get_assertion(options).get_response(0)  # type: ignore[arg-type]
    secret = answer.client_extension_results.prf.results.first
    assert isinstance(secret, bytes)
    return secret


class TestOneKey:
    @pytest.mark.parametrize("protocol", [1, 2])
    def test_enrol_and_ask(self, ports: Ports, session: Session, protocol: int) -> None:
        key = ports.key("one", uv=True, protocols=[protocol])
        with session.start() as ceremony:
            made = ceremony.enrol([])
            answers = [ceremony.ask([Question(made.credential, ASKED)]) for _ in range(2)]
            ceremony.end()
        assert [answer.credential for answer in answers] == [made.credential] * 2
        assert {bytes(answer.secret) for answer in answers} == {by_hand(key.export(), made.credential)}
        assert [event for event in session.events if isinstance(event, Touch)] == [Touch(n, 3) for n in (1, 2, 3)]

    def test_each_question_has_its_own_secret(self, ports: Ports, session: Session) -> None:
        key = ports.key("one", uv=True)
        made = session.enrol().credential
        elsewhere = [os.urandom(32) for _ in range(12)]
        assert bytes(session.ask(*elsewhere, made, asked=OTHER).secret) == by_hand(key.export(), made, OTHER)
        with session.start() as ceremony:
            answer = ceremony.ask([*(Question(each, ASKED) for each in elsewhere), Question(made, OTHER)])
        assert bytes(answer.secret) == by_hand(key.export(), made, OTHER) != by_hand(key.export(), made)

    def test_a_browser_made_it_and_the_command_opens(self, ports: Ports, session: Session) -> None:
        browser = SoftAuthenticator(uv=True)
        credential = created(browser)
        ports.key("one", uv=True).restore(browser.export())
        assert bytes(session.ask(credential).secret) == asserted(browser, credential)

    def test_the_command_made_it_and_a_browser_opens(self, ports: Ports, session: Session) -> None:
        key = ports.key("one", uv=True)
        with session.start() as ceremony:
            made = ceremony.enrol([]).credential
            secret = bytes(ceremony.ask([Question(made, ASKED)]).secret)
        browser = SoftAuthenticator(uv=True)
        browser.restore(key.export())
        assert asserted(browser, made) == secret

    @pytest.mark.parametrize("synced", [False, True])
    def test_synced(self, ports: Ports, session: Session, synced: bool) -> None:
        ports.key("one", uv=True, synced=synced)
        assert session.enrol().synced is synced

    def test_protected_from_whoever_does_not_verify(self, ports: Ports, session: Session) -> None:
        key = ports.key("one", uv=True)
        session.enrol()
        assert [kept["protect"] for kept in key.export()] == [3]

    def test_already_enrolled(self, ports: Ports, session: Session) -> None:
        key = ports.key("one", uv=True)
        made = session.enrol().credential
        session.fails(lambda: session.enrol(os.urandom(32), made), AlreadyEnrolled())
        assert len(key.export()) == 1
        assert session.enrol(os.urandom(32)).credential != made

    def test_another_vaults_credential_stays(self, ports: Ports, session: Session) -> None:
        key = ports.key("one", uv=True)
        session.enrol()
        session.enrol()
        assert len(key.export()) == 2

    def test_no_passkey_of_the_vault_on_it(self, ports: Ports, session: Session) -> None:
        key = ports.key("one", uv=True)
        session.enrol()
        session.fails(lambda: session.ask(os.urandom(32)), NotOnSecurityKey(keys=1))
        foreign = made_by(key, site="sub.localhost")
        session.fails(lambda: session.ask(foreign), NotOnSecurityKey(keys=1))

    def test_it_waits_for_a_key(self, ports: Ports, session: Session) -> None:
        key = ports.key("one", uv=True, plugged=False)
        session.on[Insert] = key.plug
        assert session.enrol()
        assert session.events[0] == Insert()

    def test_no_key_comes(self, ports: Ports, session: Session) -> None:
        session.fails(lambda: session.enrol(deadline=0.5), NoSecurityKey(reason="none"))
        assert session.events == [Insert()]


class TestUnfit:
    def test_no_hmac_secret(self, ports: Ports, session: Session) -> None:
        ports.key("one", uv=True, hmac_secret=False)
        session.fails(session.enrol, SecurityKeyUnsupported(reason="hmac-secret"))

    def test_ctap1_only(self, ports: Ports, session: Session) -> None:
        ports.key("one", ctap1_only=True)
        session.fails(session.enrol, SecurityKeyUnsupported(reason="ctap1"))

    def test_no_pin_and_no_finger(self, ports: Ports, session: Session) -> None:
        key = ports.key("one")
        session.fails(session.enrol, NoPin(reason="unset"))
        assert key.export() == []

    def test_a_finger_without_a_token_is_not_enough(self, ports: Ports, session: Session) -> None:
        ports.key("one", uv=True, ctap20=True, protocols=[1])
        session.fails(session.enrol, NoPin(reason="unset"))

    def test_a_new_pin_is_wanted_first(self, ports: Ports, session: Session) -> None:
        ports.key("one", "1234", new_pin_first=True)
        session.fails(session.enrol, NoPin(reason="change"))

    def test_no_room(self, ports: Ports, session: Session) -> None:
        ports.key("one", uv=True, room=1)
        session.enrol()
        session.fails(session.enrol, SecurityKeyUnsupported(reason="full"))

    def test_keeps_no_credentials(self, ports: Ports, session: Session) -> None:
        ports.key("one", uv=True, discoverable=False)
        session.fails(session.enrol, SecurityKeyUnsupported(reason="discoverable"))

    def test_one_secret_for_everybody(self, ports: Ports, session: Session) -> None:
        """CTAP 2.0 has no second secret: without credProtect a finder without the PIN would get the same."""
        key = ports.key("one", "1234", ctap20=True, protocols=[1], cred_protect=False)
        session.fails(session.enrol, SecurityKeyUnsupported(reason="unprotected"))
        assert key.export() == []
        ports.key("one", uv=True, cred_protect=False)
        assert session.enrol()

    def test_an_unfit_one_beside_a_fit_one(self, ports: Ports, session: Session) -> None:
        ports.key("a", ctap1_only=True)
        ports.key("b", uv=True, hmac_secret=False)
        key = ports.key("c", uv=True)
        made = session.enrol().credential
        assert [kept["id"] for kept in key.export()] == [made.hex()]
        assert not [event for event in session.events if isinstance(event, Choose)]


LIES = {
    Lie.NOT_VERIFIED: "user-verification",
    Lie.OTHER_CREDENTIAL: "other-credential",
    Lie.SHORT_SECRET: "prf-length",
    Lie.LONG_SECRET: "prf-length",
    Lie.NO_SECRET: "no-prf",
    Lie.OTHER_SITE: "rp-id",
    Lie.WRONG_SIGNATURE: "signature",
}


class TestDishonest:
    @pytest.mark.parametrize(("lie", "reason"), LIES.items(), ids=[lie.name for lie in LIES])
    def test_refused(self, ports: Ports, session: Session, lie: Lie, reason: str) -> None:
        key = ports.key("one", uv=True)
        with session.start() as ceremony:
            made = ceremony.enrol([])
            key.lie(lie.name)
            session.fails(lambda: ceremony.ask([Question(made.credential, ASKED)]), PasskeyRefused(reason=reason))
        assert key.state["told"] == [lie.name]

    def test_made_without_the_extension(self, ports: Ports, session: Session) -> None:
        soft = SoftAuthenticator(uv=True, hmac_secret=False)
        credential = created(soft)
        ports.key("one", uv=True).restore(soft.export())
        session.fails(lambda: session.ask(credential), PasskeyRefused(reason="no-prf"))


class TestThePerson:
    def test_declines(self, ports: Ports, session: Session) -> None:
        ports.key("one", uv=True, touch="deny")
        session.fails(session.enrol, CeremonyCancelled(reason="key"))

    def test_never_comes(self, ports: Ports, session: Session) -> None:
        key = ports.key("one", uv=True, touch="never")
        run_out(session, [key])
        assert not key.state["waiting"], "it still blinks"

    def test_comes_after_the_key_lost_its_patience(self, ports: Ports, session: Session) -> None:
        key = ports.key("one", uv=True, touch="never")
        key.person(patience=0.1)
        session.on[Retry] = lambda: key.person(touch="yes")
        assert session.enrol()
        assert Retry("timeout") in session.events

    def test_leaves_the_command(self, ports: Ports, session: Session) -> None:
        key = ports.key("one", uv=True, touch="never")

        def interrupt() -> None:
            raise KeyboardInterrupt

        session.on[Touch] = interrupt
        session.fails(session.enrol, CeremonyCancelled(reason="terminal"))
        assert key.state["blinked"] == 1
        assert not key.state["waiting"], "it still blinks"

    def test_has_the_wrong_finger_and_the_key_no_pin(self, ports: Ports, session: Session) -> None:
        key = ports.key("one", uv=True, finger=False)
        session.fails(session.enrol, PinBlocked(reason="fingerprint"))
        assert session.events.count(Retry("fingerprint")) == 2
        assert key.state["uv_retries"] == 0

    def test_has_the_wrong_finger_once(self, ports: Ports, session: Session) -> None:
        key = ports.key("one", uv=True)
        key.person(wrong_fingers=1)
        assert session.enrol()
        assert session.events.count(Retry("fingerprint")) == 1

    @pytest.mark.parametrize("count", [1, 2, 5])
    def test_pulls_it_out(self, ports: Ports, session: Session, count: int) -> None:
        key = ports.key("one", uv=True)
        key.pull_at(count)
        session.fails(session.enrol, SecurityKeyRemoved())
        assert key.state["pulled"] == 1
        assert key.export() == []

    def test_pulls_it_out_while_it_blinks(self, ports: Ports, session: Session) -> None:
        key = ports.key("one", uv=True, touch="never")
        session.on[Touch] = key.pull
        session.fails(session.enrol, SecurityKeyRemoved())
        assert key.state["pulled"] == 1


@pytest.mark.long
def test_pulled_out_at_every_command(ports: Ports, session: Session, tell: Callable[[str], None]) -> None:
    whole = ports.key("whole", uv=True)
    with session.start() as ceremony:
        made = ceremony.enrol([]).credential
        ceremony.ask([Question(made, ASKED)])
        ceremony.end()
    total = len(whole.state["commands"])
    whole.pull()
    for count in range(1, total + 1):
        key = ports.key(f"k{count}", uv=True)
        key.pull_at(count)
        with pytest.raises(SecurityKeyRemoved), session.start() as ceremony:
            ceremony.ask([Question(ceremony.enrol([]).credential, ASKED)])
        assert key.state["pulled"] == 1
    tell(f"pulled out at each of {total} commands")


class TestSeveralKeys:
    def test_the_touched_one_is_enrolled_and_used(self, ports: Ports, session: Session) -> None:
        idle, meant = ports.key("a", uv=True, touch="never"), ports.key("b", uv=True)
        with session.start() as ceremony:
            made = ceremony.enrol([]).credential
            assert bytes(ceremony.ask([Question(made, ASKED)]).secret) == by_hand(meant.export(), made)
            ceremony.end()
        assert session.events.count(Choose(2)) == 1
        assert idle.export() == []
        assert not idle.state["waiting"], "it still blinks"

    def test_the_next_one_when_the_touched_one_does_not_have_it(self, ports: Ports, session: Session) -> None:
        keys = [ports.key(name, uv=True, touch="never") for name in ("a", "b", "c")]
        wanted = made_by(keys[2])
        keys[0].person(touch="yes")

        def again() -> None:
            for key in keys:
                key.person(touch="yes")

        session.on[Retry] = again
        assert bytes(session.ask(wanted).secret) == by_hand(keys[2].export(), wanted)
        assert session.events[:2] == [Choose(3), Touch(1, 3)]
        assert Retry("not-on-this-key") in session.events

    def test_none_of_them_has_it(self, ports: Ports, session: Session) -> None:
        for name in ("a", "b"):
            ports.key(name, uv=True)
        session.fails(lambda: session.ask(os.urandom(32)), NotOnSecurityKey(keys=2))

    def test_nobody_chooses(self, ports: Ports, session: Session) -> None:
        keys = [ports.key(name, uv=True, touch="never") for name in ("a", "b")]
        run_out(session, keys)
        assert [key.state["waiting"] for key in keys] == [False, False]

    def test_declined_at_one(self, ports: Ports, session: Session) -> None:
        ports.key("a", uv=True, touch="never")
        ports.key("b", uv=True, touch="deny")
        session.fails(session.enrol, CeremonyCancelled(reason="key"))

    def test_one_is_pulled_out_and_the_other_touched(self, ports: Ports, session: Session) -> None:
        gone, meant = ports.key("a", uv=True, touch="never"), ports.key("b", uv=True, touch="never")

        def pull() -> None:
            assert gone.waits_for_touch()
            gone.pull()
            meant.person(touch="yes")

        session.on[Choose] = pull
        assert session.enrol().credential.hex() == meant.export()[0]["id"]
        assert gone.state["pulled"] == 1

    def test_all_are_pulled_out(self, ports: Ports, session: Session) -> None:
        keys = [ports.key(name, uv=True, touch="never") for name in ("a", "b")]
        for key in keys:
            key.pull_at(2)
        session.fails(session.enrol, SecurityKeyRemoved())
        assert [key.state["pulled"] for key in keys] == [1, 1]

    def test_keys_of_two_generations(self, ports: Ports, session: Session) -> None:
        old = ports.key("a", "1234", ctap20=True, protocols=[1], touch="never")
        meant = ports.key("b", uv=True)
        assert session.enrol().credential.hex() == meant.export()[0]["id"]
        assert old.state["blinked"] == 1  # by the touch that CTAP 2.0 has
        assert not old.state["waiting"], "it still blinks"


def test_a_key_that_may_be_read_and_not_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: HidDescriptor) -> None:
        raise PermissionError(descriptor.path)

    monkeypatch.setattr(hid, "open_connection", refuse)
    with pytest.raises(NoSecurityKey) as caught:
        security_key_finding.usable([HidDescriptor("/dev/hidraw7", 0, 0, 64, 64, None, None)])
    assert caught.value.params == {"reason": "permission", "device": "/dev/hidraw7"}


FIDO_REPORT = bytes.fromhex("06d0f10901a1010920150026ff007508954081020921150026ff00750895409102c0")
MOUSE_REPORT = bytes.fromhex("05010902a1010901a1000509190129031500250195037501810295017505810305010930")


def test_a_key_that_this_user_may_not_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices, descriptions = tmp_path / "dev", tmp_path / "sys"
    devices.mkdir(mode=0o755)
    for name, report, mode in (("0", MOUSE_REPORT, 0o600), ("1", FIDO_REPORT, 0o600), ("2", FIDO_REPORT, 0o666)):
        (devices / f"hidraw{name}").touch()
        (devices / f"hidraw{name}").chmod(mode)
        described = descriptions / f"hidraw{name}" / "device"
        described.mkdir(parents=True)
        (described / "report_descriptor").write_bytes(report)
    monkeypatch.setattr(security_key_finding, "DEVICES", str(devices / "hidraw*"))
    monkeypatch.setattr(security_key_finding, "DESCRIPTIONS", str(descriptions))
    monkeypatch.setattr(security_key, "SETTLE", 0.0)
    monkeypatch.setattr(security_key, "plugged_in", list)
    locked = str(devices / "hidraw1")
    if os.geteuid() != 0:
        (devices / "hidraw0").chmod(0)
        (devices / "hidraw1").chmod(0)

    def look() -> None:
        assert security_key_finding.forbidden() == [locked]
        limits = Limits(30)
        with pytest.raises(NoSecurityKey) as caught:
            security_key.Hands(None)._found(limits)  # type: ignore[arg-type]
        limits.stop()
        assert caught.value.params == {"reason": "permission", "device": locked}

    for folder in (devices, tmp_path):
        folder.chmod(0o755)
    as_nobody(look, os.fsencode(descriptions))
    shutil.rmtree(devices)
    assert security_key_finding.forbidden() == []
