"""What prune would do: verdicts, and the checkpoint that carries them out. Changes nothing.

Nothing here trusts a listing: what may be deleted is named by this device's own rows, or by manifests that it signed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from chatkeep.config.errors import ChatkeepError
from chatkeep.config.model import Retention
from chatkeep.daemon.prune.errors import PruneRefused
from chatkeep.daemon.prune.live import packs_of, packs_of_state
from chatkeep.daemon.prune.lost import Lost, find_lost, rows_of
from chatkeep.daemon.prune.own import Facts, OwnVault, Step
from chatkeep.daemon.prune.waste import Lives, Waste, find_waste, let_go_by_name
from chatkeep.daemon.retention import Alarm, Candidate, Reason, SnapshotKey, Verdict, alarms, decide
from chatkeep.daemon.state import State
from chatkeep.daemon.vault.checkpoint import Checkpoint, SnapshotId, StreamKept
from chatkeep.daemon.vault.errors import CheckpointOutdated, ForkDetected, VaultError
from chatkeep.providers.base import ObjectConflict, ObjectDamaged, ObjectNotFound, ProviderError


@dataclass(frozen=True, slots=True)
class Terms:
    """What a plan is made for: the policy, when, and the names of all providers that are configured.

    `give_up`: a person said that what is lost is lost.
    """

    policy: Retention
    providers: Sequence[str]
    now_ns: int
    give_up: bool = False


@dataclass(slots=True)
class StreamPlan:
    """One stream of this device.

    Attributes:
        settled: up to this seq every provider has it. A checkpoint says nothing of later ones: should they be lost
            with this device, nobody misses them.
        goes_on: new snapshots come here; else it ended.
        snapshots: oldest first.
        hashes: of the manifests, by seq; also of those that are being deleted.
    """

    stream: bytes
    source: str
    goes_on: bool
    settled: int
    snapshots: list[Facts]
    hashes: dict[int, bytes]
    verdicts: list[Verdict] = field(default_factory=list)

    def judged(self) -> list[tuple[Facts, Verdict]]:
        """Each snapshot with what becomes of it."""
        return list(zip(self.snapshots, self.verdicts, strict=True))


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done.

    Attributes:
        checkpoint: None when nothing is to be changed.
        stored: bytes of what lives now.
        lost: what is given up.
    """

    streams: Sequence[StreamPlan]
    checkpoint: Checkpoint | None
    waste: Waste
    stored: int
    alarms: Sequence[Alarm]
    lost: Lost = field(default_factory=Lost)


def make_plan(own: OwnVault, state: State, terms: Terms, step: Step) -> Plan:
    """Decide about every snapshot of this device.

    Raises:
        PruneRefused: storage or the records are not in the state in which anything may be deleted.
        VaultError, ProviderError: what must be read cannot be. Nothing was changed.
    """
    unproven = [one.name for one in state.capsules.failures()] + [one.name for one in state.capsules.unproven()]
    if unproven:
        raise PruneRefused(reason="capsules", count=len(unproven), object=unproven[0])
    newest = own.checkpoint
    is_current = newest is not None and newest.epoch == own.unlocked.head.epoch  # as a locked device sees it
    if newest is not None and is_current and newest.name.number > state.lineage.last_checkpoint():
        # Records from before it take for known what it condemned; a checkpoint of theirs would hide that for ever.
        raise PruneRefused(reason="records")
    streams = _streams(own, state, terms, step)
    lost = find_lost(own, state)
    _refuse_findings(own, lost, terms)
    for source in sorted({one.source for one in streams}):
        _judge([one for one in streams if one.source == source], state.pruning.waiting_manifests(), terms)
    pairs = [pair for one in streams for pair in one.judged()]
    kept = [facts for facts, verdict in pairs if verdict.kept]
    live = packs_of(own, kept, step) | packs_of_state(state.pruning)
    _refuse_findings(own, lost, terms)
    lives = Lives({facts.name for facts in kept}, live, terms.providers)
    waste = find_waste(own, state.pruning, [facts for facts, _ in pairs], lives)
    let_go_by_name(waste, state.pruning, lost.names())
    stored = sum(facts.size for facts in kept) + waste.size + waste.living
    forked = newest is not None and bool(newest.rivals)
    fresh = [verdict for facts, verdict in pairs if verdict.kept or not facts.condemned]
    return Plan(
        streams,
        _checkpoint(own, streams, waste, terms, lost) if waste.changes or forked or lost else None,
        waste,
        stored,
        alarms(fresh, waste.size, stored, terms.now_ns),
        lost,
    )


# -- what there is ----------------------------------------------------------------------------------------------------


def _streams(own: OwnVault, state: State, terms: Terms, step: Step) -> list[StreamPlan]:
    """Every stream of this device, those that ended before the one that goes on."""
    rows, frontiers = state.pruning.streams(), state.pruning.frontiers()
    living = own.streams(step)
    # Where the checkpoint that condemned it did not arrive, storage shows as living what is being deleted elsewhere.
    doomed = state.pruning.doomed()
    hashes = {stream: {facts.name.seq: facts.name.sha256 for facts in every} for stream, every in living.items()}
    for stream, every in living.items():
        living[stream] = [facts for facts in every if str(facts.name) not in doomed]
    shown = {facts.name for every in living.values() for facts in every}
    for facts in own.condemned(state.pruning):
        if facts.name not in shown:
            living.setdefault(facts.name.stream_id, []).append(facts)
    for stream, (source, seq, head, goes_on) in rows.items():
        found = max((facts.name for facts in living.get(stream, ())), key=lambda name: name.seq, default=None)
        if goes_on and seq and (found is None or (found.seq, found.sha256) != (seq, head)):
            # Another machine writes with this device's key, or its records are old. Both would condemn what is needed.
            raise PruneRefused(reason="behind", source=source)
    made = []
    for stream, snapshots in living.items():
        if not snapshots:
            continue
        snapshots.sort(key=lambda facts: facts.name.seq)
        source, _, _, goes_on = rows.get(stream, (snapshots[-1].source, 0, b"", False))
        known = [frontiers.get((stream, provider)) for provider in terms.providers]
        reached = [seq for seq in known if seq is not None]
        settled = min(seq or 0 for seq in known) if goes_on else min(reached, default=snapshots[-1].name.seq)
        made.append(StreamPlan(stream, source, goes_on, settled, snapshots, hashes.get(stream, {})))
    return sorted(made, key=lambda one: (one.goes_on, one.snapshots[0].time))


def _refuse_findings(own: OwnVault, lost: Lost, terms: Terms) -> None:
    for problem in own.reader.findings:
        own.findings.add(problem)
    grave = [problem for problem in own.findings if _is_grave(problem)]
    away = [one for one in own.findings if isinstance(one, ProviderError) and not isinstance(one, _SAID)]
    known = not away and all(map(lost.explains, grave))
    if terms.give_up and away and grave:
        raise PruneRefused(reason="away", where=away[0].params.get("provider"))
    if grave and not (known and terms.give_up):
        reason = "lost" if known else "storage"
        first = grave[0]
        raise PruneRefused(reason=reason, count=len(grave), finding=first.code, params=dict(first.params))


_SAID: Final = (ObjectNotFound, ObjectDamaged, ObjectConflict)
"""What a storage says of an object; of other errors it is the storage that cannot be asked."""


def _is_grave(problem: ChatkeepError) -> bool:
    """Damage or an attack. A storage that is away is neither, nor is what was late when the keys were changed: the next
    checkpoint takes its place."""
    if isinstance(problem, CheckpointOutdated):
        return False
    if isinstance(problem, ForkDetected) and problem.params["what"] == "checkpoint":
        return False  # what either keeps lives, and the next one ends it: else no later one ever would
    return isinstance(problem, (VaultError, *_SAID))


# -- what stays -------------------------------------------------------------------------------------------------------


def _judge(streams: Sequence[StreamPlan], waiting: Collection[bytes], terms: Terms) -> None:
    """The verdicts about one source."""
    heads = {facts.name for facts in _heads(streams, waiting)}
    candidates = [
        Candidate(
            SnapshotKey(one.stream, facts.name.seq),
            facts.time,
            facts.clock,
            facts.complete,
            facts.layers,
            newest=facts.name in heads,
            waiting=facts.name.sha256 in waiting or (one.goes_on and facts.name.seq > one.settled),
        )
        for one in streams
        for facts in one.snapshots
    ]
    verdicts = iter(decide(candidates, terms.policy, terms.now_ns))
    for one in streams:
        one.verdicts = [next(verdicts) for _ in one.snapshots]
        if not one.goes_on:
            _keep_together(one)


def _heads(streams: Sequence[StreamPlan], waiting: Collection[bytes]) -> list[Facts]:
    """What stays of a source whatever the policy says: the newest of the stream that goes on; and of those that ended,
    the newest and the newest complete one, until what took their place has something complete everywhere."""
    going = [one for one in streams if one.goes_on]
    heads = [one.snapshots[-1] for one in going]
    replaced = any(
        facts.complete and facts.name.seq <= one.settled and facts.name.sha256 not in waiting
        for one in going
        for facts in one.snapshots
    )
    if not replaced:
        ended = [facts for one in streams if not one.goes_on for facts in one.snapshots]
        heads += ended[-1:] + [facts for facts in ended if facts.complete][-1:]
    return heads


def _keep_together(one: StreamPlan) -> None:
    """What some provider will never get of a stream that ended goes as a whole: the checkpoint cannot name a part of it
    without being missed there."""
    late = [place for place, facts in enumerate(one.snapshots) if facts.name.seq > one.settled]
    if any(one.verdicts[place].kept for place in late):
        for place in late:
            if not one.verdicts[place].kept:
                one.verdicts[place] = dataclasses.replace(one.verdicts[place], kept=True, reasons=(Reason.WAITING,))


# -- what is said -----------------------------------------------------------------------------------------------------


def _checkpoint(own: OwnVault, streams: Sequence[StreamPlan], waste: Waste, terms: Terms, lost: Lost) -> Checkpoint:
    before: dict[bytes, StreamKept] = {}
    for said in () if own.checkpoint is None else (own.checkpoint, *own.checkpoint.rivals):
        for row in said.checkpoint.streams:
            if row.stream_id not in before or row.through.seq > before[row.stream_id].through.seq:
                before[row.stream_id] = row
    ends = lost.ends()
    named = {one.stream: _stream(one, before.get(one.stream), ends.get(one.stream)) for one in streams}
    rows = [row for row in (rows_of(lost, before) | named).values() if row is not None]
    return Checkpoint(
        waste.number,
        waste.prev,
        terms.now_ns,
        tuple(sorted(rows)),
        tuple(sorted(waste.manifests)),
        tuple(sorted(waste.packs)),
    )


def _stream(one: StreamPlan, before: StreamKept | None, lost: SnapshotId | None) -> StreamKept | None:
    """`lost`: the newest of it that is given up: nobody is to look for it any more, so it is settled, come what may."""
    pairs = one.judged()
    through = one.settled if lost is None else max(one.settled, lost.seq)
    hashes = one.hashes if lost is None else {lost.seq: lost.sha256} | one.hashes
    if not one.goes_on and not any(verdict.kept and facts.name.seq > through for facts, verdict in pairs):
        through = max(through, one.snapshots[-1].name.seq)
    end = before.through if before is not None else None
    if end is None or through > end.seq:
        end = end if through not in hashes else SnapshotId(through, hashes[through])
    if end is None:
        return None  # no provider has all of any snapshot: nothing can be said of it yet
    kept = [facts.name for facts, verdict in pairs if verdict.kept and facts.name.seq <= end.seq]
    return StreamKept(one.stream, end, tuple(SnapshotId(name.seq, name.sha256) for name in kept))
