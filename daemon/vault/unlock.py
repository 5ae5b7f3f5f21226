"""Unlocking: from storage and one secret to the keys that read (docs/format.md, section 7)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.keys.errors import (
    KeysError,
    NoSlotOpened,
    NotMine,
    TooManySlots,
    WrongPasskey,
    WrongPassphrase,
    WrongRecoveryKey,
)
from chatkeep.daemon.keys.methods import SlotKind, SlotMethod
from chatkeep.daemon.keys.root import EpochKeys
from chatkeep.daemon.keys.seeds import ReadingSeeds
from chatkeep.daemon.keys.signed import LIMITS
from chatkeep.daemon.keys.slot_file import SlotFile
from chatkeep.daemon.keys.slots import OpenedSlot, open_slot
from chatkeep.daemon.vault.chain import Anchor, Chain, Records, walk, walk_from_first
from chatkeep.daemon.vault.devices import read_devices
from chatkeep.daemon.vault.epoch import EpochPin, EpochRecord, translated
from chatkeep.daemon.vault.errors import (
    AuthenticationFailed,
    MissingObject,
    NoVault,
    ObjectMismatch,
    SeveralVaults,
    SlotRemoved,
    VaultError,
)
from chatkeep.daemon.vault.fetch import get_bounded, listed
from chatkeep.daemon.vault.names import SLOTS, VAULTS, EpochName, SlotName, VaultName
from chatkeep.daemon.vault.unlocked import Enrolment, Pruner, UnlockedVault
from chatkeep.daemon.vault.vouched import worth_asking
from chatkeep.providers.base import Provider, ProviderError

MOST_SLOTS: Final = 256
MOST_STRETCHES: Final = 32
"""Most passphrase slots that are tried: each takes up to seconds and a gigabyte, on the word of storage."""
MOST_VAULTS: Final = 64


def unlock(
    provider: Provider,
    method: SlotMethod,
    vault_id: bytes | None = None,
    *,
    others: Sequence[Provider] = (),
    pin: EpochPin | None = None,
) -> UnlockedVault:
    """Unlocks for reading.

    Args:
        provider: which is to hold the vault.
        vault_id: which vault; None when this provider holds one.
        others: where epoch records, slots and certificates are asked for too: one provider alone could be behind, have
            lost some, or keep a removal back. One that cannot be asked is passed over.
        pin: the newest epoch that somebody here has seen. That it is not there is a finding.

    Raises:
        NoVault, SeveralVaults: `vault_id` is None and storage does not settle it.
        WrongRecoveryKey, WrongPassphrase, NoSlotOpened, TooManySlots: no slot opened; parameters say why.
        SlotRemoved: the secret is that of a slot which was removed.
        MissingObject, AuthenticationFailed, WrongVault, ForkDetected, ObjectMismatch, Malformed, UnsupportedVersion:
            a slot opened and the rest of the vault does not fit it. Nothing is trusted then.
        ProviderError: storage could not be read.
        Whatever `method` raises.
    """
    vault, every = _unlock(provider, method, vault_id, others, pin)
    _head(every).keep_open()
    return vault


def unlock_to_hand_over(
    provider: Provider,
    method: SlotMethod,
    vault_id: bytes | None = None,
    *,
    others: Sequence[Provider] = (),
    pin: EpochPin | None = None,
) -> tuple[UnlockedVault, ReadingSeeds]:
    """Unlocks for a session: returns also the seeds for the process that is to hold them, and keeps nothing that
    certifies. Arguments and errors as `unlock`.
    """
    vault, every = _unlock(provider, method, vault_id, others, pin)
    try:
        seeds = ReadingSeeds.of(every)
    except BaseException:
        vault.wipe()
        raise
    finally:
        for keys in every:
            keys.keep_open()
    return vault, seeds


def unlock_to_enrol(
    provider: Provider,
    method: SlotMethod,
    vault_id: bytes | None = None,
    *,
    others: Sequence[Provider] = (),
    pin: EpochPin | None = None,
) -> Enrolment:
    """Unlocks for adding slots and devices. Arguments and errors as `unlock`; that `pin` is not there is an error."""
    return Enrolment(*_not_before(pin, *_unlock(provider, method, vault_id, others, pin)))


def unlock_to_prune(
    provider: Provider,
    method: SlotMethod,
    vault_id: bytes | None = None,
    *,
    others: Sequence[Provider] = (),
    pin: EpochPin | None = None,
) -> Pruner:
    """Unlocks for saying which snapshots live. Arguments and errors as `unlock_to_enrol`."""
    vault, keys = _not_before(pin, *_unlock(provider, method, vault_id, others, pin))
    return Pruner(vault, keys.keep_checkpoint(), vault.head)


def _head(every: Sequence[EpochKeys]) -> EpochKeys:
    """The newest epoch's keys. Of the others what opens stays: past epochs certify nothing any more."""
    for keys in every[:-1]:
        keys.keep_open()
    return every[-1]


def _not_before(
    pin: EpochPin | None, vault: UnlockedVault, every: Sequence[EpochKeys]
) -> tuple[UnlockedVault, EpochKeys]:
    """What was unlocked. Signed with keys that the vault has left behind, it would be a fork, or count for nothing."""
    keys = _head(every)
    if pin is None or _has(vault.records, pin):
        return vault, keys
    keys.wipe()
    vault.wipe()
    raise MissingObject(str(EpochName(pin.epoch, pin.sha256)))


def _has(records: Sequence[EpochRecord], pin: EpochPin) -> bool:
    return any(record.sha256 == pin.sha256 for record in records)


def _records(provider: Provider, others: Sequence[Provider], report: _Report) -> Records:
    records = Records(provider)
    for other in others:
        with report.passing_over(other):
            records.add(other)
    return records


def _unlock(
    provider: Provider,
    method: SlotMethod,
    vault_id: bytes | None,
    others: Sequence[Provider] = (),
    pin: EpochPin | None = None,
) -> tuple[UnlockedVault, list[EpochKeys]]:
    report = _Report(method.kind)
    others = [other for other in others if other is not provider]
    slots = _Slots(method.kind, report)
    found = slots.read(provider)
    if vault_id is None:
        vault_id = _only_vault(provider, found)
    mine = slots.mine(found, vault_id)
    for other in others:
        with report.passing_over(other):
            mine = [*mine, *slots.mine(slots.read(other), vault_id)]
    slots.tell()
    records = _records(provider, others, report)
    if method.kind == "webauthn-prf":
        mine, planted = worth_asking(records, vault_id, mine)
        report.planted(planted)
    unfit: VaultError | None = None
    for slot in _asked(method, mine, lambda: slots.unreadable(records, vault_id)):
        opened = report.attempt(slot, method)
        if opened is None:
            continue
        try:
            chain = walk(records, Anchor(slot.vault_id, slot.epoch, slot.pin))
            if pin is not None and pin.vault_id == chain.head.vault_id and not _has(chain.records, pin):
                chain.findings.append(MissingObject(str(EpochName(pin.epoch, pin.sha256))))
            every = _keys(opened, chain)
        except VaultError as exc:
            # Another slot may open with the same secret: a recovery key that was removed and enrolled anew has two.
            report.add(slot.slot_id, exc)
            unfit = unfit or exc
            if method.kind == "webauthn-prf":
                break  # each slot has an answer of its own: another gesture would open nothing
            continue
        finally:
            opened.wipe()
        return _unlocked(provider, others, chain, every, report, slot.slot_id)
    slots.tell_lost(records, vault_id)
    raise unfit or report.failure()


def _asked(method: SlotMethod, slots: Sequence[SlotFile], unreadable: Callable[[], list[bytes]]) -> Iterator[SlotFile]:
    """`method.among`. What keeps a person from answering tells the slots too that could not be asked for: the passkey
    at hand may be that of one, and its authenticator can only say that it has none of the others.
    """
    try:
        yield from method.among(slots)
    except ChatkeepError as exc:
        if found := unreadable():
            exc.params.setdefault("damaged_slots", [slot_id.hex() for slot_id in found])
        raise


class _Report:
    """What became of each slot."""

    def __init__(self, kind: SlotKind) -> None:
        self._kind = kind
        self._rows: list[list[str | None]] = []
        self._wrong_secret = 0
        self.elsewhere = 0  # slots of this kind that are another vault's
        self.findings: list[ChatkeepError] = []

    def add(self, slot_id: bytes, problem: ChatkeepError) -> None:
        reason = problem.params.get("reason")
        self._rows.append([slot_id.hex(), problem.code, None if reason is None else str(reason)])
        self.findings.append(problem)

    def planted(self, slots: Sequence[ChatkeepError]) -> None:
        """Slots that the vault did not sign: they were not tried, and say nothing of the secret."""
        self.findings.extend(slots)
        self._rows.extend([str(one.params["slot"]), one.code, str(one.params["reason"])] for one in slots)

    @contextlib.contextmanager
    def passing_over(self, provider: Provider) -> Iterator[None]:
        """One provider of several: that it is away is none of our concern, and what is wrong with it is a finding."""
        try:
            yield
        except ProviderError:
            pass
        except (TooManySlots, VaultError) as exc:
            exc.params.setdefault("provider", provider.name)
            self.findings.append(exc)

    def attempt(self, slot: SlotFile, method: SlotMethod) -> OpenedSlot | None:
        try:
            return open_slot(slot, method)
        except NotMine as exc:
            self.add(slot.slot_id, exc)
            self.findings.pop()  # other people's slots are what a vault is expected to hold
            self._wrong_secret += 1
        except KeysError as exc:
            if exc.disposition is not ChatkeepError.disposition:
                raise  # the person has to do something: no other slot helps
            self.add(slot.slot_id, exc)
        return None

    def failure(self) -> NoSlotOpened:
        kinds: dict[SlotKind, type[NoSlotOpened]] = {
            "recovery-64": WrongRecoveryKey,
            "passphrase": WrongPassphrase,
            "webauthn-prf": WrongPasskey,
        }
        # "Wrong" is said only when every slot was sound: with a damaged one among them the key may be right.
        sound = self._rows and self._wrong_secret == len(self._rows)
        kind = kinds.get(self._kind, NoSlotOpened) if sound else NoSlotOpened
        if kind is NoSlotOpened:
            reason = "damaged" if self._rows else "other-vault" if self.elsewhere else "absent"
            return kind(kind=self._kind, wrong_secret=self._wrong_secret, slots=self._rows, reason=reason)
        return kind(kind=self._kind, wrong_secret=self._wrong_secret, slots=self._rows)


class _Slots:
    """The slot files of several providers: each that is whole once, the first provider's first."""

    def __init__(self, kind: SlotKind, report: _Report) -> None:
        self._kind = kind
        self._report = report
        self._whole: set[bytes] = set()  # ids
        self._taken: set[bytes] = set()  # hashes
        self._damaged: list[tuple[bytes, ChatkeepError]] = []

    def read(self, provider: Provider) -> list[SlotFile]:
        """Those at one provider that are whole."""
        names = listed(provider, SLOTS, SlotName, MOST_SLOTS)
        if len(names) > MOST_SLOTS:
            # Before any is fetched or tried: ten thousand would be hours of Argon2.
            raise TooManySlots(found=len(names), limit=MOST_SLOTS)
        slots = []
        for name in names:
            try:
                slot = SlotFile.parse(get_bounded(provider, str(name), LIMITS["slot"]))
                if slot.slot_id != name.slot_id:
                    raise ObjectMismatch(str(name))
                slots.append(slot)
                self._whole.add(slot.slot_id)
            except (KeysError, VaultError) as exc:
                exc.params.setdefault("provider", provider.name)
                self._damaged.append((name.slot_id, exc))
        return slots

    def mine(self, slots: Sequence[SlotFile], vault_id: bytes) -> list[SlotFile]:
        """Those of them to be tried that no provider before had."""
        of_kind = [slot for slot in slots if slot.kind == self._kind]
        mine = [slot for slot in of_kind if slot.vault_id == vault_id]
        self._report.elsewhere += len(of_kind) - len(mine)
        # At each provider for itself: what one plants must not keep the others' from being tried.
        if self._kind == "passphrase" and len(mine) > MOST_STRETCHES:
            raise TooManySlots(found=len(mine), limit=MOST_STRETCHES)
        fresh = [slot for slot in mine if slot.sha256 not in self._taken]
        self._taken |= {slot.sha256 for slot in fresh}
        return fresh

    def unreadable(self, records: Records, vault_id: bytes) -> list[bytes]:
        """Ids of those that no provider has whole: damaged, or listed in the newest record and nowhere to be found."""
        try:
            listed_there = set(walk_from_first(records, vault_id).head.slots)
        except (VaultError, ProviderError):
            listed_there = set()
        return sorted((listed_there | {slot_id for slot_id, _ in self._damaged}) - self._whole)

    def tell_lost(self, records: Records, vault_id: bytes) -> None:
        """What is nowhere to be found: the secret may be that of one of these, so it is not called wrong."""
        told = {slot_id for slot_id, _ in self._damaged}
        for slot_id in self.unreadable(records, vault_id):
            if slot_id not in told:
                self._report.add(slot_id, MissingObject(str(SlotName(slot_id))))

    def tell(self) -> None:
        """What is damaged; of a slot that another provider has whole that is no reason why it does not open."""
        for slot_id, problem in self._damaged:
            if slot_id in self._whole:
                self._report.findings.append(problem)
            else:
                self._report.add(slot_id, problem)


def _only_vault(provider: Provider, slots: list[SlotFile]) -> bytes:
    """Which vault is meant when none is named. Nothing rests on it: a slot's secret authenticates the vault id."""
    claimed = {slot.vault_id for slot in slots}
    marked = {name.vault_id for name in listed(provider, VAULTS, VaultName, MOST_VAULTS)}
    # A marker only narrows: slots without one are of an init that was cut short, a marker without slots is a stray.
    vaults = claimed & marked or claimed or marked
    if not vaults:
        raise NoVault(provider=provider.name)
    if len(vaults) > 1:
        raise SeveralVaults(provider=provider.name, vaults=sorted(vault.hex() for vault in vaults))
    return vaults.pop()


def _keys(opened: OpenedSlot, chain: Chain) -> list[EpochKeys]:
    """The keys of every epoch, 1 to the newest, each compared with its record."""
    every = [_newest(opened, chain)]
    try:
        for record in reversed(chain.records):
            if not record.matches(every[0]):
                # An envelope for another root secret (anyone can seal one), or a past that the vault never had.
                raise AuthenticationFailed(what="epoch-keys", epoch=record.epoch)
            if record.older is not None:
                with translated("older", epoch=record.epoch):
                    older = every[0].unwrap_older(record.older, record.vault_id, record.epoch)
                every.insert(0, EpochKeys(older))
    except BaseException:
        for keys in every:
            keys.wipe()
        raise
    return every


def _newest(opened: OpenedSlot, chain: Chain) -> EpochKeys:
    """The newest epoch's keys: through the slot's own envelope, or the one in the newest record."""
    slot, envelope = opened.file, opened.file.envelope
    for record in chain.records[slot.epoch :]:
        listed = record.slots.get(slot.slot_id)
        if listed is None:
            raise SlotRemoved(slot=slot.slot_id.hex(), epoch=record.epoch)
        if listed.file != slot.sha256:
            raise ObjectMismatch(str(SlotName(slot.slot_id)), listed_in=str(record.name))
        envelope = listed.envelope
    try:
        root = opened.open_envelope(envelope, chain.head.epoch)
    except KeysError as exc:
        raise AuthenticationFailed(what="envelope", epoch=chain.head.epoch, slot=slot.slot_id.hex()) from exc
    return EpochKeys(root)


def _unlocked(
    provider: Provider,
    others: Sequence[Provider],
    chain: Chain,
    every: list[EpochKeys],
    report: _Report,
    slot_id: bytes,
) -> tuple[UnlockedVault, list[EpochKeys]]:
    private = {record.epoch: keys.open for record, keys in zip(chain.records, every, strict=True)}
    try:
        devices = read_devices(provider, chain, others)
    except BaseException:
        for keys in every:
            keys.wipe()
        raise
    findings = (*report.findings, *chain.findings, *devices.findings)
    return UnlockedVault(chain, private, devices, findings, slot_id), every
