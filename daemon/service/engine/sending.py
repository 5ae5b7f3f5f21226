"""The uploads of one backup: after each bounded snapshot, and once more at the end."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Final

from chatkeep.config.errors import ChatkeepError
from chatkeep.config.model import Config
from chatkeep.daemon.service.engine import letting_go
from chatkeep.daemon.service.engine.report import ProviderReport, Report
from chatkeep.daemon.service.engine.start import Start
from chatkeep.daemon.service.engine.steps import Step, Stopped
from chatkeep.daemon.state import State
from chatkeep.daemon.sync import catching_up
from chatkeep.daemon.sync import upload as sync
from chatkeep.providers.base import Provider

_UNASKED: Final = ChatkeepError()


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
            waiting = self._state.figures.waiting(config.name)
            result = self._results[config.name]
            report.providers.append(
                ProviderReport.of(result, required=config.required, waiting=waiting, seconds=self._seconds)
            )

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
        watch = catching_up.Watch(self._show, self._stopped)
        # From all of them, whatever became of the question whether they may be sent to: each object is checked.
        for result in catching_up.send_all(self._state, right, self._providers, watch):
            self._add(result)
            known = self._state.outbox.uploads().get(result.provider)
            if known is not None and known[1] is not None and not result.problems and not result.cancelled:
                # Nothing waited, so nobody else says that the trouble there has passed.
                self._state.outbox.note_upload(result.provider, time.time_ns(), None)
        # Every configured provider counts, also one that is away.
        letting_go.let_go(self._config, self._state)
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
