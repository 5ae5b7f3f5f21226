"""What must live of this device and is in no storage any more. A person alone may give it up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.prune.own import OwnVault
from chatkeep.daemon.state import State
from chatkeep.daemon.vault.checkpoint import SnapshotId, StreamKept
from chatkeep.daemon.vault.demand import demand_of
from chatkeep.daemon.vault.errors import Malformed, MissingObject, SnapshotsMissing, Unreadable
from chatkeep.daemon.vault.names import CheckpointName, ManifestName, ObjectName, parse


@dataclass(frozen=True, slots=True)
class Gap:
    """Snapshots of one stream, numbers `first` to `last`, that no storage has whole.

    Attributes:
        head: hash of the last one, as what must live names it.
        source: "" when nothing says.
        names: of their manifests, as far as they are known.
        clocks: when they were made, ns, by number, as far as this device's records know.
    """

    stream: bytes
    first: int
    last: int
    head: bytes
    source: str = ""
    names: frozenset[str] = frozenset()
    clocks: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lost:
    """All of it. `checkpoint`: the one that the newest epoch record names; nobody can say any more what it let go."""

    gaps: Sequence[Gap] = ()
    checkpoint: CheckpointName | None = None

    def __bool__(self) -> bool:
        return bool(self.gaps) or self.checkpoint is not None

    def ends(self) -> dict[bytes, SnapshotId]:
        """Of each stream with a gap, the newest snapshot that is lost: a checkpoint must settle everything up to it."""
        found: dict[bytes, SnapshotId] = {}
        for gap in self.gaps:
            found[gap.stream] = max(found.get(gap.stream, SnapshotId(0, b"")), SnapshotId(gap.last, gap.head))
        return found

    def names(self) -> list[str]:
        """Manifests that are let go by name, so that no provider is taken for lacking them."""
        return sorted({name for gap in self.gaps for name in gap.names})

    def explains(self, problem: ChatkeepError) -> bool:
        """Whether a finding says nothing but that this is lost."""
        if isinstance(problem, SnapshotsMissing):
            stream, last = problem.params["stream"], problem.params["last"]
            return any(gap.stream.hex() == stream and gap.last == last for gap in self.gaps)
        name = _name_in(problem)
        if isinstance(name, ManifestName):
            return any(gap.stream == name.stream_id and gap.first <= name.seq <= gap.last for gap in self.gaps)
        return name is not None and name == self.checkpoint


def find_lost(own: OwnVault, state: State) -> Lost:
    """What the findings of `own.streams` say is lost."""
    checkpoint = None
    named: dict[tuple[bytes, int], ManifestName] = {}
    missing: list[SnapshotsMissing] = []
    for problem in own.findings:
        if isinstance(problem, SnapshotsMissing) and problem.params["device"] == own.device_id.hex():
            missing.append(problem)
        elif isinstance(problem, MissingObject | Unreadable):
            name = _name_in(problem)
            if isinstance(name, ManifestName) and name.device_id == own.device_id:
                named[name.stream_id, name.seq] = name
            elif name is not None and name == own.demanded:
                checkpoint = own.demanded
    gaps = [_described(gap, named, state) for gap in _gaps(own, named, missing)]
    return Lost(sorted(gaps, key=lambda gap: (gap.stream, -gap.last)), checkpoint)


def rows_of(lost: Lost, before: Mapping[bytes, StreamKept]) -> dict[bytes, StreamKept]:
    """What a checkpoint says of streams of which nothing is left. `before`: what the one before says."""
    ends = lost.ends()
    found = {}
    for stream in before.keys() | ends.keys():
        known = [end for end in (ends.get(stream), before[stream].through if stream in before else None) if end]
        # A stream once named stays named, else the snapshots that it lost would be missed.
        found[stream] = StreamKept(stream, max(known), ())
    return found


def _gaps(
    own: OwnVault, named: Mapping[tuple[bytes, int], ManifestName], missing: Sequence[SnapshotsMissing]
) -> Iterator[Gap]:
    streams = {bytes.fromhex(str(problem.params["stream"])) for problem in missing} | {stream for stream, _ in named}
    through = {stream: demand_of(stream, own.checkpoint, own.entry, removed=False).through for stream in streams}
    for (stream, seq), name in named.items():
        if seq <= through[stream]:  # of those that a checkpoint settled each is kept by its name, and others are not
            yield Gap(stream, seq, seq, name.sha256)
    for problem in missing:
        stream, first, last = (
            bytes.fromhex(str(problem.params["stream"])),
            problem.params["first"],
            problem.params["last"],
        )
        assert isinstance(first, int), "a number"
        assert isinstance(last, int), "a number"
        if last > through[stream] and (stream, last) in named:
            yield Gap(stream, first, last, named[stream, last].sha256)


def _described(gap: Gap, named: Mapping[tuple[bytes, int], ManifestName], state: State) -> Gap:
    rows = [row for row in state.snapshots(gap.stream) if gap.first <= row.seq <= gap.last]
    names = {
        str(name) for (stream, seq), name in named.items() if stream == gap.stream and gap.first <= seq <= gap.last
    }
    source = state.pruning.streams().get(gap.stream, ("",))[0]
    return Gap(
        gap.stream,
        gap.first,
        gap.last,
        gap.head,
        source,
        frozenset(names | {row.name for row in rows}),
        {row.seq: row.clock for row in rows},
    )


def _name_in(problem: ChatkeepError) -> ObjectName | None:
    """The object that a finding is about, if it has a name."""
    try:
        return parse(str(problem.params.get("name", problem.params.get("object", ""))))
    except Malformed:
        return None
