"""What waits to be uploaded, and cannot be any more: after a crash, when somebody tidied up, when a disk rots."""

from __future__ import annotations

from collections.abc import Iterable

from chatkeep.config.errors import ChatkeepError
from chatkeep.config.model import Config
from chatkeep.daemon.backup.anew import begin_anew, stands_on
from chatkeep.daemon.state import OutboxLost, State
from chatkeep.daemon.state.outbox import NOTHING_LOST
from chatkeep.daemon.sync.errors import NowhereWhole, OutboxDamaged


def recover(state: State, config: Config) -> list[str]:
    """Brings outbox and records together; returns the sources that begin anew. Nobody may seal or upload meanwhile."""
    names = [provider.name for provider in config.providers]
    renewed = []
    lost = state.outbox.recover()
    lost_from = {stream: state.outbox.lost_from(stream) for stream in lost}
    for source in config.sources:
        stream = state.stream(source.name).stream
        if stream in lost:
            lost.remove(stream)
            renewed.append(source.name)
            begin_anew(state, [stream], names, lost_from)
    # Of sources that are not configured any more, and chains that ended.
    begin_anew(state, lost, names, lost_from)
    return renewed


def give_up_damaged(state: State, config: Config, problems: Iterable[ChatkeepError]) -> list[str]:
    """A damaged object can never be uploaded, nor anything that stands on it: its source begins anew, and is returned.

    `problems`: of uploads; those of another kind are passed over.
    """
    names = {str(one.params["name"]) for one in problems if isinstance(one, OutboxDamaged | OutboxLost)}
    if not names:
        return []
    queues = [item for provider in config.providers for item in state.outbox.queue(provider.name)]
    damaged: dict[bytes, int] = {}
    for item in queues:
        if item.name in names:
            damaged[item.stream] = min(item.seq, damaged.get(item.stream, item.seq))
    renewed = [source.name for source in config.sources if state.stream(source.name).stream in damaged]
    begin_anew(state, damaged, [provider.name for provider in config.providers], damaged)
    return renewed


def give_up_lost(state: State, config: Config, problems: Iterable[ChatkeepError]) -> list[str]:
    """What left the outbox for providers that are not configured any more, and a look at those that are did not find:
    nobody can be brought it. Sources whose newest snapshot stands on it begin anew, and are returned.

    `problems`: of uploads; those of another kind are passed over.
    """
    missed = {str(one.params["object"]) for one in problems if isinstance(one, NowhereWhole)}
    names = [provider.name for provider in config.providers]
    lost = state.mirrors.elsewhere(names) if missed else []
    if missed.isdisjoint(one.name for one in lost):
        return []  # a provider of the configuration had it: a person can do more than this
    first: dict[bytes, int] = {}
    for one in lost:
        first[one.stream] = min(one.seq, first.get(one.stream, NOTHING_LOST))
    gone = {one.sha256 for one in lost}
    ill = {
        stream: source
        for stream, (source, _) in state.lineage.active().items()
        if stream in first or gone & stands_on(state, stream)
    }
    begin_anew(state, ill, names, {stream: first.get(stream, NOTHING_LOST) for stream in ill})
    # Last: killed before it, the next attempt misses the same.
    state.mirrors.write_off(one.name for one in lost)
    return sorted(ill.values())


def forget_known(state: State, config: Config) -> None:
    """What was known of streams that ended has served its end once every source stands without them."""
    if state.lineage.incomplete(source.name for source in config.sources):
        return
    if state.known.count():
        state.known.clear()
    failed = {failure.sha256 for failure in state.capsules.failures()}
    if failed and not any(failed & stands_on(state, stream) for stream in state.lineage.active()):
        state.capsules.forget_failures()
