"""Work on threads, seen from the loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.service.progress import Progress
from chatkeep.daemon.service.running.workers import Piece, Workers

SOON = 30.0


def test_what_work_returns_is_told_in_the_loop() -> None:
    async def play() -> None:
        workers = Workers(Progress())
        told: list[tuple[int | None, BaseException | None, threading.Thread]] = []
        workers.begin("one", lambda _: 7, lambda *how: told.append((*how, threading.current_thread())))
        assert [piece.name for piece in workers.pieces] == ["one"]
        assert await workers.all_ended(SOON)
        assert told == [(7, None, threading.main_thread())]
        assert workers.pieces == ()

    asyncio.run(play())


def test_what_work_raises_is_told_too() -> None:
    async def play() -> None:
        workers = Workers(Progress())

        def fails() -> int:
            raise ChatkeepError(what="x")

        with pytest.raises(ChatkeepError):
            await workers.call("look", fails)
        assert await workers.call("look", lambda: 5) == 5

    asyncio.run(play())


def test_work_is_asked_to_stop_and_ends_when_it_can() -> None:
    async def play() -> None:
        workers = Workers(Progress())

        def until_stopped(piece: Piece) -> str:
            while not piece.stopped():
                piece.moved(piece.done + 1, None)
            return "stopped"

        ends: list[str | None] = []
        workers.begin("a", until_stopped, lambda result, _: ends.append(result))
        workers.begin("b", until_stopped, lambda result, _: ends.append(result))
        assert not await workers.all_ended(0.01)
        workers.stop("a")
        while len(workers.pieces) == 2:
            await asyncio.sleep(0.001)
        assert [piece.name for piece in workers.pieces] == ["b"]
        workers.stop()
        assert await workers.all_ended(SOON)
        assert ends == ["stopped", "stopped"]

    asyncio.run(play())


def test_who_waits_may_leave() -> None:
    async def play() -> None:
        workers = Workers(Progress())
        go = threading.Event()
        waiting = asyncio.create_task(workers.call("slow", lambda: go.wait(SOON)))
        while not workers.pieces:
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        second = asyncio.create_task(workers.call("slow", lambda: go.wait(SOON)))  # of the same name, beside it
        while len(workers.pieces) < 2:
            await asyncio.sleep(0)
        go.set()
        assert await second
        assert await workers.all_ended(SOON)

    asyncio.run(play())


def test_work_that_hangs_is_seen() -> None:
    async def play() -> None:
        progress = Progress(10)
        workers = Workers(progress)
        go = threading.Event()
        workers.begin("hangs", lambda _: go.wait(SOON), lambda *_: None)
        import time

        assert progress.stuck(time.monotonic()) == ()
        assert progress.stuck(time.monotonic() + 11) == ("hangs",)
        go.set()
        assert await workers.all_ended(SOON)
        assert progress.stuck(time.monotonic() + 11) == ()

    asyncio.run(play())
