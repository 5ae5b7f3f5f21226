"""The words for what can be wrong with storage."""

from __future__ import annotations

from typing import Final

from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.saying import AGAIN, REPORT, VERIFY, Words

STORAGE: Final = {
    "provider-error": Words("Storage did not do what it was asked.", "", Exit.STORAGE),
    "unavailable": Words("Storage cannot be reached.", AGAIN, Exit.STORAGE),
    "throttled": Words("Storage asks for fewer requests.", AGAIN, Exit.STORAGE),
    "object-not-found": Words("Storage does not have {object}.", VERIFY, Exit.INTEGRITY),
    "object-conflict": Words(
        "Storage holds something else under the name {object}. It was left as it is.", VERIFY, Exit.INTEGRITY
    ),
    "object-damaged": Words("Storage cannot read back {object}.", VERIFY, Exit.INTEGRITY),
    "quota-exceeded": Words(
        "Storage is full.", "Free some room or get more. What waits to be uploaded is kept until then.", Exit.STORAGE
    ),
    "permission-refused": Words(
        "Storage refuses access.",
        "Check that this user may read and write there, and that the medium is not write-protected.",
        Exit.STORAGE,
    ),
    "storage-credential-refused": Words(
        "Storage does not accept the key or password it was given.",
        "It is wrong, was revoked or has expired. Put a new one where the configuration says, then look: "
        "chatkeep providers test {provider}",
        Exit.STORAGE,
    ),
    "retention-behind": Words(
        "{provider}: not everything could be locked for longer ({reason}).",
        "It is tried again after the next backup. If it stays so, look whether the key may set retention: "
        "chatkeep providers test {provider}",
        Exit.STORAGE,
    ),
    "login-needed": Words(
        "Storage wants somebody to log in again.",
        "Run: chatkeep providers login {provider}. What waits to be uploaded is kept until then.",
        Exit.STORAGE,
    ),
    "login-failed": Words(
        "Nobody is logged in now ({reason}). What was there before stands.",
        "Run it again: chatkeep providers login {provider}",
        Exit.STORAGE,
    ),
    "client-missing": Words(
        "Storage of the type {type} needs a library that is not installed ({package}).",
        "Install it into the same Python as Chatkeep: pip install 'chatkeep[{extra}]'",
        Exit.STORAGE,
    ),
    "secret-file-refused": Words(
        "The file of a key or password cannot be used: {path} ({reason}).",
        "It must be a file of the user who runs Chatkeep, that nobody else may read: chmod 600. "
        "See: chatkeep config example",
        Exit.STORAGE,
    ),
    "memo-unusable": Words(
        "What is remembered about storage on this machine cannot be read or written: {path} ({errno}).",
        "Make room on the disk, or give the file back to the user who runs Chatkeep.",
        Exit.FAILED,
    ),
    "object-held": Words(
        "Storage does not let {object} be deleted now.",
        "It has an object lock or a retention period. Nothing is wrong: what was pruned stays there until it ends.",
        Exit.STORAGE,
    ),
    "storage-missing": Words(
        "The place where the vault is stored is not there: {path}.",
        "Mount the disk, put the directory or bucket back, or correct its name. A new provider beside others begins "
        "with a copy: chatkeep mirror NAME. What a backup has for it waits until "
        "then.",
        Exit.STORAGE,
    ),
    "schema-missing": Words(
        "The CloudKit container {path} lacks the record type that objects are stored in, or an index of it.",
        "It is made once, in the CloudKit console: docs/providers.md has the text to import there, in the section on "
        "iCloud. For environment: production it must be deployed there as well.",
        Exit.STORAGE,
    ),
    "clock-refused": Words(
        "Storage refuses the key, because this machine's clock is {minutes} minutes off.",
        "Set the clock. What waits to be uploaded is kept until then.",
        Exit.STORAGE,
    ),
    "opendal-service-unknown": Words(
        "OpenDAL, as it is installed, does not carry the service {service}.",
        "Correct service in the configuration. It carries: {available}",
        Exit.USAGE,
    ),
    "opendal-options-refused": Words(
        "OpenDAL does not take the options for the service {service}: one is missing, or has another form.",
        "Its page of the service says which there are: https://opendal.apache.org/docs/services",
        Exit.USAGE,
    ),
    "object-too-large": Words(
        "{object} has {size} bytes; this storage takes {limit} at most in one object.", REPORT, Exit.FAILED
    ),
    "invalid-name": Words("{object} cannot be the name of an object.", REPORT, Exit.FAILED),
}
