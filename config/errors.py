"""The root of every error.

An error carries a stable `code`, parameters, and a disposition: what a caller may do about it. It carries no prose.
Words for people, remedies and exit codes are added in one place, `chatkeep.daemon.cli.words`.

    ChatkeepError
      ConfigError        chatkeep.config          the YAML file
      ProviderError      chatkeep.providers       storage: unreachable, refused, full, not found, damaged
      CaptureError       daemon.capture           the watched directory
      KeysError          daemon.keys              slots, recovery keys, passphrases
      VaultError         daemon.vault             what storage returned is not what was sealed
      StateError         daemon.state             this device's own records
      RestoreError       daemon.restore           the restore's target
      DrillError         daemon.verify            a restored database that SQLite does not find whole
      PruneError         daemon.prune             what keeps prune from saying what may be deleted
      SessionError       daemon.service           the process that holds the keys of an unlocked vault
      DaemonError        daemon.service           what the running daemon cannot do
      TellingError       daemon.service           the ways that problems are told
      ControlError       daemon.control           the way to the running daemon: silent, lost, of another version
      CeremonyError      daemon.control           a passkey's ceremony: cancelled, timed out, no key, wrong PIN
      CommandError       daemon.cli               what a command refuses before the engine is asked
      Cancelled          here                     the person or a signal stopped it
"""

from __future__ import annotations

import enum
from typing import ClassVar


class Disposition(enum.Enum):
    """What a caller may do about an error."""

    RETRY = "retry"  # the same call may succeed later
    NEEDS_USER = "needs-user"  # a person must do something first
    REBUILD = "rebuild"  # not a failure: the slow, complete path is to be taken
    FATAL = "fatal"  # trying again changes nothing


class ChatkeepError(Exception):
    """Something that Chatkeep names. Parameters are plain values that may be shown and logged: never a secret."""

    code: ClassVar[str] = "error"
    disposition: ClassVar[Disposition] = Disposition.FATAL

    def __init__(self, **params: object) -> None:
        super().__init__()
        self.params = params

    def __str__(self) -> str:
        shown = " ".join(f"{key}={value!r}" for key, value in self.params.items())
        return f"{self.code} {shown}".rstrip()


class Cancelled(ChatkeepError):
    """A person or a signal stopped the work; what was acknowledged before stands."""

    code = "cancelled"
    disposition = Disposition.NEEDS_USER
