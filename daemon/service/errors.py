"""What can be wrong with the session (the process that holds the keys of an unlocked vault), and with the daemon.

SessionError
  SocketRefused   what is where the session's socket should be is not this user's session of this vault
  ReaderFailed    the process that holds the keys did not start, or does not answer as it should

DaemonError
  NotReady        the daemon has just been started, is ending, or has lent the state directory
  NoSuchJob       it has no job of this name
  NoSuchSource    its configuration has no source of this name
  ReloadRefused   the configuration says now what only another start can follow
  UploadsHeld     uploads wait until somebody unlocks the vault
  OutboxFull      so much waits to be uploaded that no snapshot is begun

That there is no session, or not any more, is `VaultLocked`; that the keys were changed since, `SessionOutdated`.
"""

from __future__ import annotations

from chatkeep.config.errors import ChatkeepError, Disposition


class SessionError(ChatkeepError):
    """The session cannot be used."""

    code = "session-error"


class SocketRefused(SessionError):
    """A session's socket, or the directory it is in, cannot be trusted. Nothing was asked or sent there.

    Parameters: path; reason, one of
        owner       it belongs to another user
        mode        others than its owner may use the directory
        symlink     it is a symbolic link
        kind        it is no directory, or no socket
        peer        the process that listens is another user's
        vault       the process that listens holds another vault
    """

    code = "socket-refused"
    disposition = Disposition.NEEDS_USER


class ReaderFailed(SessionError):
    """The process that holds the keys failed.

    Parameters: reason, one of
        start       it did not start; with errno where the system gave one
        socket      it could not make its socket (errno, path)
        answer      it answered what no such process of this version does
        refused     it does not sign what it was asked to: no checkpoint of this vault
        silent      it did not answer in time
        running     it could not be ended
    """

    code = "reader-failed"


class DaemonError(ChatkeepError):
    """The daemon cannot do what it is asked for."""

    code = "daemon-error"


class NotReady(DaemonError):
    """Not now. Parameter: reason, `starting`, `stopping` or `lent` (a command has the state directory)."""

    code = "not-ready"
    disposition = Disposition.RETRY


class NoSuchJob(DaemonError):
    """It has no job of this name. Parameters: name; known, the names that there are."""

    code = "no-such-job"
    disposition = Disposition.NEEDS_USER


class NoSuchSource(DaemonError):
    """Its configuration has no source of this name. Parameters: name; known, the names that it has."""

    code = "no-such-source"
    disposition = Disposition.NEEDS_USER


class ReloadRefused(DaemonError):
    """The configuration is sound, and cannot be followed without another start. Parameter: reason, one of
    state-dir   it names another state directory
    """

    code = "reload-refused"
    disposition = Disposition.NEEDS_USER


class JobEndless(DaemonError):
    """A job did not come to an end, and was ended. Parameter: hours it was given."""

    code = "job-endless"
    disposition = Disposition.RETRY


class UploadsHeld(DaemonError):
    """Nothing is sent until somebody unlocks the vault in this login session. Parameter: provider."""

    code = "uploads-held"
    disposition = Disposition.NEEDS_USER


class OutboxFull(DaemonError):
    """More waits to be uploaded than the configuration allows, so no snapshot is begun. What was committed stands.
    Parameters: limit, waiting (both in bytes)."""

    code = "outbox-full"
    disposition = Disposition.RETRY
