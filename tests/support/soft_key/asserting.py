"""authenticatorGetAssertion and authenticatorGetNextAssertion (CTAP 2.1, sections 6.2 and 6.3)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from tests.support.soft_key.acts import LIST_LIMIT, Lie, Parts, Proof, authenticator_data, options_of
from tests.support.soft_key.credentials import Credential
from tests.support.soft_key.hmac_secret import Salts
from tests.support.soft_key.presence import Link
from tests.support.soft_key.statuses import Refused, Status
from tests.support.soft_key.strict import Parameters, descriptors
from tests.support.soft_key.tokens import Permission

KNOWN_TO_ANY = 1  # credProtect levels
KNOWN_TO_ID = 2

_CUTS = {Lie.SHORT_SECRET: 16, Lie.LONG_SECRET: 48}


def get_assertion(parts: Parts, body: bytes, link: Link) -> Iterator[dict[int, Any]]:
    """The assertions of one command, the newest credential first. The first is made at once, the others when asked."""
    given = Parameters.read(body, known=range(1, 8))
    rp_id, client_hash = given.need(1, str), given.need(2, bytes)
    allowed = descriptors(given.maybe(3, list), LIST_LIMIT)
    proof = Proof(parts, given, (6, 7), link)
    if len(client_hash) != 32:
        raise Refused(Status.INVALID_LENGTH)
    touch, built_in = _options(parts, given, proof)
    salts = _salts(parts, given.inner(4), touch=touch)
    if proof.parameter is not None and parts.protected:
        proof.by_token(client_hash, Permission.GET_ASSERTION, rp_id)
    elif built_in:
        proof.built_in()
    found = _found(parts, rp_id, allowed, verified=proof.verified)
    if not found:
        raise Refused(Status.NO_CREDENTIALS)
    if touch:
        proof.present()
    else:
        proof.touched = False  # a finger of before is not a touch of now
    return _answers(parts, found, client_hash, proof, salts, named=allowed is not None)


def _options(parts: Parts, given: Parameters, proof: Proof) -> tuple[bool, bool]:
    """Whether a touch is wanted, and whether built-in verification is."""
    options, built_in = options_of(given, 5, parts, verified_by_token=proof.parameter is not None)
    if "rk" in options:
        raise Refused(Status.UNSUPPORTED_OPTION)
    touch = options.maybe("up", bool) is not False
    if parts.traits.always_uv and touch and proof.parameter is None and not built_in:
        if not parts.traits.uv:
            raise Refused(Status.PUAT_REQUIRED)
        built_in = True
    return touch, built_in


def _salts(parts: Parts, wanted: Parameters, *, touch: bool) -> Salts | None:
    given = wanted.maybe("hmac-secret", dict) if parts.traits.hmac_secret else None
    if given is None:
        return None
    if not touch:  # section 12.5: no secret without a touch
        raise Refused(Status.UNSUPPORTED_OPTION)
    return Salts(given, parts.pin.protocols)


def _found(parts: Parts, rp_id: str, allowed: list[bytes] | None, *, verified: bool) -> list[Credential]:
    limit = KNOWN_TO_ANY if allowed is None else KNOWN_TO_ID
    found = [c for c in parts.credentials.of(rp_id, allowed) if verified or c.protect <= limit]
    return found[:1] if allowed is not None else found


def _answers(
    parts: Parts, found: list[Credential], client_hash: bytes, proof: Proof, salts: Salts | None, *, named: bool
) -> Iterator[dict[int, Any]]:
    for place, credential in enumerate(found):
        credential.count += 1
        outputs = _outputs(parts, credential, proof, salts) if salts else {}
        data = authenticator_data(parts, credential.rp_id, proof, credential.count, extensions=outputs)
        identity = os.urandom(32) if parts.lies_about(Lie.OTHER_CREDENTIAL) else credential.id
        answer: dict[int, Any] = {
            1: {"id": identity, "type": "public-key"},
            2: data,
            3: credential.sign(data + (bytes(32) if parts.lies_about(Lie.WRONG_SIGNATURE) else client_hash)),
        }
        if credential.discoverable:
            answer[4] = credential.user(with_names=proof.verified and len(found) > 1)
        if place == 0 and len(found) > 1 and not named:
            answer[5] = len(found)
        yield answer


def _outputs(parts: Parts, credential: Credential, proof: Proof, salts: Salts) -> dict[str, Any]:
    if parts.lies_about(Lie.NO_SECRET):
        return {}
    verified = proof.verified and not parts.lies_about(Lie.NOT_VERIFIED)
    cut = next((size for lie, size in _CUTS.items() if parts.lies_about(lie)), None)
    output = salts.answer(credential, verified=verified, cut=cut)
    if output is not None and parts.lies_about(Lie.OTHER_SECRET):
        output = output[:-32] + os.urandom(32)  # opens to noise
    return {} if output is None else {"hmac-secret": output}
