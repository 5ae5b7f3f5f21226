"""An unlocked vault for the commands that read: opened, its histories of snapshots, the one that is meant."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click

from chatkeep.config.errors import ChatkeepError
from chatkeep.config.problems import nearest
from chatkeep.daemon.cli import proving, unlocking
from chatkeep.daemon.cli.choosing import Wanted, understand
from chatkeep.daemon.cli.errors import NoSuchSnapshot, SeveralSnapshots
from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.frame import Frame
from chatkeep.daemon.cli.measures import local_time
from chatkeep.daemon.cli.output import Output
from chatkeep.daemon.cli.storage import named
from chatkeep.daemon.cli.telling import tell
from chatkeep.daemon.cli.unlocking import Secret
from chatkeep.daemon.service import device, storage
from chatkeep.daemon.vault.epoch import EpochPin
from chatkeep.daemon.vault.errors import CapsuleFailed
from chatkeep.daemon.vault.preference import watched
from chatkeep.daemon.vault.reader import Snapshot, VaultReader
from chatkeep.daemon.vault.snapshots import SnapshotChain
from chatkeep.daemon.vault.unlocked import UnlockedVault

SHORT_ID = 8  # hex digits of an id that are shown
MOST_FINDINGS = 10


class History:
    """The snapshots of one source in one chain, newest first, read as they are drawn and kept."""

    def __init__(self, chain: SnapshotChain, snapshots: Iterator[Snapshot]) -> None:
        self.chain = chain
        self.label = ""
        self._rest = snapshots
        self._drawn: list[Snapshot] = []

    def __iter__(self) -> Iterator[Snapshot]:
        for number in itertools.count():
            if number == len(self._drawn):
                following = next(self._rest, None)
                if following is None:
                    return
                self._drawn.append(following)
            yield self._drawn[number]

    @property
    def newest(self) -> Snapshot | None:
        """The newest that could be read."""
        return next(iter(self), None)


class OpenVault:
    """What a reading command works with."""

    def __init__(self, reader: VaultReader, vault: UnlockedVault, capsules: Sequence[ChatkeepError] = ()) -> None:
        self.reader = reader
        self.vault = vault
        self._capsules = capsules
        self._histories: list[History] | None = None

    @property
    def histories(self) -> list[History]:
        """Every chain that has a snapshot, labelled by its source (`source@host` where hosts share a name), in the
        order of the labels, then newest first."""
        if self._histories is None:
            chains = [self.reader.chain(stream) for stream in self.reader.streams()]
            found = [History(chain, self.reader.snapshots(chain)) for chain in chains]
            self._histories = _labelled([history for history in found if history.newest is not None])
        return self._histories

    def of_source(self, name: str | None) -> list[History]:
        """The chains of one source, or all. Raises click.BadParameter when there is no such source."""
        if name is None:
            return self.histories
        chosen = [one for one in self.histories if name in {one.label, one.label.rpartition("@")[0]}]
        if not chosen:
            known = sorted({one.label for one in self.histories})
            meant = nearest(name, known)
            advice = f"Did you mean '{meant}'?" if meant else f"There are: {', '.join(known) or 'none yet'}."
            raise click.BadParameter(f"The vault has no source '{name}'. {advice}", param_hint="--source")
        return chosen

    def find(self, text: str, source: str | None) -> tuple[Snapshot, str]:
        """The snapshot that is meant, and its source. Raises NoSuchSnapshot, SeveralSnapshots, click.UsageError."""
        wanted = understand(text, time.time_ns())
        if wanted is None:
            raise click.BadParameter(
                f"'{text}' names no snapshot. It is: latest, a number, the beginning of an id, a date or time "
                "(2026-01-31, 2026-01-31T18:30, yesterday, 3 days ago); before it SOURCE: if there are several.",
                param_hint="SNAP",
            )
        chosen = self.of_source(source if wanted.source is None else wanted.source)
        candidates = _candidates(wanted, chosen)
        if not candidates:
            newest = max((one for history in chosen for one in [history.newest] if one), key=_time, default=None)
            if not chosen and weight(self.findings()) is Exit.INTEGRITY:
                # None is left that could be read, which is not the same as none yet.
                raise next(one for one in self.findings() if tell(one).exit is Exit.INTEGRITY)
            known = "There is none yet." if newest is None else f"The newest is {name_of(newest)}."
            raise NoSuchSnapshot(wanted=text, known=known)
        if len(candidates) > 1:
            shown = [
                f"{label}:{one.header.seq} ({short_id(one)}, {local_time(_time(one))})" for one, label in candidates
            ]
            raise SeveralSnapshots(wanted=text, candidates=shown[:MOST_FINDINGS])
        return candidates[0]

    def hidden(self, text: str, label: str) -> list[ChatkeepError]:
        """Why a source may have had a newer snapshot than the one found; nothing if that one was named itself."""
        wanted = understand(text, time.time_ns())
        if wanted is not None and (wanted.number is not None or wanted.prefix is not None):
            return []
        return [one for history in self.histories if history.label == label for one in history.chain.findings]

    def findings(self) -> list[ChatkeepError]:
        """What was met in storage and ought not to be, as far as was read."""
        every: list[ChatkeepError] = [*self._capsules, *self.vault.findings, *self.reader.findings]
        for history in self._histories or ():
            every += history.chain.findings
        return every


@contextlib.contextmanager
def opened(frame: Frame, folder: Path | None, secret: Secret) -> Iterator[OpenVault]:
    """Unlocks the vault at the folder, or at the configured providers. Raises as unlocking does."""
    configs = named(frame, folder)
    with contextlib.ExitStack() as stack:
        providers = watched(stack.enter_context(storage.opened(configs)))
        vault = stack.enter_context(unlocking.unlock(frame.out, providers, secret, pin=_pin(frame, folder)))
        yield OpenVault(VaultReader(providers, vault), vault, proving.prove(frame, vault))


def _pin(frame: Frame, folder: Path | None) -> EpochPin | None:
    """The vault that this device writes, and how far it has come: another vault at its providers is told, not taken for
    it, and so is an older state of this one."""
    return None if folder is not None else device.pin(frame.config())


def tell_findings(out: Output, findings: Sequence[ChatkeepError]) -> None:
    """Notes on what was met in storage. What was told when it was unlocked is not told twice."""
    findings = [finding for finding in findings if not isinstance(finding, CapsuleFailed)]
    if not findings:
        return
    out.note(out.remark("In storage there was also:", "warn"))
    for finding in findings[:MOST_FINDINGS]:
        out.note(f"  {tell(finding).text}")
    if len(findings) > MOST_FINDINGS:
        out.note(f"  and {len(findings) - MOST_FINDINGS} more, all in --json")


def weight(findings: Iterable[ChatkeepError]) -> Exit:
    """How a command ends that did its work and met these: damage counts, a provider that is away does not."""
    damaged = any(tell(finding).exit is Exit.INTEGRITY for finding in findings)
    return Exit.INTEGRITY if damaged else Exit.DONE


def short_id(snapshot: Snapshot) -> str:
    """The beginning of an id, as it is shown."""
    return snapshot.name.sha256.hex()[:SHORT_ID]


def name_of(snapshot: Snapshot) -> str:
    """A snapshot in words: `12 of 2026-01-31 18:30:00`."""
    return f"{snapshot.header.seq} of {local_time(snapshot.manifest.clock)}"


def _time(snapshot: Snapshot) -> int:
    return snapshot.manifest.clock


def _labelled(histories: list[History]) -> list[History]:
    hosts: dict[str, set[str]] = {}
    for history in histories:
        assert history.newest is not None
        manifest = history.newest.manifest
        hosts.setdefault(manifest.source_name, set()).add(manifest.host)
    for history in histories:
        assert history.newest is not None
        manifest = history.newest.manifest
        several = len(hosts[manifest.source_name]) > 1
        history.label = f"{manifest.source_name}@{manifest.host}" if several else manifest.source_name
    return sorted(histories, key=lambda one: (one.label, -_time(one.newest) if one.newest else 0))


def _candidates(wanted: Wanted, histories: list[History]) -> list[tuple[Snapshot, str]]:
    if wanted.number is not None:
        found = [pair for history in histories for pair in _numbered(history, wanted.number)]
        if found or wanted.prefix is None:
            return found
    if wanted.prefix is not None:
        prefix = wanted.prefix
        return [(one, history.label) for history in histories for one in history if _starts(one, prefix)]
    newest: dict[str, Snapshot] = {}
    for history in histories:
        # The first that is early enough: clocks may have been set back, the order of the chain holds.
        early = (one for one in history if wanted.before_ns is None or _time(one) <= wanted.before_ns)
        one = next(early, None)
        if one is not None and (history.label not in newest or _time(newest[history.label]) < _time(one)):
            newest[history.label] = one
    return [(one, label) for label, one in newest.items()]


def _numbered(history: History, number: int) -> Iterator[tuple[Snapshot, str]]:
    for one in history:
        if one.header.seq < number:
            return
        if one.header.seq == number:  # after a fork two of them may live
            yield one, history.label


def _starts(snapshot: Snapshot, prefix: str) -> bool:
    return snapshot.name.sha256.hex().startswith(prefix)
