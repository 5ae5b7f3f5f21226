"""What is delivered, and when it is tried again."""

from __future__ import annotations

import itertools
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from chatkeep.daemon.service.moment import Moment
from chatkeep.daemon.service.telling.deliveries import BROKEN, FIRST, KEPT, LONGEST, MOST, Deliveries
from chatkeep.daemon.service.telling.notice import Notice, Problem


def at(seconds: float) -> Moment:
    return Moment(round((1_700_000_000 + seconds) * 1e9), 1000 + seconds)


def notice(subject: str = "disk", seconds: float = 0, over: bool = False) -> Notice:
    return Notice(Problem.UPLOAD_FAILING, subject, over, at(seconds).wall_ns, at(seconds))


def test_the_oldest_goes_first_and_stays_until_it_got_through() -> None:
    one, two, waiting = notice("a"), notice("b"), Deliveries()
    assert waiting.next(at(0)) is None
    waiting.add(one, at(0))
    waiting.add(two, at(1))
    assert waiting.next(at(1)) is one
    assert waiting.next(at(1)) is one
    waiting.done(one)
    assert waiting.next(at(1)) is two
    waiting.done(two)
    assert waiting.next(at(1)) is None
    assert waiting.wake_at == float("inf")


def test_a_later_one_takes_the_place_of_one_that_waits() -> None:
    first, over, waiting = notice(), notice(over=True), Deliveries()
    waiting.add(first, at(0))
    assert waiting.next(at(0)) is first
    waiting.add(over, at(1))  # while the first is on its way
    waiting.done(first)
    assert waiting.next(at(1)) is over


def test_it_is_tried_again_later_and_later() -> None:
    waiting, now, tries = Deliveries(), 0.0, []
    waiting.add(notice(), at(0))
    while waiting.next(at(now)) is not None:
        tries.append(now)
        waiting.failed(at(now), {"reason": "unreachable"})
        assert waiting.next(at(now)) is None
        now = waiting.wake_at - 1000
    gaps = [later - sooner for sooner, later in itertools.pairwise(tries)]
    assert gaps[:4] == [FIRST, 2 * FIRST, 4 * FIRST, 8 * FIRST]
    assert max(gaps) == LONGEST
    assert KEPT - LONGEST <= tries[-1] <= KEPT  # then it is given up
    assert len(tries) < 90


def test_news_do_not_wait_for_an_hour_and_do_not_hurry_either() -> None:
    waiting, now = Deliveries(), 0.0
    waiting.add(notice("a"), at(0))
    for _ in range(10):
        waiting.failed(at(now), {})
        now = waiting.wake_at - 1000
    waiting.failed(at(now), {})
    waiting.add(notice("b"), at(now + 5))
    assert waiting.next(at(now + 5)) is None
    assert waiting.wake_at == 1000 + now + FIRST
    assert waiting.next(at(now + FIRST)) is not None


def test_a_way_that_fails_for_an_hour_is_broken_until_something_gets_through() -> None:
    one, waiting = notice(), Deliveries()
    waiting.add(one, at(0))
    for seconds in (0.0, 30.0, BROKEN - 1):
        waiting.failed(at(seconds), {"reason": "refused", "status": 404})
        assert not waiting.broken(at(seconds))
    assert waiting.broken(at(BROKEN))
    assert waiting.values == {"reason": "refused", "status": 404}
    waiting.done(one)
    assert not waiting.broken(at(BROKEN))


def test_what_waits_is_bounded() -> None:
    waiting = Deliveries()
    for number in range(MOST + 5):
        waiting.add(notice(str(number)), at(number))
    found = waiting.next(at(200))
    assert found is not None
    assert found.subject == "5"
    assert len(waiting.plain()) == MOST


def test_what_waits_is_delivered_after_a_restart_unless_it_is_old() -> None:
    waiting = Deliveries()
    waiting.add(notice("old", 0), at(0))
    waiting.add(notice("new", KEPT), at(KEPT))
    text = json.dumps(waiting.plain(), allow_nan=False)
    again = Deliveries()
    again.remember([*json.loads(text), {}, {"problem": 3}], Moment(at(KEPT + 5).wall_ns, 17.0))  # the machine too
    found = again.next(Moment(at(KEPT + 5).wall_ns, 17.0))
    assert found is not None
    assert found.subject == "new"
    assert len(again.plain()) == 1


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "over", "try", "fail"]),
            st.sampled_from("abc"),
            st.one_of(st.floats(0, 60), st.floats(0, 4000)),
        ),
        max_size=80,
    )
)
def test_nothing_is_lost_and_nothing_is_tried_in_a_tight_loop(steps: list[tuple[str, str, float]]) -> None:
    waiting, now, last_failed, latest = Deliveries(), 0.0, float("-inf"), {}
    for what, subject, seconds in steps:
        now += seconds
        if what in {"add", "over"}:
            latest[subject] = notice(subject, now, what == "over")
            waiting.add(latest[subject], at(now))
            continue
        found: Any = waiting.next(at(now))
        if found is None:
            assert not latest or now < last_failed + LONGEST + 1
            continue
        assert found is latest[found.subject]
        assert now >= last_failed + FIRST - 1e-6
        if what == "fail":
            waiting.failed(at(now), {})
            last_failed = now
        else:
            waiting.done(found)
            last_failed = float("-inf")
            del latest[found.subject]
    assert len(waiting.plain()) == len(latest)
