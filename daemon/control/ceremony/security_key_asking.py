"""One security key: making a credential on it, having it answer, and what can come between.

User verification is required for everything. A key holds two secrets for each credential, one for a verified user and
one for anybody (CTAP 2.1, section 12.5): without the flag in what it signed the answer would be the other secret, which
the next finder of the key gets too.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from fido2.client import ClientError, DefaultClientDataCollector, Fido2Client
from fido2.ctap import CtapError
from fido2.ctap2.extensions import CredProtectExtension, HmacSecretExtension
from fido2.webauthn import AuthenticatorData

from chatkeep.daemon.control.ceremony.events import Event, Touch
from chatkeep.daemon.control.ceremony.security_key_finding import AGAIN, LOST, ORIGIN, Key
from chatkeep.daemon.control.ceremony.security_key_person import Limits, Person
from chatkeep.daemon.control.errors import (
    AlreadyEnrolled,
    CeremonyCancelled,
    CeremonyLost,
    NoPin,
    PinBlocked,
    SecurityKeyRemoved,
    SecurityKeyUnsupported,
)
from chatkeep.daemon.keys.errors import PasskeyRefused
from chatkeep.daemon.keys.passkey import RP_ID, SECRET_SIZE, Answer, NewCredential, Question
from chatkeep.daemon.keys.strict_json import encode_b64

T = TypeVar("T")
ES256: Final = -7
PROTECTED: Final = 3  # credProtect: the credential does not exist for who is not verified
_RP_HASH: Final = hashlib.sha256(RP_ID.encode()).digest()
_ERR: Final = CtapError.ERR


class NotOnThisKey(Exception):
    """The key has none of the credentials."""


class KeyInUse:
    """A key for one ceremony."""

    def __init__(
        self,
        key: Key,
        tell: Callable[[Event], None],
        before_leaving: Callable[[Callable[[], object]], None],
    ) -> None:
        self._key = key
        self._person = Person(key, tell, before_leaving)
        self._made: tuple[bytes, Any] | None = None
        extensions = [HmacSecretExtension(), CredProtectExtension()]  # type: ignore[no-untyped-call]
        try:
            self._client = Fido2Client(key.device, DefaultClientDataCollector(ORIGIN), self._person, extensions)
        except LOST as exc:  # it asks the key what it can
            raise SecurityKeyRemoved from exc

    def enrol(self, exclude: Sequence[bytes], user: str, limits: Limits, touch: Touch) -> NewCredential:
        """Makes a credential. Raises what the module's errors are, `AlreadyEnrolled` among them."""
        self._can_protect()
        if not self._key.ctap.info.options.get("rk"):
            raise SecurityKeyUnsupported(reason="discoverable")
        options = {
            "rp": {"id": RP_ID, "name": "Chatkeep"},
            # Of the same user id a key keeps one credential: a fixed one would make vaults overwrite each other's.
            "user": {"id": os.urandom(32), "name": user, "displayName": user},
            "challenge": os.urandom(32),
            "pubKeyCredParams": [{"type": "public-key", "alg": ES256}],
            "excludeCredentials": [_descriptor(credential) for credential in exclude],
            "authenticatorSelection": {"residentKey": "required", "userVerification": "required"},
            "extensions": {"prf": {}, "credentialProtectionPolicy": "userVerificationRequired"},
        }
        made = self._persist(lambda: self._client.make_credential(options, limits.over), limits, touch)  # type: ignore[arg-type]
        facts = made.response.attestation_object.auth_data
        _check(facts)
        outputs = made.client_extension_results.prf
        if outputs is None or outputs.enabled is not True or facts.credential_data is None:
            raise PasskeyRefused(reason="no-prf")
        self._can_protect(facts.extensions or {})
        self._made = made.raw_id, facts.credential_data.public_key
        return NewCredential(made.raw_id, bool(facts.flags & AuthenticatorData.FLAG.BE))

    def ask(self, questions: Sequence[Question], limits: Limits, touch: Touch) -> Answer:
        """Has one of the credentials answer. Raises `NotOnThisKey`, and what the module's errors are."""
        wanted = {encode_b64(each.credential): {"first": each.evaluation} for each in questions}
        options = {
            "rpId": RP_ID,
            "challenge": os.urandom(32),
            "allowCredentials": [_descriptor(each.credential) for each in questions],
            "userVerification": "required",
            "extensions": {"prf": {"evalByCredential": wanted}},
        }
        selection = self._persist(lambda: self._client.get_assertion(options, limits.over), limits, touch)  # type: ignore[arg-type]
        answered = selection.get_response(0)
        if answered.raw_id not in {each.credential for each in questions}:
            raise PasskeyRefused(reason="other-credential")
        _check(answered.response.authenticator_data)
        self._check_signature(answered.raw_id, selection)
        outputs = answered.client_extension_results.prf
        if outputs is None or outputs.results is None:
            raise PasskeyRefused(reason="no-prf")
        # The library cuts what came into two halves of 32 bytes; one was asked for.
        if len(outputs.results.first) != SECRET_SIZE or outputs.results.second:
            raise PasskeyRefused(reason="prf-length")
        return Answer(answered.raw_id, bytearray(outputs.results.first))

    def close(self) -> None:
        """Lets go of the key."""
        self._key.device.close()

    def _can_protect(self, given: Mapping[str, Any] | None = None) -> None:
        """A key of CTAP 2.0 has one secret for verified users and for anybody: only credProtect keeps it from them."""
        about = self._key.ctap.info
        protects = "credProtect" in about.extensions and (given is None or given.get("credProtect") == PROTECTED)
        if not protects and "FIDO_2_1" not in about.versions:
            raise SecurityKeyUnsupported(reason="unprotected")

    def _check_signature(self, credential: bytes, selection: Any) -> None:
        """Only while enrolling: later the public key would come from storage, and prove nothing."""
        if self._made is None or self._made[0] != credential:
            return
        try:
            assertion = selection.get_assertions()[0]
            assertion.verify(selection.get_response(0).response.client_data.hash, self._made[1])
        except Exception as exc:
            raise PasskeyRefused(reason="signature") from exc

    def _persist(self, act: Callable[[], T], limits: Limits, touch: Touch) -> T:
        """Tries until it is done, the person has had enough, or the time is up."""
        self._person.limits, self._person.touch = limits, touch
        while True:
            try:
                return act()
            except ClientError as exc:
                self._go_on(exc, limits)
            except CtapError as exc:
                raise CeremonyLost(reason="key", cause=exc.code.name) from exc
            except LOST as exc:
                raise SecurityKeyRemoved from exc

    def _go_on(self, exc: ClientError, limits: Limits) -> None:
        """Returns when it is to be tried again."""
        code = exc.cause.code if isinstance(exc.cause, CtapError) else None
        if code == _ERR.PIN_INVALID:
            self._person.pin_was_wrong()
        elif code in AGAIN:
            self._person.retry("timeout")
        elif code == _ERR.UV_INVALID:
            self._person.retry("fingerprint")
        elif code in (_ERR.NO_CREDENTIALS, _ERR.INVALID_CREDENTIAL):
            raise NotOnThisKey from exc
        elif limits.over.is_set():
            raise limits.timed_out() from exc
        else:
            raise _final(exc, code) from exc


def _final(exc: ClientError, code: CtapError.ERR | None) -> Exception:
    about: dict[CtapError.ERR | None, Exception] = {
        _ERR.PIN_AUTH_BLOCKED: PinBlocked(reason="replug"),
        _ERR.PIN_BLOCKED: PinBlocked(reason="reset"),
        _ERR.PIN_NOT_SET: NoPin(reason="unset"),
        _ERR.PIN_POLICY_VIOLATION: NoPin(reason="change"),
        _ERR.UV_BLOCKED: PinBlocked(reason="fingerprint"),
        _ERR.OPERATION_DENIED: CeremonyCancelled(reason="key"),
        _ERR.KEEPALIVE_CANCEL: CeremonyCancelled(reason="key"),
        _ERR.CREDENTIAL_EXCLUDED: AlreadyEnrolled(),
        _ERR.KEY_STORE_FULL: SecurityKeyUnsupported(reason="full"),
        _ERR.UNSUPPORTED_ALGORITHM: SecurityKeyUnsupported(reason="discoverable"),
        _ERR.UNSUPPORTED_OPTION: SecurityKeyUnsupported(reason="discoverable"),
    }
    if code in about:
        return about[code]
    if code is None and exc.code == ClientError.ERR.CONFIGURATION_UNSUPPORTED:
        # Its fingerprint reader has given up, and there is no PIN to fall back to.
        return PinBlocked(reason="fingerprint")
    return CeremonyLost(reason="key", cause=exc.code.name if code is None else code.name)


def _check(facts: AuthenticatorData) -> None:
    """What the key signed: for this relying party, with the user verified."""
    if facts.rp_id_hash != _RP_HASH:
        raise PasskeyRefused(reason="rp-id")
    if not facts.is_user_verified():
        raise PasskeyRefused(reason="user-verification")


def _descriptor(credential: bytes) -> dict[str, Any]:
    return {"type": "public-key", "id": credential}
