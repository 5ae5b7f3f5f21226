"""What keeps the watchdog from being fed."""

from __future__ import annotations

from chatkeep.daemon.service.progress import Progress


def test_nothing_runs_and_all_is_well() -> None:
    assert Progress(10).stuck(1e9) == ()


def test_work_that_moves_is_well_however_long_it_takes() -> None:
    progress = Progress(10)
    progress.began("snapshot a", 0)
    for at in range(0, 1000, 10):
        progress.moved("snapshot a", at)
        assert progress.stuck(at + 10) == ()
    assert progress.stuck(990 + 10.1) == ("snapshot a",)


def test_one_that_hangs_is_found_beside_one_that_moves() -> None:
    progress = Progress(10)
    progress.began("upload x", 0)
    progress.began("snapshot a", 0)
    progress.moved("snapshot a", 20)
    assert progress.stuck(20) == ("upload x",)
    progress.ended("upload x")
    assert progress.stuck(20) == ()


def test_a_late_word_of_what_has_ended_counts_for_nothing() -> None:
    progress = Progress(10)
    progress.began("upload x", 0)
    progress.ended("upload x")
    progress.moved("upload x", 1)
    assert progress.stuck(100) == ()


def test_a_word_that_comes_late_does_not_undo_a_later_one() -> None:
    progress = Progress(10)
    progress.began("upload x", 0)
    progress.moved("upload x", 50)
    progress.moved("upload x", 20)
    assert progress.stuck(55) == ()
