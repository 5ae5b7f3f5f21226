"""The work of `chatkeep backup`: recover, capture each source, upload to each provider, let go of what all have."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from chatkeep.config.errors import Cancelled, ChatkeepError
from chatkeep.config.model import Config, Source
from chatkeep.daemon.backup.run import back_up
from chatkeep.daemon.backup.tables import remove_tables
from chatkeep.daemon.backup.writer import Progress, Writer
from chatkeep.daemon.cli import device, storage
from chatkeep.daemon.cli.backup_report import ProviderReport, Report, SourceReport
from chatkeep.daemon.cli.output import Output
from chatkeep.daemon.cli.stopping import stopping
from chatkeep.daemon.state import OutboxLost, State
from chatkeep.daemon.sync import upload as sync
from chatkeep.daemon.sync.errors import OutboxDamaged
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.providers.base import Provider
from chatkeep.providers.wrap import Retrying

Stopped = Callable[[], bool]


def run(config: Config, sources: Sequence[Source], out: Output, *, upload: bool) -> Report:
    """Everything a backup does; what went wrong on the way is in the report. Raises what keeps it from beginning."""
    report = Report()
    credential = device.load_credential(config)
    try:
        with device.open_state(config, credential) as state, stopping(lambda: _acknowledge(out)) as stopped:
            _recover(state, config, report)
            _capture(credential, state, sources, report, out, stopped)
            if upload and not stopped():
                _upload(config, state, credential.vault_id, report, out, stopped)
            report.cancelled = stopped()
            report.waiting = state.outbox.waiting()
    finally:
        credential.wipe()
    return report


def _acknowledge(out: Output) -> None:
    if not out.as_json:
        out.note("\nStopping at the next safe point. Nothing is lost. Once more: at once.")


def _recover(state: State, config: Config, report: Report) -> None:
    """After a crash, and when somebody tidied up in the state directory."""
    lost = state.outbox.recover()
    for source in config.sources:
        stream = state.stream(source.name).stream
        if stream in lost:
            lost.remove(stream)
            _begin_anew(state, stream)
            report.renewed.append(source.name)
    for stream in lost:  # of a source that is not configured any more
        _begin_anew(state, stream)


def _begin_anew(state: State, stream: bytes) -> None:
    state.abandon(stream)
    remove_tables(state, stream)


def _capture(
    credential: WriterCredential,
    state: State,
    sources: Sequence[Source],
    report: Report,
    out: Output,
    stopped: Stopped,
) -> None:
    with out.progress(sized=True, single=True) as step:

        def show(at: Progress) -> None:
            step(f"{at.source}: {at.stage}", at.done, at.expected)

        writer = Writer(credential, state, report=show, cancelled=stopped)
        for source in sources:
            if stopped():
                return
            step(f"{source.name}: looking for changes", 0, None)
            report.sources.append(_back_up(writer, source))


def _back_up(writer: Writer, source: Source) -> SourceReport:
    begun = time.monotonic()
    before = writer.state.stream(source.name).seq
    result, error = None, None
    try:
        result = back_up(writer, source)
        writer.state.note_backup(source.name, writer.clock(), len(result.problems), None)
    except Cancelled:
        pass
    except ChatkeepError as exc:
        error = exc
        writer.state.note_backup(source.name, writer.clock(), 0, exc.code)
    seconds = time.monotonic() - begun
    made = writer.state.stream(source.name).seq - before
    return SourceReport(source.name, result, error, made, seconds)


def _upload(config: Config, state: State, vault_id: bytes, report: Report, out: Output, stopped: Stopped) -> None:
    begun = time.monotonic()
    with storage.opened(config.providers, patient=False) as providers, out.progress(sized=True) as step:
        results = {provider.name: _refused(state, provider, vault_id) for provider in providers}
        right = [provider for provider in providers if results[provider.name] is None]
        for result in sync.upload_all(
            state.outbox, right, lambda at: step(f"to {at.provider}", at.bytes, at.bytes_total), stopped
        ):
            results[result.provider] = result
    seconds = time.monotonic() - begun
    for provider in config.providers:
        outcome = results[provider.name]
        assert outcome is not None, "a provider was neither refused nor uploaded to"
        queue = state.outbox.queue(provider.name)
        waiting = (len(queue), sum(item.size for item in queue))
        report.providers.append(ProviderReport(outcome, provider.required, waiting, seconds))
    # Every configured provider, also one that is away: what all have is let go, and nothing else.
    sync.release(state.outbox, [provider.name for provider in config.providers])
    _give_up_damaged(config, state, report)


def _refused(state: State, provider: Provider, vault_id: bytes) -> sync.UploadResult | None:
    """None when this vault is at the provider; else what the upload to it came to: nothing."""
    try:
        storage.require_vault(Retrying(provider), vault_id)
    except ChatkeepError as exc:
        state.outbox.note_upload(provider.name, time.time_ns(), exc.code)
        return sync.UploadResult(provider.name, 0, 0, {}, (exc,), cancelled=False)
    return None


def _give_up_damaged(config: Config, state: State, report: Report) -> None:
    """A damaged object can never be uploaded, nor anything that stands on it: its source begins anew."""
    names = {
        str(problem.params["name"])
        for provider in report.providers
        for problem in provider.result.problems
        if isinstance(problem, OutboxDamaged | OutboxLost)
    }
    if not names:
        return
    queues = [item for provider in config.providers for item in state.outbox.queue(provider.name)]
    damaged = {item.stream for item in queues if item.name in names}
    for source in config.sources:
        stream = state.stream(source.name).stream
        if stream in damaged:
            report.renewed.append(source.name)
    for stream in damaged:
        _begin_anew(state, stream)
