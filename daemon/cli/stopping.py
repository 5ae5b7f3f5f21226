"""Being asked to stop: Ctrl-C, or SIGTERM from a service manager.

Long work is told and ends at its next safe point; asked a second time, it ends at once. Neither loses anything: what
was committed stands, and what was not never happened. Asking twice only skips the tidying.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM, and the terminal that closes, end the block as Ctrl-C does: with KeyboardInterrupt, so that it is tidied
    up."""
    with _handled((signal.SIGTERM, signal.SIGHUP), _interrupt):
        yield


@contextlib.contextmanager
def stopping(told: Callable[[], None] = lambda: None) -> Iterator[Callable[[], bool]]:
    """Within the block, the first Ctrl-C or SIGTERM only makes what is yielded return True, after calling `told`."""
    asked = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            _interrupt(number, frame)
        asked.set()
        told()

    with _handled(_SIGNALS, handle):
        yield asked.is_set


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _handled(signals: tuple[signal.Signals, ...], handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # Python hands signals to the main thread only
        return
    # What was ignored when we were started stays so: nohup, or a job that a script put into the background.
    heard = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
