from __future__ import annotations

import functools
import threading

import pytest

from chatkeep.config.errors import Cancelled
from chatkeep.daemon.restore.crew import Crew


def crew(cancelled: bool = False) -> Crew:
    return Crew(2, lambda: cancelled, lambda: None)


def test_every_task_is_run_once() -> None:
    done: list[int] = []
    crew().run([functools.partial(done.append, number) for number in range(50)])
    assert sorted(done) == list(range(50))


def test_two_run_at_a_time() -> None:
    meeting = threading.Barrier(2, timeout=10)

    def meet() -> None:
        meeting.wait()  # raises when nobody else comes

    crew().run([meet, meet])


def test_an_error_reaches_the_caller_and_ends_the_work() -> None:
    done: list[int] = []

    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        crew().run([fail, fail, *[lambda: done.append(1)] * 10_000])
    assert len(done) < 10_000


def test_cancelling_ends_the_work_between_steps() -> None:
    started = threading.Event()
    asked = Crew(2, started.is_set, lambda: None)

    def forever() -> None:
        started.set()
        while True:
            asked.check()

    with pytest.raises(Cancelled):
        asked.run([forever, forever])
    with pytest.raises(Cancelled):
        asked.check()


def test_an_error_of_the_watcher_ends_the_threads_first() -> None:
    running = threading.Event()
    over: list[bool] = []

    def report() -> None:
        if running.is_set():
            raise OSError("the terminal is gone")

    asked = Crew(1, lambda: False, report)

    def work() -> None:
        running.set()
        try:
            while True:
                asked.check()
        finally:
            over.append(True)

    with pytest.raises(OSError):
        asked.run([work])
    assert over == [True]
