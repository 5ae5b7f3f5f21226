"""What waits to be uploaded, and cannot be any more: after a crash, when somebody tidied up, when a disk rots."""

from __future__ import annotations

from collections.abc import Iterable

from chatkeep.config.errors import ChatkeepError
from chatkeep.config.model import Config
from chatkeep.daemon.backup.anew import begin_anew, stands_on
from chatkeep.daemon.state import OutboxLost, State
from chatkeep.daemon.sync.errors import OutboxDamaged


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


def forget_known(state: State, config: Config) -> None:
    """What was known of streams that ended has served its end once every source stands without them."""
    if state.lineage.incomplete(source.name for source in config.sources):
        return
    if state.known.count():
        state.known.clear()
    failed = {failure.sha256 for failure in state.capsules.failures()}
    if failed and not any(failed & stands_on(state, stream) for stream in state.lineage.active()):
        state.capsules.forget_failures()
