"""All providers at the same epoch: a step to a new one that was cut short between two of them is finished.

Whoever makes the next epoch, or adds a slot or a device to the newest, has to begin here. A new epoch that only one
provider has is as valid as if all had it, and devices may seal to it already: so it is copied, never made anew, since
a second one beside it would be a fork that nobody can take back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chatkeep.daemon.keys.methods import SlotMethod
from chatkeep.daemon.vault.chain import Anchor, Chain, Records, walk
from chatkeep.daemon.vault.create import write_everywhere
from chatkeep.daemon.vault.epoch import EpochPin, EpochRecord
from chatkeep.daemon.vault.errors import (
    EnrolmentFailed,
    ForkDetected,
    MissingObject,
    NoVault,
    RotationRefused,
    VaultError,
)
from chatkeep.daemon.vault.fetch import get_bounded
from chatkeep.daemon.vault.names import VaultName
from chatkeep.daemon.vault.unlock import unlock_to_enrol
from chatkeep.daemon.vault.unlocked import Enrolment
from chatkeep.providers.base import ObjectNotFound, Provider, ProviderError


@dataclass(frozen=True, slots=True)
class Agreed:
    """An enrolment at the newest epoch that any provider has; `finished`: some provider lacked a record, and has it."""

    enrolment: Enrolment
    finished: bool


def unlock_newest(
    providers: Sequence[Provider],
    provider: Provider,
    method: SlotMethod,
    vault_id: bytes | None,
    pin: EpochPin | None = None,
) -> Agreed:
    """Unlocks at `provider` to enrol, at the newest epoch of all providers, which each of them has then.

    Args:
        pin: the newest epoch that somebody here has seen.

    Raises:
        RotationRefused: reason `unreachable`: a provider cannot be asked, and nothing was written; or `outrun`.
        ForkDetected: two providers hold epochs that cannot both be.
        EnrolmentFailed: a record did not read back.
        NoVault, as with reason `expected`: a provider does not hold this vault.
        MissingObject: no provider has the pinned record: storage was rolled back, and going on would be a fork.
        Whatever `unlock_to_enrol` raises.
    """
    enrolment = unlock_to_enrol(provider, method, vault_id, others=providers, pin=pin)
    try:
        newest, finished = agree(providers, enrolment.vault.records)
        if newest.sha256 != enrolment.vault.head.sha256:
            raise RotationRefused(reason="outrun", name=str(newest.name))
    except BaseException:
        enrolment.wipe()
        raise
    return Agreed(enrolment, finished)


def agree(providers: Sequence[Provider], known: Sequence[EpochRecord]) -> tuple[EpochRecord, bool]:
    """Brings every epoch record that any provider has to all of them; returns the newest, and whether one was missing.

    Args:
        known: verified records, from the first on.

    Raises:
        RotationRefused, ForkDetected, EnrolmentFailed, NoVault: as `unlock_newest`.
    """
    first = known[0]
    for provider in providers:
        with_vault(provider, first.vault_id)
    try:
        chain = walk(Records(*providers), Anchor(first.vault_id, 1, first.sign))
    except ProviderError as exc:
        raise unreachable(exc) from exc
    for seen, record in zip(chain.records, known, strict=False):
        if seen.sha256 != record.sha256:
            raise ForkDetected(what="epoch", reason="epoch", names=sorted((str(seen.name), str(record.name))))
    records = chain.records if len(chain.records) > len(known) else list(known)
    return records[-1], fill_up(providers, {str(record.name): record.raw for record in records})


def fill_up(providers: Sequence[Provider], objects: Mapping[str, bytes]) -> bool:
    """Writes the objects where they are missing, once every provider was asked for all of them; whether any was.

    Raises:
        RotationRefused: `unreachable`; or `copy-damaged`: something else is under a name. Nothing was written.
        EnrolmentFailed: what was written did not read back.
    """
    missing = [(provider, _missing(provider, objects)) for provider in providers]
    for provider, lacking in missing:
        try:
            write_everywhere([provider], lacking)
        except ProviderError as exc:
            raise unreachable(exc) from exc
    return any(lacking for _, lacking in missing)


def prove(providers: Sequence[Provider], record: EpochRecord, first: EpochRecord) -> Chain:
    """Walks the chain at each provider alone, as a reader will, from the first record to `record`.

    Raises:
        ForkDetected: another record follows the same one.
        EnrolmentFailed: the chain does not reach the record there.
    """
    for provider in providers:
        chain = walk(Records(provider), Anchor(first.vault_id, 1, first.sign))
        if chain.head.sha256 != record.sha256:
            raise EnrolmentFailed(provider=provider.name, name=str(record.name), reason="not-listed")
    return chain


def with_vault(provider: Provider, vault_id: bytes) -> None:
    """Returns when the provider holds this vault: another disk in its place must not be filled.

    Raises:
        NoVault, RotationRefused.
    """
    try:
        provider.stat(str(VaultName(vault_id)))
    except ObjectNotFound as exc:
        raise NoVault(provider=provider.name, reason="expected") from exc
    except ProviderError as exc:
        raise unreachable(exc) from exc


def unreachable(error: ProviderError) -> RotationRefused:
    """What is said when a provider failed: all of them are needed, since a copy that is behind opens to old keys."""
    return RotationRefused(reason="unreachable", provider=error.params.get("provider"), error=error.code)


def _missing(provider: Provider, objects: Mapping[str, bytes]) -> dict[str, bytes]:
    missing = {}
    for name, raw in objects.items():
        try:
            found: bytes | None = get_bounded(provider, name, len(raw))
        except MissingObject:
            missing[name] = raw
            continue
        except VaultError:
            found = None
        except ProviderError as exc:
            raise unreachable(exc) from exc
        if found != raw:
            raise RotationRefused(reason="copy-damaged", provider=provider.name, name=name)
    return missing
