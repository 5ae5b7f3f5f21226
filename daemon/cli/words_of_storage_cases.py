"""Words for errors of storage whose reason says more than their code. The reasons are those of the providers, which
partly pass on what their client libraries call a failure of the line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.saying import AGAIN, Words

_LOGIN: Final = "Run: chatkeep providers login {provider}."
_SILENT: Final = Words(
    "Nothing answers at the address of the storage.",
    f"See that this machine is online, and that the address in the configuration is right. {AGAIN}",
    Exit.STORAGE,
)
_LATE: Final = Words("Storage did not answer in time.", AGAIN, Exit.STORAGE)
_UNKNOWN: Final = Words(
    "The name in the address of the storage is not known.",
    f"See that this machine is online, and that the address in the configuration is right. {AGAIN}",
    Exit.STORAGE,
)
_UNTRUSTED: Final = Words(
    "This machine does not trust the certificate that storage shows.",
    "See that the address is right. A certificate that you made yourself must be made known to this machine first.",
    Exit.STORAGE,
)
_BROKEN: Final = Words("The connection to storage broke off.", AGAIN, Exit.STORAGE)

_STRANGER: Final = Words(
    "Something else answers in the place of the storage.",
    f"A network that wants you to log in first does that; so does a wrong address in the configuration. {AGAIN}",
    Exit.STORAGE,
)
_SHORT: Final = Words(
    "Storage says that it holds another number of bytes than it was sent. It was not taken for stored.",
    f"A gateway before it may have run out of room. {AGAIN}",
    Exit.STORAGE,
)

_LINE: Final[Mapping[Words, tuple[str, ...]]] = {
    _SILENT: ("no-connection", "EndpointConnectionError", "ConnectError", "ConnectionRefusedError"),
    _LATE: (
        *("timeout", "ConnectTimeoutError", "ReadTimeoutError", "ConnectTimeout", "ReadTimeout", "WriteTimeout"),
        *("PoolTimeout", "TimeoutError"),
    ),
    _UNKNOWN: ("gaierror",),
    _STRANGER: ("no-answer", "reply"),
    _SHORT: ("size-differs",),
    _UNTRUSTED: ("tls", "certificate", "SSLCertVerificationError"),
    _BROKEN: (
        *("broken", "ConnectionClosedError", "ConnectionResetError", "BrokenPipeError", "RemoteProtocolError"),
        *("ReadError", "WriteError", "ResponseStreamingError", "IncompleteReadError", "RemoteDisconnected"),
    ),
}


def _unavailable() -> Iterator[tuple[tuple[str, str], Words]]:
    for words, reasons in _LINE.items():
        for reason in reasons:
            yield ("unavailable", reason), words


STORAGE_CASES: Final[Mapping[tuple[str, str], Words]] = {
    **dict(_unavailable()),
    ("storage-credential-refused", "none"): Words(
        "There is no key for this storage.",
        "Name one in the configuration: credentials_file, or profile. It may also come from the environment, or be "
        "given to the machine.",
        Exit.STORAGE,
    ),
    ("storage-credential-refused", "anonymous"): Words(
        "Storage wants to know who asks, and was given no password.",
        "Name user and password_file in the configuration, or token_file.",
        Exit.STORAGE,
    ),
    ("login-failed", "denied"): Words("You said no, and nobody is logged in.", _LOGIN, Exit.STORAGE),
    ("login-failed", "timeout"): Words("Nobody answered in time, and nobody is logged in.", _LOGIN, Exit.STORAGE),
    ("login-failed", "scope"): Words(
        "The box that lets Chatkeep see and change the files it makes was not ticked: nobody is logged in.",
        f"{_LOGIN} Tick it there: it shows nothing else of the account.",
        Exit.STORAGE,
    ),
    ("login-failed", "refused"): Words(
        "The answer came too late, or was used before: nobody is logged in.", _LOGIN, Exit.STORAGE
    ),
    ("login-needed", "never"): Words("Nobody logged in to this storage yet.", _LOGIN, Exit.STORAGE),
    ("storage-missing", "bucket-name"): Words(
        "No bucket can have the name that the configuration gives it.", "Correct bucket there.", Exit.STORAGE
    ),
    ("unavailable", "proxy"): Words(
        "The proxy that the environment names for this storage cannot be used.",
        "Correct HTTPS_PROXY or ALL_PROXY, or put the host of the storage into NO_PROXY.",
        Exit.STORAGE,
    ),
    ("storage-missing", "moved"): Words(
        "The server says that the place where the vault is stored has another address now: {path}.",
        "Put the new one into the configuration. It is not followed, because the password would go along.",
        Exit.STORAGE,
    ),
    ("permission-refused", "clock"): Words(
        "Storage refuses: the clock of this machine is too far from its own.", "Set the clock.", Exit.STORAGE
    ),
    ("permission-refused", "no-lock"): Words(
        "Objects are to be locked (retain), and the bucket was made without object lock.",
        "Make a bucket with it, or take retain out of the configuration.",
        Exit.STORAGE,
    ),
    ("permission-refused", "storage-class"): Words(
        "The service has no such storage class as the configuration names.",
        "Correct storage_class, or leave it out.",
        Exit.STORAGE,
    ),
    ("secret-file-refused", "missing"): Words(
        "The file of a key or password is not there: {path}.",
        "Put it there, for the user who runs Chatkeep alone: chmod 600. Which keys name such files: chatkeep config "
        "example --type TYPE",
        Exit.STORAGE,
    ),
    ("secret-file-refused", "mode"): Words(
        "Other users may read the file of a key or password: {path}. It was not used.", "chmod 600 it.", Exit.STORAGE
    ),
    ("secret-file-refused", "owner"): Words(
        "The file of a key or password belongs to another user: {path}. It was not used.",
        "Give it to the user who runs Chatkeep, or make a copy that is theirs.",
        Exit.STORAGE,
    ),
    ("secret-file-refused", "no-credentials"): Words(
        "{path} is a credential of systemd, and systemd gave none to this program.",
        "The daemon has it, by LoadCredential= in its unit. For a command, name a file instead, in a configuration of "
        "its own: docs/systemd.md",
        Exit.STORAGE,
    ),
    ("secret-file-refused", "malformed"): Words(
        "The file of a key or password does not hold what it should: {path}.",
        "What belongs into it: chatkeep config example --type TYPE, and docs/providers.md",
        Exit.STORAGE,
    ),
}
