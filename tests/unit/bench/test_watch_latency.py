"""Which snapshot answers a commit, and when."""

from __future__ import annotations

import pytest

from bench.watch_latency import Mark, delays, of_kind, show


def test_a_commit_waits_for_what_was_begun_after_it() -> None:
    marks = [Mark(1.0, 1.5), Mark(3.0, 3.5)]
    assert delays([0.5, 1.0, 1.1, 2.9], marks) == pytest.approx([1.0, 0.5, 2.4, 0.6])


def test_a_later_one_that_was_sooner_done_answers_too() -> None:
    assert delays([0.0], [Mark(1.0, 9.0), Mark(2.0, 3.0)]) == [3.0]


def test_one_that_nothing_answers_is_not_passed_over() -> None:
    with pytest.raises(LookupError):
        delays([5.0], [Mark(1.0, 1.5)])


def test_events_say_what_they_are_about_by_the_other_clock() -> None:
    second = 10**9
    told = [
        {"kind": "upload-done", "wall_ns": 1000 * second, "boot": 50.0, "values": {"acknowledged_ns": 997 * second}},
        {"kind": "upload-done", "wall_ns": 1000 * second, "boot": 50.0, "values": {"acknowledged_ns": None}},
        {"kind": "snapshot-made", "wall_ns": 1000 * second, "boot": 50.0, "values": {"taken_ns": 1}},
    ]
    assert of_kind(told, "upload-done", "acknowledged_ns") == [Mark(47.0, 50.0)]


def test_what_took_too_long_is_said_by_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert show({"sealed": [1.0, 2.0], "acknowledged": [1.0, 3.0]}, 3.0) == 0
    assert show({"sealed": [1.0, 2.0], "acknowledged": [1.0, 3.1]}, 3.0, watch="quiet: 2s") == 1
    assert capsys.readouterr().out.splitlines()[-1] == (
        '{"what": "acknowledged", "commits": 2, "p50": 2.05, "p99": 3.1, "watch": "quiet: 2s"}'
    )
