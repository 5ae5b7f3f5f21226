"""What a browser is asked of Web Authentication Level 3, and what is believed of its answer. Pure, but for challenges.

The page's answer is checked here in full, so that what the page's script does is not a matter of trust: the script is
ours, and the browser that runs it has extensions.

When a vault is unlocked there is no public key to check a signature with, on purpose. The slot comes from storage; a
public key in it would be whatever storage says, so a signature under it would prove nothing. What proves the passkey is
that its secret opens the slot. When a passkey is made its public key is at hand, and every answer is checked with it.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from fido2.server import Fido2Server
from fido2.webauthn import (
    AttestationObject,
    AttestedCredentialData,
    AuthenticationResponse,
    AuthenticatorAssertionResponse,
    AuthenticatorAttestationResponse,
    AuthenticatorData,
    CollectedClientData,
    PublicKeyCredentialRpEntity,
    RegistrationResponse,
    UserVerificationRequirement,
)

from chatkeep.daemon.control.errors import AlreadyEnrolled
from chatkeep.daemon.keys.errors import PasskeyRefused
from chatkeep.daemon.keys.passkey import CREDENTIAL_SIZE, RP_ID, SECRET_SIZE, NewCredential, Question
from chatkeep.daemon.keys.strict_json import encode_b64

RP_NAME: Final = "Chatkeep"
ALGORITHMS: Final = (-7, -257, -8)
"""ES256, RS256 (Windows Hello), EdDSA: COSE algorithm identifiers."""

_ALGORITHM: Final = 3  # the label of a key's algorithm: RFC 9052, section 7.1
_RP: Final = PublicKeyCredentialRpEntity(name=RP_NAME, id=RP_ID)

Parsed = TypeVar("Parsed")


@dataclass(frozen=True, slots=True)
class Registration:
    """A new credential, as the browser gave it."""

    credential: bytes
    client: bytes
    attestation: bytes


@dataclass(frozen=True, slots=True, repr=False)
class Assertion:
    """A credential's answer, as the browser gave it. The secret is the receiver's to wipe."""

    credential: bytes
    client: bytes
    authenticator: bytes
    signature: bytes
    secret: bytearray


class Verifier:
    """Makes what the browser is asked, and checks what it answers, for the page at one origin."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._server = Fido2Server(_RP, attestation=None, verify_origin=lambda found: found == origin)
        self._made: AttestedCredentialData | None = None

    def creation(self, challenge: bytes, user: str, exclude: Sequence[bytes], seconds: float) -> dict[str, Any]:
        """Options for `navigator.credentials.create`, bytes in base64url."""
        return {
            "rp": {"id": RP_ID, "name": RP_NAME},
            # Random: an authenticator keeps one credential for each user id, so a fixed one would replace the last.
            "user": {"id": encode_b64(os.urandom(32)), "name": user, "displayName": user},
            "challenge": encode_b64(challenge),
            "pubKeyCredParams": [{"type": "public-key", "alg": each} for each in ALGORITHMS],
            "excludeCredentials": [_descriptor(each) for each in exclude],
            "authenticatorSelection": {
                "residentKey": "required",
                "requireResidentKey": True,
                "userVerification": "required",
            },
            "attestation": "none",
            "timeout": round(seconds * 1000),
            "extensions": {"prf": {}},  # not evaluated yet: not every authenticator can, and not all as they do later
        }

    def request(self, challenge: bytes, questions: Sequence[Question], seconds: float) -> dict[str, Any]:
        """Options for `navigator.credentials.get`, bytes in base64url."""
        return {
            "challenge": encode_b64(challenge),
            "rpId": RP_ID,
            "allowCredentials": [_descriptor(each.credential) for each in questions],
            # An authenticator has another secret for when nobody was verified: `preferred` gives now one, now the other
            "userVerification": "required",
            "timeout": round(seconds * 1000),
            "extensions": {
                "prf": {
                    "evalByCredential": {
                        encode_b64(each.credential): {"first": encode_b64(each.evaluation)} for each in questions
                    }
                }
            },
        }

    def registered(self, found: Registration, challenge: bytes, exclude: Sequence[bytes]) -> NewCredential:
        """What was made. Raises `PasskeyRefused`, or `AlreadyEnrolled` if it is one of `exclude`."""
        client = _parsed(CollectedClientData, found.client)
        attestation = _parsed(AttestationObject, found.attestation)
        self._check(client, CollectedClientData.TYPE.CREATE, challenge, attestation.auth_data)
        made = attestation.auth_data.credential_data
        least, most = CREDENTIAL_SIZE
        if made is None or made.credential_id != found.credential or not least <= len(found.credential) <= most:
            raise PasskeyRefused(reason="malformed")
        if made.public_key.get(_ALGORITHM) not in ALGORITHMS:
            raise PasskeyRefused(reason="malformed")
        if found.credential in exclude:
            raise AlreadyEnrolled
        response = RegistrationResponse(
            raw_id=found.credential,
            response=AuthenticatorAttestationResponse(client_data=client, attestation_object=attestation),
        )
        try:
            self._server.register_complete(_state(challenge), response)
        except (ValueError, AssertionError) as exc:
            raise PasskeyRefused(reason="malformed") from exc
        self._made = made
        return NewCredential(found.credential, attestation.auth_data.is_backup_eligible())

    def answered(self, found: Assertion, challenge: bytes, questions: Sequence[Question]) -> None:
        """Returns if the answer may be used. Raises `PasskeyRefused`."""
        client = _parsed(CollectedClientData, found.client)
        authenticator = _parsed(AuthenticatorData, found.authenticator)
        self._check(client, CollectedClientData.TYPE.GET, challenge, authenticator)
        if found.credential not in {each.credential for each in questions}:
            raise PasskeyRefused(reason="other-credential")
        if len(found.secret) != SECRET_SIZE:
            raise PasskeyRefused(reason="prf-length")
        if self._made is not None:
            self._check_signature(found, client, authenticator, challenge, self._made)

    def _check(
        self, client: CollectedClientData, kind: str, challenge: bytes, authenticator: AuthenticatorData
    ) -> None:
        if client.type != kind:
            raise PasskeyRefused(reason="malformed")
        if not hmac.compare_digest(client.challenge, challenge):
            raise PasskeyRefused(reason="challenge")
        if client.origin != self._origin or client.cross_origin:
            raise PasskeyRefused(reason="origin")
        if authenticator.rp_id_hash != _RP.id_hash:
            raise PasskeyRefused(reason="rp-id")
        if not (authenticator.is_user_present() and authenticator.is_user_verified()):
            raise PasskeyRefused(reason="user-verification")

    def _check_signature(
        self,
        found: Assertion,
        client: CollectedClientData,
        authenticator: AuthenticatorData,
        challenge: bytes,
        made: AttestedCredentialData,
    ) -> None:
        response = AuthenticationResponse(
            raw_id=found.credential,
            response=AuthenticatorAssertionResponse(
                client_data=client, authenticator_data=authenticator, signature=found.signature
            ),
        )
        if found.credential != made.credential_id:
            raise PasskeyRefused(reason="other-credential")
        try:
            self._server.authenticate_complete(_state(challenge), [made], response)
        except (ValueError, KeyError, TypeError) as exc:  # of a key that is none, too
            raise PasskeyRefused(reason="signature") from exc


def _descriptor(credential: bytes) -> dict[str, str]:
    return {"type": "public-key", "id": encode_b64(credential)}


def _state(challenge: bytes) -> dict[str, object]:
    """What fido2 remembers between its two calls."""
    return {"challenge": encode_b64(challenge), "user_verification": UserVerificationRequirement.REQUIRED}


def _parsed(parse: Callable[[bytes], Parsed], raw: bytes) -> Parsed:
    try:
        return parse(raw)
    except Exception as exc:  # fido2 raises what its decoders happen to: KeyError, struct.error, ValueError, and more
        raise PasskeyRefused(reason="malformed") from exc
