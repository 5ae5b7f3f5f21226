"""The work of `chatkeep prune`: unlock, plan, and, unless it is only asked, say what lives and delete what is due."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import NamedTuple

from chatkeep.config.errors import Cancelled, ChatkeepError
from chatkeep.config.model import Config
from chatkeep.daemon.cli import ask, by_daemon, proving, unlocking
from chatkeep.daemon.cli.frame import Frame
from chatkeep.daemon.cli.output import Output
from chatkeep.daemon.cli.prune_report import ALARMS, PruneReport
from chatkeep.daemon.cli.stopping import stopping
from chatkeep.daemon.cli.unlocking import Secret
from chatkeep.daemon.prune.clocks import check_clocks
from chatkeep.daemon.prune.commit import carry_out
from chatkeep.daemon.prune.errors import PruneRefused, PruneTooMuch
from chatkeep.daemon.prune.outbox_first import OutboxFirst
from chatkeep.daemon.prune.own import OwnVault
from chatkeep.daemon.prune.plan import Terms, make_plan
from chatkeep.daemon.prune.put_back import put_back
from chatkeep.daemon.service import device, storage
from chatkeep.daemon.service.engine import sweeping
from chatkeep.daemon.service.engine.letting_go import let_go
from chatkeep.daemon.state import State
from chatkeep.daemon.state.pruning import CHECKPOINTS
from chatkeep.daemon.sync import upload as sync
from chatkeep.daemon.sync.catching_up import Watch, send_all
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.daemon.vault.errors import VaultError
from chatkeep.daemon.vault.unlocked import Pruner
from chatkeep.providers.base import Provider, ProviderError
from chatkeep.providers.wrap import Retrying


class Asked(NamedTuple):
    """How prune was asked."""

    dry_run: bool
    give_up: bool


def run(frame: Frame, secret: Secret, *, dry_run: bool, yes: bool, give_up: bool = False) -> PruneReport:
    """Everything prune does. `give_up`: what is lost, is lost. Raises PruneError, and what unlocking, reading and the
    records raise: then nothing was changed."""
    config, out = frame.config(), frame.out
    with contextlib.ExitStack() as stack:
        credential = device.load_credential(config)
        stack.callback(lambda: credential.wipe())  # whichever it is by then
        providers = stack.enter_context(storage.opened(config.providers, patient=False))
        credential = device.follow(config, providers, credential).credential
        pruner = stack.enter_context(
            unlocking.unlock_to_prune(out, list(map(Retrying, providers)), secret, credential.pin)
        )
        # Taken last: nobody's backup waits while a secret is typed.
        stack.enter_context(by_daemon.borrowed(config, "prune", out))
        state = stack.enter_context(device.open_state(config, credential))
        check(state, credential, pruner)
        answering = check_clocks(providers)
        if give_up and len(answering) < len(providers):
            away = next(one.name for one in providers if one not in answering)
            raise PruneRefused(reason="away", where=away)
        put_back(state, list(map(Retrying, answering)), only_show=dry_run)
        proving.prove_in(frame, config, state, pruner.vault)
        asked = Asked(dry_run, give_up)
        report = _planned(config, state, credential, pruner, answering, out, asked)
        if not dry_run:
            _confirm(report, out, yes=yes)
            made = carry_out(report.plan, state, credential.device_id, pruner.record, pruner.checkpoint)
            report.number = None if made is None else made.number
            pruner.wipe()  # what follows needs no key
            _deliver(config, state, credential, providers, report, out)
    return report


def check(state: State, credential: WriterCredential, pruner: Pruner) -> None:
    """Whether this device may say what lives. Raises PruneRefused."""
    if credential.device_id not in pruner.vault.devices:
        raise PruneRefused(reason="device")
    if pruner.record.sha256 != credential.pin.sha256:
        raise PruneRefused(reason="epoch")
    if state.lineage.lost() is not None:
        raise PruneRefused(reason="records")
    for stream in state.outbox.recover():
        if stream != CHECKPOINTS:
            raise PruneRefused(reason="outbox")
        state.abandon(CHECKPOINTS)  # made again: nothing was deleted by it where it did not arrive


def _planned(
    config: Config,
    state: State,
    credential: WriterCredential,
    pruner: Pruner,
    providers: Sequence[Provider],
    out: Output,
    asked: Asked,
) -> PruneReport:
    now = time.time_ns()
    shown = [OutboxFirst(Retrying(one), state) for one in providers]
    with out.progress(single=True) as step:
        own = OwnVault(shown, pruner.vault, credential.device_id)
        names = [one.name for one in config.providers]
        plan = make_plan(own, state, Terms(config.retention, names, now, give_up=asked.give_up), step)
    required = frozenset(one.name for one in config.providers if one.required)
    return PruneReport(plan, config.retention, asked.dry_run, now, findings=list(own.findings), required=required)


def _confirm(report: PruneReport, out: Output, *, yes: bool) -> None:
    """What looks like a mistake is done when a person says so. Raises PruneRefused, PruneTooMuch, Cancelled."""
    if yes:
        return
    if report.plan.lost:
        for line in () if out.as_json else report.lost_lines():
            out.note(line)
        if out.as_json or not ask.has_terminal():
            raise PruneRefused(reason="confirm")
        if not ask.agreed("Give them up for good?"):
            raise Cancelled(reason="kept")
    found = report.plan.alarms
    if not found:
        return
    for line in () if out.as_json else (report.question(), *(ALARMS[alarm.value] for alarm in found)):
        out.note(line)
    if out.as_json or not ask.has_terminal():
        raise PruneTooMuch(reasons=[alarm.value for alarm in found])
    if not ask.agreed("Let them go?"):
        raise Cancelled(reason="kept")


def _deliver(
    config: Config,
    state: State,
    credential: WriterCredential,
    providers: Sequence[Provider],
    report: PruneReport,
    out: Output,
) -> None:
    """The checkpoint to every provider, then what is due. What fails is in the report: it is done later."""
    with stopping() as stopped, out.progress(sized=True) as step:
        wrong = {one.name: _wrong_place(one, credential.vault_id) for one in providers}
        right = [one for one in providers if wrong[one.name] is None]
        watch = Watch(lambda at: step(f"to {at.provider}", at.bytes, at.bytes_total), stopped)
        sent = send_all(state, right, right, watch)
        away = [sync.UploadResult(name, 0, 0, {}, (exc,), cancelled=False) for name, exc in wrong.items() if exc]
        report.uploads = [*sent, *away]
        let_go(config, state)
        report.sweeps = sweeping.sweep_all(config, state, credential, right, asked=True, cancelled=stopped)


def _wrong_place(provider: Provider, vault_id: bytes) -> ChatkeepError | None:
    """Why nothing is sent there, nor taken for deleted: it cannot be asked, or holds another vault."""
    try:
        storage.require_vault(provider, vault_id)
    except (ProviderError, VaultError) as exc:
        return exc
    return None
