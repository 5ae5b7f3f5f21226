"""What commands do through the daemon, where one runs: back up, borrow the state directory, tell of an unlock."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from chatkeep.config.errors import Cancelled, ChatkeepError
from chatkeep.daemon.cli.output import Output

if TYPE_CHECKING:
    from chatkeep.config.model import Config
    from chatkeep.daemon.control.client import Daemon
    from chatkeep.daemon.service.engine.report import Report

NOTE_AFTER: Final = 1.0  # seconds of waiting for the daemon before a person is told
READY_SECONDS: Final = 30.0  # for a daemon that starts, or that lent the state directory to the command before
QUICK_SECONDS: Final = 10.0  # for what is only done if it is no trouble
_NAP: Final = 0.1
_PASSES: Final = frozenset({"starting", "lent"})


def daemon_of(config: Config) -> Daemon | None:
    """The daemon that runs with this configuration's state directory. Raises SocketRefused, DaemonSilent, OSError."""
    from chatkeep.daemon.control.client import Daemon

    return Daemon.find(config.state_dir)


def back_up(daemon: Daemon, names: Sequence[str], out: Output) -> Report:
    """A backup that the daemon makes, with its progress. Raises as `Daemon.ask`; Cancelled: this stopped following."""
    from chatkeep.daemon.control.reporting import report_of
    from chatkeep.daemon.service.errors import NotReady

    try:
        with out.progress(sized=True) as step:
            for line in _when_ready(lambda: daemon.backup(names)):
                if line["line"] == "progress":
                    step(str(line["what"]), int(line["done"]), None if line["total"] is None else int(line["total"]))
                elif line["line"] == "result":
                    return report_of(line["report"])
    except KeyboardInterrupt as exc:
        raise Cancelled(reason="followed") from exc
    raise NotReady(reason="stopping")


@contextlib.contextmanager
def borrowed(config: Config, command: str, out: Output) -> Iterator[None]:
    """The state directory is this command's for the block: a daemon that has it lets go of it, and takes it back.

    Raises as `Daemon.ask`, and NotReady: it is ending.
    """
    daemon = daemon_of(config)
    if daemon is None:
        yield
        return
    with contextlib.ExitStack() as stack:
        with _noted(out):
            _lent(stack, daemon, command, READY_SECONDS, None)
        yield


@contextlib.contextmanager
def borrowed_quickly(config: Config, command: str) -> Iterator[bool]:
    """The same where nothing depends on it: whether it worked, without much waiting and without a word."""
    with contextlib.ExitStack() as stack:
        try:
            daemon = daemon_of(config)
            if daemon is not None:
                _lent(stack, daemon, command, 0.0, time.monotonic() + QUICK_SECONDS)
            free = True
        except (ChatkeepError, OSError):
            free = False
        yield free


def tell_unlocked(config: Config, out: Output) -> None:
    """The daemon learns at once that there is a session. Without that it would notice by itself, later."""
    try:
        daemon = daemon_of(config)
        if daemon is not None:
            daemon.unlocked()
    except (ChatkeepError, OSError):
        out.note("The daemon does not answer. It will notice the session by itself. See: chatkeep status")


@contextlib.contextmanager
def locking(config: Config) -> Iterator[Callable[[], bool]]:
    """The daemon is told to end its session, while the block does so itself; what is yielded says, afterwards, whether
    it did. A daemon that hangs or is gone keeps nothing from being locked."""
    with contextlib.ExitStack() as stack:
        told = None
        try:
            daemon = daemon_of(config)
            if daemon is not None:
                told = stack.enter_context(daemon.locking())
        except (ChatkeepError, OSError):
            told = None

        def ended() -> bool:
            try:
                return told is not None and told.ended()
            except (ChatkeepError, OSError):
                return False

        yield ended


def _lent(stack: contextlib.ExitStack, daemon: Daemon, command: str, ready: float, end: float | None) -> None:
    from chatkeep.daemon.service.errors import NotReady

    until = time.monotonic() + ready
    while True:
        try:
            for line in stack.enter_context(daemon.borrowed(command)):
                if line["line"] == "lent":
                    return
                if line["line"] == "end" or (end is not None and time.monotonic() >= end):
                    break
            raise NotReady(reason="stopping")
        except ChatkeepError as exc:
            if not _passes(exc) or time.monotonic() >= until:
                raise
            stack.close()
            time.sleep(_NAP)


def _when_ready(
    begun: Callable[[], contextlib.AbstractContextManager[Iterator[dict[str, Any]]]],
) -> Iterator[dict[str, Any]]:
    """The lines of what was begun; begun again while the daemon is only just starting, or still has to take back what
    it lent."""
    until = time.monotonic() + READY_SECONDS
    while True:
        try:
            with begun() as lines:
                yield from lines
            return
        except ChatkeepError as exc:
            if not _passes(exc) or time.monotonic() >= until:
                raise
            time.sleep(_NAP)


def _passes(error: ChatkeepError) -> bool:
    return error.code == "not-ready" and error.params.get("reason") in _PASSES


@contextlib.contextmanager
def _noted(out: Output) -> Iterator[None]:
    """Who waits longer than a moment is told for what."""
    timer = threading.Timer(
        NOTE_AFTER, out.note, ["The daemon comes to a safe point first, and lends this command its records ..."]
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
