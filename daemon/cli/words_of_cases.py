"""Words for errors whose reason says more than their code, and for problems of the configuration (see words)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from chatkeep.config.problems import Reason
from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.words import VERIFY, WORDS, Words
from chatkeep.daemon.cli.words_of_daemon import DAEMON_CASES
from chatkeep.daemon.cli.words_of_storage_cases import STORAGE_CASES

_OTHER_PASSKEY: Final = (
    "Use another security key, or a passkey in the browser: --passkey unlocks with one, "
    "chatkeep key add passkey adds one."
)

# Where the reason of an error says more than its code: (code, reason).
CASES: Final[Mapping[tuple[str, str], Words]] = {
    **DAEMON_CASES,
    **STORAGE_CASES,
    ("config-missing", "to-read"): Words(
        "There is no configuration at {file}.",
        "Name the storage itself: --from FOLDER, or --from FILE.yaml",
        Exit.USAGE,
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
    ("vault-locked", "ended"): Words(
        "The session ended while this ran: the vault is locked. What was finished before stands.",
        "Unlock it again, then run the command again: chatkeep unlock",
        Exit.LOCKED,
    ),
    ("socket-refused", "owner"): Words(
        "{path} belongs to another user: it is not this user's session. Nothing was asked there, and nothing sent.",
        "Somebody may wait there for your keys. Look at who put it there, then remove it.",
        Exit.FAILED,
    ),
    ("socket-refused", "peer"): Words(
        "Another user's program answers at {path}: it is not this user's session. Nothing was asked there.",
        "Somebody may wait there for your keys. Look at who put it there, then remove it.",
        Exit.FAILED,
    ),
    ("socket-refused", "mode"): Words(
        "Other users may use {path}, where the session's socket is to be. Nothing was asked there, and nothing sent.",
        "chmod 700 it, if it is yours.",
        Exit.FAILED,
    ),
    ("socket-refused", "symlink"): Words(
        "{path} is a symbolic link, which the session's socket is never reached through.",
        "Look at who put it there, then remove it.",
        Exit.FAILED,
    ),
    ("socket-refused", "vault"): Words(
        "The session at {path} is that of another vault: its socket was moved there.",
        "End it, and begin another: chatkeep lock, then chatkeep unlock",
        Exit.FAILED,
    ),
    ("reader-failed", "start"): Words(
        "The process that is to hold the keys did not start.",
        "The vault stays as it was. Without a session, give the secret to each command: --key-file F",
        Exit.FAILED,
    ),
    ("reader-failed", "socket"): Words(
        "The process that is to hold the keys could not make its socket in {path}.",
        "Is the disk full, or read-only? Without a session, give the secret to each command: --key-file F",
        Exit.FAILED,
    ),
    ("reader-failed", "silent"): Words(
        "The process that holds the keys does not answer: it is stopped, or the machine is overloaded.",
        "End it, and begin another: chatkeep lock, then chatkeep unlock",
        Exit.FAILED,
    ),
    ("reader-failed", "running"): Words(
        "The process that holds the keys could not be ended. The vault may still be open.",
        "End it by hand: look for chatkeep.daemon.service.reader in the list of processes.",
        Exit.FAILED,
    ),
    ("ceremony-cancelled", "page"): Words(
        "Cancelled: the page was stopped or closed. Nothing was changed.",
        "Run the command again. To unlock without a passkey: --recovery-key",
        Exit.CANCELLED,
    ),
    ("ceremony-cancelled", "key"): Words(
        "Declined at the security key. Nothing was changed.", "Run the command again.", Exit.CANCELLED
    ),
    ("security-key-unsupported", "hmac-secret"): Words(
        "This security key can log you in to websites, but it cannot keep a vault's secret (it has no hmac-secret).",
        _OTHER_PASSKEY,
        Exit.LOCKED,
    ),
    ("security-key-unsupported", "ctap1"): Words(
        "This security key is of the older kind (U2F), which has no passkeys.",
        _OTHER_PASSKEY,
        Exit.LOCKED,
    ),
    ("security-key-unsupported", "unprotected"): Words(
        "This security key would give the vault's secret to whoever finds it, without its PIN (it has no credProtect).",
        _OTHER_PASSKEY,
        Exit.LOCKED,
    ),
    ("security-key-unsupported", "discoverable"): Words(
        "This security key keeps no passkeys.",
        _OTHER_PASSKEY,
        Exit.LOCKED,
    ),
    ("security-key-unsupported", "full"): Words(
        "This security key has no room for another passkey. Nothing was changed.",
        "Delete one that you do not need, or use another key. See what is on it: fido2-token -L -r DEVICE",
        Exit.LOCKED,
    ),
    ("no-security-key", "permission"): Words(
        "A security key is plugged in as {device}, and this user may not use it.",
        "Install the package libfido2-1 (its udev rules give the key to who sits at the machine), then pull the key "
        "out and put it back in. Over ssh nobody sits at it: a rule for a group is needed there.",
        Exit.LOCKED,
    ),
    ("no-pin", "change"): Words(
        "The security key wants a new PIN before it is used again.",
        "Change it, in the settings of Chromium or with fido2-token -C DEVICE (package fido2-tools). Then run the "
        "command again.",
        Exit.LOCKED,
    ),
    ("pin-blocked", "fingerprint"): Words(
        "The security key did not know the finger too often, and it has no PIN to fall back to.",
        "Pull it out, put it back in, and run the command again. Or use another way in.",
        Exit.LOCKED,
    ),
    ("pin-blocked", "replug"): Words(
        "The PIN was wrong too often in a row.",
        "Pull the security key out, put it back in, and run the command again.",
        Exit.LOCKED,
    ),
    ("pin-blocked", "reset"): Words(
        "The PIN was wrong too often: the security key has locked itself for good.",
        "Only a reset makes it usable, and that deletes every passkey on it. Use another way in, then remove this one: "
        "chatkeep key list",
        Exit.LOCKED,
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
        "Is the right disk mounted? A new provider begins with a copy of what another one has: chatkeep mirror NAME",
        Exit.STORAGE,
    ),
    ("no-slot-opened", "absent"): Words(
        "Storage has no key slot for a secret of this kind.",
        "See which there are: chatkeep key list. Add one: chatkeep key add",
        Exit.LOCKED,
    ),
    ("no-slot-opened", "other-vault"): Words(
        "The key slots for a secret of this kind that are in this storage belong to another vault.",
        "See which vault is meant: chatkeep status, chatkeep doctor",
        Exit.LOCKED,
    ),
    ("no-slot-opened", "damaged"): Words(
        "No key slot of the vault opened, and not all of them are whole. The secret may be right.",
        "Try another one, or another copy of the storage. " + VERIFY,
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
        VERIFY,
        Exit.INTEGRITY,
    ),
    ("prune-refused", "lost"): Words(
        "Snapshots of this device that must live are in no storage ({count} findings, the first: {finding}). Nothing "
        "was pruned.",
        "Look for another copy of the storage, and put back what it has. If there is none, and every provider is "
        "there: chatkeep prune --give-up-missing",
        Exit.INTEGRITY,
    ),
    ("prune-refused", "away"): Words(
        "{where} cannot be asked, and may have the snapshots that are missing. Nothing was given up.",
        "Connect every provider, or take out of the configuration one that is gone for good.",
        Exit.STORAGE,
    ),
    ("cancelled", "kept"): Words("Cancelled. Every snapshot stays.", "", Exit.CANCELLED),
    ("cancelled", "no-vault"): Words(
        "Cancelled. No vault was made: a recovery key that was shown opens nothing.",
        "Begin again whenever you like: chatkeep init",
        Exit.CANCELLED,
    ),
    ("cancelled", "declined"): Words("Cancelled. Nothing was changed.", "", Exit.CANCELLED),
    ("prune-refused", "confirm"): Words(
        "Snapshots are lost, and nobody said that they are to be given up. Nothing was pruned.",
        "Look first: chatkeep prune --give-up-missing --dry-run. Then: chatkeep prune --give-up-missing --yes",
        Exit.FAILED,
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
    ("rotation-refused", "added"): Words(
        "Another command has added a way in or a device meanwhile ({id}). This one changed nothing.",
        "Run it again, and look at what stays.",
        Exit.FAILED,
    ),
    ("enrolment-failed", "outrun"): Words(
        "Another command has changed the keys of the vault meanwhile. What was added counts for nothing.",
        "Run the command again. A recovery key that was made for it opens nothing: do not keep it.",
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
    ("slot-refused", "rp-id"): Words(
        "A passkey slot names a foreign site ({value}). No passkey was asked for it.",
        "Somebody may have changed it in storage. Use another way in.",
        Exit.INTEGRITY,
    ),
    ("passkey-refused", "user-verification"): Words(
        "The passkey answered without making sure that it was you (no PIN, fingerprint or face).",
        "Set up a PIN or a fingerprint for it, and try again.",
        Exit.LOCKED,
    ),
    ("passkey-refused", "other-credential"): Words(
        "A passkey answered that is none of this vault's.", "Try again with the one that was added.", Exit.LOCKED
    ),
    ("passkey-refused", "no-prf"): Words(
        "The passkey can sign in, but gives no secret (it lacks the PRF extension): it cannot open a backup.",
        "Use a security key with hmac-secret, or a passkey kept by a current Chrome, Edge, Safari or Android.",
        Exit.FAILED,
    ),
    ("passkey-refused", "prf-length"): Words(
        "What the passkey gave has the wrong length. It was thrown away.",
        "Use another browser or another passkey.",
        Exit.LOCKED,
    ),
    ("passkey-refused", "crowded"): Words(
        "Storage has {slots} key slots for this one passkey. It answered {gestures} times, and opened none of them.",
        "Somebody who can write to the storage put them there. Use another way in, then: chatkeep verify",
        Exit.INTEGRITY,
    ),
    ("passkey-refused", "unstable"): Words(
        "The passkey gave two different secrets, one after the other: it cannot be relied on. Nothing was added.",
        "Use another passkey.",
        Exit.FAILED,
    ),
    ("passphrase-refused", "empty"): Words("An empty passphrase protects nothing.", "Choose a long one.", Exit.USAGE),
}

# What is said besides, of any error with this parameter; how the command ends is the error's own affair.
MORE: Final[Mapping[str, Words]] = {
    "nearest": Words("Did you mean {nearest}?", "", Exit.USAGE),
    "damaged_slots": Words(
        "Storage has lost or damaged {damaged_slots}: if that is the way in you tried, it opens nothing now.",
        "Which it is, another way in tells: chatkeep key list --labels",
        Exit.LOCKED,
    ),
    "left_at": Words(
        "What was written of the new way in could not be taken back at {left_at}, and counts there.",
        "When storage does as it should again: chatkeep key remove {slot}",
        Exit.STORAGE,
    ),
    "staging": Words(
        "The files that were written until then are in {staging}.",
        "The same restore goes on from there. If you do not want that, remove {staging}: it holds plain files.",
        Exit.FAILED,
    ),
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
    Reason.BAD_FORM: "'{found}' is not what this key takes: see chatkeep config example --type TYPE",
    Reason.BAD_NAME: "'{found}' cannot be a name: 1 to 100 characters, no slash, no dash or space at the edge",
    Reason.BAD_URL: "this is not an address such as https://host/path. Where a password goes along, http is for this "
    "machine alone. User, password and ?query do not belong into it",
    Reason.SECRET_HERE: "a secret stands here, and the configuration is no place for one: put it into {wanted}, which "
    "only you may read. Whoever saw it here may know it: better make a new one",
    Reason.BAD_SECRET_FILE: "this is neither the path of a file (it begins with / or ~) nor credential:NAME. The "
    "secret itself does not belong here, but into a file that only you may read",
    Reason.TYPE_UNUSABLE: "the type '{found}' comes from a package that cannot be used ({wanted}): update or remove it",
    Reason.BAD_PATTERN: "'{found}' is not a pattern below the source: no slash in front, no ..",
    Reason.NOT_ABSOLUTE: "'{found}' is not an absolute path; it begins with / or ~, and variables are not replaced",
    Reason.NO_HOME: "the home directory in '{found}' is not known",
    Reason.ZERO_DURATION: "'{found}' is no time at all: give {wanted} or more",
    Reason.TOO_SHORT: "'{found}' is too short: give {wanted} or more",
    Reason.BAD_DURATION: "'{found}' is not a duration such as 30 seconds, 5 minutes, 36h, 7d or 2 weeks (100 years at "
    "most)",
    Reason.BAD_EVERY: "'{found}' is not never, and not a duration such as 5 minutes, 36h, 7d or 2 weeks",
    Reason.BAD_AMOUNT: "'{found}' is not a number from 0 to 999999, and not all",
    Reason.BAD_SIZE: "'{found}' is not a size such as 500 MB, 20 GB or 1 TB",
    Reason.BAD_SHARE: "'{found}' is not a share such as 1% or 0.5%: more than 0%, at most 100%",
    Reason.BAD_RATE: "'{found}' is not a rate such as 500 KB/s or 2 MB/s (10 KB/s at least), and not unlimited",
    Reason.BAD_TIME: "'{found}' is not a time of the day such as 08:00 or 22:30",
    Reason.BAD_AT_ONCE: "'{found}' is not a number from 1 to 64",
    Reason.LONGER_THAN: "{found} is longer than {other}, which is {wanted}: give {wanted} or less, or make {other} "
    "longer",
    Reason.ALARM_TOO_SOON: "{found} is not shorter than {other}, which is {wanted}: it would warn without end; "
    "make {other} longer, or never",
    Reason.DUPLICATE_NAME: "the name '{found}' is already that of {other}; give one of them another name",
    Reason.SAME_DIRECTORY: "{found} is the same directory as {other}",
    Reason.SECRET_IN_PROVIDER: "{found} lies inside {other}: whoever has that storage has this secret; move it out",
    Reason.SAME_STORAGE: "this is the same place as that of {other}: what is lost there is lost for both",
    Reason.NESTED_DIRECTORY: "{found} lies inside {other}, which covers it already",
    Reason.STATE_IN_SOURCE: "{found} lies inside {other} and would be backed up with it",
    Reason.STATE_IN_PROVIDER: "{found} lies inside {other}; this device's key would leave it with the vault",
    Reason.PROVIDER_IN_SOURCE: "{found} lies inside {other}; the vault would back itself up",
    Reason.PATH_MISSING: "there is nothing at {found}",
    Reason.PLACE_MISSING: "there is nothing at {found}. Where a vault was, mount the disk; a new provider beside "
    "others begins with a copy: chatkeep mirror {wanted}",
    Reason.NOT_A_DIRECTORY: "{found} is not a directory",
    Reason.NOT_READABLE: "this user may not read {found}",
    Reason.NOT_WRITABLE: "this user may not write to {found}",
}
