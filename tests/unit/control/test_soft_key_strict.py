"""The software authenticator lets nothing pass that a real key refuses: tokens, PINs, parameters."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from fido2 import cbor
from fido2.ctap import CtapError
from fido2.ctap2.base import Ctap2
from fido2.ctap2.pin import ClientPin, PinProtocolV1, PinProtocolV2

from tests.support.soft_key import SoftAuthenticator, SoftCtapDevice, Status

PIN = "1234"
HASH = hashlib.sha256(b"client data").digest()
MC, GA = ClientPin.PERMISSION.MAKE_CREDENTIAL, ClientPin.PERMISSION.GET_ASSERTION
ERR = CtapError.ERR
PROTOCOLS = {1: PinProtocolV1, 2: PinProtocolV2}
both = pytest.mark.parametrize("version", [1, 2])


class Bench:
    """A key, and the low-level client of it."""

    def __init__(self, version: int = 2, **traits: Any) -> None:
        self.key = SoftAuthenticator(**{"pin": PIN, **traits})
        self.ctap = Ctap2(SoftCtapDevice(self.key))
        self.protocol: Any = PROTOCOLS[version]()
        self.pin: Any = ClientPin(self.ctap, self.protocol)

    def proof(self, token: bytes, message: bytes = HASH) -> dict[str, Any]:
        return {
            "pin_uv_param": self.protocol.authenticate(token, message),
            "pin_uv_protocol": self.protocol.VERSION,
        }

    def make(self, token: bytes | None, rp_id: str = "localhost", **more: Any) -> Any:
        arguments: dict[str, Any] = {
            "client_data_hash": HASH,
            "rp": {"id": rp_id, "name": "n"},
            "user": {"id": b"u", "name": "n"},
            "key_params": [{"type": "public-key", "alg": -7}],
            "options": {"rk": True},
            **({} if token is None else self.proof(token)),
            **more,
        }
        return self.ctap.make_credential(**arguments)

    def get(self, token: bytes | None, rp_id: str = "localhost", **more: Any) -> Any:
        arguments = {"rp_id": rp_id, "client_data_hash": HASH, **({} if token is None else self.proof(token)), **more}
        return self.ctap.get_assertion(**arguments)


def refused(status: CtapError.ERR, act: Callable[[], object]) -> None:
    with pytest.raises(CtapError) as caught:
        act()
    assert caught.value.code == status


@both
def test_a_token_is_good_for_what_it_was_given_for(version: int) -> None:
    bench = Bench(version)
    made = bench.make(bench.pin.get_pin_token(PIN, MC, "localhost"))
    credential = made.auth_data.credential_data.credential_id
    allow = [{"type": "public-key", "id": credential}]
    refused(ERR.PIN_AUTH_INVALID, lambda: bench.make(bench.pin.get_pin_token(PIN, GA, "localhost")))
    refused(ERR.PIN_AUTH_INVALID, lambda: bench.get(bench.pin.get_pin_token(PIN, MC, "localhost"), allow_list=allow))
    assert bench.get(bench.pin.get_pin_token(PIN, GA, "localhost"), allow_list=allow).auth_data.is_user_verified()


@both
def test_a_token_is_good_at_its_site_only(version: int) -> None:
    bench = Bench(version)
    refused(ERR.PIN_AUTH_INVALID, lambda: bench.make(bench.pin.get_pin_token(PIN, MC, "example.org")))
    refused(ERR.PIN_AUTH_INVALID, lambda: bench.get(bench.pin.get_pin_token(PIN, GA, "example.org")))
    old = bench.pin.get_pin_token(PIN)  # of CTAP 2.0: of no site until it is used at one
    bench.make(bench.pin.get_pin_token(PIN, MC, "localhost"))
    old = bench.pin.get_pin_token(PIN)
    assert bench.get(old, options={"up": False}).auth_data.is_user_verified()
    refused(ERR.PIN_AUTH_INVALID, lambda: bench.get(old, "example.org", options={"up": False}))


@both
def test_a_token_is_good_for_one_touch(version: int) -> None:
    bench = Bench(version)
    token = bench.pin.get_pin_token(PIN, MC | GA, "localhost")
    bench.make(token)
    refused(ERR.PIN_AUTH_INVALID, lambda: bench.get(token))
    fresh = bench.pin.get_pin_token(PIN, MC | GA, "localhost")
    assert bench.get(fresh, options={"up": False})  # looking costs nothing
    assert bench.get(fresh)
    refused(ERR.PIN_AUTH_INVALID, lambda: bench.get(fresh))


@both
@pytest.mark.parametrize("ends", ["another token", "power cycle", "new PIN"])
def test_a_token_ends(version: int, ends: str) -> None:
    bench = Bench(version)
    token = bench.pin.get_pin_token(PIN, MC, "localhost")
    if ends == "another token":
        bench.pin.get_pin_token(PIN, MC, "localhost")
    elif ends == "power cycle":
        bench.key.power_cycle()
    else:
        bench.pin.change_pin(PIN, "4321")
    refused(ERR.PIN_AUTH_INVALID, lambda: bench.make(token))


@both
def test_a_token_of_one_message_is_not_one_of_another(version: int) -> None:
    bench = Bench(version)
    token = bench.pin.get_pin_token(PIN, MC, "localhost")
    other = bench.proof(token, hashlib.sha256(b"other").digest())
    refused(ERR.PIN_AUTH_INVALID, lambda: bench.make(None, **other))
    refused(ERR.PIN_AUTH_INVALID, lambda: bench.make(bytes(32)))


def test_tokens_ask_for_something_that_there_is_at_some_site() -> None:
    bench = Bench(uv=True)

    def by_pin(*asked: Any) -> Any:
        return bench.pin.get_pin_token(PIN, *asked)

    def by_uv(*asked: Any) -> Any:
        return bench.pin.get_uv_token(*asked)

    for by in (by_pin, by_uv):
        refused(ERR.UNAUTHORIZED_PERMISSION, partial(by, ClientPin.PERMISSION.CREDENTIAL_MGMT, None))
        refused(ERR.MISSING_PARAMETER, partial(by, MC, None))
        refused(ERR.INVALID_PARAMETER, partial(by, ClientPin.PERMISSION(0), "localhost"))
    assert bench.key.pin_retries == 8


def test_a_finger_is_a_touch_and_a_pin_is_none() -> None:
    by_finger, by_pin = Bench(uv=True), Bench()
    by_finger.make(by_finger.pin.get_uv_token(MC, "localhost"))
    by_pin.make(by_pin.pin.get_pin_token(PIN, MC, "localhost"))
    assert (by_finger.key.person.blinked, by_pin.key.person.blinked) == (1, 1)


def test_a_finger_of_before_is_not_a_touch_of_now() -> None:
    bench = Bench(uv=True)
    bench.make(bench.pin.get_uv_token(MC, "localhost"))
    token = bench.pin.get_uv_token(GA, "localhost")
    assert not bench.get(token, options={"up": False}).auth_data.is_user_present()


def test_no_credential_without_the_pin() -> None:
    bench = Bench()
    refused(ERR.PUAT_REQUIRED, lambda: bench.make(None))
    refused(ERR.INVALID_OPTION, lambda: bench.make(None, options={"uv": True}))
    assert bench.key.credentials == []


@both
def test_pins_are_counted(version: int) -> None:
    bench = Bench(version)

    def guess(pin: str = "0000") -> Any:
        return bench.pin.get_pin_token(pin, MC, "localhost")

    refused(ERR.PIN_INVALID, guess)
    assert bench.pin.get_pin_retries() == (7, False)
    assert guess(PIN)
    assert bench.pin.get_pin_retries() == (8, False)
    for left in (7, 6, 5):
        refused(ERR.PIN_AUTH_BLOCKED if left == 5 else ERR.PIN_INVALID, guess)
    refused(ERR.PIN_AUTH_BLOCKED, lambda: guess(PIN))  # the right one too, until it is plugged in again
    assert bench.pin.get_pin_retries() == (5, True)
    for left in (4, 3, 2, 1, 0):
        if left in (4, 1):
            bench.key.power_cycle()
        refused({0: ERR.PIN_BLOCKED, 2: ERR.PIN_AUTH_BLOCKED}.get(left, ERR.PIN_INVALID), guess)
        assert bench.key.pin_retries == left
    bench.key.power_cycle()
    refused(ERR.PIN_BLOCKED, lambda: guess(PIN))
    refused(ERR.PIN_BLOCKED, lambda: bench.pin.change_pin(PIN, "4321"))


@both
def test_pins_are_set_once_and_changed_by_who_knows_them(version: int) -> None:
    bench = Bench(version, pin=None)
    refused(ERR.PIN_NOT_SET, lambda: bench.pin.get_pin_token(PIN, MC, "localhost"))
    bench.pin.set_pin(PIN)
    refused(ERR.PIN_AUTH_INVALID, lambda: bench.pin.set_pin("9999"))
    refused(ERR.PIN_INVALID, lambda: bench.pin.change_pin("0000", "4321"))
    assert bench.key.pin_retries == 7
    bench.pin.change_pin(PIN, "långer än fyra")
    refused(ERR.PIN_INVALID, lambda: bench.pin.get_pin_token(PIN, MC, "localhost"))
    assert bench.pin.get_pin_token("långer än fyra", MC, "localhost")


def test_key_agreement_is_new_after_a_wrong_pin_and_checks_the_point() -> None:
    bench = Bench()

    def agreed() -> Any:
        return bench.ctap.client_pin(2, ClientPin.CMD.GET_KEY_AGREEMENT)[1]

    before = agreed()
    assert agreed() == before
    refused(ERR.PIN_INVALID, lambda: bench.pin.get_pin_token("0000", MC, "localhost"))
    assert agreed() != before
    off = {1: 2, 3: -25, -1: 1, -2: bytes(32), -3: bytes(31) + b"\1"}
    guess = {"key_agreement": off, "pin_hash_enc": bytes(32), "permissions": 1, "permissions_rpid": "localhost"}
    refused(ERR.INVALID_PARAMETER, lambda: bench.ctap.client_pin(2, ClientPin.CMD.GET_TOKEN_USING_PIN, **guess))  # type: ignore[arg-type]
    assert bench.key.pin_retries == 7


def test_a_secret_needs_a_touch_and_salts_that_are_signed() -> None:
    bench = Bench()
    bench.make(bench.pin.get_pin_token(PIN, MC, "localhost"), extensions={"hmac-secret": True})

    def secret(size: int = 32, damage: bool = False, **more: Any) -> Any:
        agreement, shared = bench.pin._get_shared_secret()
        sealed = bench.protocol.encrypt(shared, os.urandom(size))
        signature = bench.protocol.authenticate(shared, sealed)
        given = {1: agreement, 2: sealed, 3: bytes(32) if damage else signature, 4: 2}
        return bench.get(None, extensions={"hmac-secret": given}, **more)

    assert "hmac-secret" in secret().auth_data.extensions
    assert "hmac-secret" in secret(64).auth_data.extensions
    refused(ERR.INVALID_LENGTH, lambda: secret(48))
    refused(ERR.PIN_AUTH_INVALID, lambda: secret(damage=True))
    refused(ERR.UNSUPPORTED_OPTION, lambda: secret(options={"up": False}))


def test_the_next_assertion_follows_an_assertion_only() -> None:
    bench = Bench()
    for user in (b"a", b"b"):
        bench.make(bench.pin.get_pin_token(PIN, MC, "localhost"), user={"id": user, "name": "n"})
    assert bench.get(None).number_of_credentials == 2
    assert bench.ctap.get_next_assertion().user == {"id": b"a"}
    refused(ERR.NOT_ALLOWED, bench.ctap.get_next_assertion)
    bench.get(None)
    bench.ctap.get_info()
    refused(ERR.NOT_ALLOWED, bench.ctap.get_next_assertion)


def test_options_that_make_no_sense_are_refused() -> None:
    bench = Bench()

    def token() -> Any:
        return bench.pin.get_pin_token(PIN, MC | GA, "localhost")

    refused(ERR.INVALID_OPTION, lambda: bench.make(token(), options={"up": False}))
    refused(ERR.UNSUPPORTED_OPTION, lambda: bench.get(token(), options={"rk": True}))
    refused(ERR.UNSUPPORTED_ALGORITHM, lambda: bench.make(token(), key_params=[{"type": "public-key", "alg": -257}]))
    refused(ERR.INVALID_OPTION, lambda: bench.make(token(), extensions={"credProtect": 4}))
    refused(ERR.UNSUPPORTED_OPTION, lambda: Bench(discoverable=False).make(None))
    many = [{"type": "public-key", "id": os.urandom(32)} for _ in range(9)]
    refused(ERR.LIMIT_EXCEEDED, lambda: bench.get(token(), allow_list=many))
    full = Bench(room=1)
    full.make(full.pin.get_pin_token(PIN, MC, "localhost"))
    again: dict[str, Any] = {"user": {"id": b"v", "name": "n"}}
    refused(ERR.KEY_STORE_FULL, lambda: full.make(full.pin.get_pin_token(PIN, MC, "localhost"), **again))


SOUND: dict[int, Any] = {
    1: HASH,
    2: {"id": "localhost", "name": "n"},
    3: {"id": b"u", "name": "n"},
    4: [{"alg": -7, "type": "public-key"}],
}


class NoLink:
    def blinking(self) -> None:
        pass

    def cancelled(self, seconds: float) -> bool:
        return False


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"", Status.INVALID_COMMAND),
        (b"\x7f", Status.INVALID_COMMAND),
        (b"\x04\xa0", Status.INVALID_LENGTH),
        (b"\x01", Status.INVALID_CBOR),
        (b"\x01\xff", Status.INVALID_CBOR),
        (b"\x01" + cbor.encode(SOUND) + b"\0", Status.INVALID_CBOR),
        (b"\x01" + cbor.encode(SOUND)[:-3], Status.INVALID_CBOR),
        (b"\x01\xa2\x02\x00\x01\x00", Status.INVALID_CBOR),  # keys out of order
        (b"\x01\xa1\x18\x01\x00", Status.INVALID_CBOR),  # a number in more bytes than it needs
        (b"\x01\x80", Status.CBOR_UNEXPECTED_TYPE),
        (b"\x01" + cbor.encode({**SOUND, 99: 1}), Status.INVALID_PARAMETER),
        *((b"\x01" + cbor.encode({k: v for k, v in SOUND.items() if k != n}), Status.MISSING_PARAMETER) for n in SOUND),
        *((b"\x01" + cbor.encode({**SOUND, n: 7}), Status.CBOR_UNEXPECTED_TYPE) for n in SOUND),
        (b"\x01" + cbor.encode({**SOUND, 1: b"short"}), Status.INVALID_LENGTH),
        (b"\x01" + cbor.encode({**SOUND, 5: []}), Status.INVALID_PARAMETER),
        (b"\x01" + cbor.encode({**SOUND, 8: bytes(32)}), Status.MISSING_PARAMETER),
        (b"\x01" + cbor.encode({**SOUND, 8: bytes(32), 9: 3}), Status.INVALID_PARAMETER),
        (b"\x06" + cbor.encode({1: 2, 2: 0x42}), Status.INVALID_SUBCOMMAND),
        (b"\x01" + bytes(1300), Status.REQUEST_TOO_LARGE),
    ],
)
def test_parameters_are_read_strictly(request_bytes: bytes, status: Status) -> None:
    key = SoftAuthenticator()
    assert key.command(request_bytes, NoLink()) == bytes([status])
    assert key.credentials == []
    assert key.command(b"\x01" + cbor.encode(SOUND), NoLink())[0] == Status.OK
