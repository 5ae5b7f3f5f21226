"""Which snapshots of a device live: its newest checkpoint [14]."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from typing import Any

from chatkeep.daemon.cli.standalone.keys import key_id, sha, verify
from chatkeep.daemon.cli.standalone.storage import Notes
from chatkeep.daemon.cli.standalone.strict import MOST, Bytes, demand
from chatkeep.daemon.cli.standalone.vault import MAX_SEQ, Device, Entry, Vault

OBJECT_NAME = "([0-9]{12})-([0-9a-f]{64})"  # of manifests and checkpoints: number and hash


@dataclass
class Kept:
    """What a checkpoint says of a stream: up to `through` what is in `kept` lives, number to hash; above it all."""

    through: int
    head: str
    kept: dict[int, str]


@dataclass
class Checkpoint:
    """A verified checkpoint. Whether it counts is the epoch records' to say."""

    number: int
    sha: str
    epoch: int
    streams: dict[str, Kept]


@dataclass
class Lives:
    """What must be there of a stream: as `Kept`, of a checkpoint and its rivals together."""

    through: int = 0
    heads: set[str] = field(default_factory=set)
    kept: dict[int, set[str]] = field(default_factory=dict)


def listed(vault: Vault, folder: str) -> dict[int, set[str]]:
    """Number to hashes, as storage lists them in a folder. What is named otherwise is no object."""
    found: dict[int, set[str]] = {}
    for name in vault.storage.names(folder):
        match = re.fullmatch(OBJECT_NAME, name)
        if match and int(match[1]):
            found.setdefault(int(match[1]), set()).add(match[2])
    return found


def settled(vault: Vault, device: Device, notes: Notes) -> dict[str, Lives]:
    """What the device's newest checkpoint that counts says of each stream; nothing without one.

    The one that the newest epoch record lists must be there, whatever storage lists. What older one takes its place
    keeps what it keeps and lets nothing go: its epoch is over, and whoever got hold of its keys makes any.
    """
    folder = f"d/{device.device}/c"
    numbers = listed(vault, folder)
    wanted = device.entry.checkpoint if device.entry else None
    if wanted:
        numbers.setdefault(wanted[0], set()).add(wanted[1])
    newest: list[Checkpoint] = []
    for number in sorted(numbers, reverse=True):
        found = read_all(
            vault, folder, number, numbers[number], wanted[1] if wanted and wanted[0] == number else "", notes
        )
        if newest:
            continue  # older ones are only looked at: their damage is told
        newest = [one for one in found if counts(vault, device, one)]
        if len(newest) > 1:
            notes.add(f"{folder}: two checkpoints {number}: a fork. What either of them keeps lives")
        for one in [] if newest else found:
            notes.add(f"{folder}/{number:012d}-{one.sha}: it is of an epoch that is over, and does not count")
    return together(newest, lets_go=not wanted or newest[0].number >= wanted[0]) if newest else {}


def read_all(vault: Vault, folder: str, number: int, digests: set[str], wanted: str, notes: Notes) -> list[Checkpoint]:
    """The checkpoints of a number that verify. The hash `wanted` must be there; a listing alone proves nothing."""
    found = []
    for digest in sorted(digests):
        name = f"{folder}/{number:012d}-{digest}"
        with notes.noting(name):
            try:
                found.append(read_checkpoint(vault, name))
            except FileNotFoundError:
                demand(digest != wanted, "the checkpoint that the newest epoch record names is missing")
    return found


def together(counting: list[Checkpoint], lets_go: bool) -> dict[str, Lives]:
    """One checkpoint, or several of one number: a snapshot lives that any of them keeps."""
    found: dict[str, Lives] = {}
    for stream in {stream for one in counting for stream in one.streams}:
        rows = [one.streams[stream] for one in counting if stream in one.streams]
        lives = Lives()
        if lets_go and len(rows) == len(counting):
            lives.through = min(row.through for row in rows)
        lives.heads = {row.head for row in rows if row.through == lives.through}
        for row in rows:
            for seq, digest in row.kept.items():
                lives.kept.setdefault(seq, set()).add(digest)
        found[stream] = lives
    return found


def counts(vault: Vault, device: Device, one: Checkpoint) -> bool:
    """Of the newest epoch; or not after the one that the record which ended its epoch lists. Of a removed device not
    after the one that its entry lists."""
    if device.removed and not until(device.entry, one):
        return False
    return one.epoch == len(vault.epochs) or until(vault.epochs[one.epoch].entry(device.device), one)


def until(entry: Entry | None, one: Checkpoint) -> bool:
    """Whether a checkpoint is the one that an entry lists, or of a lower number."""
    last = entry.checkpoint if entry else None
    return last is not None and (one.number < last[0] or (one.number, one.sha) == last)


def read_checkpoint(vault: Vault, name: str) -> Checkpoint:
    """A checkpoint that verifies, and whose lists keep every rule."""
    raw = vault.named(name)
    source = Bytes(raw[:-64])
    magic, its_vault, n, key, its_device, number, prev, time = source.fields(">8s16sI16s16sQ32sQ")
    where = f"d/{its_device.hex()}/c/{number:012d}"
    demand((magic, its_vault, where) == (b"CKCHKP\0\1", vault.id, name[:-65]), "its header is not that of its name")
    demand(1 <= n <= len(vault.epochs), "it is of an epoch that this vault has not")
    public = vault.epochs[n - 1].checkpoint
    demand(key == key_id(public), "it is signed by another key than its epoch's")
    verify(public, raw[-64:], b"sig/checkpoint\0", sha(raw[:-64]))
    demand((number == 1) == (prev == bytes(32)), "only the first checkpoint has none before it")
    demand(1 <= number <= MAX_SEQ and time <= MOST, "a number that cannot be")
    streams = dict(read_streams(source))
    manifests, packs = source.rows(">16sQ32s"), source.rows(">32s")
    demand(source.number() == 0, "it has what is reserved")
    source.end()
    ascending(manifests)
    ascending(packs)
    for stream, seq, digest in manifests:
        row = streams.get(stream.hex(), Kept(0, "", {}))
        demand(1 <= seq <= row.through and row.kept.get(seq) != digest.hex(), "it condemns what lives")
    return Checkpoint(number, name[-64:], n, streams)


def read_streams(source: Bytes) -> list[tuple[str, Kept]]:
    """The streams of a checkpoint."""
    found = []
    for _ in range(source.number()):  # each takes bytes, so this ends
        stream, through, head = source.fields(">16sQ32s")
        kept = source.rows(">Q32s")
        seqs = [seq for seq, _ in kept]
        ascending([(seq,) for seq in seqs])
        demand(1 <= through <= MAX_SEQ and min(seqs, default=1) >= 1, "a number that cannot be")
        demand(max(seqs, default=0) <= through, "it keeps what it does not reach")
        demand(through not in seqs or (through, head) in kept, "it keeps another snapshot than its own")
        found.append((stream.hex(), Kept(through, head.hex(), {seq: digest.hex() for seq, digest in kept})))
    ascending([(bytes.fromhex(stream),) for stream, _ in found])
    return found


def ascending(rows: list[tuple[Any, ...]]) -> None:
    """Refuses a list that is not in order, or has something twice."""
    demand(all(one < other for one, other in itertools.pairwise(rows)), "a list that is out of order")
