"""The words for every error: what happened, what to do, how the command ends. The only prose about errors there is.

Texts name parameters in braces; `telling` fills them in. They name only what every raiser of the error gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from chatkeep.config.problems import Reason
from chatkeep.daemon.cli.exits import Exit


class Words(NamedTuple):
    """What is said about one error code."""

    text: str
    remedy: str
    exit: Exit


_REPORT: Final = "This should not happen. Please report it with the output of: chatkeep doctor --json"
_VERIFY: Final = "Look for the extent of the damage with: chatkeep verify --deep"
_AGAIN: Final = "Nothing is lost. The next backup tries again."

_HERE: Final = {
    "error": Words("Something failed.", _REPORT, Exit.FAILED),
    "cancelled": Words("Cancelled. What was finished before stands.", "", Exit.CANCELLED),
}

_CONFIG: Final = {
    "config": Words("The configuration cannot be used.", "See: chatkeep config check", Exit.USAGE),
    "config-missing": Words(
        "There is no configuration at {file}.", "Begin with a commented one: chatkeep config example", Exit.USAGE
    ),
    "config-unreadable": Words("The configuration {file} cannot be read: {cause}.", "", Exit.USAGE),
    "config-invalid": Words("The configuration is wrong:", "Every key explained: chatkeep config example", Exit.USAGE),
}

_PROVIDERS: Final = {
    "provider-error": Words("Storage did not do what it was asked.", "", Exit.STORAGE),
    "unavailable": Words("Storage cannot be reached.", _AGAIN, Exit.STORAGE),
    "throttled": Words("Storage asks for fewer requests.", _AGAIN, Exit.STORAGE),
    "object-not-found": Words("Storage does not have {object}.", _VERIFY, Exit.INTEGRITY),
    "object-conflict": Words(
        "Storage holds something else under the name {object}. It was left as it is.", _VERIFY, Exit.INTEGRITY
    ),
    "object-damaged": Words("Storage cannot read back {object}.", _VERIFY, Exit.INTEGRITY),
    "quota-exceeded": Words(
        "Storage is full.", "Free some room or get more. What waits to be uploaded is kept until then.", Exit.STORAGE
    ),
    "permission-refused": Words(
        "Storage refuses access.",
        "Check that this user may read and write there, and that the medium is not write-protected.",
        Exit.STORAGE,
    ),
    "object-held": Words(
        "Storage does not let {object} be deleted now.",
        "It has an object lock or a retention period. Nothing is wrong: what was pruned stays there until it ends.",
        Exit.STORAGE,
    ),
    "storage-missing": Words(
        "The place where the vault is stored is not there.",
        "Mount the disk, or put the directory back where it was. What waits for it is kept until then.",
        Exit.STORAGE,
    ),
    "invalid-name": Words("{object} cannot be the name of an object.", _REPORT, Exit.FAILED),
}

_CAPTURE: Final = {
    "capture": Words("A source could not be read.", "", Exit.FAILED),
    "source-missing": Words(
        "There is nothing at {path}.",
        "If the application moved its directory, change the path in the configuration. Older snapshots stay.",
        Exit.FAILED,
    ),
    "source-unreadable": Words(
        "{path} cannot be read: {errno}.", "Run Chatkeep as the user of the chat application.", Exit.FAILED
    ),
    "source-busy": Words("{path} was in use all the time ({reason}).", _AGAIN, Exit.FAILED),
    "database-replaced": Words("{path} was replaced by another file meanwhile.", _AGAIN, Exit.FAILED),
    "page-size-changed": Words("The database {path} was rebuilt with another page size.", _AGAIN, Exit.FAILED),
    "not-proven": Words("What changed in {path} is not known for sure ({reason}).", _AGAIN, Exit.FAILED),
    "too-many-dirty": Words("Too much of {path} changed at once.", _AGAIN, Exit.FAILED),
    "digest-table-incomplete": Words("The record of page {page} is missing.", _AGAIN, Exit.FAILED),
    "database-damaged": Words(
        "The database {path} is damaged ({reason}).",
        "What was backed up of it while it was whole stays: chatkeep snapshots",
        Exit.FAILED,
    ),
    "entry-vanished": Words("{path} vanished while it was read.", _AGAIN, Exit.FAILED),
    "entry-unreadable": Words("{path} cannot be read: {errno}.", "Its older content stays in the backup.", Exit.FAILED),
    "unsupported-source": Words("A source cannot be captured here ({reason}).", "", Exit.FAILED),
}

_KEYS: Final = {
    "keys-error": Words("The keys of the vault could not be used.", "", Exit.LOCKED),
    "not-mine": Words("The secret does not open this slot.", "", Exit.LOCKED),
    "no-slot-opened": Words("No key slot of the vault opened.", "Try another recovery key or passphrase.", Exit.LOCKED),
    "wrong-recovery-key": Words(
        "This is not a recovery key of this vault.",
        "It is free of slips: look for the paper of this vault.",
        Exit.LOCKED,
    ),
    "wrong-passphrase": Words("The passphrase is wrong.", "A recovery key opens the vault too.", Exit.LOCKED),
    "recovery-typo": Words("There is a slip in line {line} of the recovery key ({reason}).", "", Exit.LOCKED),
    "passphrase-refused": Words("This cannot be a passphrase ({reason}).", "", Exit.USAGE),
    "slot-damaged": Words(
        "The secret is right, and the key slot it opens is damaged ({reason}).",
        "Use another way in, then add a new slot: chatkeep key add",
        Exit.INTEGRITY,
    ),
    "slot-refused": Words(
        "A key slot asks for an unreasonable amount of work ({reason}). It was not tried.",
        "Somebody may have changed it in storage. Use another way in.",
        Exit.INTEGRITY,
    ),
    "too-many-slots": Words(
        "Storage lists more than {limit} key slots.", "Somebody may have added files there.", Exit.INTEGRITY
    ),
    "label-refused": Words("The label cannot be used: it is too long, or no text.", "", Exit.USAGE),
    "unsealable": Words("Sealed bytes do not open with the keys of this vault.", _VERIFY, Exit.INTEGRITY),
    "key-refused": Words("A public key ({what}) must not be used ({reason}).", _VERIFY, Exit.INTEGRITY),
    "signature-invalid": Words("The signature of the {what} is wrong.", _VERIFY, Exit.INTEGRITY),
    "text-malformed": Words("The {what} in storage is damaged ({reason}).", _VERIFY, Exit.INTEGRITY),
    "text-version": Words("The {what} is of a later version ({version}).", "Install a newer Chatkeep.", Exit.FAILED),
    "secret-wiped": Words("A secret was used after it was wiped ({what}).", _REPORT, Exit.FAILED),
}

_VAULT: Final = {
    "vault-error": Words("The vault is not as it should be.", _VERIFY, Exit.INTEGRITY),
    "unsupported-version": Words(
        "The {what} is of a later version ({version}).", "Install a newer Chatkeep.", Exit.FAILED
    ),
    "malformed": Words("The {what} in storage is damaged ({reason}).", _VERIFY, Exit.INTEGRITY),
    "authentication-failed": Words("The {what} in storage is not what was sealed.", _VERIFY, Exit.INTEGRITY),
    "missing-object": Words("An object of the vault is missing in storage.", _VERIFY, Exit.INTEGRITY),
    "object-mismatch": Words("An object in storage is not what its name says.", _VERIFY, Exit.INTEGRITY),
    "wrong-vault": Words(
        "The {what} belongs to another vault than this device's.", "Check which storage is configured.", Exit.INTEGRITY
    ),
    "no-vault": Words("There is no vault in this storage.", "Create one: chatkeep init", Exit.STORAGE),
    "several-vaults": Words("There are several vaults in this storage: {vaults}.", "Name the one.", Exit.USAGE),
    "slot-removed": Words(
        "This secret was a way into the vault, and was removed from it.", "Use another way in.", Exit.LOCKED
    ),
    "snapshots-missing": Words(
        "Snapshots {first} to {last} of a chain are missing, and the retention policy did not remove them.",
        "Somebody who can write to the storage may have removed them.",
        Exit.INTEGRITY,
    ),
    "snapshot-pruned": Words(
        "This snapshot was removed by the retention policy while it was being read.",
        "Pick another one: chatkeep snapshots",
        Exit.FAILED,
    ),
    "checkpoint-outdated": Words(
        "A checkpoint was made with keys of the vault that are over. It does not count, and nothing was removed by it.",
        "If no chatkeep prune was at work while the keys were changed, somebody with an old way in made it.",
        Exit.FAILED,
    ),
    "vault-exists": Words(
        "There is already a vault, or a part of one, at {provider}. Nothing was changed.",
        "Join it with chatkeep join, or use an empty directory for a new vault.",
        Exit.FAILED,
    ),
    "device-removed": Words(
        "This device was removed from the vault. Nothing it writes counts any more, so nothing was backed up.",
        "If that was not meant, enrol it again: chatkeep join. Snapshots from before the removal stay.",
        Exit.FAILED,
    ),
    "rotation-refused": Words("The keys of the vault were not changed ({reason}).", _VERIFY, Exit.FAILED),
    "fork-detected": Words(
        "The history of the vault was split: there are two successors of one {what}.",
        "Somebody who can write to the storage may have rolled it back. " + _VERIFY,
        Exit.INTEGRITY,
    ),
    "vault-locked": Words(
        "The vault is locked, and there is no terminal to ask for a secret at.",
        "Give one with --key-file F or --passphrase-file F.",
        Exit.LOCKED,
    ),
    "credential-refused": Words(
        "This device's key for writing cannot be used ({reason}).",
        "It is in the state directory, must belong to this user, and nobody else may read it (mode 0600).",
        Exit.FAILED,
    ),
    "enrolment-failed": Words("What was enrolled did not read back from storage ({reason}).", "", Exit.STORAGE),
    "record-too-long": Words("The {what} has {size} bytes of attributes, more than fit.", _REPORT, Exit.FAILED),
    "unresolvable": Words("The snapshot lacks or contradicts something ({reason}).", _VERIFY, Exit.INTEGRITY),
    "snapshot-too-large": Words(
        "Reading this snapshot needs more memory than this computer has to spare.",
        "Read it on a computer with more memory. If what it keeps is small, its device may be in other hands.",
        Exit.FAILED,
    ),
    "unknown-key": Words("The {what} is sealed to a key that this vault does not have.", _VERIFY, Exit.INTEGRITY),
    "different-key": Words("The {what} opens under a key it was not sealed with.", _VERIFY, Exit.INTEGRITY),
    "pack-broken": Words("A pack could not be written to this machine's disk.", _AGAIN, Exit.FAILED),
    "self-check-failed": Words(
        "What was sealed did not read back from this machine's own disk ({reason}).",
        "It was not used. The disk or the memory of this machine may be failing.",
        Exit.INTEGRITY,
    ),
    "capsule-failed": Words(
        "What this device sealed into {name} does not open: it went wrong in this machine's memory or processor.",
        "The next backup sends what is in it again. The memory of this machine may be failing; test it.",
        Exit.INTEGRITY,
    ),
    "unreadable": Words("No storage returned a part of the snapshot whole ({name}).", _VERIFY, Exit.INTEGRITY),
}

_RESTORE: Final = {
    "restore-error": Words("It could not be restored.", "", Exit.FAILED),
    "path-not-in-snapshot": Words("{path} is not in this snapshot.", "See what is: chatkeep ls", Exit.FAILED),
    "not-a-file": Words("{path} is a {kind}.", "", Exit.USAGE),
    "nothing-to-restore": Words(
        "Nothing of this can be restored: {pending} files are not in the vault yet, {damaged} are damaged.",
        "Try an older snapshot: chatkeep snapshots",
        Exit.FAILED,
    ),
    "target-exists": Words(
        "{path} is there already. Nothing was changed.",
        "Restore into a new directory, or replace what is there: --overwrite",
        Exit.FAILED,
    ),
    "target-in-use": Words("{path} is in use ({reason}).", "Close the application first.", Exit.FAILED),
    "target-inside-source": Words(
        "The target {path} lies inside {source}, which is backed up: it would be backed up again.",
        "Restore to a place outside it.",
        Exit.USAGE,
    ),
    "target-unwritable": Words("{path} cannot be written: {errno}.", "", Exit.FAILED),
    "no-space": Words("The disk of the target is full.", "Free some room and run it again: it continues.", Exit.FAILED),
    "unsafe-path": Words(
        "{path} leads out of the target through a link. Nothing was written through it.",
        "Restore into a new directory.",
        Exit.FAILED,
    ),
    "proof-failed": Words("What was written of {path} is not what was captured.", _VERIFY, Exit.INTEGRITY),
}

_COMMANDS: Final = {
    "command-error": Words("The command cannot do this.", "", Exit.USAGE),
    "already-set-up": Words(
        "This device is set up already. It writes the vault {vault}; its key is {path}.",
        "Back up with: chatkeep backup. For a second vault use another state_dir.",
        Exit.FAILED,
    ),
    "records-in-the-way": Words(
        "{path} holds the records of a vault, but not the key that writes to it.",
        "Move the directory away, then go on with chatkeep init (a new vault) or chatkeep join (the old one).",
        Exit.FAILED,
    ),
    "not-set-up": Words(
        "This device is not set up: there is no {path}.",
        "Make a vault with chatkeep init, or join one that exists with chatkeep join.",
        Exit.USAGE,
    ),
    "target-inside-vault": Words(
        "The target {path} lies inside {folder}, which holds the vault or what belongs to it: whoever reads that would "
        "get everything as plain files.",
        "Restore to a place outside it.",
        Exit.USAGE,
    ),
    "no-such-snapshot": Words("There is no snapshot {wanted}.", "{known} See: chatkeep snapshots", Exit.USAGE),
    "several-snapshots": Words(
        "{wanted} can mean several snapshots: {candidates}.", "See: chatkeep snapshots", Exit.USAGE
    ),
}

_STATE: Final = {
    "state": Words("This device's own records cannot be used.", "", Exit.FAILED),
    "state-busy": Words("Another Chatkeep is at work with {path}.", "Wait until it has finished.", Exit.FAILED),
    "state-damaged": Words(
        "This device's records in {path} are damaged ({reason}).",
        "What is in the vault stands. Run: chatkeep backup, and do what it says.",
        Exit.FAILED,
    ),
    "state-moved-aside": Words(
        "This device's records were damaged. They are kept as {path}, and nothing is read of them any more.",
        "",
        Exit.DONE,
    ),
    "state-lost": Words(
        "This device's records are lost, and the vault has snapshots of it. They stand. What is in them is not known "
        "here, so nothing was backed up.",
        "Run: chatkeep rebuild. It reads with your key what is in the vault, and nothing is sent twice. Or send "
        "everything again: chatkeep backup --anew. That happens by itself after {patience}.",
        Exit.LOCKED,
    ),
    "state-rolled-back": Words(
        "This device's records are older than what was pruned of its vault, so they cannot be relied on. The snapshots "
        "stand; nothing was backed up.",
        "Run: chatkeep rebuild. It reads with your key what is in the vault, and nothing is sent twice. Or send "
        "everything again: chatkeep backup --anew. That happens by itself after {patience}.",
        Exit.LOCKED,
    ),
    "state-copied": Words(
        "This device's records are an older copy, or a copy of them is in use elsewhere. New chains of snapshots were "
        "begun; nothing that is in the vault was sent again.",
        "If another machine uses a copy of this one's state directory: move it away there, then: chatkeep join",
        Exit.DONE,
    ),
    "state-foreign": Words(
        "The records in {path} are of {found}, and {expected} was expected.",
        "Check state_dir in the configuration.",
        Exit.FAILED,
    ),
    "state-unusable": Words(
        "The state directory {path} cannot be used: {errno}.",
        "It must belong to this user. See state_dir in the configuration.",
        Exit.FAILED,
    ),
    "state-full": Words("The disk of {path} is full.", "Free some room. Nothing is lost.", Exit.FAILED),
    "outbox-damaged": Words(
        "{name} waits to be uploaded and is damaged on this device ({reason}).",
        "It was not uploaded, and the next backup begins anew. The disk of this device may be failing.",
        Exit.INTEGRITY,
    ),
    "outbox-lost": Words("{name} was never uploaded and is gone from this device.", _AGAIN, Exit.FAILED),
}

_PRUNE: Final = {
    "prune": Words("Nothing was pruned.", "", Exit.FAILED),
    "prune-refused": Words("Nothing was pruned ({reason}).", "", Exit.FAILED),
    "prune-too-much": Words(
        "More would go than anybody means by accident ({reasons}). Nothing was pruned.",
        "Look first: chatkeep prune --dry-run. Then, if it is meant: chatkeep prune --yes",
        Exit.FAILED,
    ),
}

WORDS: Final[Mapping[str, Words]] = {
    **_HERE,
    **_COMMANDS,
    **_CONFIG,
    **_PROVIDERS,
    **_CAPTURE,
    **_KEYS,
    **_VAULT,
    **_STATE,
    **_RESTORE,
    **_PRUNE,
}

# Where the reason of an error says more than its code: (code, reason).
CASES: Final[Mapping[tuple[str, str], Words]] = {
    ("config-missing", "to-read"): Words(
        "There is no configuration at {file}.", "Name the storage itself: --from FOLDER", Exit.USAGE
    ),
    ("credential-refused", "absent"): WORDS["not-set-up"],
    ("credential-refused", "exists"): Words(
        "Another device's key for writing is where this one's would be saved. It was left alone.",
        "Move the file chatkeep-writer out of the state directory, if that device has it elsewhere.",
        Exit.FAILED,
    ),
    ("credential-refused", "permissions"): Words(
        "Other users may read or write this device's key (mode {mode}). It was not used.",
        "chmod 600 the file chatkeep-writer in the state directory.",
        Exit.FAILED,
    ),
    ("database-damaged", "size"): Words(
        "The database {path} is damaged: it ends in the middle of a page.",
        "It was cut short. What was backed up of it while it was whole stays: chatkeep snapshots",
        Exit.FAILED,
    ),
    ("state-lost", "anew"): Words(
        "This device's records were lost. It begins new chains of snapshots, and sends everything again.", "", Exit.DONE
    ),
    ("state-rolled-back", "anew"): Words(
        "This device's records were older than what was pruned of its vault. It begins new chains of snapshots, and "
        "sends everything again.",
        "",
        Exit.DONE,
    ),
    ("state-copied", "late"): Words(
        "This storage has newer snapshots of this device than its records. Nothing was sent there.",
        "The next backup begins new chains of snapshots.",
        Exit.STORAGE,
    ),
    ("state-copied", "checkpoint"): Words(
        "This storage shows that more was pruned than this device's records know of. Nothing was sent there.",
        "Run: chatkeep backup, and do what it says.",
        Exit.STORAGE,
    ),
    ("state-copied", "stranger"): Words(
        "Another machine writes to the vault with this device's key, or this device's records are an older copy.",
        "If another machine uses a copy of this one's state directory: move it away there, then: chatkeep join",
        Exit.DONE,
    ),
    ("state-copied", "machine"): Words(
        "This device's records come from another machine. New chains of snapshots were begun; nothing that is in the "
        "vault was sent again.",
        "If that machine still backs up: move the state directory away on one of the two, then: chatkeep join",
        Exit.DONE,
    ),
    ("no-vault", "expected"): Words(
        "This device's vault is not in this storage.",
        "Is the right disk mounted? A new provider begins with a copy of another one's folder.",
        Exit.STORAGE,
    ),
    ("no-slot-opened", "absent"): Words(
        "Storage has no key slot for a secret of this kind.", "See which there are: chatkeep key list", Exit.LOCKED
    ),
    ("no-slot-opened", "damaged"): Words(
        "No key slot of the vault opened, and not all of them are whole. The secret may be right.",
        "Try another one, or another copy of the storage. " + _VERIFY,
        Exit.LOCKED,
    ),
    ("prune-refused", "capsules"): Words(
        "{count} sealed objects of this device do not open. Nothing was pruned: what is older may be all that can be "
        "restored.",
        "Look for the extent of the damage with: chatkeep verify --deep. The next backup seals their content anew.",
        Exit.INTEGRITY,
    ),
    ("prune-refused", "clock"): Words(
        "The clocks of this device and of {where} are {minutes} minutes apart. Nothing was pruned: which day a "
        "snapshot is of depends on it.",
        "Set the clock of this device right: timedatectl set-ntp true",
        Exit.FAILED,
    ),
    ("prune-refused", "storage"): Words(
        "Storage does not hold this device's snapshots as they were sealed ({count} findings, the first: {finding}). "
        "Nothing was pruned.",
        _VERIFY,
        Exit.INTEGRITY,
    ),
    ("prune-refused", "behind"): Words(
        "The newest snapshot of {source} in storage is not the one that this device's records have. Nothing was "
        "pruned.",
        "Run chatkeep backup, which finds out what happened.",
        Exit.INTEGRITY,
    ),
    ("prune-refused", "records"): Words(
        "This device's records do not say what is in the vault. Nothing was pruned.",
        "Run: chatkeep rebuild",
        Exit.FAILED,
    ),
    ("prune-refused", "epoch"): Words(
        "The storage that unlocked does not have the vault's newest keys. Nothing was pruned.",
        "Connect the other storage, or run chatkeep backup first.",
        Exit.STORAGE,
    ),
    ("prune-refused", "outbox"): Words(
        "Something that waited to be uploaded is lost on this device. Nothing was pruned.",
        "Run chatkeep backup first: it begins anew.",
        Exit.FAILED,
    ),
    ("prune-refused", "device"): Words(
        "This device was removed from the vault. Its snapshots are not its own any more.", "", Exit.FAILED
    ),
    ("target-exists", "kind"): Words(
        "{path} is in the way: one is a directory, and the other is not. Nothing was changed.",
        "Move it away, or restore into a new directory.",
        Exit.FAILED,
    ),
    ("target-exists", "collision"): Words(
        "Two files would have the name {path}: the file system of the target takes them for one.",
        "Restore to a file system that tells capitals from small letters, or choose paths one by one.",
        Exit.FAILED,
    ),
    ("recovery-typo", "length"): Words(
        "Line {line} of the recovery key has {digits} digits, and a line has 8.", "Look at the paper.", Exit.LOCKED
    ),
    ("recovery-typo", "check-digit"): Words(
        "There is a slip in line {line} of the recovery key.",
        "One of its digits is wrong, or two are swapped, or it is another line's place. Look at the paper.",
        Exit.LOCKED,
    ),
    ("recovery-typo", "not-a-digit"): Words(
        "Line {line} of the recovery key holds something that is no digit, at {column}.",
        "Only digits, spaces and dashes are in it.",
        Exit.LOCKED,
    ),
    ("recovery-typo", "too-few-lines"): Words(
        "The recovery key ends before line {line}; it has 8.", "Look for the rest of it.", Exit.LOCKED
    ),
    ("recovery-typo", "too-many-lines"): Words(
        "There is more after line 8 of the recovery key.", "It has 8 lines of 8 digits.", Exit.LOCKED
    ),
    ("fork-detected", "epoch"): Words(
        "The history of the keys was split: {names} do not belong to one history. Nothing of them was used.",
        "Two commands changed the keys at once, or somebody who once could read the vault made one of them. "
        "Take the one that you did not make out of the storage, at every provider.",
        Exit.INTEGRITY,
    ),
    ("rotation-refused", "last-recovery-key"): Words(
        "No recovery key would be left. Nothing was changed.",
        "Add another first: chatkeep key add recovery",
        Exit.USAGE,
    ),
    ("rotation-refused", "own-slot"): Words(
        "{id} is the way in that just unlocked the vault. Nothing was changed.",
        "Unlock with one that stays, to show that it opens.",
        Exit.USAGE,
    ),
    ("rotation-refused", "unknown-slot"): Words(
        "No way into the vault has the id {id}.", "See which there are: chatkeep key list", Exit.USAGE
    ),
    ("rotation-refused", "several-slots"): Words(
        "{id} can mean several ways in: {candidates}.", "Give more of its digits.", Exit.USAGE
    ),
    ("rotation-refused", "several-devices"): Words(
        "{id} can mean several devices: {candidates}.", "Give more of its digits.", Exit.USAGE
    ),
    ("rotation-refused", "removed-slot"): Words("The way in {id} was removed before.", "", Exit.USAGE),
    ("rotation-refused", "unknown-device"): Words(
        "No device of the vault has the id {id}.", "See which there are: chatkeep device list", Exit.USAGE
    ),
    ("rotation-refused", "removed-device"): Words("The device {id} was removed before.", "", Exit.USAGE),
    ("rotation-refused", "slot-damaged"): Words(
        "The file of the way in {id} is damaged, or nobody of this vault made it. Nothing was changed.",
        "If it is not to stay: chatkeep key remove {id}. Else bring slots/{id}.json back from another copy.",
        Exit.INTEGRITY,
    ),
    ("rotation-refused", "slot-twice"): Words(
        "There are two different files of the way in {id}. Nothing was changed.",
        "If it is not to stay: chatkeep key remove {id}",
        Exit.INTEGRITY,
    ),
    ("rotation-refused", "device-damaged"): Words(
        "The certificate of the device {id} is damaged, or nobody of this vault made it. Nothing was changed.",
        "If it is not to stay: chatkeep device remove {id}. Else bring devices/{id}.json back from another copy.",
        Exit.INTEGRITY,
    ),
    ("rotation-refused", "device-twice"): Words(
        "There are two different certificates of the device {id}. Nothing was changed.",
        "If it is not to stay: chatkeep device remove {id}",
        Exit.INTEGRITY,
    ),
    ("rotation-refused", "copy-damaged"): Words(
        "The copy of {name} is damaged there. Nothing was changed.",
        "Delete that file there and run the command again: it is copied from another provider that has it whole.",
        Exit.INTEGRITY,
    ),
    ("rotation-refused", "outrun"): Words(
        "Another command has changed the keys of the vault meanwhile. This one changed nothing.",
        "Look at what stays now, and run it again if it is still needed.",
        Exit.FAILED,
    ),
    ("rotation-refused", "unreachable"): Words(
        "Storage cannot be used ({error}). Keys are changed at every provider or at none, so nothing was changed.",
        "Bring it back, or take it out of the configuration if it is gone for good.",
        Exit.STORAGE,
    ),
    ("rotation-refused", "too-long"): Words(
        "The vault has more ways in and devices than one epoch record can name.",
        "Remove some that are not used: chatkeep key remove, chatkeep device remove",
        Exit.USAGE,
    ),
    ("slot-refused", "memory"): Words(
        "This machine has not enough memory free to try the passphrase ({value} KiB are needed).",
        "Close something, or use a recovery key.",
        Exit.FAILED,
    ),
    ("passphrase-refused", "empty"): Words("An empty passphrase protects nothing.", "Choose a long one.", Exit.USAGE),
}

# One line per problem of the configuration. {found}, {wanted} and {other} as the problem carries them.
PROBLEMS: Final[Mapping[Reason, str]] = {
    Reason.TOO_LARGE: "the file is larger than {wanted}",
    Reason.NOT_UTF8: "the byte {found} is not UTF-8 text",
    Reason.SYNTAX: "not YAML: {found}",
    Reason.EMPTY: "the file is empty",
    Reason.ALIAS: "aliases (*name) are not taken; write the value again",
    Reason.TOO_DEEP: "nested too deeply",
    Reason.WRONG_TYPE: "{wanted} is needed here, not {found}",
    Reason.UNKNOWN_KEY: "there is no such key",
    Reason.DUPLICATE_KEY: "the key stands here for the second time",
    Reason.MISSING_KEY: "the key {wanted} is missing",
    Reason.NO_VALUE: "a value is missing",
    Reason.UNKNOWN_WORD: "'{found}' is not {wanted}",
    Reason.BAD_TEXT: "empty, or with characters that cannot be shown: {found}",
    Reason.BAD_NAME: "'{found}' cannot be a name: 1 to 100 characters, no slash, no dash or space at the edge",
    Reason.BAD_PATTERN: "'{found}' is not a pattern below the source: no slash in front, no ..",
    Reason.NOT_ABSOLUTE: "'{found}' is not an absolute path; it begins with / or ~, and variables are not replaced",
    Reason.NO_HOME: "the home directory in '{found}' is not known",
    Reason.BAD_DURATION: "'{found}' is not a duration: a number of minutes, hours, days or weeks, such as 36 hours",
    Reason.BAD_AMOUNT: "'{found}' is not a number from 0 to 999999, and not all",
    Reason.DUPLICATE_NAME: "the name '{found}' is already that of {other}; give one of them another name",
    Reason.SAME_DIRECTORY: "{found} is the same directory as {other}",
    Reason.NESTED_DIRECTORY: "{found} lies inside {other}, which covers it already",
    Reason.STATE_IN_SOURCE: "{found} lies inside {other} and would be backed up with it",
    Reason.STATE_IN_PROVIDER: "{found} lies inside {other}; this device's key would leave it with the vault",
    Reason.PROVIDER_IN_SOURCE: "{found} lies inside {other}; the vault would back itself up",
    Reason.PATH_MISSING: "there is nothing at {found}",
    Reason.NOT_A_DIRECTORY: "{found} is not a directory",
    Reason.NOT_READABLE: "this user may not read {found}",
    Reason.NOT_WRITABLE: "this user may not write to {found}",
}
