"""A backup that a person asked for, among what the daemon does by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from chatkeep.config.model import Config, ProviderConfig
from chatkeep.daemon.service.conducting import inputs
from chatkeep.daemon.service.conducting.conductor import Conductor
from chatkeep.daemon.service.conducting.inputs import Input
from chatkeep.daemon.service.engine.report import ProviderReport, Report
from chatkeep.daemon.service.engine.steps import Step
from chatkeep.daemon.service.errors import NoSuchSource, UploadsHeld
from chatkeep.daemon.service.moment import now
from chatkeep.daemon.service.running.work import Work
from chatkeep.daemon.sync.upload import UploadResult


class Asked:
    """One such backup. For the thread of the loop.

    Args:
        may_send: whether uploads are open.
    """

    def __init__(
        self,
        config: Config,
        work: Work,
        conductor: Conductor,
        tell: Callable[[Input], None],
        may_send: Callable[[], bool],
    ) -> None:
        self._config, self._work, self._conductor = config, work, conductor
        self._tell, self._may_send = tell, may_send

    async def run(self, names: Sequence[str], step: Step) -> Report:
        """A snapshot of each of these sources (none named: of all) that begins now or later, then one upload to each
        provider that has something waiting. `report.cancelled`: some of it was stopped. Raises NoSuchSource."""
        known = [source.name for source in self._config.sources]
        for name in names:
            if name not in known:
                raise NoSuchSource(name=name, known=known)
        report = Report()
        self._work.steps.append(step)
        self._work.reports.append(report)
        try:
            wanted = [name for name in known if not names or name in names]
            turns = [self._work.snapshots.next(name) for name in wanted]
            for name in wanted:
                self._tell(inputs.Asked(name))
            made = await asyncio.gather(*turns)
            report.sources = [one for one in made if one is not None]
            sent = await asyncio.gather(*(self._sent(one) for one in self._config.providers))
            report.providers = [one for one in sent if one is not None]
            stopped = [one for one in report.sources if one.captured is None and one.error is None]
            report.cancelled = None in made or None in sent or bool(stopped)
        finally:
            self._work.steps.remove(step)
            self._work.reports.remove(report)
        return report

    async def _sent(self, config: ProviderConfig) -> ProviderReport | None:
        """What an upload comes to that has everything there is to send; None: it was stopped."""
        name, begun = config.name, now().boot
        result = UploadResult(name, 0, 0, {}, (), cancelled=False)
        if self._conductor.wants(name):
            if not self._may_send():
                result = UploadResult(name, 0, 0, {}, (UploadsHeld(provider=name),), cancelled=False)
            else:
                turns = self._work.uploads
                found = await (turns.current(name) if self._conductor.covers(name) else turns.next(name))
                stopped = found is None or found.cancelled
                if stopped and not self._may_send():  # the vault was locked meanwhile, and uploads with it
                    result = UploadResult(name, 0, 0, {}, (UploadsHeld(provider=name),), cancelled=False)
                elif found is None or found.cancelled:
                    return None
                else:
                    result = found
        figure = self._work.lacks(name)
        waiting = (figure.objects, figure.waiting) if figure is not None else (0, 0)
        return ProviderReport.of(result, required=config.required, waiting=waiting, seconds=now().boot - begun)
