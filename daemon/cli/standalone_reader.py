"""Restores a Chatkeep vault without Chatkeep: for the day on which the project is gone.

Written from docs/format.md alone ([n] is its section n), it shares no code with Chatkeep. It needs Python 3.11 and
three packages:  pip install "cryptography>=50" blake3 "zstandard>=0.23"

    python3 chatkeep-reader.py VAULT                          which snapshots there are
    python3 chatkeep-reader.py VAULT TARGET                   restores the newest into a folder that is new or empty
    python3 chatkeep-reader.py VAULT TARGET --snapshot 12     an older one

VAULT is the vault's folder, or one with a copy of its objects, each a file under its name; it is only read. The key or
passphrase is asked for, or read from --key-file F or --passphrase-file F. With several devices or sources choose one:
--device HEX, --source NAME, --stream HEX (its beginning will do). Signatures, tags and ids are always checked; digests
of pages are not, for ids prove more. What is missing or damaged is told and left out, and the rest is restored, without
owners, set-user-id bits, and attributes other than `user.`.
Exit codes: 0 all is well, 2 usage, 3 no key, or it opens nothing, 4 storage or target, 5 damage was found, 6 stopped.
"""
from __future__ import annotations
import argparse, base64, contextlib, getpass, hashlib, io, itertools, json, os, re, struct, sys, time, unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
try:
    import blake3, zstandard
    from cryptography.hazmat.primitives import hashes, hpke
except ImportError as lacking: sys.exit(f'! {lacking}: pip install "cryptography>=50" blake3 "zstandard>=0.23"')
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric import ed25519, mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

P, KIB, MIB, HOLE = b"chatkeep/v1/", 1 << 10, 1 << 20, 0xFFFFFFFF
NONE, ONCE = "0" * 64, bytes(12)  # the hash of nothing; the nonce of keys that seal one message
BLOBS = ["", "chunk", "pages", "layer"]  # their kinds are 1, 2 and 3
FOLDER, FILE, LINK, DATABASE = range(4)
FILE_FIELDS = "id kind mode uid gid user group mtime size flags target xattrs"
u32, unhex, unb64 = struct.Struct(">I").pack, bytes.fromhex, base64.urlsafe_b64decode
DAMM = "0317598642 7092154863 4206871359 1750983426 6123045978 3674209581 5869720134 8945362017 9438617205 2581436790"

class NoKey(Exception):
    """The secret opens nothing here, or has a slip."""

def demand(holds: bool, what: str) -> None:
    """Refuses what is not as the format says."""
    if not holds: raise ValueError(what)

def sha(raw: bytes) -> bytes:
    """H of the format."""
    return hashlib.sha256(raw).digest()

def hkdf(secret: bytes, info: bytes, size: int = 32, salt: bytes | None = None) -> bytes:
    """HKDF-SHA256; every label begins with P [2]."""
    return HKDF(hashes.SHA256(), size, salt, P + info).derive(secret)

def take(stream: io.BytesIO, size: int) -> bytes:
    """The next bytes, never fewer."""
    raw = stream.read(size)
    demand(len(raw) == size, "it ends too early")
    return raw

def number(stream: io.BytesIO, size: int = 4) -> int:
    """The next bytes as a number."""
    return int.from_bytes(take(stream, size))

def unpack(raw: bytes) -> Any:
    """One MessagePack value, of what the format uses: nil, integers, bytes, text, arrays."""
    stream = io.BytesIO(raw)
    def value(depth: int) -> Any:
        first = number(stream, 1)
        if first <= 0x7F or first >= 0xE0: return first if first <= 0x7F else first - 256
        if first == 0xC0: return None
        if 0xC4 <= first <= 0xC6: return take(stream, number(stream, 1 << (first - 0xC4)))
        if 0xCC <= first <= 0xD3: return int.from_bytes(take(stream, 1 << (first & 3)), signed=first >= 0xD0)
        if 0xA0 <= first <= 0xBF or 0xD9 <= first <= 0xDB:
            return take(stream, first & 0x1F if first <= 0xBF else number(stream, 1 << (first - 0xD9))).decode()
        demand((0x90 <= first <= 0x9F or first in (0xDC, 0xDD)) and depth < 8, "an unknown kind of value")
        return [value(depth + 1) for _ in range(first & 0xF if first <= 0x9F else number(stream, 2 << (first & 1)))]
    it = value(0)
    demand(not stream.read(), "something follows its end")
    return it

def leb128(raw: bytes) -> list[int]:
    """The numbers of a list of pages, each in its shortest form [11]."""
    groups = re.findall(rb"[\x80-\xff]*[\0-\x7f]", raw)
    demand(b"".join(groups) == raw and all(it[-1] or len(it) == 1 for it in groups), "numbers not in shortest form")
    return [sum((byte & 0x7F) << 7 * place for place, byte in enumerate(it)) for it in groups]

def fields(line: bytes, keys: str) -> Any:
    """A line of JSON: an object with exactly these keys, which become attributes."""
    it = json.loads(line, object_pairs_hook=lambda pairs: dict(pairs) if len(dict(pairs)) == len(pairs) else None)
    demand(type(it) is dict and sorted(it) == sorted(keys.split()), "an object with other keys than it should have")
    return SimpleNamespace(**it)

def verify(key: str, signature: bytes, text: bytes) -> None:
    """Ed25519."""
    ed25519.Ed25519PublicKey.from_public_bytes(unhex(key)).verify(signature, P + text)

def verify_text(raw: bytes, kind: str, vault: str, key: str, lines: int = 1) -> None:
    """Checks the signature of a signed text [4]."""
    *body, last, end = raw.split(b"\n")
    text = b"".join(line + b"\n" for line in body)
    word, key_id, signature = last.decode().split(" ")
    right = (lines, b"", "sig", sha(unhex(key))[:16].hex())
    demand((len(body), end, word, key_id) == right, "it is not signed by the one who should have")
    verify(key, unb64(signature + "=="), f"sig/{kind}\0".encode() + unhex(vault) + u32(len(text)) + text)

class Directory:
    """A vault in a folder [15]: an object is a file under its name; a pack may be one folder deeper."""
    def __init__(self, root: str) -> None: self.root, _ = root, os.listdir(root)  # an OSError where no folder is

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of an object, fewer at its end; a negative offset is from the end. An OSError if there is none."""
        above, last = os.path.split(os.path.join(self.root, name))
        path = f"{above}/{last[:2]}/{last}" if os.path.isdir(f"{above}/{last[:2]}") else f"{above}/{last}"
        if os.path.lexists(f"{above}/.{last}.icloud"): raise FileNotFoundError("it is in iCloud: have it fetched first")
        with open(path, "rb") as file:
            file.seek(offset, os.SEEK_SET if offset >= 0 else os.SEEK_END)
            return file.read(length)

    def names(self, folder: str) -> list[str]:
        """What stands directly below this, in order."""
        path = os.path.join(self.root, folder)
        return sorted(name for name in os.listdir(path) if name[0] != ".") if os.path.isdir(path) else []

def recovery_key(text: str) -> bytes:
    """The secret of a recovery key as it was written down; a slip is told by its line [5]."""
    digits = re.sub(r"[\s-]", "", text)
    if not re.fullmatch("[0-9]{64}", digits): raise NoKey("a recovery key has 64 digits, in 8 lines of 8")
    rows = re.findall("." * 8, digits)
    for line, row in enumerate(rows, 1):
        check = 0
        for digit in f"{line}{row}": check = int(DAMM.split()[check][int(digit)])
        if check: raise NoKey(f"line {line} of the recovery key has a slip")
    return "".join(row[:7] for row in rows).encode()

def stretch(passphrase: bytes, m: int, t: int, p: int, salt: str) -> bytes:
    """Argon2id, within the bounds of a reader [5]."""
    demand(64 * KIB <= m <= MIB and 1 <= t <= 10 and 1 <= p <= 8 and m * t <= 4 * MIB, "it asks for too much work")
    text = unicodedata.normalize("NFKC", passphrase.decode()).encode()
    return Argon2id(salt=unb64(salt + "=="), length=32, iterations=t, lanes=p, memory_cost=m).derive(text)

def hybrid(seed: bytes) -> Any:
    """A key pair from its seed [2]: `public`, its `id`, and `open`, which opens what was sealed to it."""
    raw = hashlib.shake_256(seed).digest(96)
    first = mlkem.MLKEM768PrivateKey.from_seed_bytes(raw[:64])
    second = x25519.X25519PrivateKey.from_private_bytes(raw[64:])
    public = first.public_key().public_bytes_raw() + second.public_key().public_bytes_raw()
    private = hpke.MLKEM768X25519PrivateKey(first, second)
    suite = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    return SimpleNamespace(public=public, id=sha(public)[:16], open=lambda x, info: suite.decrypt(x, private, P + info))

class Vault:
    """An unlocked vault. `storage` has the verbs of `Directory`; `note` hears of damage. Ids and hashes are hex."""

    def __init__(self, storage: Any, kind: str, secret: bytes, note: Callable[[str], None]) -> None:
        self.storage, self.note, self.packs = storage, note, dict[str, Any]()
        for name in storage.names("slots"):
            with self.noting(f"slots/{name}"):
                if self._unlock(storage.get(f"slots/{name}", 0, 64 * KIB), kind, secret): return
        raise NoKey("this opens no slot of a vault here")

    @contextlib.contextmanager
    def noting(self, what: str) -> Iterator[None]:
        """Damage found in here is noted, and the work goes on after it."""
        try:
            yield
        except Exception as problem:  # whatever hostile bytes make the code raise
            known = {InvalidTag: "it does not decrypt", InvalidSignature: "its signature is wrong"}
            self.note(f"{what}: {known.get(type(problem)) or problem}")

    def named(self, name: str, limit: int = 64 * MIB) -> bytes:
        """A whole object whose name carries its hash [1]."""
        raw: bytes = self.storage.get(name, 0, limit + 1)
        demand(len(raw) <= limit and name.endswith(f"-{sha(raw).hex()}"), "it is not what its name says")
        return raw

    def _unlock(self, raw: bytes, kind: str, secret: bytes) -> bool:
        """Opens a slot with its secret, and with the slot all epochs [5, 7]."""
        first, second, *_ = raw.split(b"\n")
        slot = fields(first, "v vault slot epoch pin kind pub salt params sealed")
        lock = fields(second, "commit wrapped env")
        if slot.kind != kind: return False
        self.vault, self.id, self.epochs = slot.vault, unhex(slot.vault), list[Any]()
        secret = stretch(secret, **slot.params) if kind == "passphrase" else secret
        keys = hkdf(secret, f"kek/{kind}\0".encode() + self.id + unhex(slot.slot), 64, unb64(slot.salt + "=="))
        if keys[32:] != unhex(lock.commit): return False
        seed = AESGCM(keys[:32]).decrypt(ONCE, unb64(lock.wrapped + "=="), P + b"slot\0" + first + b"\n")
        pair = hybrid(hkdf(seed, b"slot-kem\0"))
        for name in self.storage.names("epochs"):
            with self.noting(f"epochs/{name}"): self.epochs.append(self._epoch(name))
        newest, issued = self.epochs[-1], self.epochs[slot.epoch - 1]
        demand((pair.public, slot.pin) == (unb64(slot.pub + "=="), issued.sign), "it is not of this vault")
        verify_text(raw, "slot", self.vault, slot.pin, 2)
        if issued is not newest:  # a slot that stays is listed, with an envelope of its own
            demand(slot.slot in newest.slots, "it was removed from the vault")
            lock = SimpleNamespace(**newest.slots[slot.slot])
            demand(lock.file == sha(raw).hex(), "it is not the slot that stays")
        root = pair.open(unb64(lock.env + "=="), b"slot-env\0" + self.id + u32(newest.epoch) + unhex(slot.slot))
        for epoch in reversed(self.epochs):
            epoch.key = hybrid(hkdf(root, b"open\0"))
            for label, listed in ((b"sign\0", epoch.sign), (b"checkpoint\0", epoch.checkpoint)):
                pair = ed25519.Ed25519PrivateKey.from_private_bytes(hkdf(root, label))
                demand(pair.public_key().public_bytes_raw().hex() == listed, "its keys are not those of the epoch")
            demand(epoch.key.public == unb64(epoch.hpke + "=="), "its keys are not those of the epoch")
            if epoch.older:
                bound = P + b"older\0" + self.id + u32(epoch.epoch)
                root = AESGCM(hkdf(root, b"older\0")).decrypt(ONCE, unb64(epoch.older + "=="), bound)
        self.devices = list(self._devices())
        for it in newest.entries.keys() - {it.device for it in self.devices}: self.note(f"devices/{it}.json is missing")
        return True

    def _epoch(self, name: str) -> Any:
        """The epoch record that follows those in `epochs` [4]; a second one that fits is noted."""
        before, n = self.epochs[-1] if self.epochs else None, len(self.epochs) + 1
        raw = self.named(f"epochs/{name}", 256 * KIB)
        it = fields(raw.split(b"\n")[0], "v vault epoch hpke sign checkpoint prev older slots devices removed")
        right = (1, self.vault, n, before and before.sha, bool(before))
        demand((it.v, it.vault, it.epoch, it.prev, bool(it.older)) == right, f"it is not epoch {n} of this vault")
        demand(n > 1 or sha(P + b"vault\0" + unhex(it.sign))[:16] == self.id, "it did not found this vault")
        verify_text(raw, "epoch", self.vault, before.sign if before else it.sign)
        it.sha, it.entries = sha(raw).hex(), it.devices | it.removed
        return it

    def _devices(self) -> Iterator[Any]:
        """The devices that count, with what the newest epoch and their newest checkpoint say of them [6]."""
        newest = self.epochs[-1]
        for name in self.storage.names("devices"):
            with self.noting(f"devices/{name}"):
                raw = self.storage.get(f"devices/{name}", 0, 64 * KIB)
                it = fields(raw.split(b"\n")[0], "v vault device epoch key role")
                demand((it.v, it.vault, f"{it.device}.json") == (1, self.vault, name), "it is of another vault")
                verify_text(raw, "device", self.vault, self.epochs[it.epoch - 1].sign)
                entry = newest.entries.get(it.device)
                demand(entry["cert"] == sha(raw).hex() if entry else it.epoch == newest.epoch, "it does not count")
                it.removed, it.heads = it.device in newest.removed, entry["heads"] if entry else {}
                it.streams, last, forked = dict[str, Any](), "", False
                listed = ["{:012d}-{}".format(*entry["checkpoint"])] if entry and entry["checkpoint"] else []
                for point in sorted({*self.storage.names(f"d/{it.device}/c"), *listed}):  # the newest comes last
                    with self.noting(f"d/{it.device}/c/{point}"):
                        it.streams, forked, last = self._checkpoint(it, point), last == point[:12], point[:12]
                        demand(not forked, "there is another one of this number: a fork")
                if forked or last < max(listed, default="")[:12]: it.streams = {}  # then whatever verifies is shown
                yield it

    def _checkpoint(self, device: Any, name: str) -> dict[str, Any]:
        """What it says of each stream: through, the hash of that manifest, and what is kept, seq to hash [14]."""
        raw = self.named(f"d/{device.device}/c/{name}")
        at = io.BytesIO(raw[:-64])
        magic, vault, n, key, its, k, _, _, count = struct.unpack(">8s16sI16s16sQ32sQI", take(at, 112))
        epoch = self.epochs[n - 1]
        right = (b"CKCHKP\0\1", self.id, sha(unhex(epoch.checkpoint))[:16], device.device, f"{k:012d}")
        demand((magic, vault, key, its.hex(), name[:12]) == right, "its header is not that of its name")
        verify(epoch.checkpoint, raw[-64:], b"sig/checkpoint\0" + sha(raw[:-64]))
        streams = {}
        for _ in range(count):
            stream, through, head = struct.unpack(">16sQ32s", take(at, 56))
            kept = {seq: digest.hex() for seq, digest in struct.iter_unpack(">Q32s", take(at, 40 * number(at)))}
            streams[stream.hex()] = through, head.hex(), kept
        _, _, rest = take(at, 56 * number(at)), take(at, 32 * number(at)), at.read()  # what is condemned
        demand(rest == bytes(4), "it does not end where it should")
        if device.removed or n < len(self.epochs):  # only what a record names counts: keys get stolen
            entry = self.epochs[-1 if device.removed else n].entries.get(device.device, {})
            last, digest = entry.get("checkpoint") or (0, "")
            demand(k < last or (k, sha(raw).hex()) == (last, digest), "it is of an older epoch and does not count")
        return streams

    def snapshots(self) -> Iterator[Any]:
        """Every snapshot of every device that counts; within a stream newest first."""
        for it in self.devices:
            names = [] if it.removed else [*self.storage.names(f"d/{it.device}/s"), *it.streams]
            for stream in sorted({*names, *it.heads}): yield from self._chain(it, stream)

    def _chain(self, device: Any, stream: str) -> Iterator[Any]:
        """The snapshots of a stream, newest first; what is missing or forked is noted [13]."""
        where = f"d/{device.device}/s/{stream}"
        through, head, kept = device.streams.get(stream, (0, NONE, {}))
        names = [] if device.removed else [name.split("-") for name in self.storage.names(where)]
        names += [device.heads[stream]] if stream in device.heads else []  # all that counts of a removed device
        listed: dict[int, set[str]] = {}
        for text, digest in names: listed.setdefault(int(text), set()).add(digest)
        seq, wanted = max(listed, default=0), ""
        while seq > through:
            found = {}
            for digest in sorted(listed.get(seq, set()) | ({wanted} if wanted else set())):
                with self.noting(f"{where}/{seq:012d}-{digest}"):
                    found[digest] = self._manifest(device, f"{where}/{seq:012d}-{digest}")
            if len(found) > 1: self.note(f"{where}: two snapshots {seq}: a fork")
            one = found.get(wanted) if wanted else next(iter(found.values()), None)
            if one: yield one
            wanted = one.prev if one else ""
            seq = seq - 1 if one else max((each for each in listed if each < seq), default=0)
        if wanted not in ("", head): self.note(f"{where}: snapshot {through + 1} does not follow the checkpoint's")
        for seq in sorted((it for it in kept if not device.removed or it <= device.heads[stream][0]), reverse=True):
            with self.noting(f"{where}/{seq:012d}-{kept[seq]}"):
                yield self._manifest(device, f"{where}/{seq:012d}-{kept[seq]}")

    def _unseal(self, n: int, capsule: bytes, label: bytes, info: bytes, commit: bytes) -> tuple[AESGCM, bytes]:
        """The key of a pack or manifest, and what follows it in its capsule [10, 13]."""
        opened = self.epochs[n - 1].key.open(capsule, label + info)
        keys = hkdf(opened[:32], label + self.id + u32(n), 64)
        demand(keys[32:] == commit, "its key is not the committed one")
        return AESGCM(keys[:32]), opened[32:]

    def _manifest(self, device: Any, name: str) -> Any:
        """A manifest that verifies, opened [13]."""
        raw = self.named(name)
        verify(device.key, raw[-64:], b"sig/manifest\0" + sha(raw[:-64]))
        magic, vault, n, key, its, stream, seq, prev, zero = struct.unpack(">8s16sI16s16s16sQ32s16s", raw[:132])
        right = (b"CKSNAP\0\1", self.id, self.epochs[n - 1].key.id, name[:-65], bytes(16))
        demand((magic, vault, key, f"d/{its.hex()}/s/{stream.hex()}/{seq:012d}", zero) == right, "it is not its name's")
        cipher, rest = self._unseal(n, raw[132:1300], b"manifest\0", raw[:132], raw[1300:1332])
        body = io.BytesIO(cipher.decrypt(ONCE, raw[1332:-64], raw[:132]))
        v, made, _, source, _, _, id_key, epoch, flags, stack, _, _, _, _, _, totals = unpack(take(body, number(body)))
        demand((v, rest, any(body.read())) == (1, b"", False), "it does not end where it should")
        demand(epoch.hex() == self.epochs[n - 1].sha, "it is pinned to another epoch")
        it = SimpleNamespace(device=device.device, stream=stream.hex(), seq=seq, prev=prev.hex(), time=made)
        it.source, it.complete, it.id_key, it.stack, it.totals = source, flags & 1, id_key, stack, totals
        return it

    def blob(self, snapshot: Any, kind: str, pack: bytes, slot: int, digest: bytes) -> bytes:
        """The plaintext of a blob that a snapshot refers to [9, 10]."""
        name = f"d/{snapshot.device}/p/{pack.hex()}"
        if name not in self.packs: self.packs[name] = self._pack(snapshot.device, name)
        record, entries = self.packs[name]
        _, at, length, size, _ = entries[slot]
        raw: bytes = record(slot, BLOBS.index(kind), self.storage.get(name, at, length))
        if raw[0] == 1:
            demand(zstandard.frame_content_size(raw[1:]) == size, "a frame of another length")
            raw = b"\0" + zstandard.ZstdDecompressor().decompress(raw[1:], allow_extra_data=False)
        key = blake3.blake3(snapshot.id_key, derive_key_context=f"chatkeep v1 id {kind}").digest()
        right = (raw[0], len(raw), blake3.blake3(raw[1:], key=key).digest()) == (0, size + 1, digest)
        demand(right, f"a blob of {name} is not the one that was stored")
        return raw[1:]

    def _pack(self, device: str, name: str) -> tuple[Any, Any]:
        """A pack, opened from its end: what decrypts its records, and its directory [10]."""
        footer = self.storage.get(name, -1276)
        capsule, public, commit, mark = footer[:1184], footer[1184:1236], footer[1236:1268], footer[1268:]
        its, n, key, writer = struct.unpack(">16sI16s16s", public)
        right = (b"CKPEND\0\1", self.id, self.epochs[n - 1].key.id, device)
        demand((mark, its, key, writer.hex()) == right, f"{name} is of another vault, epoch or device")
        cipher, rest = self._unseal(n, capsule, b"pack\0", public, commit)
        start, length, count = struct.unpack(">QII", rest)
        def record(index: int, kind: int, raw: bytes) -> bytes:
            bound = b"CKPACK\0\1" + self.id + u32(n) + u32(index) + bytes([kind])
            return cipher.decrypt(index.to_bytes(12), raw, bound)
        entries = list(struct.iter_unpack(">BIII32s", record(count + 1, 0xFF, self.storage.get(name, start, length))))
        ends = list(itertools.accumulate((size for _, _, size, _, _ in entries), initial=8))
        tiled = [at for _, at, _, _, _ in entries] == ends[:-1] and ends[-1] <= start and len(entries) == count
        demand(tiled and max((it[3] for it in entries), default=0) <= MIB, f"the records of {name} do not tile it")
        return record, entries

class Tree:
    """What a stack of layers says of every path and file [11]."""

    def __init__(self, vault: Any, snapshot: Any) -> None:
        self.paths, self.files, self.contents = dict[bytes, Any](), dict[int, Any](), dict[int, Any]()
        self.sections, closed = dict[int, Any](), set[int]()
        for _, _, _, parts in snapshot.stack:
            contents: dict[int, list[Any]] = {}
            for home, slot, digest in parts:
                v, packs, paths, files, pieces, sections = unpack(vault.blob(snapshot, "layer", home, slot, digest))
                demand(v == 1 and len(packs) % 32 == 0, "a layer of another version")
                packs = {HOLE: None, 0: home} | {at // 32 + 1: packs[at : at + 32] for at in range(0, len(packs), 32)}
                for path, file_id in paths:
                    demand(not path or not {b"", b".", b".."} & set(path.split(b"/")), f"{path!r} leads elsewhere")
                    self.paths.setdefault(path, file_id)
                for file in files:
                    self.files.setdefault(file[0], SimpleNamespace(**dict(zip(FILE_FIELDS.split(), file, strict=True))))
                for file_id, size, offset, extents in pieces:
                    found = [(n, packs[at], *it) for n, at, *it in struct.iter_unpack(">QII32s", extents)]
                    contents.setdefault(file_id, []).append((offset, size, found))
                for file_id, flags, page_size, count, _, runs in sections:
                    found = [(leb128(pages), packs[at], *it) for pages, at, *it in runs]
                    if file_id not in closed: self.sections.setdefault(file_id, []).append((page_size, count, found))
                    closed |= {file_id} if flags & 1 else set()
            for file_id, pieces in contents.items(): self.contents.setdefault(file_id, sorted(pieces))

    def pieces(self, file: Any) -> Iterator[tuple[str, list[Any], int, list[tuple[int, int, int]]]]:
        """Blobs: kind, reference, length, and what of each (from, to, length) goes where. What none covers is zero."""
        if file.kind == DATABASE: return (yield from self._pages(file))
        end, whole = 0, self.contents[file.id][0][1]
        for offset, size, extents in self.contents[file.id]:
            demand((offset, size) == (end, whole), "its contents do not lie end to end")
            for length, pack, *it in extents:
                if pack is not None: yield "chunk", [pack, *it], length, [(0, end, length)]
                end += length
        demand(end == whole, "its contents are not its size")

    def _pages(self, file: Any) -> Iterator[tuple[str, list[Any], int, list[tuple[int, int, int]]]]:
        (page_size, count, _), *_ = sections = self.sections[file.id]
        demand(512 <= page_size <= 65536 and 0 <= count < 1 << 32, "a database of impossible size")
        limit, absent = count, bytearray(b"\1") * (count + 1)
        for its_size, its_count, runs in sections:  # newest first: a page that was found is not taken again
            demand(its_size == page_size, "its pages change their size")
            limit = min(limit, its_count)  # what was cut off once does not come back from before
            for pages, *reference in runs:
                end, index, copies = 1, 0, []
                for gap, length in zip(pages[::2], pages[1::2], strict=True):
                    demand(length > 0 and (gap > 0 or end == 1), "its pages are out of order")
                    start, end = end + gap, end + gap + length
                    fresh = [page for page in range(start, min(end, limit + 1)) if absent[page]]
                    copies += [((index + it - start) * page_size, (it - 1) * page_size, page_size) for it in fresh]
                    for page in fresh: absent[page] = 0
                    index += length
                if copies: yield "pages", reference, index * page_size, copies
        lock = (1 << 30) // page_size + 1  # SQLite never writes this page
        demand(not any(absent[1:lock]) and not any(absent[lock + 1 :]), "some of its pages are missing")

def restore(vault: Vault, snapshot: Any, target: str) -> None:
    """Restores into a new or empty folder."""
    os.makedirs(target, 0o700, exist_ok=True)
    if os.listdir(target): raise FileExistsError(f"{target} is not empty")
    tree, made, top = Tree(vault, snapshot), dict[int, bytes](), os.open(target, os.O_DIRECTORY)
    paths = sorted((path, file_id) for path, file_id in tree.paths.items() if file_id is not None)
    for kinds in ({FOLDER}, {FILE, DATABASE}, {LINK}):  # links last: nothing is ever written through one
        for path, file_id in paths:
            with vault.noting(os.fsdecode(path) or target):
                file, above = tree.files[file_id], tree.paths.get(os.path.dirname(path))
                if file.kind not in kinds: continue
                demand(tree.files[above or 0].kind == FOLDER, "it lies in what is no folder")
                if file.flags & 1 and file_id not in (tree.sections if file.kind == DATABASE else tree.contents):
                    print(f"not in the vault yet: {os.fsdecode(path)}")
                elif file_id in made and file.kind in (FILE, DATABASE):
                    os.link(made[file_id], path, src_dir_fd=top, dst_dir_fd=top)
                elif path: make(vault, snapshot, tree, top, path, file)
                made.setdefault(file_id, path)
    for path, file_id in reversed(paths):  # folders last, and from below: what is made in one changes its time
        with vault.noting(os.fsdecode(path) or target):
            if file_id in made and tree.files[file_id].kind == FOLDER:
                dress(os.open(path or b".", os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top), tree.files[file_id])
    os.close(top)

def make(vault: Vault, snapshot: Any, tree: Tree, top: int, path: bytes, file: Any) -> None:
    """Makes a file, folder or link that was not there; a file only if it is whole."""
    if file.kind == FOLDER: return os.mkdir(path, 0o700, dir_fd=top)
    if file.kind == LINK:
        os.symlink(file.target, path, dir_fd=top)
        return os.utime(path, ns=(file.mtime, file.mtime), dir_fd=top, follow_symlinks=False)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=top)
    try:
        for kind, reference, length, copies in tree.pieces(file):
            raw = vault.blob(snapshot, kind, *reference)
            demand(len(raw) == length, "a blob of another length")
            for start, to, size in copies:
                demand(os.pwrite(descriptor, raw[start : start + size], to) == size, "there is no room for it")
        first, second, _ = (tree.sections if file.kind == DATABASE else tree.contents)[file.id][0]
        os.ftruncate(descriptor, first * second if file.kind == DATABASE else second)
    except BaseException:
        os.close(descriptor)
        os.unlink(path, dir_fd=top)
        raise
    dress(descriptor, file)

def dress(descriptor: int, file: Any) -> None:
    """Gives a file or folder its attributes, and closes it."""
    with contextlib.suppress(OSError):  # not every file system has them; others than `user.` could grant rights
        for name, value in file.xattrs: os.setxattr(descriptor, name, value) if name.startswith(b"user.") else None
    os.fchmod(descriptor, file.mode & 0o777)
    os.utime(descriptor, ns=(file.mtime, file.mtime))
    os.close(descriptor)

def main(words: list[str] | None = None) -> int:
    """The command line, as the top of this file tells it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for it in ("vault", "--key-file", "--passphrase-file", "--device", "--source", "--stream"): parser.add_argument(it)
    parser.add_argument("target", nargs="?")
    parser.add_argument("--list", dest="target", action="store_const")
    parser.add_argument("--snapshot", type=int)
    options, notes = parser.parse_args(words), list[str]()
    def note(text: str) -> None:
        notes.append(text)
        print(f"! {text}", file=sys.stderr)
    try:
        path = options.key_file or options.passphrase_file
        text = Path(path).read_text("utf-8") if path else getpass.getpass("recovery key or passphrase: ")
        digits = options.key_file or (not path and re.fullmatch(r"\s*(\d[\s-]*){64}", text))
        secret = recovery_key(text) if digits else text.removesuffix("\n").encode()
        vault = Vault(Directory(options.vault), "recovery-64" if digits else "passphrase", secret, note)
        found = [it for it in vault.snapshots() if options.snapshot in (None, it.seq)]
        for kind in ("device", "source", "stream"):
            found = [it for it in found if vars(it)[kind].startswith(vars(options)[kind] or "")]
        if not options.target:
            for it in found:
                when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(it.time // 10**9))
                print(f"{it.seq:6}  {when}  {it.source}  {it.totals[0]} files, {it.totals[1]} bytes", end="  ")
                print(f"{'' if it.complete else 'not complete  '}device {it.device}  stream {it.stream}")
        elif len({(it.device, it.source) for it in found}) != 1 or (options.snapshot and len(found) > 1):
            parser.error("choose by --device, --source, --stream: see --list" if found else "there is no such snapshot")
        else:
            newest = max(found, key=lambda it: (it.time, it.seq))
            restore(vault, newest, options.target)
            print(f"snapshot {newest.seq} of {newest.source} is restored into {options.target}")
    except (Exception, KeyboardInterrupt) as problem:
        print(f"! {str(problem) or 'stopped'}", file=sys.stderr)
        codes = {NoKey: 3, EOFError: 3, OSError: 4, KeyboardInterrupt: 6}
        return next((code for kind, code in codes.items() if isinstance(problem, kind)), 5)
    return 5 if notes else 0
if __name__ == "__main__": sys.exit(main())
