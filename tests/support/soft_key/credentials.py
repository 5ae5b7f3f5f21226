"""The credentials of an authenticator: in, out, and from one device to the other as a passkey provider does it."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec


@dataclasses.dataclass
class Credential:
    """One credential. With hmac-secret it has two random secrets: one for verified users, one for all others."""

    id: bytes
    rp_id: str
    user_id: bytes
    user_name: str
    scalar: bytes  # the private key, 32 bytes
    discoverable: bool
    protect: int  # credProtect 1 to 3
    random_with_uv: bytes | None
    random_without_uv: bytes | None
    count: int = 0

    @property
    def key(self) -> ec.EllipticCurvePrivateKey:
        """The private key."""
        return ec.derive_private_key(int.from_bytes(self.scalar), ec.SECP256R1())

    def public(self) -> dict[int, Any]:
        """The public key as a COSE key of ES256."""
        point = self.key.public_key().public_numbers()
        return {1: 2, 3: -7, -1: 1, -2: point.x.to_bytes(32), -3: point.y.to_bytes(32)}

    def sign(self, message: bytes) -> bytes:
        """An ES256 signature, DER."""
        return self.key.sign(message, ec.ECDSA(hashes.SHA256()))

    def user(self, *, with_names: bool) -> dict[str, Any]:
        """The user entity; names are told only to a verified user who has a choice (section 6.2.2, step 12)."""
        return {"id": self.user_id, "name": self.user_name} if with_names else {"id": self.user_id}


def new_credential(
    rp_id: str, user_id: bytes, user_name: str, *, discoverable: bool, protect: int, hmac_secret: bool
) -> Credential:
    """A credential with fresh keys."""
    scalar = ec.generate_private_key(ec.SECP256R1()).private_numbers().private_value.to_bytes(32)
    randoms = (os.urandom(32), os.urandom(32)) if hmac_secret else (None, None)
    return Credential(os.urandom(32), rp_id, user_id, user_name, scalar, discoverable, protect, *randoms)


class Credentials:
    """All credentials, oldest first."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._all: list[Credential] = []

    def __len__(self) -> int:
        return len(self._all)

    def add(self, made: Credential) -> bool:
        """Whether there was room. A discoverable one takes the place of the same user's at the same site."""
        others = [c for c in self._all if not (made.discoverable and c.discoverable and _account(c) == _account(made))]
        if len(others) >= self.room:
            return False
        self._all = [*others, made]
        return True

    def of(self, rp_id: str, ids: Iterable[bytes] | None) -> list[Credential]:
        """A site's credentials, newest first: the named ones, or the discoverable ones."""
        named = None if ids is None else set(ids)
        found = [c for c in self._all if c.rp_id == rp_id and (c.discoverable if named is None else c.id in named)]
        return found[::-1]

    def clear(self) -> None:
        """Forgets all."""
        self._all = []

    def export(self) -> list[dict[str, Any]]:
        """Plain values (JSON will do), both secrets included."""
        plain = [dataclasses.asdict(credential) for credential in self._all]
        return [{name: v.hex() if isinstance(v, bytes) else v for name, v in one.items()} for one in plain]

    def restore(self, exported: Sequence[Mapping[str, Any]]) -> None:
        """Adds what another authenticator exported; what is here under the same id is replaced."""
        for one in exported:
            fields = {name: _value(name, value) for name, value in one.items()}
            made = Credential(**fields)
            self._all = [c for c in self._all if c.id != made.id] + [made]


def _account(credential: Credential) -> tuple[str, bytes]:
    return credential.rp_id, credential.user_id


def _value(name: str, value: Any) -> Any:
    octets = name in {"id", "user_id", "scalar", "random_with_uv", "random_without_uv"}
    return bytes.fromhex(value) if octets and value is not None else value


def rp_hash(rp_id: str) -> bytes:
    """What stands for the site in authenticator data."""
    return hashlib.sha256(rp_id.encode()).digest()
