"""The words for what can be wrong with the running daemon, and with the way to it."""

from __future__ import annotations

from typing import Final

from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.saying import Words

LATER: Final = "Look what it is at, and try again: chatkeep status"
RESTART: Final = "systemctl --user restart chatkeep"

DAEMON: Final = {
    "daemon-error": Words("The daemon could not do it.", "See how it is: chatkeep status", Exit.FAILED),
    "not-ready": Words(
        "The daemon cannot do this now ({reason}).",
        LATER,
        Exit.FAILED,
    ),
    "no-daemon": Words(
        "No daemon runs.", "Start it: systemctl --user start chatkeep; by hand: chatkeep run", Exit.FAILED
    ),
    "not-by-daemon": Words(
        "A daemon runs, and uploads what is sealed as soon as it may: {option} cannot be kept.",
        "Leave the option out; or stop the daemon first: systemctl --user stop chatkeep",
        Exit.USAGE,
    ),
    "no-such-job": Words("The daemon has no job called {name}. There are: {known}.", "", Exit.USAGE),
    "no-such-source": Words(
        "The daemon knows no source called {name}. It has: {known}.",
        "If it is new in the configuration, have it read again: systemctl --user reload chatkeep",
        Exit.USAGE,
    ),
    "reload-refused": Words(
        "The configuration names another state directory. The daemon goes on with the one it has.",
        f"It follows once it is started anew: {RESTART}",
        Exit.USAGE,
    ),
    "job-endless": Words(
        "It did not come to its end within {hours} hours, and was ended.",
        "It is tried again later. Something that it reads may hang: run it by hand to see where.",
        Exit.FAILED,
    ),
    "uploads-held": Words(
        "Nothing is sent before somebody unlocks the vault in this login session. What was backed up waits on this "
        "device.",
        "Run: chatkeep unlock. To send without it: session.require_unlock: false in the configuration.",
        Exit.LOCKED,
    ),
    "outbox-full": Words(
        "So much waits to be uploaded that nothing more is backed up until some of it is sent.",
        "See which storage lags behind, and why: chatkeep status. How much may wait: outbox.limit in the "
        "configuration.",
        Exit.FAILED,
    ),
    "control-error": Words(
        "The daemon could not be asked.", "See how it is: systemctl --user status chatkeep", Exit.FAILED
    ),
    "daemon-silent": Words(
        "The daemon runs, and does not answer (waited {seconds} s).", f"If it stays so: {RESTART}", Exit.FAILED
    ),
    "daemon-lost": Words(
        "The daemon ended, or was ended, before it had answered.",
        "What was committed stands. See what happened: journalctl --user -u chatkeep. Then run the command again.",
        Exit.FAILED,
    ),
    "daemon-foreign": Words(
        "The daemon that runs is of another version, and does not understand this command ({reason}).",
        f"After an update it has to be started anew: {RESTART}",
        Exit.FAILED,
    ),
    "daemon-refused": Words(
        "The daemon refused the request ({reason}).",
        f"After an update it has to be started anew: {RESTART}",
        Exit.FAILED,
    ),
    "telling-error": Words("A problem could not be told.", "It is in the log and in: chatkeep status", Exit.FAILED),
    "address-refused": Words(
        "The file {path} gives no address that may be used ({reason}).",
        "It must be yours alone (chmod 600), and its first line a URL: https://...",
        Exit.USAGE,
    ),
    "undelivered": Words(
        "A notice did not get through by {channel} ({reason}).", "It is tried again for three days.", Exit.FAILED
    ),
    "daemon-running": Words(
        "A daemon is running already with {path}.",
        "One is enough. See how it is: chatkeep status",
        Exit.FAILED,
    ),
}

DAEMON_CASES: Final = {
    ("not-ready", "lent"): Words("The daemon has lent its records to another command.", LATER, Exit.FAILED),
    ("not-ready", "starting"): Words("The daemon has only just been started.", LATER, Exit.FAILED),
    ("not-ready", "stopping"): Words(
        "The daemon is ending. What was committed stands.",
        "Start it again: systemctl --user start chatkeep",
        Exit.FAILED,
    ),
    ("cancelled", "followed"): Words(
        "This command follows the backup no more; the daemon goes on with it.",
        "Follow it: chatkeep status --watch",
        Exit.CANCELLED,
    ),
}
