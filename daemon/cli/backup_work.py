"""The work of `chatkeep backup`: recover, capture each source, upload to each provider, let go of what all have."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Final

from chatkeep.config.errors import Cancelled, ChatkeepError
from chatkeep.config.model import Config, Source
from chatkeep.daemon.backup.anew import begin_anew, stands_on
from chatkeep.daemon.backup.run import back_up
from chatkeep.daemon.backup.writer import Writer
from chatkeep.daemon.cli import sweeping
from chatkeep.daemon.cli.backup_report import ProviderReport, Report, SourceReport
from chatkeep.daemon.cli.backup_start import Start, records
from chatkeep.daemon.cli.output import Output, Step
from chatkeep.daemon.cli.stopping import stopping
from chatkeep.daemon.service import device, storage
from chatkeep.daemon.state import OutboxLost, State, StateDamaged
from chatkeep.daemon.sync import upload as sync
from chatkeep.daemon.sync.errors import OutboxDamaged
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.daemon.vault.errors import DeviceRemoved
from chatkeep.providers.base import Provider

Stopped = Callable[[], bool]
_UNASKED: Final = ChatkeepError()


def run(config: Config, sources: Sequence[Source], out: Output, *, upload: bool, anew: bool = False) -> Report:
    """Everything a backup does; what went wrong on the way is in the report. Raises what keeps it from beginning.

    `anew`: what is in the vault may be sent again, if this device's records do not say what is there.
    """
    report = Report()
    credential = device.load_credential(config)
    try:
        with (
            records(config, credential, out) as state,
            stopping(lambda: _acknowledge(out)) as stopped,
            out.progress(sized=True) as step,
        ):
            _recover(state, config, report)
            with storage.opened(config.providers, patient=False) as providers:
                start = Start(config, credential, state, report)
                start.look(providers)
                uploads = Uploads(config, state, providers, start, step, stopped) if upload else None
                if uploads:
                    # Before anything is captured: nothing is sealed to keys that the vault has left behind.
                    credential = _follow(config, state, sources, credential, uploads, report)
                    start.credential = credential
                start.settle(anew=anew)
                _capture(credential, state, sources, report, step, stopped, uploads)
                _forget_known(config, state)
                if uploads and not stopped():
                    uploads.finish(report)
                    sweeping.after_backup(config, state, credential, uploads.right, stopped)
            if uploads:
                _give_up_damaged(config, state, report)
            report.cancelled = stopped()
            report.waiting = state.outbox.waiting()
    finally:
        credential.wipe()
    return report


def _follow(
    config: Config,
    state: State,
    sources: Sequence[Source],
    credential: WriterCredential,
    uploads: Uploads,
    report: Report,
) -> WriterCredential:
    """The credential to write with: of the newest epoch that storage shows. Raises DeviceRemoved."""
    try:
        followed = device.follow(config, uploads.providers, credential)
    except DeviceRemoved as exc:
        for source in sources:
            state.note_backup(source.name, time.time_ns(), 0, exc.code)  # for `status`, which asks no storage
        raise
    report.findings += followed.findings
    report.epoch = followed.credential.epoch if followed.moved else None
    return followed.credential


def _acknowledge(out: Output) -> None:
    if not out.as_json:
        out.note("\nStopping at the next safe point. Nothing is lost. Once more: at once.")


def _recover(state: State, config: Config, report: Report) -> None:
    """After a crash, and when somebody tidied up in the state directory."""
    lost = state.outbox.recover()
    lost_from = {stream: state.outbox.lost_from(stream) for stream in lost}
    for source in config.sources:
        stream = state.stream(source.name).stream
        if stream in lost:
            lost.remove(stream)
            report.renewed.append(source.name)
            begin_anew(state, [stream], [provider.name for provider in config.providers], lost_from)
    # Of sources that are not configured any more, and chains that ended.
    begin_anew(state, lost, [provider.name for provider in config.providers], lost_from)


def _forget_known(config: Config, state: State) -> None:
    """What was known of streams that ended has served its end once every source stands without them."""
    if state.lineage.incomplete(source.name for source in config.sources):
        return
    if state.known.count():
        state.known.clear()
    failed = {failure.sha256 for failure in state.capsules.failures()}
    if failed and not any(failed & stands_on(state, stream) for stream in state.lineage.active()):
        state.capsules.forget_failures()


def _capture(
    credential: WriterCredential,
    state: State,
    sources: Sequence[Source],
    report: Report,
    step: Step,
    stopped: Stopped,
    uploads: Uploads | None,
) -> None:
    between = uploads.send if uploads else _nothing
    writer = Writer(
        credential,
        state,
        report=lambda at: step(at.source, at.done, at.expected),
        cancelled=stopped,
        between=between,
    )
    for source in sources:
        if stopped():
            return
        step(source.name, 0, None)
        report.sources.append(_back_up(writer, source))


def _nothing() -> None:
    """Without an upload nothing is done between two snapshots."""


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
        if isinstance(exc, StateDamaged) and exc.params.get("for_good"):
            raise  # nothing can be noted in such records; they are moved aside
        error = exc
        writer.state.note_backup(source.name, writer.clock(), 0, exc.code)
    seconds = time.monotonic() - begun
    made = writer.state.stream(source.name).seq - before
    return SourceReport(source.name, result, error, made, seconds)


class Uploads:
    """The uploads of one backup: after each bounded snapshot, and once more at the end."""

    def __init__(
        self,
        config: Config,
        state: State,
        providers: Sequence[Provider],
        start: Start,
        step: Step,
        stopped: Stopped,
    ) -> None:
        self._config = config
        self._state = state
        self._step = step
        self._stopped = stopped
        self._providers = providers
        self._start = start
        self._refused = start.refused
        self._results: dict[str, sync.UploadResult] = {}
        self._seconds = 0.0

    @property
    def providers(self) -> Sequence[Provider]:
        """All that are configured."""
        return self._providers

    @property
    def right(self) -> Sequence[Provider]:
        """Those that hold this vault, as far as was asked."""
        return [one for one in self._providers if self._refused.get(one.name, _UNASKED) is None]

    def send(self) -> None:
        """Sends what is committed to the providers that gave no trouble so far, and lets go of what all have."""
        self._send([one for one in self.right if not self._problems(one.name)])

    def finish(self, report: Report) -> None:
        """Sends what is left, also to those that gave trouble: it may have passed."""
        self._send(self._providers)
        for config in self._config.providers:
            queue = self._state.outbox.queue(config.name)
            waiting = (len(queue), sum(item.size for item in queue))
            report.providers.append(ProviderReport(self._results[config.name], config.required, waiting, self._seconds))

    def _send(self, providers: Sequence[Provider]) -> None:
        begun = time.monotonic()
        right = []
        for provider in providers:
            problem = self._wrong_place(provider)
            if problem is None:
                right.append(provider)
            else:
                self._state.outbox.note_upload(provider.name, time.time_ns(), problem.code)
                self._add(sync.UploadResult(provider.name, 0, 0, {}, (problem,), cancelled=False))
        for result in sync.upload_all(self._state.outbox, right, self._show, self._stopped):
            self._add(result)
            known = self._state.outbox.uploads().get(result.provider)
            if known is not None and known[1] is not None and not result.problems and not result.cancelled:
                # Nothing waited, so nobody else says that the trouble there has passed.
                self._state.outbox.note_upload(result.provider, time.time_ns(), None)
        # Every configured provider, also one that is away: what all have is let go, and nothing else.
        sync.release(self._state.outbox, [config.name for config in self._config.providers])
        self._seconds += time.monotonic() - begun

    def _wrong_place(self, provider: Provider) -> ChatkeepError | None:
        """Why nothing may be sent there: it cannot be asked, or holds another vault. Asked until it is right."""
        if self._refused.get(provider.name, _UNASKED) is None:
            return None
        # Nor may it be unknown whether this device's records are behind what is there.
        self._refused[provider.name] = self._start.late(provider)
        return self._refused[provider.name]

    def _problems(self, name: str) -> bool:
        return name in self._results and bool(self._results[name].problems)

    def _add(self, result: sync.UploadResult) -> None:
        """What was sent adds up; how it went is the last word."""
        before = self._results.get(result.provider)
        if before is not None:
            result = dataclasses.replace(
                result, objects=result.objects + before.objects, bytes=result.bytes + before.bytes
            )
        self._results[result.provider] = result

    def _show(self, at: sync.Progress) -> None:
        self._step(f"to {at.provider}", at.bytes, at.bytes_total)


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
    damaged: dict[bytes, int] = {}
    for item in queues:
        if item.name in names:
            damaged[item.stream] = min(item.seq, damaged.get(item.stream, item.seq))
    for source in config.sources:
        stream = state.stream(source.name).stream
        if stream in damaged:
            report.renewed.append(source.name)
    begin_anew(state, damaged, [provider.name for provider in config.providers], damaged)
