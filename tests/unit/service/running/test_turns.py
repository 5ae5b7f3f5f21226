"""Who asks for a piece of work gets one that began after it asked."""

from __future__ import annotations

import asyncio

from chatkeep.daemon.service.running.turns import Turns


def test_one_that_runs_is_not_the_one_that_was_asked_for() -> None:
    async def play() -> None:
        turns = Turns[int]()
        turns.began("a")
        asked = turns.next("a")
        joined = turns.current("a")
        turns.ended("a", 1)
        assert await joined == 1
        assert not asked.done()
        turns.began("a")
        turns.ended("a", 2)
        assert await asked == 2

    asyncio.run(play())


def test_everybody_who_waits_is_told_and_who_left_is_in_nobodys_way() -> None:
    async def play() -> None:
        turns = Turns[int]()
        first, left, third = turns.next("a"), turns.next("a"), turns.current("a")
        left.cancel()
        turns.began("b")
        turns.ended("b", 9)
        assert not first.done()
        turns.began("a")
        turns.ended("a", 3)
        assert (await first, await third) == (3, 3)

    asyncio.run(play())


def test_who_waits_for_what_will_not_come_is_told() -> None:
    async def play() -> None:
        turns = Turns[int]()
        turns.began("a")
        asked, running = turns.next("a"), turns.current("a")
        turns.none_comes()
        assert await asked is None
        assert not running.done()
        turns.ended("a", 1)
        assert await running == 1

    asyncio.run(play())
