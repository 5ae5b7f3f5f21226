"""One backup from its beginning to its end: recover, capture each source, upload to each provider, let go of what all
have."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from chatkeep.config.model import Config, Source
from chatkeep.daemon.backup.writer import Writer
from chatkeep.daemon.service import device, storage
from chatkeep.daemon.service.engine import retaining, sweeping
from chatkeep.daemon.service.engine.capturing import capture
from chatkeep.daemon.service.engine.letting_go import notice_gaps
from chatkeep.daemon.service.engine.repair import forget_known, give_up_damaged, give_up_lost, recover
from chatkeep.daemon.service.engine.report import Report
from chatkeep.daemon.service.engine.sending import Uploads
from chatkeep.daemon.service.engine.start import Start, records
from chatkeep.daemon.service.engine.steps import Step, Stopped
from chatkeep.daemon.state import State, StateMovedAside
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.daemon.vault.errors import DeviceRemoved


def run(
    config: Config,
    sources: Sequence[Source],
    step: Step,
    stopped: Stopped,
    moved_aside: Callable[[StateMovedAside], None],
    *,
    upload: bool,
    anew: bool = False,
) -> Report:
    """Everything a backup does; what went wrong on the way is in the report. Raises what keeps it from beginning.

    `moved_aside` is told when damaged records were. `anew`: what is in the vault may be sent again, if this device's
    records do not say what is there.
    """
    report = Report()
    credential = device.load_credential(config)
    try:
        with records(config, credential, moved_aside) as state:
            report.renewed += recover(state, config)
            notice_gaps(config, state)
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
                forget_known(state, config)
                if uploads and not stopped():
                    uploads.finish(report)
                    sweeping.after_backup(config, state, credential, uploads.right, stopped)
                    report.notices += retaining.after_backup(config, state, credential, uploads.right, stopped)
            if uploads:
                problems = [problem for provider in report.providers for problem in provider.problems]
                report.renewed += give_up_damaged(state, config, problems)
                report.renewed += give_up_lost(state, config, problems)
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
        report.sources.append(capture(writer, source))


def _nothing() -> None:
    """Without an upload nothing is done between two snapshots."""
