"""An unlocked vault whose keys are elsewhere: in the process of the session, which opens one object at a time.

The session says which vault it holds and what it knew of it. All else is read from storage and verified anew, down to
the vault id, as if it had been unlocked here: nothing in storage counts because it counted this morning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.keys.hybrid import HybridPublic
from chatkeep.daemon.keys.root import VerifyKey
from chatkeep.daemon.keys.secret import Buffer
from chatkeep.daemon.vault.chain import Chain, Records, walk_from_first
from chatkeep.daemon.vault.devices import read_devices
from chatkeep.daemon.vault.epoch import EpochPin, EpochRecord
from chatkeep.daemon.vault.errors import AuthenticationFailed, MissingObject, SessionOutdated, VaultError
from chatkeep.daemon.vault.labels import SIG_CHECKPOINT
from chatkeep.daemon.vault.names import EpochName
from chatkeep.daemon.vault.unlocked import Pruner, UnlockedVault
from chatkeep.providers.base import Provider, ProviderError


class Keyholder(Protocol):
    """What holds the keys. Thread-safe."""

    def open(self, epoch: int, key_id: bytes, sealed: bytes, bound: bytes) -> bytes:
        """Opens with the key of an epoch. Raises `Unsealable`, `UnknownKey`, `VaultLocked`."""

    def sign(self, text: bytes) -> bytes:
        """The signature of a whole checkpoint, given without one. Raises `VaultLocked`."""

    def close(self) -> None:
        """Asks nothing any more. Twice is once."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a session says it holds.

    Attributes:
        head: hash of the newest epoch record when the vault was unlocked.
        slot_id: the slot that opened it.
        key_ids: of the keys that open, by epoch from 1 on.
        checkpoint: the public key that it signs checkpoints for.
    """

    vault_id: bytes
    head: bytes
    slot_id: bytes
    key_ids: tuple[bytes, ...]
    checkpoint: bytes

    @property
    def name(self) -> EpochName:
        """The name of the record `head`."""
        return EpochName(len(self.key_ids), self.head)


def open_by_session(
    keyholder: Keyholder,
    held: Held,
    provider: Provider,
    *,
    others: Sequence[Provider] = (),
    pin: EpochPin | None = None,
) -> UnlockedVault:
    """The vault, for reading. It owns `keyholder` from then on, and closes it when it is wiped.

    Args:
        provider, others, pin: as `unlock.unlock` has them.

    Raises:
        SessionOutdated: the vault has a newer epoch than the session.
        AuthenticationFailed: the session's keys are not those of the records: another history of the vault.
        Whatever `chain.walk` and `devices.read_devices` raise.
    """
    chain, findings = _chain(held, provider, others)
    known = {str(held.name): held.head}
    if pin is not None and pin.vault_id == held.vault_id:
        known[str(EpochName(pin.epoch, pin.sha256))] = pin.sha256
    # An older copy can be read, as it can with a secret, and it is told that it is one.
    findings += [MissingObject(name) for name, sha256 in known.items() if not _has(chain, sha256)]
    return _opened(keyholder, held, chain, provider, others, findings)


def prune_by_session(
    keyholder: Keyholder,
    held: Held,
    provider: Provider,
    *,
    others: Sequence[Provider] = (),
    pin: EpochPin,
) -> Pruner:
    """The same for saying which snapshots live. Raises as `open_by_session`, and MissingObject where storage does not
    have the record of `pin`, or the one that the session was begun with: signed for an older one, it would count for
    nothing.
    """
    chain, findings = _chain(held, provider, others)
    for name, sha256 in ((EpochName(pin.epoch, pin.sha256), pin.sha256), (held.name, held.head)):
        if not _has(chain, sha256):
            raise MissingObject(str(name))
    vault = _opened(keyholder, held, chain, provider, others, findings)
    return Pruner(vault, _Signs(keyholder, chain.head.checkpoint), chain.head)


class _Opens:
    """The key of an epoch, held elsewhere."""

    def __init__(self, keyholder: Keyholder, record: EpochRecord) -> None:
        self.public: Final[HybridPublic] = record.public
        self._epoch = record.epoch
        self._keyholder = keyholder

    def open(self, sealed: Buffer, info: bytes) -> bytes:
        return self._keyholder.open(self._epoch, self.public.key_id, bytes(sealed), info)

    def wipe(self) -> None:
        self._keyholder.close()


class _Signs:
    """The checkpoint key of the newest epoch, held elsewhere."""

    def __init__(self, keyholder: Keyholder, public: VerifyKey) -> None:
        self.public: Final = public
        self._keyholder = keyholder

    def sign_hashed(self, context: bytes, text: bytes) -> bytes:
        if context != SIG_CHECKPOINT:
            raise AssertionError("a session signs nothing but checkpoints")
        return self._keyholder.sign(text)

    def wipe(self) -> None:
        self._keyholder.close()


def _chain(held: Held, provider: Provider, others: Sequence[Provider]) -> tuple[Chain, list[ChatkeepError]]:
    """The verified records, of which the session has every key: all that it knew, or fewer."""
    findings: list[ChatkeepError] = []
    records = Records(provider)
    for other in others:
        if other is provider:
            continue
        try:
            records.add(other)
        except ProviderError:
            pass  # one of several: that it is away is none of our concern
        except VaultError as exc:
            exc.params.setdefault("provider", other.name)
            findings.append(exc)
    chain = walk_from_first(records, held.vault_id)
    if chain.head.epoch > len(held.key_ids):
        raise SessionOutdated(epoch=chain.head.epoch, since=len(held.key_ids))
    keys = tuple(record.public.key_id for record in chain.records)
    whole = chain.head.sha256 != held.head or chain.head.checkpoint.raw == held.checkpoint
    if keys != held.key_ids[: len(keys)] or not whole:
        raise AuthenticationFailed(what="session-keys", epoch=chain.head.epoch)
    return chain, findings


def _opened(
    keyholder: Keyholder,
    held: Held,
    chain: Chain,
    provider: Provider,
    others: Sequence[Provider],
    findings: list[ChatkeepError],
) -> UnlockedVault:
    keys = {record.epoch: _Opens(keyholder, record) for record in chain.records}
    devices = read_devices(provider, chain, others)
    told = (*findings, *chain.findings, *devices.findings)
    return UnlockedVault(chain, keys, devices, told, held.slot_id)


def _has(chain: Chain, sha256: bytes) -> bool:
    return any(record.sha256 == sha256 for record in chain.records)
