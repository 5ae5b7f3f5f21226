"""Manifests, and the chains in which they stand [13]."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from chatkeep.daemon.cli.standalone.checkpoints import Lives, listed, settled
from chatkeep.daemon.cli.standalone.keys import ONCE, sha, verify
from chatkeep.daemon.cli.standalone.storage import Notes
from chatkeep.daemon.cli.standalone.strict import Bytes, array, demand, integer, octets, unpack, words
from chatkeep.daemon.cli.standalone.vault import MAX_SEQ, Device, Vault

MAX_PACK = 64 << 20
MAX_BLOBS = 65535  # in a pack
NOTHING_BEFORE = bytes(32)


@dataclass
class Snapshot:
    """A manifest that verified, opened. `stack`: (level, first seq, last seq, parts), newest first."""

    device: str
    stream: str
    seq: int
    sha: str
    prev: str
    time: int
    source: str
    id_key: bytes
    complete: bool
    stack: list[tuple[int, int, int, list[tuple[bytes, int, bytes]]]]
    databases: int
    set_digest: bytes
    totals: list[int]


def snapshots(vault: Vault) -> Iterator[Snapshot]:
    """Every snapshot of every device that counts; within a stream newest first. What is wrong is noted."""
    for device in vault.devices:
        lives = settled(vault, device, vault.notes)
        streams = set(device.entry.heads if device.entry else {})
        if not device.removed:  # of one that was removed only what its entry names counts
            streams |= {*vault.storage.names(f"d/{device.device}/s"), *lives}
        for stream in sorted(streams):
            if len(stream) == 32 and set(stream) <= set("0123456789abcdef"):
                yield from Chain(vault, device, stream, lives.get(stream, Lives())).walk()


def pruned_since(vault: Vault, snapshot: Snapshot) -> bool:
    """Whether a checkpoint that came meanwhile lets a snapshot go: then what it lacks is no damage."""
    for device in vault.devices:
        if device.device == snapshot.device:
            lives = settled(vault, device, Notes(lambda _: None)).get(snapshot.stream, Lives())
            return snapshot.seq <= lives.through and snapshot.sha not in lives.kept.get(snapshot.seq, ())
    return False


class Chain:
    """One stream. Each manifest names the one before it; where pruning thinned the chain, the checkpoint names all."""

    def __init__(self, vault: Vault, device: Device, stream: str, lives: Lives) -> None:
        self.vault, self.device, self.stream, self.lives = vault, device, stream, lives
        self.where = f"d/{device.device}/s/{stream}"
        self.head = device.entry.heads.get(stream) if device.entry else None
        self.listed = {} if device.removed else listed(vault, self.where)
        self.asked_again = False

    def walk(self) -> Iterator[Snapshot]:
        """The snapshots that live, newest first."""
        last = MAX_SEQ + 1
        for snapshot in self._linked():
            last = snapshot.seq
            yield snapshot
        # What was settled: exactly what the checkpoint keeps, by its name.
        for seq in sorted((seq for seq in self._kept() if seq <= self.lives.through and seq < last), reverse=True):
            yield from self._read(seq, self._kept().get(seq, set())).values()

    def _linked(self) -> Iterator[Snapshot]:
        """Above what is settled: every number, each linked to the one before. Below a gap: what is there."""
        link, gap = "", 0  # the hash that the snapshot after this one names; the highest number of an open gap
        seq = self._next(MAX_SEQ + 1)
        while seq > self.lives.through:
            wanted = self._named(seq) | ({link} if link else set())
            found = self._read(seq, wanted)
            if found:
                self._tell_gap(seq + 1, gap)
                one = found.get(link) or next(iter(found.values()))
                yield one
                link, gap, seq = one.prev, 0, seq - 1
            else:
                gap = gap or (seq if wanted else 0)
                link, seq = "", self._next(seq)
        self._tell_gap(self.lives.through + 1, gap)
        if link and 0 < seq == self.lives.through and link not in self.lives.heads:
            self.vault.notes.add(f"{self.where}: snapshot {seq + 1} does not follow the checkpoint's: a fork")

    def _read(self, seq: int, wanted: set[str]) -> dict[str, Snapshot]:
        """The snapshots of this number that verify, by hash, those that are wanted by name first; a rival is told."""
        rivals = self.listed.get(seq, set()) - wanted if seq > self.lives.through else set()
        found: dict[str, Snapshot] = {}
        for digest in (*sorted(wanted), *sorted(rivals)):
            name = f"{self.where}/{seq:012d}-{digest}"
            with self.vault.notes.noting(name):
                try:
                    found[digest] = read_manifest(self.vault, self.device, name)
                except FileNotFoundError:
                    # A listing that shows what was deleted since is none.
                    if digest in wanted and not self._pruned_since(seq, digest):
                        raise
        if seq <= self.lives.through:
            wanted = self._kept().get(seq, set())
            found = {digest: one for digest, one in found.items() if digest in wanted}
        if len(found.keys() | wanted) > 1:
            self.vault.notes.add(f"{self.where}: two snapshots {seq}: a fork")
        return found

    def _pruned_since(self, seq: int, digest: str) -> bool:
        """Whether this one need not be there any more. The checkpoint is asked for once more before that is denied."""
        if not self.asked_again:
            self.asked_again = True
            fresh = settled(self.vault, self.device, Notes(lambda _: None)).get(self.stream, Lives())
            if fresh.through >= self.lives.through:
                self.lives = fresh
        return seq <= self.lives.through and digest not in self._kept().get(seq, set())

    def _kept(self) -> dict[int, set[str]]:
        """What the checkpoint names; of a removed device nothing above its head."""
        if not self.device.removed:
            return self.lives.kept
        most = self.head[0] if self.head else 0
        return {seq: digests for seq, digests in self.lives.kept.items() if seq <= most}

    def _named(self, seq: int) -> set[str]:
        """The hashes of a number above `through` that the epoch record or a checkpoint names."""
        return set(self._kept().get(seq, set())) | ({self.head[1]} if self.head and self.head[0] == seq else set())

    def _next(self, seq: int) -> int:
        """The highest number below this one that is listed or named; 0 for none."""
        named = {*self.listed, *self._kept(), self.head[0] if self.head else 0}
        return max((each for each in named if self.lives.through < each < seq), default=0)

    def _tell_gap(self, first: int, last: int) -> None:
        first = max(first, self.lives.through + 1)
        if 0 < first < last:  # of one alone its name was told
            self.vault.notes.add(f"{self.where}: missing or damaged: snapshots {first} to {last}")


def read_manifest(vault: Vault, device: Device, name: str) -> Snapshot:
    """A manifest that this device signed, opened, every bound checked."""
    raw = vault.named(name)
    demand(len(raw) % 8192 == 0 and len(raw) > 1332 + 16 + 64, "a manifest of another length than any")
    verify(device.key, raw[-64:], b"sig/manifest\0", sha(raw[:-64]))
    header, capsule, commit, sealed = raw[:132], raw[132:1300], raw[1300:1332], raw[1332:-64]
    magic, its, n, key, its_device, stream, seq, prev, zero = Bytes(header).fields(">8s16sI16s16s16sQ32s16s")
    where = f"d/{its_device.hex()}/s/{stream.hex()}/{seq:012d}"
    right = (b"CKSNAP\0\1", vault.id, device.device, name[:-65], bytes(16))
    demand((magic, its, its_device.hex(), where, zero) == right, "its header is not that of its name")
    demand(1 <= seq <= MAX_SEQ, "a number that cannot be")
    demand((seq == 1) == (prev == NOTHING_BEFORE), "only the first snapshot has none before it")
    opened = vault.open_capsule(n, key, capsule, b"manifest\0", header)
    plain = Bytes(vault.record_key(n, octets(opened, 32), b"manifest\0", commit).decrypt(ONCE, sealed, header))
    body = plain.take(plain.number())
    demand(not any(plain.raw[plain.at :]), "its padding is not zero")
    pinned, fields = parse_body(unpack(body), seq)
    demand(pinned == vault.epochs[n - 1].sha, "it is pinned to another epoch than it is sealed to")
    return Snapshot(device=device.device, stream=stream.hex(), seq=seq, sha=name[-64:], prev=prev.hex(), **fields)


def parse_body(value: Any, seq: int) -> tuple[str, dict[str, Any]]:
    """The hash of the pinned epoch record, and the rest of what a manifest says, as fields of a `Snapshot`."""
    fields = array(value, 16)
    version, time, clock, source, path, host, id_key, pinned, flags = fields[:9]
    stack, packs, databases, pending, busy, set_digest, totals = fields[9:]
    demand(version == 1, "a manifest of another version")
    demand(integer(clock) <= integer(time), "a time before its clock")
    integer(flags, 0, 3)
    demand(not (flags & 1 and integer(pending)), "complete, and yet something is pending")
    words(source), words(host), octets(path, most=4096), integer(pending), integer(busy)
    hashes = [parse_new_pack(pack) for pack in array(packs, most=16384)]
    demand(len(set(hashes)) == len(hashes), "a pack that is introduced twice")
    return octets(pinned, 32).hex(), {
        "time": time,
        "source": source,
        "id_key": octets(id_key, 32),
        "complete": bool(flags & 1),
        "stack": parse_stack(stack, seq),
        "databases": integer(databases),
        "set_digest": octets(set_digest, 32),
        "totals": [integer(total) for total in array(totals, 5)],
    }


def parse_new_pack(value: Any) -> bytes:
    """A pack that a snapshot introduces: its hash. The size is for those who count."""
    digest, size = array(value, 2)
    integer(size, 1, MAX_PACK)
    return octets(digest, 32)


def parse_stack(value: Any, seq: int) -> list[tuple[int, int, int, list[tuple[bytes, int, bytes]]]]:
    """The layers of a snapshot, newest first: level, first and last seq, references of the parts."""
    stack, newest = [], seq
    seen: set[tuple[bytes, int, bytes]] = set()
    for layer in array(value, most=1024):
        level, first, last, parts = array(layer, 4)
        demand(integer(first, 1) <= integer(last, 1) <= newest, "layers that are out of order")
        newest = last
        rows = [parse_reference(part) for part in array(parts, most=65536)]
        demand(bool(rows), "a layer of no parts")
        stack.append((integer(level, 0, 3), first, last, rows))
        # One part that is named a million times would be read a million times.
        demand(not seen & set(rows) and len(set(rows)) == len(rows), "a part that is named twice")
        seen |= set(rows)
    return stack


def parse_reference(value: Any) -> tuple[bytes, int, bytes]:
    """Where a blob is: hash of the pack, place in it, id [9]."""
    pack, slot, blob_id = array(value, 3)
    return octets(pack, 32), integer(slot, 0, MAX_BLOBS - 1), octets(blob_id, 32)
