"""Calls that may wait for a disk or a name server, in threads that nobody waits for when the daemon leaves.

The loop's own executor joins its threads at the end: one look-up of a name that does not answer would hold up the
whole daemon, which has five seconds to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(call: Callable[[], T]) -> T:
    """What `call` returns or raises. Cancelled: it goes on, and nobody hears of it."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(value)  # type: ignore[arg-type]  # a T whenever there is no error

    def run() -> None:
        value, error = None, None
        try:
            value = call()
        except Exception as exc:
            error = exc
        with contextlib.suppress(RuntimeError):  # the loop is closed by now
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=run, name="telling", daemon=True).start()
    return await done
