"""A few threads that work through a list while the caller's thread watches, reports and can stop them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from chatkeep.config.errors import Cancelled

Task: TypeAlias = Callable[[], None]

_NAP: Final = 0.1  # seconds until a cancellation is noticed and progress shown


class Crew:
    """Runs tasks on `threads` threads, in order of the list as far as the threads allow.

    `cancelled` and `report` are called from the thread that calls `run`, and from no other.
    """

    def __init__(self, threads: int, cancelled: Callable[[], bool], report: Callable[[], None]) -> None:
        self._threads = threads
        self._cancelled, self._report = cancelled, report
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._failed: list[BaseException] = []

    def check(self) -> None:
        """For tasks, between two steps: raises Cancelled when the work is to end."""
        if self._stop.is_set():
            raise Cancelled

    def run(self, tasks: Iterable[Task]) -> None:
        """Returns when all tasks are done. Raises the first task's error, or Cancelled; no task runs after that."""
        waiting = deque(tasks)
        threads = [
            threading.Thread(target=self._work, args=(waiting,), name=f"restore-{number}", daemon=True)
            for number in range(min(self._threads, len(waiting)))
        ]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                self._wake.wait(_NAP)
                self._wake.clear()
                self._report()
                if self._cancelled():
                    self._stop.set()
        except BaseException:
            self._stop.set()
            raise
        finally:  # no thread may go on writing when the caller closes the files
            for thread in threads:
                thread.join()
        if self._failed:
            raise self._failed[0]
        if self._stop.is_set():
            raise Cancelled

    def _work(self, waiting: deque[Task]) -> None:
        try:
            while not self._stop.is_set():
                try:
                    task = waiting.popleft()
                except IndexError:
                    return
                task()
        except BaseException as exc:  # carried to the caller's thread
            self._failed.append(exc)
            self._stop.set()
        finally:
            self._wake.set()
