"""What can be wrong with what storage returned.

VaultError
  UnsupportedVersion      a format of a later version: a newer Chatkeep is needed
  Malformed               bytes that no writer of this format makes
  AuthenticationFailed    bytes that nobody with the right key made
  MissingObject           an object that a verified object names is not there
  ObjectMismatch          an object's content does not hash to its name
  WrongVault              an object, a key or a credential of another vault
  NoVault                 storage holds no vault
  SeveralVaults           storage holds several vaults and none was named
  VaultExists             a vault is where a new one was to be made
  SlotRemoved             the slot that opened was removed from the vault since
  DeviceRemoved           this device was removed from the vault: nothing it writes counts any more
  RotationRefused         the next epoch cannot be made as asked; nothing was written
  ForkDetected            two valid successors of one object: history was split
  SessionOutdated         the vault's keys were changed since the session was begun
  VaultLocked             the operation needs an unlocked vault
  CredentialRefused       the writer credential's file: absent, readable by others, not a credential
  EnrolmentFailed         what was enrolled did not read back from storage
  RecordTooLong           one record of a layer fits no part: it cannot be written
  Unresolvable            layers that are valid one by one do not make a whole together
  UnknownKey              sealed to a key that the unlocked vault does not have
  DifferentKey            the key that came out of a capsule is not the one the object was sealed with
  PackBroken              a pack could not be written to the end; its key is gone
  SelfCheckFailed         what was sealed did not read back from this machine's disk
  CapsuleFailed           a capsule that this device sealed does not open: its content is lost
  Unreadable              an object, or a blob in it, that no provider returned whole
  SnapshotTooLarge        reading it needs more memory than this machine has to spare
  SnapshotsMissing        snapshots that existed, and were not pruned, are not there
  SnapshotPruned          a snapshot was pruned while it was being read
  CheckpointOutdated      a checkpoint of an epoch that is over and that no epoch record lists: it does not count
"""

from __future__ import annotations

from chatkeep.config.errors import ChatkeepError, Disposition


class VaultError(ChatkeepError):
    """What storage returned is not what was sealed, or the vault is not in the state the caller needs."""

    code = "vault-error"


class UnsupportedVersion(VaultError):
    """The format is of a later version. Parameters: what, version."""

    code = "unsupported-version"
    disposition = Disposition.NEEDS_USER


class Malformed(VaultError):
    """Bytes that no writer of this format makes. Parameters: what (the structure), reason (a code), name when known."""

    code = "malformed"


class AuthenticationFailed(VaultError):
    """A signature, a tag, a commitment or an id does not match. Parameters: what, and name when known."""

    code = "authentication-failed"


class MissingObject(VaultError):
    """A verified object names one that storage does not have."""

    code = "missing-object"

    def __init__(self, name: str, **params: object) -> None:
        super().__init__(name=name, **params)


class ObjectMismatch(VaultError):
    """The content of an object does not hash to the hash in its name or in the object that lists it."""

    code = "object-mismatch"

    def __init__(self, name: str, **params: object) -> None:
        super().__init__(name=name, **params)


class WrongVault(VaultError):
    """An object, a key or a credential belongs to another vault. Parameters: what, and ids in hex when known."""

    code = "wrong-vault"


class NoVault(VaultError):
    """Storage holds nothing that names a vault."""

    code = "no-vault"
    disposition = Disposition.NEEDS_USER


class SeveralVaults(VaultError):
    """Storage holds several vaults and the caller named none. Parameter: vaults, their ids in hex."""

    code = "several-vaults"
    disposition = Disposition.NEEDS_USER


class VaultExists(VaultError):
    """A new vault was to be made where there is one, or a part of one. Parameters: provider, vaults, parts."""

    code = "vault-exists"
    disposition = Disposition.NEEDS_USER


class SlotRemoved(VaultError):
    """The secret is right for a slot that a later epoch removed. Parameters: slot and epoch, the one without it."""

    code = "slot-removed"
    disposition = Disposition.NEEDS_USER


class DeviceRemoved(VaultError):
    """A device was removed from the vault. Parameters: device (hex), epoch: the first one without it."""

    code = "device-removed"
    disposition = Disposition.NEEDS_USER


class RotationRefused(VaultError):
    """The next epoch cannot be made as asked; nothing of it was written.

    Parameters: reason, one of
        last-recovery-key   no recovery key would be left
        own-slot            the way in that unlocked would go (id)
        unknown-slot, removed-slot, unknown-device, removed-device   nothing that counts has this id
        several-slots, several-devices   several ids begin so (id, candidates)
        slot-damaged, device-damaged   it may count, and no provider has its file whole (id)
        slot-twice, device-twice       two files under one id, both signed by the vault (id)
        copy-damaged        a provider has something else under a name (provider, name)
        outrun              another command has made the next epoch meanwhile (name)
        added               a slot or a device was added since it was planned (id)
        unreachable         a provider cannot be asked or written (provider, error: the code)
        too-long            the record would be longer than a reader takes
    """

    code = "rotation-refused"
    disposition = Disposition.NEEDS_USER


class ForkDetected(VaultError):
    """Two valid successors of the same object: history was split.

    Parameters: what, and the rivals' names; of epoch records also reason `epoch`.
    """

    code = "fork-detected"
    disposition = Disposition.NEEDS_USER


class SessionOutdated(VaultError):
    """The vault has a newer epoch than the session that is to read it. Parameters: epoch, the newest; since, the one
    that the session was begun in.
    """

    code = "session-outdated"
    disposition = Disposition.NEEDS_USER


class VaultLocked(VaultError):
    """The operation needs the vault unlocked, and it is not, or not any more. Parameter, where it was: reason, `ended`:
    the session that had the keys is over.
    """

    code = "vault-locked"
    disposition = Disposition.NEEDS_USER


class CredentialRefused(VaultError):
    """The writer credential's file cannot be trusted. Parameter: reason."""

    code = "credential-refused"
    disposition = Disposition.NEEDS_USER


class EnrolmentFailed(VaultError):
    """What was enrolled did not read back from storage or did not open; or (reason `outrun`) counts for nothing, since
    the next epoch (name) was made meanwhile. Parameters: provider, name, reason.
    """

    code = "enrolment-failed"


class RecordTooLong(VaultError):
    """One record that fits no part of a layer, such as a file with a megabyte of attributes. Parameters: what, size."""

    code = "record-too-long"


class Unresolvable(VaultError):
    """A stack of layers lacks or contradicts something. Parameters: what (tree, file, database), reason, file_id."""

    code = "unresolvable"


class UnknownKey(VaultError):
    """An object is sealed to a key that the unlocked vault does not have. Parameters: what, epoch, key (hex)."""

    code = "unknown-key"


class DifferentKey(VaultError):
    """The commitment of an object is not that of the key its capsule holds. Parameters: what, and name when known.

    Apart from `AuthenticationFailed`, which then means damage: an object that opens under two keys, with two contents,
    stops here.
    """

    code = "different-key"


class PackBroken(VaultError):
    """A pack could not be written to the end. Its key is wiped and it is never continued: a nonce may have been used.

    The same blobs can be sealed into another pack. Parameters: errno where the system gave one.
    """

    code = "pack-broken"
    disposition = Disposition.RETRY


class SelfCheckFailed(VaultError):
    """What was sealed did not read back, or did not open, from this machine's own disk; it was not accepted.

    Parameters: what, reason. The disk or the memory of this machine is at fault; sealing again may succeed.
    """

    code = "self-check-failed"
    disposition = Disposition.RETRY


class CapsuleFailed(VaultError):
    """What this device sealed does not open with the vault's key. Parameters: name, reason (a code)."""

    code = "capsule-failed"
    disposition = Disposition.REBUILD


class Unreadable(VaultError):
    """No provider returned an object, or a blob in it, whole.

    Parameters: name, slot of the blob, reasons (provider to the code of what it did instead).
    """

    code = "unreadable"


class SnapshotTooLarge(VaultError):
    """Reading the snapshot needs more memory than this machine has to spare. Parameters: needed, at least, and limit
    (bytes).
    """

    code = "snapshot-too-large"
    disposition = Disposition.NEEDS_USER


class SnapshotsMissing(VaultError):
    """Snapshots of a stream are not there, and must be: a later one is chained to them, or a checkpoint or an epoch
    record names them.

    Parameters: device, stream (hex), first, last: their sequence numbers.
    """

    code = "snapshots-missing"


class SnapshotPruned(VaultError):
    """A snapshot was removed by the retention policy while it was being read: no damage, it is just gone.

    Parameters: name of its manifest, seq.
    """

    code = "snapshot-pruned"
    disposition = Disposition.NEEDS_USER


class CheckpointOutdated(VaultError):
    """A checkpoint of an epoch that is over, which no epoch record lists; it changes nothing. Parameter: name.

    Made while the keys were being changed, and late; or by somebody who has old ones. Which of the two, nobody can see,
    and nothing depends on it: no damage.
    """

    code = "checkpoint-outdated"
