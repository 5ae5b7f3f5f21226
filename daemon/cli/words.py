"""The words for every error: what happened, what to do, how the command ends. The only prose about errors there is.

Texts name parameters in braces; `telling` fills them in. They name only what every raiser of the error gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.saying import AGAIN, REPORT
from chatkeep.daemon.cli.saying import VERIFY as VERIFY
from chatkeep.daemon.cli.saying import Words as Words
from chatkeep.daemon.cli.words_of_daemon import DAEMON
from chatkeep.daemon.cli.words_of_storage import STORAGE

_HERE: Final = {
    "error": Words("Something failed.", REPORT, Exit.FAILED),
    "cancelled": Words("Cancelled. What was finished before stands.", "", Exit.CANCELLED),
}

_CONFIG: Final = {
    "config": Words("The configuration cannot be used.", "See: chatkeep config check", Exit.USAGE),
    "config-missing": Words(
        "There is no configuration at {file}.",
        "Set everything up: chatkeep setup. Or write one by hand, from: chatkeep config example",
        Exit.USAGE,
    ),
    "config-unreadable": Words("The configuration {file} cannot be read: {cause}.", "", Exit.USAGE),
    "config-invalid": Words("The configuration is wrong:", "Every key explained: chatkeep config example", Exit.USAGE),
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
    "source-busy": Words("{path} was in use all the time ({reason}).", AGAIN, Exit.FAILED),
    "database-replaced": Words("{path} was replaced by another file meanwhile.", AGAIN, Exit.FAILED),
    "page-size-changed": Words("The database {path} was rebuilt with another page size.", AGAIN, Exit.FAILED),
    "not-proven": Words("What changed in {path} is not known for sure ({reason}).", AGAIN, Exit.FAILED),
    "too-many-dirty": Words("Too much of {path} changed at once.", AGAIN, Exit.FAILED),
    "digest-table-incomplete": Words("The record of page {page} is missing.", AGAIN, Exit.FAILED),
    "database-damaged": Words(
        "The database {path} is damaged ({reason}).",
        "What was backed up of it while it was whole stays: chatkeep snapshots",
        Exit.FAILED,
    ),
    "entry-vanished": Words("{path} vanished while it was read.", AGAIN, Exit.FAILED),
    "entry-unreadable": Words("{path} cannot be read: {errno}.", "Its older content stays in the backup.", Exit.FAILED),
    "unsupported-source": Words("A source cannot be captured here ({reason}).", "", Exit.FAILED),
}

_KEYS: Final = {
    "keys-error": Words("The keys of the vault could not be used.", "", Exit.LOCKED),
    "not-mine": Words("The secret does not open this slot.", "", Exit.LOCKED),
    "no-slot-opened": Words("No key slot of the vault opened.", "Try another way in: chatkeep key list", Exit.LOCKED),
    "wrong-recovery-key": Words(
        "This is not a recovery key of this vault.",
        "It is free of slips: look for the paper of this vault.",
        Exit.LOCKED,
    ),
    "wrong-passphrase": Words("The passphrase is wrong.", "A recovery key opens the vault too.", Exit.LOCKED),
    "wrong-passkey": Words(
        "The passkey answered, and what it gave does not open its slot in this vault.",
        "The one who keeps it may have lost what it held. Use another passkey, or a recovery key.",
        Exit.LOCKED,
    ),
    "passkey-refused": Words(
        "What the passkey answered cannot be used ({reason}). It was thrown away.",
        "Try again, with another browser or another passkey; a recovery key opens the vault too.",
        Exit.LOCKED,
    ),
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
    "unsealable": Words("Sealed bytes do not open with the keys of this vault.", VERIFY, Exit.INTEGRITY),
    "key-refused": Words("A public key ({what}) must not be used ({reason}).", VERIFY, Exit.INTEGRITY),
    "signature-invalid": Words("The signature of the {what} is wrong.", VERIFY, Exit.INTEGRITY),
    "text-malformed": Words("The {what} in storage is damaged ({reason}).", VERIFY, Exit.INTEGRITY),
    "text-version": Words("The {what} is of a later version ({version}).", "Install a newer Chatkeep.", Exit.FAILED),
    "secret-wiped": Words("A secret was used after it was wiped ({what}).", REPORT, Exit.FAILED),
}

_VAULT: Final = {
    "vault-error": Words("The vault is not as it should be.", VERIFY, Exit.INTEGRITY),
    "unsupported-version": Words(
        "The {what} is of a later version ({version}).", "Install a newer Chatkeep.", Exit.FAILED
    ),
    "malformed": Words("The {what} in storage is damaged ({reason}).", VERIFY, Exit.INTEGRITY),
    "authentication-failed": Words("The {what} in storage is not what was sealed.", VERIFY, Exit.INTEGRITY),
    "missing-object": Words("An object of the vault is missing in storage.", VERIFY, Exit.INTEGRITY),
    "object-mismatch": Words("An object in storage is not what its name says.", VERIFY, Exit.INTEGRITY),
    "wrong-vault": Words(
        "The {what} belongs to another vault than this device's.", "Check which storage is configured.", Exit.INTEGRITY
    ),
    "no-vault": Words("There is no vault in this storage.", "Create one: chatkeep init", Exit.STORAGE),
    "several-vaults": Words("There are several vaults in this storage: {vaults}.", "Name the one.", Exit.USAGE),
    "slot-removed": Words(
        "This secret was a way into the vault, and was removed from it.",
        "Use another way in. If it is a passkey, it can be deleted where it is kept: nothing needs it any more.",
        Exit.LOCKED,
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
        "Write it from here too: chatkeep join. For a new vault name an empty directory.",
        Exit.FAILED,
    ),
    "device-removed": Words(
        "This device was removed from the vault. Nothing it writes counts any more, so it writes nothing.",
        "If that was not meant, enrol it again: chatkeep join. Snapshots from before the removal stay.",
        Exit.FAILED,
    ),
    "rotation-refused": Words("The keys of the vault were not changed ({reason}).", VERIFY, Exit.FAILED),
    "fork-detected": Words(
        "The history of the vault was split: there are two successors of one {what}.",
        "Somebody who can write to the storage may have rolled it back. " + VERIFY,
        Exit.INTEGRITY,
    ),
    "vault-locked": Words(
        "The vault is locked, and there is no terminal to ask for a secret at.",
        "Run it at a terminal, or name a secret: --passkey, --key-file F or --passphrase-file F. Commands that only "
        "read also use a session that was begun before: chatkeep unlock",
        Exit.LOCKED,
    ),
    "session-outdated": Words(
        "The keys of the vault were changed since it was unlocked here (epoch {epoch} now, {since} then).",
        "Unlock it again: chatkeep unlock --again",
        Exit.LOCKED,
    ),
    "credential-refused": Words(
        "This device's key for writing cannot be used ({reason}).",
        "It is in the state directory, must belong to this user, and nobody else may read it (mode 0600).",
        Exit.FAILED,
    ),
    "enrolment-failed": Words("What was enrolled did not read back from storage ({reason}).", "", Exit.STORAGE),
    "record-too-long": Words("The {what} has {size} bytes of attributes, more than fit.", REPORT, Exit.FAILED),
    "unresolvable": Words("The snapshot lacks or contradicts something ({reason}).", VERIFY, Exit.INTEGRITY),
    "snapshot-too-large": Words(
        "Reading this snapshot needs more memory than this computer has to spare.",
        "Read it on a computer with more memory. If what it keeps is small, its device may be in other hands.",
        Exit.FAILED,
    ),
    "unknown-key": Words("The {what} is sealed to a key that this vault does not have.", VERIFY, Exit.INTEGRITY),
    "different-key": Words("The {what} opens under a key it was not sealed with.", VERIFY, Exit.INTEGRITY),
    "pack-broken": Words(
        "A pack could not be written to this machine's disk.", f"See that it has room. {AGAIN}", Exit.FAILED
    ),
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
    "unreadable": Words("No storage returned a part of the snapshot whole ({name}).", VERIFY, Exit.INTEGRITY),
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
    "drill-error": Words("A restored database is not whole.", "", Exit.FAILED),
    "captured-damaged": Words(
        "The database {path} is damaged, and was so when it was captured: the backup is what the application had.",
        "Let the application repair it, or restore an older snapshot of it: chatkeep snapshots",
        Exit.FAILED,
    ),
    "check-unfinished": Words(
        "SQLite could not look at the database {path} to its end ({reason}). It is what was captured.",
        "Restore it, and open it with the application.",
        Exit.FAILED,
    ),
    "proof-failed": Words("What was written of {path} is not what was captured.", VERIFY, Exit.INTEGRITY),
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
    "config-differs": Words(
        "The configuration {file} is there already, and does not have what was asked for: {lacking}.",
        "Add it there by hand, and run chatkeep setup again. Or begin anew with --replace-config: the file that is "
        "there is kept beside the new one.",
        Exit.USAGE,
    ),
    "nothing-to-keep": Words(
        "There is nothing to keep: no chat application was found or chosen, and no directory was named.",
        "Name one: chatkeep setup --source DIRECTORY",
        Exit.USAGE,
    ),
    "file-refused": Words(
        "{path} cannot be written: {errno}.", "Make it possible, and run chatkeep setup again.", Exit.FAILED
    ),
    "unit-not-ours": Words(
        "There is a unit at {path} that chatkeep setup did not write, or that somebody changed. It was left as it is.",
        "Take it out of the way yourself: systemctl --user disable --now chatkeep, then delete the file.",
        Exit.FAILED,
    ),
    "systemd-failed": Words(
        "The service manager did not do what it was asked ({command}): {said}.",
        "Look for why: journalctl --user -u chatkeep. Then run chatkeep setup again.",
        Exit.FAILED,
    ),
    "no-such-snapshot": Words("There is no snapshot {wanted}.", "{known} See: chatkeep snapshots", Exit.USAGE),
    "several-snapshots": Words(
        "{wanted} can mean several snapshots: {candidates}.",
        "Name one by the id beside it. See: chatkeep snapshots",
        Exit.USAGE,
    ),
}

_SESSION: Final = {
    "session-error": Words("The session could not be used.", "Begin another: chatkeep unlock --again", Exit.FAILED),
    "socket-refused": Words(
        "What is at {path} is not this user's session ({reason}). Nothing was asked there, and nothing sent.",
        "Look at who put it there, then remove it.",
        Exit.FAILED,
    ),
    "reader-failed": Words(
        "The process that is to hold the keys failed ({reason}).", "Begin another: chatkeep unlock --again", Exit.FAILED
    ),
}

_CEREMONY: Final = {
    "ceremony-error": Words("The passkey could not be used.", "A recovery key opens the vault too.", Exit.LOCKED),
    "ceremony-cancelled": Words(
        "Cancelled. Nothing was changed.",
        "To unlock without a passkey: --recovery-key",
        Exit.CANCELLED,
    ),
    "ceremony-timed-out": Words(
        "Nobody used the passkey in time ({seconds} s). Nothing was changed.",
        "Run the command again. To unlock without a passkey: --recovery-key",
        Exit.LOCKED,
    ),
    "ceremony-lost": Words(
        "What speaks with the browser or the security key came to an end ({reason}). Nothing was changed.",
        "Run the command again. If it stays so, unlock without a passkey: --recovery-key",
        Exit.FAILED,
    ),
    "no-loopback-port": Words(
        "No port is free on every address of localhost ({tried} were tried).",
        "Another program may be taking them to catch the passkey. Look at: ss -ltnp. A security key needs no port: "
        "--security-key",
        Exit.FAILED,
    ),
    "already-enrolled": Words(
        "That device already has a passkey of this vault. Nothing was changed.",
        "If it opens the vault, choose another device for another way in. If it does not: remove that way in "
        "(chatkeep key list --labels, chatkeep key remove ID), then add it anew.",
        Exit.FAILED,
    ),
    "no-security-key": Words(
        "No security key was plugged in. Nothing was changed.",
        "Plug one in and run the command again.",
        Exit.LOCKED,
    ),
    "not-on-security-key": Words(
        "No passkey of this vault is on a security key that is plugged in.",
        "Plug in the other key, or use the browser: --passkey",
        Exit.LOCKED,
    ),
    "security-key-unsupported": Words(
        "This security key cannot be used ({reason}).", "Use another one, or the browser: --passkey", Exit.LOCKED
    ),
    "security-key-removed": Words(
        "The security key was pulled out too early. Nothing was changed.", "Run the command again.", Exit.LOCKED
    ),
    "no-pin": Words(
        "The security key has no PIN: it would open the vault for whoever finds it.",
        "Give it one, in the settings of Chromium or with fido2-token -S DEVICE (package fido2-tools). Then run the "
        "command again.",
        Exit.LOCKED,
    ),
    "pin-wrong": Words(
        "The PIN of the security key was wrong, and no other was typed. Nothing was changed.",
        "Run the command again. The key counts wrong ones: {retries} more, and it locks itself for good.",
        Exit.LOCKED,
    ),
    "pin-blocked": Words("The security key takes no PIN now ({reason}).", "", Exit.LOCKED),
    "no-terminal": Words(
        "The PIN of the security key must be typed, and there is no terminal to type it at.",
        "Run the command at a terminal. Without one, a recovery key opens the vault too: --key-file F",
        Exit.LOCKED,
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
        "This device's records were damaged. They are kept, and nothing is read of them any more: {path}.",
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
    "outbox-lost": Words("{name} was never uploaded and is gone from this device.", AGAIN, Exit.FAILED),
}

_PRUNE: Final = {
    "prune": Words("Nothing was pruned.", "", Exit.FAILED),
    "lacking-what-lives": Words(
        "{provider} does not have everything that lives ({object}), and it is not going to be sent there any more. "
        "Nothing is deleted there: what it has may be all that can be restored from it.",
        "Copy what it lacks from another provider: chatkeep mirror {provider}",
        Exit.STORAGE,
    ),
    "nowhere-whole": Words(
        "No storage that was asked has {object} whole, so it was not copied, nor what stands on it.",
        VERIFY,
        Exit.INTEGRITY,
    ),
    "prune-refused": Words("Nothing was pruned ({reason}).", "", Exit.FAILED),
    "prune-too-much": Words(
        "More would go than anybody means by accident. Nothing was pruned.",
        "Look first: chatkeep prune --dry-run. Then, if it is meant: chatkeep prune --yes",
        Exit.FAILED,
    ),
}

WORDS: Final[Mapping[str, Words]] = {
    **_HERE,
    **_COMMANDS,
    **_CONFIG,
    **STORAGE,
    **_CAPTURE,
    **_KEYS,
    **_VAULT,
    **_CEREMONY,
    **_SESSION,
    **_STATE,
    **_RESTORE,
    **_PRUNE,
    **DAEMON,
}
