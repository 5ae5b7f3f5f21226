"""The process of one ceremony: `python -P -m chatkeep.daemon.control.ceremony browser|security-key FD`.

It exists so that it can end: aiohttp, JSON and fido2 keep copies of what passes through them, which nobody can
overwrite. They go with the process, right after the ceremony.
"""

from __future__ import annotations

import signal
import socket
import sys

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.control.ceremony.channel import Channel, ChannelBroken, ChannelClosed
from chatkeep.daemon.control.ceremony.child import Parent
from chatkeep.daemon.control.errors import CeremonyLost
from chatkeep.daemon.keys.hardened import harden


def main(arguments: list[str]) -> int:
    """Runs the ceremony, and returns the exit status."""
    # Ctrl-C, the end of the terminal, and who ends a whole group reach the command too; when that is gone, this process
    # tidies up and ends. Not SIG_IGN: the browser that is started from here would ignore them as well.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    harden()
    kind, descriptor = arguments
    connected = socket.socket(fileno=int(descriptor))
    connected.set_inheritable(False)  # a browser that is started from here would keep the channel open for ever
    try:
        parent = Parent(Channel(connected))
    except (ChannelClosed, ChannelBroken):
        return 1
    try:
        _perform(kind, parent)
    except ChatkeepError as error:
        parent.failed(error)
        return 1
    except Exception as exc:
        # Not its text: it may quote what the browser or the key sent.
        parent.failed(CeremonyLost(reason="crashed", cause=type(exc).__name__))
        return 1
    finally:
        parent.leave()
    return 0


def _perform(kind: str, parent: Parent) -> None:
    # Imported here: the one has no use for the other's libraries, and starting takes long enough.
    if kind == "browser":
        from chatkeep.daemon.control.ceremony.browser import perform
    else:
        from chatkeep.daemon.control.ceremony.security_key import perform
    perform(parent)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
