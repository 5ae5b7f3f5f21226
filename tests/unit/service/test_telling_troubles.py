"""What is worth telling a person: once, not too early, not too often, and when it is over."""

from __future__ import annotations

import errno
import itertools
import json
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatkeep.daemon.service.events import Event, Kind
from chatkeep.daemon.service.moment import Moment
from chatkeep.daemon.service.telling.notice import Notice, Problem
from chatkeep.daemon.service.telling.troubles import DAY, HOUR, MOST, SETTLING, SOONEST, Known, Limits, Troubles

SOURCES, PROVIDERS, JOBS = ("signal", "element"), ("disk", "cloud"), {"verify": DAY, "drill": 7 * DAY}
LIMITS = Limits(SOURCES, PROVIDERS, 6 * HOUR, JOBS, DAY, 7 * DAY)
EPOCH = 1_700_000_000


def at(seconds: float) -> Moment:
    return Moment(round((EPOCH + seconds) * 1e9), 1000 + seconds)


class Life:
    """Troubles, with a clock that stops wherever they want to be woken."""

    def __init__(self, limits: Limits = LIMITS, known: Known | None = None, start: float = 0) -> None:
        self.now = start
        self.troubles = Troubles(limits, at(start), known)
        self.told: list[tuple[float, Notice]] = []

    def happens(self, kind: Kind, seconds: float = 0, **values: Any) -> list[Notice]:
        """An event, so many seconds later."""
        return self.passes(seconds) + self._keep(self.troubles.take(Event(kind, at(self.now), values)))

    def passes(self, seconds: float) -> list[Notice]:
        end, notices = self.now + seconds, []
        while (wake := self.troubles.wake_at - 1000) <= end:
            self.now = max(self.now, wake)
            notices += self._keep(self.troubles.tick(at(self.now)))
            assert self.troubles.wake_at - 1000 > self.now, "asked to be woken again for the same"
            assert len(self.told) < 10_000
        self.now = end
        return notices + self._keep(self.troubles.tick(at(self.now)))

    def settled(self) -> Life:
        """Long after the start, with all well."""
        self.well()
        self.passes(2 * SETTLING)
        return self

    def well(self) -> None:
        for source in SOURCES:
            self.happens(Kind.SNAPSHOT_NOTHING, source=source)
        for provider in PROVIDERS:
            self.happens(Kind.UPLOAD_DONE, provider=provider, waiting=0)
        for job in JOBS:
            self.happens(Kind.JOB_DONE, job=job)

    def well_but_uploads(self) -> None:
        for source in SOURCES:
            self.happens(Kind.SNAPSHOT_NOTHING, source=source)
        for job in JOBS:
            self.happens(Kind.JOB_DONE, job=job)

    def fails(self, kind: Kind, seconds: float = 0, **values: Any) -> list[Notice]:
        return self.happens(kind, seconds, **{"code": "permission-refused", "disposition": "needs-user"} | values)

    def restarted(self, known: Known | None = None, after: float = 60) -> Life:
        """Another process that was given what this one remembered, after the machine was started anew."""
        text = json.dumps(self.troubles.plain(at(self.now)), allow_nan=False)
        other = Life(known=known, start=self.now + after)
        other.troubles.remember(json.loads(text), at(other.now))
        other.told = list(self.told)
        return other

    def _keep(self, notices: list[Notice]) -> list[Notice]:
        self.told += [(self.now, notice) for notice in notices]
        return notices


def keys(notices: list[Notice]) -> list[tuple[str, str, bool]]:
    return [(notice.problem, notice.subject, notice.over) for notice in notices]


def test_one_failure_is_nothing_three_are() -> None:
    life = Life().settled()
    assert life.fails(Kind.SNAPSHOT_FAILED, source="signal") == []
    assert life.fails(Kind.SNAPSHOT_FAILED, 10, source="signal") == []
    assert life.fails(Kind.SNAPSHOT_FAILED, 10, source="element") == []
    (notice,) = life.fails(Kind.SNAPSHOT_FAILED, 10, source="signal", reason="mode")
    assert keys([notice]) == [(Problem.BACKUP_FAILING, "signal", False)]
    assert (notice.times, notice.since_ns, notice.values["reason"]) == (3, at(life.now - 30).wall_ns, "mode")
    assert not life.troubles.well(at(life.now))
    assert keys(life.happens(Kind.SNAPSHOT_NOTHING, 5, source="signal")) == [(Problem.BACKUP_FAILING, "signal", True)]
    assert life.troubles.well(at(life.now))


def test_one_that_is_not_tried_again_is_told_after_an_hour() -> None:
    life = Life().settled()
    life.fails(Kind.UPLOAD_FAILED, provider="disk")
    assert life.passes(HOUR - 1) == []
    assert keys(life.passes(1)) == [(Problem.UPLOAD_FAILING, "disk", False)]


def test_an_outage_of_an_evening_is_not_told_a_longer_one_is() -> None:
    life = Life().settled()
    for _ in range(5 * 6):
        assert life.fails(Kind.UPLOAD_FAILED, 600, provider="cloud", code="unavailable", disposition="retry") == []
    for _ in range(5):  # a disk that is not plugged in
        assert life.fails(Kind.UPLOAD_FAILED, 600, provider="disk", code="storage-missing") == []
    life.happens(Kind.UPLOAD_DONE, provider="disk", waiting=0)
    assert life.happens(Kind.UPLOAD_DONE, provider="cloud", waiting=0) == []  # what nobody heard of is not over
    life.fails(Kind.UPLOAD_FAILED, provider="cloud", code="unavailable", disposition="retry")
    assert life.passes(6 * HOUR - 1) == []
    assert keys(life.passes(1)) == [(Problem.UPLOAD_FAILING, "cloud", False)]
    assert keys(life.happens(Kind.PROVIDER_BACK, provider="cloud")) == [(Problem.UPLOAD_FAILING, "cloud", True)]


@pytest.mark.parametrize(
    ("kind", "values", "problem", "end"),
    [
        (Kind.UPLOAD_FAILED, {"provider": "disk", "code": "quota-exceeded"}, Problem.STORAGE_FULL, Kind.UPLOAD_DONE),
        (Kind.UPLOAD_FAILED, {"provider": "disk", "code": "login-needed"}, Problem.LOGIN_NEEDED, Kind.UPLOAD_DONE),
        (
            Kind.UPLOAD_FAILED,
            {"provider": "disk", "code": "storage-credential-refused"},
            Problem.KEY_REFUSED,
            Kind.PROVIDER_BACK,
        ),
        (Kind.UPLOAD_FAILED, {"provider": "disk", "code": "device-removed"}, Problem.DEVICE_REMOVED, Kind.UPLOAD_DONE),
        (
            Kind.SNAPSHOT_FAILED,
            {"source": "signal", "code": "state-error", "errno": errno.ENOSPC},
            Problem.DISK_FULL,
            Kind.SNAPSHOT_MADE,
        ),
        (
            Kind.SNAPSHOT_FAILED,
            {"source": "signal", "code": "device-removed"},
            Problem.DEVICE_REMOVED,
            Kind.SNAPSHOT_MADE,
        ),
        (Kind.JOB_FAILED, {"job": "drill", "code": "drill-failed"}, Problem.JOB_FAILED, Kind.JOB_DONE),
        (Kind.JOB_FAILED, {"job": "verify", "code": "object-damaged"}, Problem.JOB_FAILED, Kind.JOB_DONE),
        (Kind.RELOAD_REFUSED, {"code": "config-invalid"}, Problem.RELOAD_REFUSED, Kind.RELOADED),
    ],
)
def test_what_only_a_person_can_mend_is_told_at_once(
    kind: Kind, values: dict[str, Any], problem: Problem, end: Kind
) -> None:
    life = Life().settled()
    subject = {name: value for name, value in values.items() if name in {"source", "provider", "job"}}
    name = next(iter(subject.values()), "")
    assert keys(life.happens(kind, **values)) == [(problem, name, False)]
    assert life.happens(kind, 60, **values) == []
    assert keys(life.troubles.standing(at(life.now))) == [(problem, name, False)]
    assert keys(life.happens(end, 60, **subject)) == [(problem, name, True)]
    assert life.troubles.standing(at(life.now)) == []


@pytest.mark.parametrize("code", ["cancelled", "outbox-full", "vault-locked"])
def test_what_is_no_failure_is_never_told(code: str) -> None:
    life = Life().settled()
    for _ in range(5):
        life.fails(Kind.SNAPSHOT_FAILED, 10, source="signal", code=code)
        life.fails(Kind.UPLOAD_FAILED, 10, provider="disk", code=code)
        life.fails(Kind.JOB_FAILED, 10, job="drill", code=code)
    life.passes(HOUR)
    assert life.told == []
    assert life.troubles.well(at(life.now))


def test_uploads_that_wait_for_an_unlock_too_long() -> None:
    life = Life().settled()
    life.happens(Kind.HELD, waiting=10)
    for _ in range(23):
        assert life.happens(Kind.HELD, HOUR - 1, waiting=10) == []
        for source in SOURCES:
            life.happens(Kind.SNAPSHOT_MADE, source=source)
    notices = life.passes(HOUR + 60)
    assert keys(notices) == [(Problem.HELD, "", False)]  # and not that nothing is uploaded as well
    assert keys(life.happens(Kind.UNLOCKED, 60)) == [(Problem.HELD, "", True)]


def test_nothing_is_too_long_right_after_a_sleep() -> None:
    life = Life().settled()
    life.happens(Kind.HELD, waiting=10)
    asleep = at(life.now + 3 * DAY)
    life.now += 3 * DAY
    assert life.troubles.take(Event(Kind.RESUMED, asleep)) == []
    assert life.passes(SETTLING - 1) == []
    life.happens(Kind.UNLOCKED)
    for source in SOURCES:
        life.happens(Kind.SNAPSHOT_NOTHING, source=source)
    for job in JOBS:
        life.happens(Kind.JOB_DONE, job=job)
    assert life.passes(HOUR) == []
    assert life.told == []


def test_what_is_not_looked_at_any_more() -> None:
    life = Life().settled()
    notices = life.passes(8 * DAY)
    first = {(notice.problem, notice.subject) for notice in notices if not notice.again}
    assert first == {
        (Problem.BACKUP_OVERDUE, "signal"),
        (Problem.BACKUP_OVERDUE, "element"),
        (Problem.JOB_OVERDUE, "verify"),
        (Problem.UNVERIFIED, ""),
    }
    life.well()
    assert life.troubles.well(at(life.now))
    assert {notice.key for _, notice in life.told if notice.over} == first


def test_uploads_that_stand_still_are_told_those_that_move_are_not() -> None:
    life = Life().settled()
    life.happens(Kind.SNAPSHOT_MADE, source="signal")
    life.happens(Kind.UPLOAD_DONE, provider="disk", waiting=0)
    for hour in range(30):
        life.happens(Kind.UPLOAD_PROGRESS, HOUR, provider="cloud", done=hour + 1, total=100)
        life.well_but_uploads()
    assert life.told == []
    for _ in range(23):
        life.happens(Kind.UPLOAD_PROGRESS, HOUR, provider="cloud", done=30, total=100)
        life.well_but_uploads()
    assert life.told == []
    assert keys(life.passes(HOUR)) == [(Problem.UPLOAD_OVERDUE, "cloud", False)]


def test_uploads_that_waited_for_an_unlock_have_their_time_from_then() -> None:
    life = Life().settled()
    life.happens(Kind.SNAPSHOT_MADE, source="signal")
    life.happens(Kind.HELD, waiting=1)
    for _ in range(23):
        life.passes(HOUR)
        life.well_but_uploads()
    life.happens(Kind.UNLOCKED)
    for _ in range(23):
        life.passes(HOUR)
        life.well_but_uploads()
    assert life.told == []
    assert {notice.key for notice in life.passes(HOUR)} == {(Problem.UPLOAD_OVERDUE, name) for name in PROVIDERS}


def test_a_watch_that_is_back_soon_is_not_told() -> None:
    life = Life().settled()
    life.happens(Kind.WATCH_DEGRADED, source="signal", reason="limit")
    assert life.happens(Kind.WATCH_RESTORED, 60, source="signal") == []
    life.happens(Kind.WATCH_DEGRADED, source="signal", reason="limit")
    (notice,) = life.passes(600)
    assert notice.slight
    assert notice.values["reason"] == "limit"


def test_the_same_again_after_a_day_something_else_after_an_hour() -> None:
    life = Life().settled()
    for _ in range(3):
        life.fails(Kind.UPLOAD_FAILED, provider="disk")
    assert len(life.told) == 1
    for _ in range(47):
        assert life.fails(Kind.UPLOAD_FAILED, 1800, provider="disk") == []
        life.well_but_uploads()
    (again,) = life.fails(Kind.UPLOAD_FAILED, 1800, provider="disk")
    assert again.again
    assert life.fails(Kind.UPLOAD_FAILED, 60, provider="disk", code="object-conflict") == []
    changed = life.passes(HOUR)
    assert [notice.values["code"] for notice in changed] == ["object-conflict"]


def test_one_that_comes_and_goes_is_told_three_times_a_day() -> None:
    life = Life().settled()
    for _ in range(24 * 6):
        life.happens(Kind.UPLOAD_FAILED, 300, provider="disk", code="quota-exceeded")
        life.happens(Kind.UPLOAD_DONE, 300, provider="disk", waiting=0)
        life.well_but_uploads()
    told = [notice.over for _, notice in life.told]
    assert told == [False, True] * 3


def test_what_is_removed_from_the_configuration_is_over() -> None:
    life = Life().settled()
    for _ in range(3):
        life.fails(Kind.UPLOAD_FAILED, provider="cloud")
    life.troubles.broken("webhook", at(life.now), {"reason": "refused"})
    fewer = Limits(SOURCES[:1], PROVIDERS[:1], 6 * HOUR, {}, DAY, 7 * DAY)
    assert keys(life.troubles.configure(fewer, at(life.now))) == [(Problem.UPLOAD_FAILING, "cloud", True)]
    assert keys(life.troubles.mended("webhook", at(life.now))) == [(Problem.CHANNEL_BROKEN, "webhook", True)]
    assert life.troubles.well(at(life.now))


def test_a_restart_tells_nothing_twice_and_remembers_what_is_to_be_over() -> None:
    life = Life().settled()
    for _ in range(3):
        life.fails(Kind.UPLOAD_FAILED, provider="disk")
    life.happens(Kind.WATCH_DEGRADED, source="signal", reason="limit")
    life.passes(HOUR)
    assert len(life.told) == 2
    life = life.restarted()
    for _ in range(5):
        assert life.fails(Kind.UPLOAD_FAILED, 60, provider="disk") == []
    assert not life.troubles.well(at(life.now))
    notices = life.passes(HOUR)
    assert keys(notices) == [(Problem.WATCH_DEGRADED, "signal", True)]  # nobody said that it still is
    assert keys(life.happens(Kind.UPLOAD_DONE, provider="disk")) == [(Problem.UPLOAD_FAILING, "disk", True)]


def test_restarts_do_not_put_off_what_lasts_too_long() -> None:
    life = Life().settled()
    for _ in range(40):
        life.happens(Kind.HELD, waiting=1)
        life.fails(Kind.UPLOAD_FAILED, provider="disk", code="unavailable", disposition="retry")
        life.passes(HOUR)
        life = life.restarted()
    problems = {notice.problem for _, notice in life.told}
    assert problems >= {Problem.HELD, Problem.UPLOAD_FAILING, Problem.BACKUP_OVERDUE}
    assert len(life.told) < 12
    for _ in range(20):
        life.passes(DAY)
        life = life.restarted()
    assert Problem.UNVERIFIED in {notice.problem for _, notice in life.told}


def test_what_was_done_while_the_daemon_was_down_counts() -> None:
    life = Life().settled()
    life.passes(9 * DAY)
    assert Problem.UNVERIFIED in {notice.problem for _, notice in life.told}
    now = at(life.now).wall_ns
    life = life.restarted(Known(dict.fromkeys(SOURCES, now), dict.fromkeys(JOBS, now)))
    notices = life.passes(HOUR)
    assert {notice.key for notice in notices if not notice.over} == set()
    assert (Problem.UNVERIFIED, "") in {notice.key for notice in notices if notice.over}


@pytest.mark.parametrize("text", ["{}", "[]", '{"troubles": 3}', '{"troubles": [1, {"notice": {}}, null]}'])
def test_what_cannot_be_understood_is_left_out(text: str) -> None:
    life = Life()
    plain = json.loads(text)
    life.troubles.remember(plain if isinstance(plain, dict) else {}, at(0))
    assert life.troubles.well(at(0))


def _happenings() -> st.SearchStrategy[tuple[float, Kind, dict[str, Any]]]:
    codes = st.sampled_from(["unavailable", "permission-refused", "quota-exceeded", "device-removed", "cancelled"])
    values = st.fixed_dictionaries(
        {
            "code": codes,
            "disposition": st.sampled_from(["retry", "needs-user", "fatal"]),
            "reason": st.sampled_from(["mode", "owner"]),
            "done": st.integers(0, 3),
            "waiting": st.integers(0, 1),
        }
    )

    def complete(drawn: tuple[float, Kind, dict[str, Any], int]) -> tuple[float, Kind, dict[str, Any]]:
        seconds, kind, rest, which = drawn
        word = kind.value.partition("-")[0]
        if word == "problem":
            return seconds, kind, rest | {"problem": "chain-gap", "subject": "device"}
        named: dict[str, tuple[str, tuple[str, ...]]] = {
            "snapshot": ("source", SOURCES),
            "watch": ("source", SOURCES),
            "upload": ("provider", PROVIDERS),
        }
        named |= {"provider": ("provider", PROVIDERS), "job": ("job", tuple(JOBS))}
        if word in named:
            name, among = named[word]
            rest = rest | {name: among[which]}
        return seconds, kind, rest

    delay = st.one_of(st.floats(0, 120), st.floats(0, 3 * HOUR), st.floats(0, 3 * DAY))
    return st.tuples(delay, st.sampled_from(sorted(Kind)), values, st.integers(0, 1)).map(complete)


@given(st.lists(st.tuples(_happenings(), st.booleans()), max_size=50))
def test_whatever_happens_nobody_is_flooded_and_everything_ends(
    happenings: list[tuple[tuple[float, Kind, dict[str, Any]], bool]],
) -> None:
    life = Life()
    for (seconds, kind, values), restart in happenings:
        life.happens(kind, seconds, **values)
        if restart and seconds > 60:
            life = life.restarted()
    for kind in (Kind.UNLOCKED, Kind.RELOADED, Kind.OUTBOX_FREED):
        life.happens(kind)
    for source in SOURCES:
        life.happens(Kind.WATCH_RESTORED, source=source)
    life.happens(Kind.PROBLEM_OVER, problem="chain-gap", subject="device")
    life.well()
    life.passes(SETTLING)
    assert life.troubles.standing(at(life.now)) == []
    told = defaultdict(list)
    for when, notice in life.told:
        told[notice.key].append((when, notice))
    for history in told.values():
        standing = False
        begun = [when for when, notice in history if not notice.over]
        for _, notice in history:
            if notice.over:
                assert standing, "over, and nobody knew of it"
            elif notice.problem in set(Problem):  # others are forgotten without a word
                assert notice.again == standing, "told as if it were new"
            standing = not notice.over
        assert not standing or history[0][1].problem == "chain-gap", "it is over and nobody was told"
        assert all(later - sooner >= SOONEST - 1 for sooner, later in itertools.pairwise(begun))
        assert all(later - sooner >= DAY - 1 for sooner, later in zip(begun, begun[MOST:], strict=False))


def test_what_the_daemon_itself_finds_is_told_and_forgotten_when_it_is_not_found_again() -> None:
    life = Life().settled()
    found: dict[str, Any] = {"problem": "chain-gap", "subject": "device", "code": "chain-gap", "disposition": "fatal"}
    assert keys(life.happens(Kind.PROBLEM, **found)) == [("chain-gap", "device", False)]
    assert life.happens(Kind.PROBLEM, 3600, **found) == []
    assert not life.troubles.well(at(life.now))
    life.passes(DAY - 1)
    life.well()
    notices = life.passes(2)
    assert life.troubles.well(at(life.now))
    assert not any(notice.over for notice in notices)


def test_what_the_daemon_itself_finds_can_be_over_and_may_pass() -> None:
    life = Life().settled()
    busy: dict[str, Any] = {"problem": "state-busy", "subject": "state"}
    assert life.happens(Kind.PROBLEM, **busy, disposition="retry") == []
    assert life.happens(Kind.PROBLEM_OVER, 600, **busy) == []
    life.happens(Kind.PROBLEM, **busy, disposition="retry")
    assert keys(life.passes(HOUR)) == [("state-busy", "state", False)]
    (over,) = life.happens(Kind.PROBLEM_OVER, **busy)
    assert over.over
    assert life.troubles.take(over.event()) == []  # its own words are not news


def test_its_own_words_are_not_news() -> None:
    life = Life().settled()
    (notice,) = life.happens(Kind.UPLOAD_FAILED, provider="disk", code="quota-exceeded")
    assert life.troubles.take(notice.event()) == []
    assert len(life.troubles.standing(at(life.now))) == 1
