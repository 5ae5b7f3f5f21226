"""Magic numbers, labels and sizes of vault objects, exactly as docs/format.md has them.

Every label ends in one zero byte, so that none is the beginning of another: two uses of a key can never ask for the
same derivation.
"""

from __future__ import annotations

from typing import Final

P: Final = b"chatkeep/v1/"

# Sizes in bytes.
ID_SIZE: Final = 16  # vault, device, stream and slot ids, key ids
HASH_SIZE: Final = 32  # SHA-256, BLAKE3
KEY_SIZE: Final = 32
NONCE_SIZE: Final = 12
TAG_SIZE: Final = 16
SIGNATURE_SIZE: Final = 64
SEAL_OVERHEAD: Final = 1136  # HPKE: encapsulated key 1120, tag 16

# Labels of key derivation and of signatures.
VAULT_ID: Final = P + b"vault\0"
PACK: Final = P + b"pack\0"
MANIFEST: Final = P + b"manifest\0"
SIG_MANIFEST: Final = P + b"sig/manifest\0"
SIG_CHECKPOINT: Final = P + b"sig/checkpoint\0"
CONTEXT_ID: Final = "chatkeep v1 id "  # a blob kind's name follows
CONTEXT_PAGE_SEED: Final = "chatkeep v1 page seed"
CONTEXT_PAGE_TABLE: Final = "chatkeep v1 page table"
CONTEXT_DATABASE_SET: Final = "chatkeep v1 database set"

# Blobs and packs (sections 9 and 10).
MAX_BLOB: Final = 1 << 20  # of plaintext
MAX_BLOBS: Final = 65535  # in one pack
PACK_TARGET: Final = 16 << 20  # a pack is full at the first blob that brings it here
MAX_PACK: Final = 64 << 20  # no pack is longer: offsets stay well inside u32, and a reader knows what to expect
PACK_MAGIC: Final = b"CKPACK\0\1"
PACK_END: Final = b"CKPEND\0\1"
KIND_PAD: Final = 0xFE
KIND_DIRECTORY: Final = 0xFF
DIRECTORY_ENTRY: Final = 45
PACK_PUBLIC: Final = 52
PACK_CAPSULE: Final = 48 + SEAL_OVERHEAD
PACK_FOOTER: Final = PACK_CAPSULE + PACK_PUBLIC + HASH_SIZE + len(PACK_END)

# Manifests (section 13).
MANIFEST_MAGIC: Final = b"CKSNAP\0\1"
MANIFEST_HEADER: Final = 132
MANIFEST_CAPSULE: Final = KEY_SIZE + SEAL_OVERHEAD
MANIFEST_HEAD: Final = MANIFEST_HEADER + MANIFEST_CAPSULE + HASH_SIZE  # all before the sealed body
MANIFEST_STEP: Final = 8 << 10  # a manifest is a multiple of this
MAX_MANIFEST: Final = 64 << 20
MAX_STACK: Final = 1024  # layers; a writer keeps it to about 120
MAX_PARTS: Final = 65536  # of one layer
MAX_NEW_PACKS: Final = 16384  # in one snapshot: 256 MiB in the smallest packs are 8192

# Checkpoints (section 14).
CHECKPOINT_MAGIC: Final = b"CKCHKP\0\1"
MAX_CHECKPOINT: Final = 64 << 20
