"""authenticatorMakeCredential (CTAP 2.1, section 6.1.2)."""

from __future__ import annotations

from typing import Any

from fido2 import cbor

from tests.support.soft_key.acts import LIST_LIMIT, Parts, Proof, authenticator_data, options_of
from tests.support.soft_key.credentials import Credential, new_credential
from tests.support.soft_key.presence import Link
from tests.support.soft_key.statuses import Refused, Status
from tests.support.soft_key.strict import Parameters, descriptors
from tests.support.soft_key.tokens import Permission

AAGUID = bytes.fromhex("6b6565702d736f66742d6b65792d3031")
ES256 = -7


def make_credential(parts: Parts, body: bytes, link: Link) -> dict[int, Any]:
    """One makeCredential command. The steps are in the order of the specification: a client sees which comes first."""
    given = Parameters.read(body, known=range(1, 11))
    client_hash = given.need(1, bytes)
    rp_id, user = Parameters(given.need(2, dict)).need("id", str), Parameters(given.need(3, dict))
    user_id = user.need("id", bytes)
    proof = Proof(parts, given, (8, 9), link)
    if len(client_hash) != 32 or not 0 < len(user_id) <= 64:
        raise Refused(Status.INVALID_LENGTH)
    _algorithm(given.need(4, list))
    discoverable, built_in = _options(parts, given, proof)
    excluded = descriptors(given.maybe(5, list), LIST_LIMIT) or []
    protect, hmac_secret = _extensions(parts, given.inner(6))
    if proof.parameter is not None and parts.protected:
        proof.by_token(client_hash, Permission.MAKE_CREDENTIAL, rp_id)
    elif built_in:
        proof.built_in()
    for known in parts.credentials.of(rp_id, excluded):
        if known.protect < 3 or proof.verified:
            proof.present()  # or else a site could ask which keys are plugged in without their owner noticing
            raise Refused(Status.CREDENTIAL_EXCLUDED)
    proof.present()
    made = new_credential(
        rp_id,
        user_id,
        user.maybe("name", str) or "",
        discoverable=discoverable,
        protect=protect or 1,
        hmac_secret=hmac_secret,
    )
    if not parts.credentials.add(made):
        raise Refused(Status.KEY_STORE_FULL)
    outputs: dict[str, Any] = {"credProtect": protect} if protect else {}
    if hmac_secret:
        outputs["hmac-secret"] = True
    return _attested(parts, proof, made, client_hash, outputs)


def _algorithm(wanted: list[Any]) -> None:
    algorithms = []
    for item in wanted:
        if not isinstance(item, dict):
            raise Refused(Status.CBOR_UNEXPECTED_TYPE)
        entry = Parameters(item)
        if entry.need("type", str) == "public-key":
            algorithms.append(entry.need("alg", int))
    if ES256 not in algorithms:
        raise Refused(Status.UNSUPPORTED_ALGORITHM)


def _options(parts: Parts, given: Parameters, proof: Proof) -> tuple[bool, bool]:
    """Whether the credential is discoverable, and whether built-in verification is asked for."""
    options, built_in = options_of(given, 7, parts, verified_by_token=proof.parameter is not None)
    if options.maybe("up", bool) is False:
        raise Refused(Status.INVALID_OPTION)
    discoverable = bool(options.maybe("rk", bool))
    if discoverable and not parts.traits.discoverable:
        raise Refused(Status.UNSUPPORTED_OPTION)
    if proof.parameter is None and not built_in and (parts.protected or parts.traits.always_uv):
        if parts.traits.always_uv and parts.traits.uv:
            built_in = True
        else:  # section 6.1.2, steps 6 and 7: a protected key makes no credential for somebody unverified
            raise Refused(Status.PUAT_REQUIRED)
    return discoverable, built_in


def _extensions(parts: Parts, wanted: Parameters) -> tuple[int | None, bool]:
    protect = wanted.maybe("credProtect", int) if parts.traits.cred_protect else None
    if protect is not None and protect not in (1, 2, 3):
        raise Refused(Status.INVALID_OPTION)
    return protect, parts.traits.hmac_secret and bool(wanted.maybe("hmac-secret", bool))


def _attested(
    parts: Parts, proof: Proof, made: Credential, client_hash: bytes, outputs: dict[str, Any]
) -> dict[int, Any]:
    attested = AAGUID + len(made.id).to_bytes(2) + made.id + cbor.encode(made.public())
    data = authenticator_data(parts, made.rp_id, proof, made.count, attested, outputs)
    return {1: "packed", 2: data, 3: {"alg": ES256, "sig": made.sign(data + client_hash)}}
