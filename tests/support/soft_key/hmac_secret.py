"""The hmac-secret extension (CTAP 2.1, section 12.5): a secret of the credential, this user and a salt."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

from tests.support.soft_key.credentials import Credential
from tests.support.soft_key.pin_protocol import PinProtocolOne
from tests.support.soft_key.statuses import Refused, Status
from tests.support.soft_key.strict import Parameters


class Salts:
    """The platform's salts of one assertion, opened; used for each credential that answers."""

    def __init__(self, given: Mapping[Any, Any], protocols: Mapping[int, PinProtocolOne]) -> None:
        wanted = Parameters(given, known=(1, 2, 3, 4))
        agreement, sealed = wanted.need(1, dict), wanted.need(2, bytes)
        signature = wanted.need(3, bytes)
        version = wanted.maybe(4, int) or 1
        if version not in protocols:
            raise Refused(Status.INVALID_PARAMETER)
        self._protocol = protocols[version]
        self._shared = self._protocol.decapsulate(agreement)
        if not self._protocol.verify(self._shared, sealed, signature):
            raise Refused(Status.PIN_AUTH_INVALID)
        salts = self._protocol.decrypt(self._shared, sealed)
        if len(salts) not in (32, 64):
            raise Refused(Status.INVALID_LENGTH)
        self._salts = [salts[at : at + 32] for at in range(0, len(salts), 32)]

    def answer(self, credential: Credential, *, verified: bool, cut: int | None = None) -> bytes | None:
        """The output for this platform; None for a credential without the extension. `cut`: a lie about its length."""
        secret = credential.random_with_uv if verified else credential.random_without_uv
        if secret is None:
            return None
        output = b"".join(hmac.digest(secret, salt, "sha256") for salt in self._salts)
        return self._protocol.encrypt(self._shared, output if cut is None else (output * 2)[:cut])
