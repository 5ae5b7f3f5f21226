"""The software authenticator, as the unmodified client of fido2 finds it: what it makes, signs and derives."""

from __future__ import annotations

import hashlib
import hmac
import os
import threading
from typing import Any

import pytest
from fido2.client import ClientError, DefaultClientDataCollector, Fido2Client, PinRequiredError, UserInteraction
from fido2.ctap import CtapError
from fido2.ctap2.base import Ctap2
from fido2.ctap2.extensions import CredProtectExtension, HmacSecretExtension
from fido2.ctap2.pin import ClientPin
from fido2.server import Fido2Server
from fido2.webauthn import AuthenticatorData, PublicKeyCredentialRpEntity, PublicKeyCredentialUserEntity

from tests.support.soft_key import SoftAuthenticator, SoftCtapDevice, Touch
from tests.support.soft_key.acts import BE, BS

PIN = "1234"
KINDS: dict[str, dict[str, Any]] = {
    "PIN, protocol 2": {"pin": PIN, "protocols": (2,)},
    "PIN, protocol 1": {"pin": PIN, "protocols": (1,)},
    "UV, protocol 2": {"uv": True, "protocols": (2,)},
    "UV, protocol 1": {"uv": True, "protocols": (1,)},
    "CTAP 2.0": {"pin": PIN, "protocols": (1,), "ctap20": True},
    "CTAP 2.0 with UV": {"uv": True, "protocols": (1,), "ctap20": True},
}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
ERR = CtapError.ERR
SITE = {"id": "localhost", "name": "Site"}


class Typist(UserInteraction):
    def __init__(self, pin: str | None = PIN) -> None:
        self.pin, self.touches = pin, 0

    def prompt_up(self) -> None:
        self.touches += 1

    def request_pin(self, permissions: ClientPin.PERMISSION, rp_id: str | None) -> str | None:
        return self.pin


def client(key: SoftAuthenticator, pin: str | None = PIN, origin: str = "http://localhost") -> Fido2Client:
    extensions = [HmacSecretExtension(allow_hmac_secret=True), CredProtectExtension()]  # type: ignore[no-untyped-call]
    return Fido2Client(SoftCtapDevice(key), DefaultClientDataCollector(origin), Typist(pin), extensions)


def make(key: SoftAuthenticator, /, user: bytes = b"user", pin: str | None = PIN, **changes: Any) -> Any:
    options: dict[str, Any] = {
        "rp": SITE,
        "user": {"id": user, "name": "Name", "displayName": "Name"},
        "challenge": os.urandom(32),
        "pubKeyCredParams": [{"type": "public-key", "alg": -7}],
        "authenticatorSelection": {"residentKey": "required", "userVerification": "required"},
        "extensions": {"prf": {}},
        **changes,
    }
    return client(key, pin).make_credential(options)  # type: ignore[arg-type]


def get(
    key: SoftAuthenticator, /, *ids: bytes, uv: str = "required", pin: str | None = PIN, event: Any = None, **more: Any
) -> Any:
    options: dict[str, Any] = {
        "rpId": "localhost",
        "challenge": os.urandom(32),
        "userVerification": uv,
        "allowCredentials": [{"type": "public-key", "id": identity} for identity in ids],
        "extensions": {"prf": {"eval": {"first": b"salt"}}},
        **more,
    }
    return client(key, pin).get_assertion(options, event=event).get_response(0)  # type: ignore[arg-type]


def prf(answer: Any) -> bytes:
    first: bytes = answer.client_extension_results.prf.results.first
    return first


def by_hand(random: bytes | None, first: bytes = b"salt") -> bytes:
    assert random is not None
    return hmac.digest(random, hashlib.sha256(b"WebAuthn PRF\0" + first).digest(), "sha256")


def code(caught: pytest.ExceptionInfo[ClientError]) -> Any:
    return getattr(caught.value.cause, "code", None)


@kinds
def test_a_relying_party_that_checks_everything_accepts_it(kind: dict[str, Any]) -> None:
    key = SoftAuthenticator(**kind)
    server = Fido2Server(
        PublicKeyCredentialRpEntity(name="Site", id="localhost"),
        verify_origin=lambda origin: origin == "http://localhost",
    )
    options, state = server.register_begin(
        PublicKeyCredentialUserEntity(name="n", id=b"u", display_name="n"),
        resident_key_requirement="required",  # type: ignore[arg-type]
        user_verification="required",  # type: ignore[arg-type]
    )
    made = server.register_complete(state, client(key).make_credential(options.public_key))
    assert made.credential_data is not None
    ask, state = server.authenticate_begin([made.credential_data], user_verification="required")  # type: ignore[arg-type]
    answer = client(key).get_assertion(ask.public_key).get_response(0)
    assert server.authenticate_complete(state, [made.credential_data], answer) == made.credential_data


@kinds
def test_the_secret_is_what_a_hand_computes(kind: dict[str, Any]) -> None:
    key = SoftAuthenticator(**kind)
    made = make(key)
    assert made.client_extension_results.prf.enabled is True
    random = key.credentials[0].random_with_uv
    assert [prf(get(key, made.raw_id)) for _ in range(2)] == [by_hand(random)] * 2


@kinds
def test_who_is_not_verified_gets_another_secret(kind: dict[str, Any]) -> None:
    key = SoftAuthenticator(**kind)
    made = make(key)
    answer = get(key, made.raw_id, uv="discouraged")
    assert not answer.response.authenticator_data.is_user_verified()
    assert prf(answer) == by_hand(key.credentials[0].random_without_uv) != prf(get(key, made.raw_id))


def test_raw_salts_give_the_same_as_prf_and_two_give_two() -> None:
    key = SoftAuthenticator(PIN)
    made = make(key)
    salts = [hashlib.sha256(b"WebAuthn PRF\0" + name).digest() for name in (b"salt", b"other")]
    raw = {"hmacGetSecret": {"salt1": salts[0], "salt2": salts[1]}}
    output = get(key, made.raw_id, extensions=raw).client_extension_results.hmac_get_secret
    random = key.credentials[0].random_with_uv
    assert (output.output1, output.output2) == (by_hand(random), by_hand(random, b"other"))


@pytest.mark.parametrize("protocol", [1, 2])
def test_published_vectors(protocol: int) -> None:
    """Web Authentication Level 3, section 16.17.1: the random, what is asked, what comes."""
    seed = b"WebAuthn PRF test vectors"
    key = SoftAuthenticator(PIN, protocols=(protocol,))
    made = make(key)
    exported = key.export()
    exported[0]["random_with_uv"] = "437e065e723a98b2f08f39d8baf7c53ecb3c363c5e5104bdaaf5d5ca2e028154"
    key.restore(exported)
    asked = {"prf": {"eval": {"first": seed + b"\x02", "second": seed + b"\x03"}}}
    results = get(key, made.raw_id, extensions=asked).client_extension_results.prf.results
    assert results.first.hex() == "3c33e07d202c3b029cc21f1722767021bf27d595933b3d2b6a1b9d5dddc77fae"
    assert results.second.hex() == "a62a8773b19cda90d7ed4ef72a80a804320dbd3997e2f663805ad1fd3293d50b"


def test_no_hmac_secret() -> None:
    key = SoftAuthenticator(PIN, hmac_secret=False)
    made = make(key)
    assert made.client_extension_results.get("prf") is None
    assert get(key, made.raw_id).client_extension_results.get("prf") is None


def test_a_credential_that_was_made_without_the_extension_never_has_it() -> None:
    key = SoftAuthenticator(PIN)
    made = make(key, extensions={})
    assert get(key, made.raw_id).client_extension_results.get("prf") is None


@pytest.mark.parametrize(
    ("policy", "named", "unnamed"),
    [
        ("userVerificationOptional", True, True),
        ("userVerificationOptionalWithCredentialIDList", True, False),
        ("userVerificationRequired", False, False),
    ],
)
def test_protection_levels(policy: str, named: bool, unnamed: bool) -> None:
    key = SoftAuthenticator(PIN)
    made = make(key, extensions={"prf": {}, "credentialProtectionPolicy": policy})
    for ids, found in (((made.raw_id,), named), ((), unnamed)):
        if found:
            assert get(key, *ids, uv="discouraged").raw_id == made.raw_id
        else:
            with pytest.raises(ClientError) as caught:
                get(key, *ids, uv="discouraged")
            assert code(caught) == ERR.NO_CREDENTIALS
        assert get(key, *ids).raw_id == made.raw_id


def test_discoverable_credentials_come_newest_first_and_one_for_each_user() -> None:
    key = SoftAuthenticator(PIN)
    for user in (b"one", b"two", b"one", b"three"):
        last = make(key, user=user)
    options = {"rpId": "localhost", "challenge": b"c" * 32, "userVerification": "required"}
    found = client(key).get_assertion(options)  # type: ignore[arg-type]
    assert [each.user["id"] for each in found.get_assertions() if each.user] == [b"three", b"one", b"two"]
    assert found.get_response(0).raw_id == last.raw_id


def test_a_credential_of_the_exclude_list_is_found() -> None:
    key = SoftAuthenticator(PIN)
    made = make(key, extensions={"credentialProtectionPolicy": "userVerificationRequired"})
    with pytest.raises(ClientError) as caught:
        make(key, user=b"other", excludeCredentials=[{"type": "public-key", "id": made.raw_id}])
    assert code(caught) == ERR.CREDENTIAL_EXCLUDED
    others = [{"type": "public-key", "id": os.urandom(32)} for _ in range(20)]
    assert make(key, user=b"other", excludeCredentials=others)


@kinds
@pytest.mark.parametrize("synced", [False, True])
def test_flags_say_whether_it_is_synced(kind: dict[str, Any], synced: bool) -> None:
    key = SoftAuthenticator(**kind, synced=synced)
    made = make(key)
    for facts in (
        made.response.attestation_object.auth_data,
        get(key, made.raw_id).response.authenticator_data,
    ):
        assert facts.flags & (BE | BS) == (BE | BS if synced else 0)
        assert bool(facts.flags & AuthenticatorData.FLAG.BE) is synced
        assert facts.is_user_verified()
        assert facts.is_user_present()


@kinds
def test_what_one_exports_another_answers_the_same(kind: dict[str, Any]) -> None:
    one, other = SoftAuthenticator(**kind), SoftAuthenticator(**kind)
    made = make(one)
    with pytest.raises(ClientError) as caught:
        get(other, made.raw_id)
    assert code(caught) == ERR.NO_CREDENTIALS
    other.restore(one.export())
    assert prf(get(other, made.raw_id)) == prf(get(one, made.raw_id))
    without = (prf(get(key, made.raw_id, uv="discouraged")) for key in (one, other))
    assert len(set(without)) == 1


def test_another_site_and_another_origin_get_nothing() -> None:
    key = SoftAuthenticator(PIN)
    made = make(key)
    elsewhere = {
        "rpId": "sub.localhost",
        "challenge": b"c" * 32,
        "userVerification": "required",
        "allowCredentials": [{"type": "public-key", "id": made.raw_id}],
    }
    with pytest.raises(ClientError) as caught:
        client(key, origin="http://sub.localhost").get_assertion(elsewhere)  # type: ignore[arg-type]
    assert code(caught) == ERR.NO_CREDENTIALS
    with pytest.raises(ClientError) as caught:
        client(key, origin="http://localhost").get_assertion({**elsewhere, "rpId": "example.org"})  # type: ignore[arg-type]
    assert caught.value.code == ClientError.ERR.BAD_REQUEST


def test_the_finger_before_the_pin_and_the_pin_when_the_finger_fails() -> None:
    key = SoftAuthenticator(PIN, uv=True)
    made = make(key, pin=None)
    key.person.finger_matches = False
    for left in (2, 1):
        with pytest.raises(ClientError) as caught:
            get(key, made.raw_id)
        assert code(caught) == ERR.UV_INVALID
        assert key.parts.pin.uv_left == left
    assert get(key, made.raw_id).response.authenticator_data.is_user_verified()  # the third blocks it: by PIN
    assert key.parts.pin.uv_left == 0
    with pytest.raises(PinRequiredError):
        get(key, made.raw_id, pin=None)


def test_always_uv_leaves_no_way_without() -> None:
    key = SoftAuthenticator(PIN, always_uv=True)
    made = make(key)
    answer = get(key, made.raw_id, uv="discouraged")
    assert answer.response.authenticator_data.is_user_verified()
    assert prf(answer) == by_hand(key.credentials[0].random_with_uv)


def test_touch_denied_and_touch_that_never_comes() -> None:
    key = SoftAuthenticator(PIN)
    made = make(key)
    key.person.touch = Touch.DENY
    with pytest.raises(ClientError) as caught:
        get(key, made.raw_id)
    assert code(caught) == ERR.OPERATION_DENIED
    key.person.touch = Touch.NEVER
    cancel = threading.Event()

    def give_up() -> None:
        assert key.person.waiting.wait(60)
        cancel.set()

    threading.Thread(target=give_up).start()
    with pytest.raises(ClientError) as caught:
        get(key, made.raw_id, event=cancel)
    assert code(caught) == ERR.KEEPALIVE_CANCEL
    key.person.patience = 0.05
    with pytest.raises(ClientError) as caught:
        get(key, made.raw_id)
    assert code(caught) == ERR.USER_ACTION_TIMEOUT


@kinds
def test_selection_is_a_touch(kind: dict[str, Any]) -> None:
    key = SoftAuthenticator(**kind)
    before = key.person.blinked
    client(key).selection()
    assert key.person.blinked == before + 1
    key.person.touch = Touch.DENY
    with pytest.raises(ClientError) as caught:
        client(key).selection()
    assert code(caught) == ERR.OPERATION_DENIED


def test_reset_forgets_all() -> None:
    key = SoftAuthenticator(PIN)
    made = make(key)
    ctap = Ctap2(SoftCtapDevice(key))
    ctap.reset()
    assert ctap.get_info().options["clientPin"] is False
    assert key.credentials == []
    ClientPin(ctap).set_pin(PIN)
    with pytest.raises(ClientError) as caught:
        get(key, made.raw_id)
    assert code(caught) == ERR.NO_CREDENTIALS


def test_pulled_out_at_every_command() -> None:
    key = SoftAuthenticator(PIN)
    make(key)
    total = len(key.commands)
    for count in range(1, total):
        again = SoftAuthenticator(PIN)
        device = SoftCtapDevice(again, unplug_after=count)
        pulled = Fido2Client(device, DefaultClientDataCollector("http://localhost"), Typist())
        options = {
            "rp": SITE,
            "user": {"id": b"u", "name": "n"},
            "challenge": b"c" * 32,
            "pubKeyCredParams": [{"type": "public-key", "alg": -7}],
            "authenticatorSelection": {"residentKey": "required", "userVerification": "required"},
            "extensions": {"prf": {}},
        }
        with pytest.raises(OSError, match="No such device"):
            pulled.make_credential(options)  # type: ignore[arg-type]
        assert device.unplugged
        assert len(again.commands) == count
    assert total > 4


def test_one_that_only_knows_u2f_is_told_apart() -> None:
    key = SoftAuthenticator(ctap1_only=True)
    with pytest.raises(ValueError, match="does not support CTAP2"):
        Ctap2(SoftCtapDevice(key))
    assert client(key).info.versions == ["U2F_V2"]
