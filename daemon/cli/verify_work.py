"""The work of `chatkeep verify`, and its report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chatkeep.config.errors import Cancelled, ChatkeepError
from chatkeep.config.model import Config
from chatkeep.daemon.cli import reading
from chatkeep.daemon.cli.exits import Exit, worst
from chatkeep.daemon.cli.frame import Frame
from chatkeep.daemon.cli.measures import counted, printable, size
from chatkeep.daemon.cli.output import Output
from chatkeep.daemon.cli.stopping import stopping
from chatkeep.daemon.cli.storage import named
from chatkeep.daemon.cli.telling import plain_error, tell
from chatkeep.daemon.cli.unlocking import Secret
from chatkeep.daemon.cli.verify_note import VerifyNote, recall, remember
from chatkeep.daemon.service import device, storage
from chatkeep.daemon.state import glance
from chatkeep.daemon.vault.errors import CheckpointOutdated, MissingObject, VaultError
from chatkeep.daemon.verify.deep import DeepReport, deep
from chatkeep.daemon.verify.let_go import LetGo
from chatkeep.daemon.verify.scrub import ScrubReport, scrub
from chatkeep.providers.base import (
    ObjectNotFound,
    Provider,
    ProviderError,
    StorageMissing,
    Throttled,
    Unavailable,
)

MOST_SHOWN = 20
DATA = "d/"
_AWAY = (StorageMissing, Throttled, Unavailable)


@dataclass
class ProviderVerdict:
    """What was found at one provider. `expected`: objects that this device knows to be there, None without records;
    `error`: why it could not be looked at to the end."""

    name: str
    required: bool
    scrubbed: ScrubReport | None = None
    expected: int | None = None
    findings: list[ChatkeepError] = field(default_factory=list)
    error: ChatkeepError | None = None

    def value(self) -> dict[str, Any]:
        """For --json."""
        seen = self.scrubbed
        return {
            "name": self.name,
            "required": self.required,
            "vault": None if seen is None or seen.vault_id is None else seen.vault_id.hex(),
            "objects": None if seen is None else seen.objects,
            "bytes": None if seen is None else seen.content,
            "checked_objects": None if seen is None else seen.checked,
            "read_bytes": None if seen is None else seen.read,
            "skipped_packs": None if seen is None else seen.skipped,
            "foreign_files": None if seen is None else seen.foreign,
            "expected_objects": self.expected,
            "findings": [plain_error(finding) for finding in self.findings],
            "error": None if self.error is None else plain_error(self.error),
        }

    def lines(self, out: Output) -> Iterator[str]:
        """For a person."""
        head = out.styled(printable(self.name), "head")
        if self.error is not None:
            told = tell(self.error, name_provider=False)
            yield f"{head}: {out.styled(told.text, 'bad')}"
            yield from ([f"  {told.remedy}"] if told.remedy else [])
        elif self.scrubbed is not None:
            seen = self.scrubbed
            good = out.styled("all as it was sealed", "good")
            words = good if not self.findings else out.styled(counted(len(self.findings), "finding"), "bad")
            yield f"{head}: {counted(seen.checked, 'object')}, {size(seen.read)} read: {words}"
            if seen.skipped:
                yield f"  {counted(seen.skipped, 'pack')} left out by the sample"
            if self.expected is not None and not self.findings:
                yield f"  {counted(self.expected, 'object')} known to this device: all there"
            if seen.foreign:
                yield f"  {counted(seen.foreign, 'file')} not ours, left alone"
        yield from _finding_lines(self.findings)

    def exit(self) -> Exit:
        """Damage counts at any provider; one that is away only if it is required."""
        if any(not isinstance(finding, CheckpointOutdated) for finding in self.findings):
            return Exit.INTEGRITY
        if self.error is None:
            return Exit.DONE
        code = tell(self.error).exit
        return code if self.required or code is Exit.INTEGRITY else Exit.DONE


@dataclass
class Verdict:
    """What a verification found."""

    providers: list[ProviderVerdict] = field(default_factory=list)
    opened: DeepReport | None = None
    cancelled: bool = False

    def value(self) -> dict[str, Any]:
        """For --json."""
        return {
            "providers": [provider.value() for provider in self.providers],
            "deep": None
            if self.opened is None
            else {
                "snapshots": self.opened.snapshots,
                "blobs": self.opened.blobs,
                "bytes": self.opened.content,
                "databases": self.opened.databases,
                "pruned_meanwhile": self.opened.pruned,
                "findings": [plain_error(finding) for finding in self.opened.findings],
            },
            "cancelled": self.cancelled,
        }

    def lines(self, out: Output) -> Iterator[str]:
        """For a person."""
        for provider in self.providers:
            yield from provider.lines(out)
        if self.opened is not None:
            seen = self.opened
            words = [
                counted(seen.snapshots, "snapshot"),
                f"{counted(seen.blobs, 'blob')} opened ({size(seen.content)})",
                f"{counted(seen.databases, 'database')} put together",
            ]
            bad = counted(len(seen.findings), "finding")
            verdict = out.styled(bad, "bad") if seen.findings else out.styled("all as it was captured", "good")
            yield f"{out.styled('Unlocked', 'head')}: {', '.join(words)}: {verdict}"
            if seen.pruned:
                yield f"  {counted(seen.pruned, 'snapshot')} removed by the retention policy meanwhile"
            yield from _finding_lines(seen.findings)
        if self.cancelled:
            yield "Cancelled before everything was looked at."

    def exit(self) -> Exit:
        """The worst that was found."""
        codes = [provider.exit() for provider in self.providers]
        if self.opened is not None:
            codes.append(reading.weight(self.opened.findings))
        found = worst(codes)
        return Exit.CANCELLED if self.cancelled and found is not Exit.INTEGRITY else found


def run(frame: Frame, folder: Path | None, fraction: float) -> Verdict:
    """Looks at every provider, without a key; what is wrong is in the verdict. Raises ConfigError."""
    pin = None if folder is not None else device.pin(frame.config())
    vault_id = None if pin is None else pin.vault_id
    device_id = None if pin is None else device.device_id(frame.config())
    verdict = Verdict()
    with (
        stopping() as stopped,
        storage.opened(named(frame, folder)) as providers,
        frame.out.progress(sized=True) as step,
    ):
        for config, provider in zip(named(frame, folder), providers, strict=True):
            one = ProviderVerdict(provider.name, config.required)
            verdict.providers.append(one)
            try:
                if vault_id is not None:
                    storage.require_vault(provider, vault_id)
                one.scrubbed = scrub(
                    provider,
                    vault_id,
                    pin=pin,
                    fraction=fraction,
                    progress=lambda done, total, name=provider.name: step(name, done, total),  # type: ignore[misc]
                    cancelled=stopped,
                )
                one.findings += one.scrubbed.findings
                if device_id is not None:
                    _expect(frame, device_id, provider, one)
            except Cancelled:
                verdict.cancelled = True
                break
            except (ProviderError, VaultError) as exc:
                one.error = exc
    return verdict


def run_deep(frame: Frame, folder: Path | None, fraction: float, secret: Secret) -> Verdict:
    """The same, and then opens everything. Raises as unlocking does, and ProviderError."""
    # Unlocked first: nobody should be asked for a secret after an hour.
    with reading.opened(frame, folder, secret) as vault:
        verdict = run(frame, folder, fraction)
        if verdict.cancelled:
            return verdict
        with stopping() as stopped, frame.out.progress() as step:
            try:
                verdict.opened = deep(
                    vault.reader, progress=lambda done, total: step("opening", done, total), cancelled=stopped
                )
            except Cancelled:
                verdict.cancelled = True
        return verdict


def note(config: Config, verdict: Verdict) -> None:
    """What came of it is remembered for `status`, on a device that has a vault. One that found something wrong is not
    forgotten for one that could not look."""
    if device.is_set_up(config):
        looked = sum(one.scrubbed.checked for one in verdict.providers if one.scrubbed is not None)
        good = verdict.exit() is Exit.DONE and all(one.error is None for one in verdict.providers)
        away = verdict.exit() is not Exit.INTEGRITY and any(isinstance(one.error, _AWAY) for one in verdict.providers)
        before = recall(config.state_dir)
        if not away or before is None or before.good or before.away:
            remember(config.state_dir, VerifyNote(time.time_ns(), verdict.opened is not None, good, looked, away))


def _expect(frame: Frame, device_id: bytes, provider: Provider, one: ProviderVerdict) -> None:
    """What this device knows the provider to have is there. Only the storage, asked by name, can say that it is not.

    These records may be older than what was pruned: what a checkpoint let go is not expected.
    """
    state_dir = frame.config().state_dir
    if not glance.exists(state_dir):
        return
    with glance.Glance(state_dir) as seen:
        expected = [name for name, _ in seen.expected(provider.name)]
        listed = {found.name for found in provider.list(DATA)}
        told = {str(finding.params.get("name")) for finding in one.findings}
        absent = [name for name in expected if name not in listed | told and _is_absent(provider, name)]
        origins = {name: seen.origin(name) for name in absent}
        known = seen.last_checkpoint()
    lives = None if one.scrubbed is None else one.scrubbed.lives
    # Asked last: who deletes meanwhile has made the checkpoint before.
    let_go = LetGo(lives, device_id, known) if absent and lives is not None else None
    gone = {name for name in absent if let_go is not None and let_go.has(name, *origins[name])}
    one.expected = len(expected) - len(gone)
    one.findings += [MissingObject(name, provider=provider.name) for name in absent if name not in gone]


def _is_absent(provider: Provider, name: str) -> bool:
    try:
        provider.stat(name)
    except ObjectNotFound:
        return True
    return False


def _finding_lines(findings: Sequence[ChatkeepError]) -> Iterator[str]:
    for finding in findings[:MOST_SHOWN]:
        told = tell(finding, name_provider=False)
        name = finding.params.get("path") or finding.params.get("name") or finding.params.get("object")
        yield f"  {told.text}" + (f" ({printable(name)})" if isinstance(name, str | bytes) else "")
    if len(findings) > MOST_SHOWN:
        yield f"  and {len(findings) - MOST_SHOWN} more, all in --json"
