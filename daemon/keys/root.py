"""The root secret of an epoch and the keys that come from it; Ed25519. See docs/format.md, sections 2 and 3."""

from __future__ import annotations

import hashlib
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from chatkeep.daemon.keys.errors import KeyRefused, SecretWiped, SignatureInvalid, Unsealable
from chatkeep.daemon.keys.hybrid import HybridPrivate
from chatkeep.daemon.keys.secret import Buffer, SecretBytes, Sensitive, derive, label, random_secret, wipe
from chatkeep.daemon.keys.wrapping import unwrap, wrap

ROOT_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64
VERIFY_KEY_SIZE: Final = 32

_P: Final = 2**255 - 19
_SIGN_BIT: Final = 1 << 255

# The y coordinates of the eight points whose order divides 8, on the curve of RFC 8032, section 5.1: 1 and -1, 0
# (twice), and those of the four points of order 8, in pairs. Under such a key one signature fits every message.
_ORDER_8: Final = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
_SMALL_ORDER_Y: Final = frozenset({0, 1, _P - 1, _ORDER_8, _P - _ORDER_8})


class VerifyKey:
    """An Ed25519 public key. Equal when its bytes are.

    Args:
        raw: 32 bytes.

    Raises:
        KeyRefused: of another length, of small order (a signature that fits every message would exist), or not the one
            encoding of its point (one key would have two names).
    """

    __slots__ = ("_key", "key_id", "raw")

    def __init__(self, raw: bytes) -> None:
        if len(raw) != VERIFY_KEY_SIZE:
            raise KeyRefused(what="ed25519", reason="length")
        y = int.from_bytes(raw, "little") & ~_SIGN_BIT
        if y % _P in _SMALL_ORDER_Y:
            raise KeyRefused(what="ed25519", reason="small-order")
        if y >= _P:
            raise KeyRefused(what="ed25519", reason="encoding")
        self.raw: Final = bytes(raw)
        self.key_id: Final = hashlib.sha256(raw).digest()[:16]
        self._key: Final = Ed25519PublicKey.from_public_bytes(self.raw)

    def verify(self, signature: bytes, message: bytes, what: str) -> None:
        """Returns when `signature` is this key's over `message`; `what` names it in the error.

        Raises:
            SignatureInvalid: it is not.
        """
        try:
            self._key.verify(signature, message)
        except InvalidSignature as exc:
            raise SignatureInvalid(what=what, key_id=self.key_id.hex()) from exc

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VerifyKey) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"VerifyKey({self.raw.hex()})"


class SigningKey(Sensitive):
    """An Ed25519 private key, made from its 32-byte seed, which stays the caller's to wipe."""

    __slots__ = ("_key", "public")

    def __init__(self, seed: Buffer) -> None:
        key = Ed25519PrivateKey.from_private_bytes(seed)
        self._key: Ed25519PrivateKey | None = key
        self.public: Final = VerifyKey(key.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature. Raises `SecretWiped` when the key is gone."""
        if self._key is None:
            raise SecretWiped(what="SigningKey")
        return self._key.sign(message)

    def sign_hashed(self, context: bytes, text: bytes) -> bytes:
        """The signature of `context` and the SHA-256 of `text`, for texts too long to be held twice."""
        return self.sign(context + hashlib.sha256(text).digest())

    def wipe(self) -> None:
        """Lets go of the key; the library overwrites its memory when nothing else refers to it. Twice is once."""
        self._key = None


class RootSecret(SecretBytes):
    """The root secret of one epoch: 32 bytes. Takes the buffer over."""

    __slots__ = ()

    def __init__(self, buffer: bytearray) -> None:
        if len(buffer) != ROOT_SIZE:
            raise AssertionError(f"a root secret of {len(buffer)} bytes")
        super().__init__(buffer)

    @classmethod
    def generate(cls) -> RootSecret:
        """A new one."""
        return cls(random_secret(ROOT_SIZE))

    def subkey(self, name: str) -> bytearray:
        """The 32-byte subkey of that name, for the caller to wipe."""
        return derive(self.view(), label(name))


class EpochKeys(Sensitive):
    """All keys of one epoch. Owns the root secret: both are wiped together.

    Attributes:
        open: opens packs and manifests.
        sign: certifies slots, devices and the next epoch.
        checkpoint: signs checkpoints.
    """

    __slots__ = ("checkpoint", "open", "root", "sign")

    def __init__(self, root: RootSecret) -> None:
        self.root: Final = root
        seeds: list[bytearray] = []
        try:
            seeds.extend(map(root.subkey, ("open", "sign", "checkpoint")))
            self.open: Final = HybridPrivate.from_seed(seeds[0])
            self.sign: Final = SigningKey(seeds[1])
            self.checkpoint: Final = SigningKey(seeds[2])
        except BaseException:
            root.wipe()  # it was taken over, and there is nobody who could
            raise
        finally:
            for seed in seeds:
                wipe(seed)

    def wrap_older(self, older: RootSecret, vault_id: bytes, epoch: int) -> bytes:
        """Wraps the root secret of epoch - 1 under this epoch's, `epoch`. 48 bytes.

        Symmetric, never sealed to the public key: that anyone could do, and hand a reader an invented past.
        """
        key = self.root.subkey("older")
        try:
            return wrap(key, older.view(), _older_context(vault_id, epoch))
        finally:
            wipe(key)

    def unwrap_older(self, wrapped: bytes, vault_id: bytes, epoch: int) -> RootSecret:
        """The root secret of epoch - 1, out of the record of this epoch, `epoch`.

        Raises:
            Unsealable: not wrapped under this epoch's root secret, or for another vault or epoch.
        """
        key = self.root.subkey("older")
        try:
            return RootSecret(unwrap(key, wrapped, _older_context(vault_id, epoch)))
        except Unsealable as exc:
            exc.params |= {"what": "older", "epoch": epoch}
            raise
        finally:
            wipe(key)

    def keep_open(self) -> HybridPrivate:
        """The `open` key, which stays; everything else is wiped. For those who only read."""
        self.root.wipe()
        self.sign.wipe()
        self.checkpoint.wipe()
        return self.open

    def keep_checkpoint(self) -> SigningKey:
        """The `checkpoint` key, which stays, as `open` does; what certifies is wiped. For those who prune."""
        self.root.wipe()
        self.sign.wipe()
        return self.checkpoint

    def wipe(self) -> None:
        """Wipes the root secret and lets go of every key."""
        self.root.wipe()
        self.open.wipe()
        self.sign.wipe()
        self.checkpoint.wipe()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.wipe()


def _older_context(vault_id: bytes, epoch: int) -> bytes:
    return label("older") + vault_id + epoch.to_bytes(4, "big")
