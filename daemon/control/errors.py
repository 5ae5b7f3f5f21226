"""What can keep a ceremony with a passkey from coming to its end, and a command from the daemon.

CeremonyError
  CeremonyCancelled       the person stopped it, in the terminal or in the page
  CeremonyTimedOut        nobody did what was asked for within the deadline
  CeremonyLost            the process of the ceremony ended or said something that it never says
  NoLoopbackPort          no port could be had for this machine's own addresses
  AlreadyEnrolled         the device that was chosen has a passkey of this vault
  NoSecurityKey           no security key is plugged in
  NotOnSecurityKey        no security key that is plugged in has a passkey of this vault
  SecurityKeyUnsupported  the key cannot give a secret
  SecurityKeyRemoved      the key was pulled out
  NoPin                   the key has no PIN, and cannot tell its owner otherwise
  PinWrong                the PIN is wrong
  PinBlocked              the key takes no more PINs
  NoTerminal              there is nowhere to type the PIN

ControlError
  DaemonSilent            it listens, and does not answer
  DaemonLost              it ended before it had answered
  DaemonForeign           it is of another version
  DaemonRefused           it does not take what was asked
  DaemonRunning           there is one already

A socket that is not this user's is `SocketRefused` of the service, as for a session.
"""

from __future__ import annotations

from chatkeep.config.errors import ChatkeepError, Disposition


class CeremonyError(ChatkeepError):
    """A ceremony that did not come to its end. Nothing was changed by it."""

    code = "ceremony-error"
    disposition = Disposition.NEEDS_USER


class CeremonyCancelled(CeremonyError):
    """The person stopped it. Parameter: reason, `terminal`, `page` (stopped there, or the page was closed) or `key`
    (declined at the security key).
    """

    code = "ceremony-cancelled"


class CeremonyTimedOut(CeremonyError):
    """Nobody did what was asked for in time. Parameter: seconds, the deadline."""

    code = "ceremony-timed-out"


class CeremonyLost(CeremonyError):
    """The process of the ceremony is not there any more. Parameters: reason, `ended`, `crashed`, `protocol` or `start`;
    cause, the name of what went wrong, never a text from outside; or `key` with the status that the security key gave.
    """

    code = "ceremony-lost"
    disposition = Disposition.RETRY


class NoLoopbackPort(CeremonyError):
    """No port is free on every address that `localhost` means. Parameters: tried, how many; errno, of the last."""

    code = "no-loopback-port"
    disposition = Disposition.RETRY


class AlreadyEnrolled(CeremonyError):
    """The authenticator has one of the credentials that were excluded: a second one would only replace it."""

    code = "already-enrolled"


class NoSecurityKey(CeremonyError):
    """There is no security key to talk to. Parameter: reason, `none` (nobody plugged one in) or `permission` (with
    device: one is plugged in, and this user may not open it).
    """

    code = "no-security-key"


class NotOnSecurityKey(CeremonyError):
    """None of the keys has a credential of this vault. Parameter: keys, how many were asked."""

    code = "not-on-security-key"


class SecurityKeyUnsupported(CeremonyError):
    """The key cannot be used for this. Parameter: reason, `hmac-secret` (it gives no secrets), `ctap1` (too old),
    `unprotected` (it would give the same secret to whoever does not know its PIN), `discoverable` (it keeps no
    credentials) or `full` (it has no room for another).
    """

    code = "security-key-unsupported"


class SecurityKeyRemoved(CeremonyError):
    """The key was pulled out before it was done."""

    code = "security-key-removed"
    disposition = Disposition.RETRY


class NoPin(CeremonyError):
    """The key cannot verify its owner. Parameter: reason, `unset` (it has neither a PIN nor a fingerprint, so it would
    open for whoever holds it) or `change` (it wants a new PIN first).
    """

    code = "no-pin"


class PinWrong(CeremonyError):
    """The PIN is wrong, and no other was typed. Parameter: retries, how many tries the key has left, or None."""

    code = "pin-wrong"


class PinBlocked(CeremonyError):
    """The key verifies nobody now. Parameter: reason, `replug` (pull it out and put it in), `reset` (for good) or
    `fingerprint` (it took the finger for another's too often, and has no PIN).
    """

    code = "pin-blocked"


class NoTerminal(CeremonyError):
    """Something must be typed, and there is no terminal. Parameter: what, `pin`."""

    code = "no-terminal"


class ControlError(ChatkeepError):
    """The daemon cannot be asked."""

    code = "control-error"


class DaemonSilent(ControlError):
    """It listens, and does not answer. Parameter: seconds that were waited."""

    code = "daemon-silent"
    disposition = Disposition.RETRY


class DaemonLost(ControlError):
    """It ended, or was ended, before it had answered: what it was asked for may have been done, or not."""

    code = "daemon-lost"
    disposition = Disposition.RETRY


class DaemonForeign(ControlError):
    """What it says is not of this version. Parameter: reason, `path` (it does not know what was asked for), `version`
    (it names another one) or `answer` (it answers what no daemon of this version does).
    """

    code = "daemon-foreign"
    disposition = Disposition.NEEDS_USER


class DaemonRefused(ControlError):
    """It does not take the request. Parameter: reason, as docs/control.md lists them."""

    code = "daemon-refused"


class DaemonRunning(ControlError):
    """A daemon of this state directory listens already. Parameter: path, of its socket."""

    code = "daemon-running"
    disposition = Disposition.NEEDS_USER
