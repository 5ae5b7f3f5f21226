"""The chain of epochs: from the record that a slot vouches for down to the vault id and up to the newest.

See docs/format.md, section 7. Storage is asked for records and believed in nothing: a record is taken by its hash, and
counts through a signature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeVar

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.keys.root import VerifyKey
from chatkeep.daemon.keys.signed import LIMITS
from chatkeep.daemon.vault.epoch import EpochClaim, EpochPin, EpochRecord
from chatkeep.daemon.vault.errors import (
    AuthenticationFailed,
    ForkDetected,
    Malformed,
    MissingObject,
    ObjectMismatch,
    VaultError,
)
from chatkeep.daemon.vault.fetch import get_bounded, listed
from chatkeep.daemon.vault.names import EPOCHS, EpochName
from chatkeep.providers.base import Provider

Verified = TypeVar("Verified")

MOST_RECORDS: Final = 1024
"""Most epoch records that are looked at. Each removal of a slot or device makes one."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where a chain is entered: what a slot's secret authenticates."""

    vault_id: bytes
    epoch: int
    pin: VerifyKey


@dataclass(slots=True)
class Chain:
    """Verified records 1 to n, and what was met on the way and does not count."""

    records: list[EpochRecord]
    findings: list[ChatkeepError] = field(default_factory=list)

    @property
    def head(self) -> EpochRecord:
        """The newest."""
        return self.records[-1]


class Records:
    """The epoch records that storage lists, at one provider or at several together, read as they are needed.

    Raises, from any method: what a provider raises, except for objects that are absent or unreadable; `Malformed` when
    one lists more than a vault can have.
    """

    def __init__(self, *providers: Provider) -> None:
        self._providers: list[Provider] = []
        self._names: set[EpochName] = set()
        for provider in providers:
            self.add(provider)

    def add(self, provider: Provider) -> None:
        """Adds what one more provider lists."""
        names = listed(provider, EPOCHS, EpochName, MOST_RECORDS)
        if len(names) > MOST_RECORDS:
            # Each could have to be fetched, and storage could list them for ever.
            raise Malformed(what="epochs", reason="too-many", limit=MOST_RECORDS)
        self._names.update(names)
        self._providers.append(provider)

    def numbered(self, epoch: int) -> list[EpochName]:
        """The records listed for an epoch. There ought to be one."""
        return sorted((name for name in self._names if name.epoch == epoch), key=str)

    def beyond(self, epoch: int) -> list[EpochName]:
        """The records listed for later epochs."""
        return sorted((name for name in self._names if name.epoch > epoch), key=str)

    def claim(self, name: EpochName) -> EpochClaim:
        """One record, well formed and of the hash and number in its name, not verified.

        Raises:
            MissingObject, ObjectMismatch, Malformed, UnsupportedVersion.
        """
        claim = EpochClaim.parse(self._whole(name))
        if claim.epoch != name.epoch:
            raise Malformed(what="epoch", reason="number", name=str(name))
        return claim

    def _whole(self, name: EpochName) -> bytes:
        """The first copy that hashes to its name."""
        problem: VaultError = MissingObject(str(name))
        for provider in self._providers:
            try:
                raw = get_bounded(provider, str(name), LIMITS["epoch"])
                if hashlib.sha256(raw).digest() == name.sha256:
                    return raw
                problem = ObjectMismatch(str(name))
            except MissingObject:
                continue
            except VaultError as exc:
                problem = exc
        raise problem


def walk(records: Records, anchor: Anchor) -> Chain:
    """The chain that `anchor` is part of.

    Raises:
        MissingObject: a record on the way is not there.
        AuthenticationFailed: no record of the anchor's epoch carries its pin, or a signature on the way is wrong.
        WrongVault: the chain does not begin with this vault's first epoch.
        ForkDetected: two records are as good as each other.
        ObjectMismatch, Malformed, UnsupportedVersion: a record on the way is damaged.
    """
    findings: list[ChatkeepError] = []
    place = (anchor.vault_id, anchor.epoch)
    candidates = _sound(records, place, findings, lambda claim: _down(records, claim, anchor))
    if not candidates:
        if findings:
            raise findings[0]
        raise MissingObject(f"{EPOCHS}{anchor.epoch:08d}")
    if len(candidates) > 1:
        # Whoever had the key of the epoch before signed two: which slots and devices count is not for us to choose.
        raise ForkDetected(what="epoch", reason="epoch", names=[str(chain[-1].name) for chain in candidates])
    chain = Chain(candidates[0], findings)
    chain.records.extend(climb(records, chain.head.pin, chain.findings))
    return chain


def climb(records: Records, pin: EpochPin, findings: list[ChatkeepError]) -> Iterator[EpochRecord]:
    """Yields the epochs after the pinned one, each signed by the one before; what does not count is a finding.

    Raises:
        ForkDetected: two records follow the last one yielded, and are as good as each other.
    """
    while True:
        successors = _successors(records, pin, findings)
        if not successors:
            break
        if len(successors) > 1:
            raise ForkDetected(what="epoch", reason="epoch", names=[str(record.name) for record in successors])
        pin = successors[0].pin
        yield successors[0]
    # Planted, or of a chain with a link withheld: which of the two cannot be told, so it is told that they are there.
    findings.extend(
        AuthenticationFailed(what="epoch", reason="unlinked", name=str(name))
        for name in records.beyond(pin.epoch + 1)
        if not _of_another_vault(records, name, pin.vault_id)
    )


def walk_from_first(records: Records, vault_id: bytes) -> Chain:
    """The chain of the vault of this id, which certifies the first record's key: no secret is needed.

    Raises: as `walk`.
    """
    for name in records.numbered(1):
        try:
            claim = records.claim(name)
        except VaultError:
            continue  # planted or damaged; `walk` tells it as a finding when there is another
        if claim.vault_id == vault_id:
            return walk(records, Anchor(vault_id, 1, claim.sign))
    raise MissingObject(f"{EPOCHS}{1:08d}")


def _down(records: Records, claim: EpochClaim, anchor: Anchor) -> list[EpochRecord]:
    """Verifies a claim for the anchor's epoch by following `prev` to the first record, then the signatures back up."""
    if claim.sign != anchor.pin:
        raise AuthenticationFailed(what="epoch", reason="pin", name=str(claim.name))
    claims = [claim]
    while claims[-1].prev is not None:
        # The number falls by one each time and `claim` compares it, so this ends.
        claims.append(records.claim(EpochName(claims[-1].epoch - 1, claims[-1].prev)))
    verified = [claims.pop().as_first(anchor.vault_id)]
    while claims:
        verified.append(claims.pop().as_successor(verified[-1].pin))
    return verified


def _of_another_vault(records: Records, name: EpochName, vault_id: bytes) -> bool:
    try:
        return records.claim(name).vault_id != vault_id
    except VaultError:
        return False  # it says nothing, so it may be of this one


def _successors(records: Records, pin: EpochPin, findings: list[ChatkeepError]) -> list[EpochRecord]:
    return _sound(records, (pin.vault_id, pin.epoch + 1), findings, lambda claim: claim.as_successor(pin))


def _sound(
    records: Records,
    place: tuple[bytes, int],
    findings: list[ChatkeepError],
    verify: Callable[[EpochClaim], Verified],
) -> list[Verified]:
    """What `verify` makes of each record listed for an epoch of this vault; a record it refuses is a finding.

    Storage can plant any number of records: refusing one must not stop the reader from taking the true one. A fork is
    no such record, since only the vault's own key makes one.
    """
    sound = []
    vault_id, epoch = place
    for name in records.numbered(epoch):
        try:
            claim = records.claim(name)
            # Another vault in the same storage, or what an init that was cut short left: no finding, and no news to
            # whoever could as well have taken the record away.
            if claim.vault_id == vault_id:
                sound.append(verify(claim))
        except ForkDetected:
            raise
        except VaultError as exc:
            findings.append(exc)
    return sound
