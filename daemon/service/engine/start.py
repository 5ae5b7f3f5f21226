"""Before a backup touches anything: may it go on from what this device remembers?

Records that are lost, older than what was pruned, an older copy, or a copy that is in use elsewhere: each would be told
by storage at once. Until it was, nothing is sent to it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from chatkeep.config.errors import ChatkeepError
from chatkeep.config.model import Config
from chatkeep.daemon.backup.anew import begin_anew, end_without_trace
from chatkeep.daemon.backup.lineage import Lineage, inspect
from chatkeep.daemon.backup.machine import machine_mark
from chatkeep.daemon.service import device, storage
from chatkeep.daemon.service.engine.report import Report
from chatkeep.daemon.state import Lost, State, StateCopied, StateDamaged, StateLost, StateMovedAside, StateRolledBack
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.daemon.vault.errors import VaultError
from chatkeep.providers.base import PermissionRefused, Provider, ProviderError
from chatkeep.providers.wrap import Patience, Retrying


class Start:
    """What storage says of this device's records, provider by provider, and what follows.

    Attributes:
        credential: of the epoch that this device is in.
        refused: by provider, why nothing may be sent there; None: it may.
        report: what is found and what follows is added to its findings and notices.

    Args:
        patience: how hard to try to ask a provider.
    """

    def __init__(
        self,
        config: Config,
        credential: WriterCredential,
        state: State,
        report: Report,
        *,
        patience: Patience | None = None,
    ) -> None:
        self._config = config
        self.credential = credential
        self._state = state
        self.report = report
        self._found = Lineage()
        self._names = [provider.name for provider in config.providers]
        # Looked at before this backup makes any: records that say nothing cannot be told from those of a new device.
        self._blank = state.lineage.is_blank()
        self._patience = patience
        self.refused: dict[str, ChatkeepError | None] = {}

    def look(self, providers: Sequence[Provider]) -> None:
        """Asks every provider; one that is away is asked again before anything is sent to it."""
        for provider in providers:
            self.refused[provider.name] = self._ask(provider, self._found)
        self.report.findings += [one for one in self._found.findings if isinstance(one, VaultError)]

    @property
    def ends_chains(self) -> bool:
        """Whether `settle` would end chains of snapshots, or refuse to go on: nobody may seal or upload meanwhile."""
        lost = self._state.lineage.lost() is not None
        return lost or bool(self._found.checkpoint or (self._blank and self._found.strangers)) or bool(self._copied())

    def settle(self, *, anew: bool) -> None:
        """Does what follows for the chains of snapshots, before anything is captured. `anew`: everything may be sent
        again. Raises StateLost, StateRolledBack: a person is to decide, or time."""
        lineage, found = self._state.lineage, self._found
        lost = lineage.lost()
        copied = self._copied()
        if lost is None and self._blank and (found.strangers or found.checkpoint):
            lost = lineage.note_lost(time.time_ns(), StateLost.code)
        elif lost is None and (found.checkpoint or (copied and found.rumoured)):
            # Packs that these records take for good may be condemned, by a checkpoint that they do not know.
            lost = lineage.note_lost(time.time_ns(), StateRolledBack.code)
        if lost is not None:
            self._wait(lost, anew=anew)
            end_without_trace(self._state, lineage.active())
            # What they say of storage is as little worth; nothing of it is referred to any more.
            self._state.pruning.arrivals.forget()
            # First: cut off after the other, what is seen would be a loss of its own, and waited for again.
            self._remember()
            lineage.found_again()
            self._note(_error(lost)(reason="anew"))
        elif copied is not None:
            begin_anew(self._state, lineage.active(), self._names)
            self._note(StateCopied(reason=copied))
        elif found.strangers:
            self._note(StateCopied(reason="stranger"))
        self._remember()

    @property
    def needs_rebuild(self) -> bool:
        """Whether these records do not say what of this device is in the vault."""
        found = self._found
        known_lost = self._state.lineage.lost() is not None
        return known_lost or bool(found.checkpoint or found.ahead) or (self._blank and bool(found.strangers))

    def rebuilt(self) -> None:
        """What is in the vault is known again, and no news any more."""
        self._remember()
        self._state.lineage.settle_copied()
        self._state.lineage.found_again()

    def late(self, provider: Provider) -> ChatkeepError | None:
        """Why nothing may be sent to a provider now that it can be asked at last; None: it may."""
        found = Lineage()
        problem = self._ask(provider, found)
        if problem is not None:
            return problem
        if self._blank and found.strangers:
            return _lost(self._state.lineage.note_lost(time.time_ns(), StateLost.code), self._config)
        if found.ahead or found.checkpoint:
            # The next backup finds it at once, and does what follows before it captures anything.
            return StateCopied(reason="checkpoint" if found.checkpoint else "late")
        return None

    def _ask(self, provider: Provider, found: Lineage) -> ChatkeepError | None:
        patient = Retrying(provider, self._patience)
        try:
            storage.require_vault(patient, self.credential.vault_id)
            found.join(inspect(patient, self.credential, self._state))
        except (ProviderError, VaultError) as exc:
            # A key that may put and not look cannot be told what is there, and is enough for a backup: what it sends
            # stands under names of its own. If it may not put either, the first put says so.
            return None if type(exc) is PermissionRefused else exc
        return None

    def _copied(self) -> str | None:
        """How it shows that these records are an older copy, or were taken along to another machine."""
        if not any(seq for _, seq in self._state.lineage.active().values()):
            return None
        mark, before = machine_mark(self.credential.vault_id), self._state.lineage.machine()
        if mark is not None and before is not None and mark != before:
            return "machine"
        return "ahead" if self._found.ahead else None

    def _wait(self, lost: Lost, *, anew: bool) -> None:
        waited = max(0, time.time_ns() - lost.since)  # a clock that was set back makes nobody send everything
        if not anew and waited < self._config.rebuild_patience.ns:
            raise _lost(lost, self._config)

    def _note(self, notice: ChatkeepError) -> None:
        self.report.notices.append(notice)
        if isinstance(notice, StateCopied):
            self._state.lineage.note_copied(time.time_ns(), str(notice.params["reason"]))

    def _remember(self) -> None:
        lineage, found = self._state.lineage, self._found
        if found.strangers or found.checkpoint:
            lineage.note_seen(found.strangers, max(found.checkpoint, lineage.last_checkpoint()))
        mark = machine_mark(self.credential.vault_id)
        if mark is not None and mark != lineage.machine():
            lineage.note_machine(mark)


def _error(lost: Lost) -> type[StateLost | StateRolledBack]:
    return StateLost if lost.code == StateLost.code else StateRolledBack


def _lost(lost: Lost, config: Config) -> StateLost | StateRolledBack:
    patience = config.rebuild_patience
    return _error(lost)(since=lost.since, patience=str(patience), until=lost.since + patience.ns)


def look_again(config: Config, credential: WriterCredential, state: State, providers: Sequence[Provider]) -> Start:
    """The same look for a command that is no backup."""
    start = Start(config, credential, state, Report())
    start.look(providers)
    return start


@contextlib.contextmanager
def records(config: Config, credential: WriterCredential, told: Callable[[StateMovedAside], None]) -> Iterator[State]:
    """This device's records; damaged ones are moved aside, now or when it turns out, and empty ones begun. Where they
    are then is told in the end."""
    with device.open_state(config, credential, anew=True) as state:
        moved = state.moved_aside
        try:
            yield state
        except StateDamaged as exc:
            if not exc.params.get("for_good"):
                raise
            moved = state.give_up()
            raise
        finally:
            if moved is not None:
                told(StateMovedAside(path=str(moved)))
