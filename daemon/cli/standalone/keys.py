"""The primitives [2], and the secrets that a person holds [5]."""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata

import blake3
import zstandard
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import ed25519, mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from chatkeep.daemon.cli.standalone.strict import NoKey, demand

P = b"chatkeep/v1/"  # what every label begins with
ONCE = bytes(12)  # the nonce of keys that seal one message in their life
MAX_BLOB = 1 << 20  # bytes of plaintext [9]

FIELD = 2**255 - 19  # of the curve of Ed25519
ORDER_8 = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
SMALL_ORDER = (0, 1, FIELD - 1, ORDER_8, FIELD - ORDER_8)  # the y of the eight points whose order divides 8

# The quasigroup of a recovery key's check digits: row, the state so far; column, the digit [5].
DAMM = "0317598642 7092154863 4206871359 1750983426 6123045978 3674209581 5869720134 8945362017 9438617205 2581436790"


def sha(raw: bytes) -> bytes:
    """H of the format."""
    return hashlib.sha256(raw).digest()


def key_id(public: bytes) -> bytes:
    """What a public key is called."""
    return sha(public)[:16]


def hkdf(secret: bytes, label: bytes, size: int = 32, salt: bytes | None = None) -> bytes:
    """HKDF-SHA256. The label is without P, which is put before it."""
    return HKDF(hashes.SHA256(), size, salt, P + label).derive(secret)


def unseal(key: bytes, sealed: bytes, bound: bytes) -> bytes:
    """AES-256-GCM of a key that seals one message. Raises InvalidTag."""
    return AESGCM(key).decrypt(ONCE, sealed, bound)


def verify(public: bytes, signature: bytes, label: bytes, text: bytes) -> None:
    """Ed25519 over P, the label and the text. Raises InvalidSignature."""
    ed25519.Ed25519PublicKey.from_public_bytes(point(public)).verify(signature, P + label + text)


def point(public: bytes) -> bytes:
    """An Ed25519 public key, unless it is of small order: under such a one a signature fits every message [6]."""
    y = int.from_bytes(public, "little") % (1 << 255)  # the bit above is the sign of x
    demand(len(public) == 32 and y < FIELD, "a public key that is no point")
    demand(y not in SMALL_ORDER, "a public key of small order")
    return public


def signing_public(seed: bytes) -> bytes:
    """The Ed25519 public key of a seed."""
    return ed25519.Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def verify_text(raw: bytes, kind: str, vault_id: bytes, public: bytes, lines: int = 1) -> None:
    """Checks who signed a signed text, and that it has so many lines before its signature [4]."""
    body, signature = split_text(raw, lines)
    demand(signer_of(raw) == key_id(public).hex(), "it is not signed by the one who should have")
    bound = f"sig/{kind}\0".encode() + vault_id + len(body).to_bytes(4, "big")
    verify(public, signature, bound, body)


def split_text(raw: bytes, lines: int) -> tuple[bytes, bytes]:
    """The lines that are signed, and the signature."""
    *body, last, end = raw.split(b"\n")
    demand(len(body) == lines and end == b"", "it has other lines than it should have")
    found = re.fullmatch(rb"sig [0-9a-f]{32} ([0-9A-Za-z_-]{86})", last)
    if found is None:
        raise ValueError("it has no signature")
    return b"".join(line + b"\n" for line in body), base64.urlsafe_b64decode(found[1] + b"==")


def signer_of(raw: bytes) -> str:
    """The key id that a signed text names in its last line, as hex; nothing of it is verified."""
    found = re.search(rb"\nsig ([0-9a-f]{32}) [^\n]*\n\Z", raw)
    return found[1].decode() if found else ""


class Hybrid:
    """A key pair that opens what was sealed to it: ML-KEM-768 and X25519 together, from one seed [2]."""

    SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)

    def __init__(self, seed: bytes) -> None:
        raw = hashlib.shake_256(seed).digest(96)
        lattice = mlkem.MLKEM768PrivateKey.from_seed_bytes(raw[:64])
        curve = x25519.X25519PrivateKey.from_private_bytes(raw[64:])
        self.public = lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
        self.id = key_id(self.public)
        self._private = hpke.MLKEM768X25519PrivateKey(lattice, curve)

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """What was sealed with this `info`, which is without P. Raises InvalidTag."""
        return self.SUITE.decrypt(sealed, self._private, P + info)


def blake(context: str, id_key: bytes, content: bytes) -> bytes:
    """BLAKE3 with a key that comes from a device's id key: ids of blobs [9], digests of databases [12]."""
    key = blake3.blake3(id_key, derive_key_context=f"chatkeep v1 {context}").digest()
    return blake3.blake3(content, key=key).digest()


def decompress(frame: bytes, size: int) -> bytes:
    """What one Zstandard frame holds, if that is exactly so many bytes and nothing follows the frame [10]."""
    demand(zstandard.frame_content_size(frame) == size, "a frame of another length")
    raw = zstandard.ZstdDecompressor().decompress(frame, max_output_size=size, allow_extra_data=False)
    demand(len(raw) == size, "a frame of another length")
    return raw


def recovery_key(text: str) -> bytes:
    """The secret of a recovery key as it was written down [5]. Raises NoKey, which tells a slip by its line."""
    digits = re.sub(r"[\s-]", "", text)
    if not re.fullmatch("[0-9]{64}", digits):
        raise NoKey("a recovery key has 64 digits, in 8 lines of 8")
    lines = [digits[at : at + 8] for at in range(0, 64, 8)]
    quasigroup = DAMM.split()
    for number, line in enumerate(lines, 1):
        check = 0
        for digit in f"{number}{line}":
            check = int(quasigroup[check][int(digit)])
        if check:
            raise NoKey(f"line {number} of the recovery key has a slip")
    return "".join(line[:7] for line in lines).encode()


def stretch(passphrase: bytes, salt: bytes, m: int, t: int, p: int) -> bytes:
    """Argon2id, within the bounds of a reader [5]: m in KiB, t passes, p lanes."""
    fits = 1 << 16 <= m <= 1 << 20 and 1 <= t <= 10 and 1 <= p <= 8 and m * t <= 1 << 22
    demand(fits, "it asks for more work than any slot does, or for too little")
    text = unicodedata.normalize("NFKC", passphrase.decode("utf-8")).encode()
    return Argon2id(salt=salt, length=32, iterations=t, lanes=p, memory_cost=m).derive(text)
