"""What happens, and who hears of it: nobody who listens can delay or break the work."""

from __future__ import annotations

import json
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from chatkeep.config.errors import ChatkeepError, Disposition
from chatkeep.daemon.service.events import CARRIES, Batch, Bus, Event, Kind, Stream
from chatkeep.daemon.service.moment import Moment

AT = Moment(1_700_000_000_000_000_000, 12.5)


class Refused(ChatkeepError):
    code = "permission-refused"
    disposition = Disposition.NEEDS_USER


def made(number: int, kind: Kind = Kind.STARTED) -> Event:
    return Event(kind, AT, {"number": number})


def test_an_event_cannot_be_changed_neither_can_what_it_was_made_of() -> None:
    values: dict[str, Any] = {"source": "signal", "names": ["a", ["b"]]}
    event = Event(Kind.SNAPSHOT_BEGUN, AT, values)
    values["source"] = "other"
    values["names"].append("c")
    assert event.values == {"source": "signal", "names": ("a", ("b",))}
    with pytest.raises(TypeError):
        event.values["source"] = "other"  # type: ignore[index]
    with pytest.raises(AttributeError):
        event.kind = Kind.STOPPING  # type: ignore[misc]


@pytest.mark.parametrize("value", [b"bytes", Path("/a"), {"a": 1}, float("nan"), float("inf"), object(), {1}, [b"x"]])
def test_an_event_holds_plain_values_only(value: Any) -> None:
    with pytest.raises(TypeError):
        Event(Kind.STARTED, AT, {"value": value})
    with pytest.raises(TypeError):
        Event(Kind.STARTED, AT, detail={"value": value})


def test_plain_is_json_and_has_no_detail() -> None:
    event = Event(Kind.HELD, AT, {"waiting": 3, "names": ["a"], "kind": Kind.HELD}, {"path": "/home/a"})
    text = json.dumps(event.plain(), allow_nan=False)
    assert json.loads(text) == {
        "kind": "held",
        "wall_ns": AT.wall_ns,
        "boot": 12.5,
        "values": {"waiting": 3, "names": ["a"], "kind": "held"},
    }


def test_every_kind_says_what_it_carries() -> None:
    assert set(CARRIES) == set(Kind)
    assert Event(Kind.UPLOAD_FAILED, AT, {"provider": "disk"}).missing() == ["code"]
    assert Event(Kind.UPLOAD_FAILED, AT, {"provider": "disk", "code": "unavailable"}).missing() == []


def test_an_event_of_this_instant() -> None:
    first = Event.now(Kind.STARTED, version="1")
    second = Event.now(Kind.STOPPING, reason="signal")
    assert second.at.boot >= first.at.boot
    assert first.values == {"version": "1"}


def test_an_error_leaves_paths_in_the_detail() -> None:
    error = Refused(
        path=Path("/home/ann/Signal/db"),
        reason="mode",
        what="/home/ann",
        errno=13,
        provider="disk",
        name=b"\xff",
        size=2.0,
    )
    event = Event.failed(Kind.UPLOAD_FAILED, AT, error, provider="other")
    assert event.values == {
        "code": "permission-refused",
        "disposition": "needs-user",
        "reason": "mode",
        "errno": 13,
        "provider": "other",
        "size": 2.0,
    }
    assert event.detail == {"path": "/home/ann/Signal/db", "what": "/home/ann", "name": "b'\\xff'"}
    assert event.missing() == []


def test_whatever_an_error_has_it_becomes_an_event() -> None:
    error = Refused(size=float("nan"), count=[1], provider=None, reason=3)
    event = Event.failed(Kind.JOB_FAILED, AT, error, job="drill")
    assert event.detail == {"size": "nan", "count": "[1]", "provider": "None", "reason": "3"}
    json.dumps(event.plain(), allow_nan=False)


def test_all_hear_everything_in_order_until_they_end() -> None:
    bus, first, second = Bus(), [], []  # type: ignore[var-annotated]
    end = bus.subscribe(first.append)
    bus.subscribe(second.append)
    bus.publish(made(1))
    bus.publish(made(2))
    end()
    end()
    bus.publish(made(3))
    assert [event.values["number"] for event in first] == [1, 2]
    assert [event.values["number"] for event in second] == [1, 2, 3]


def test_who_raises_is_dropped_and_the_others_are_told() -> None:
    bus, heard, calls = Bus(), [], []  # type: ignore[var-annotated]

    def broken(event: Event) -> None:
        calls.append(event)
        raise RuntimeError("a secret could be here")

    bus.subscribe(broken, "webhook")
    bus.subscribe(heard.append)
    bus.publish(made(1))
    bus.publish(made(2))
    assert len(calls) == 1
    lost = [event for event in heard if event.kind is Kind.LISTENER_LOST]
    assert [event.values for event in lost] == [{"listener": "webhook", "error": "RuntimeError"}]
    assert lost[0].missing() == []
    assert [event.values["number"] for event in heard if event.kind is Kind.STARTED] == [1, 2]


def test_when_all_raise_publish_still_returns() -> None:
    bus, calls = Bus(), []

    def broken(event: Event) -> None:
        calls.append(event.kind)
        raise ValueError

    for number in range(2000):
        bus.subscribe(broken, str(number))
    bus.publish(made(1))
    assert calls == [Kind.STARTED] * 2000
    bus.publish(made(2))
    assert len(calls) == 2000


def test_a_listener_may_publish_and_end_itself() -> None:
    bus, heard = Bus(), []  # type: ignore[var-annotated]

    def answer(event: Event) -> None:
        end()
        bus.publish(Event(Kind.PROBLEM, event.at, {"problem": "p", "subject": "s"}))

    end = bus.subscribe(answer)
    bus.subscribe(heard.append)
    bus.publish(made(1))
    assert [event.kind for event in heard] == [Kind.PROBLEM, Kind.STARTED]


def test_threads_publish_while_others_come_and_go(seed: int) -> None:
    bus, heard, threads, each = Bus(), [], 6, 300  # type: ignore[var-annotated]
    bus.subscribe(heard.append)
    stop, failed = threading.Event(), []

    def publishing(thread: int) -> None:
        for number in range(each):
            bus.publish(Event(Kind.STARTED, AT, {"thread": thread, "number": number}))

    def coming_and_going() -> None:
        chance = random.Random(seed)
        while not stop.is_set():
            with Stream(bus, 10) as stream:
                if chance.random() < 0.5:
                    stream.take()
            if len(bus._listeners) < 20:
                bus.subscribe(lambda event: failed.append(event) or 1 / 0)  # type: ignore[func-returns-value]

    visitor = threading.Thread(target=coming_and_going)
    visitor.start()
    workers = [threading.Thread(target=publishing, args=(thread,)) for thread in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    stop.set()
    visitor.join(30)
    assert not any(thread.is_alive() for thread in (visitor, *workers))
    told = [event for event in heard if event.kind is Kind.STARTED]
    assert len(told) == threads * each
    assert failed
    for thread in range(threads):
        numbers = [event.values["number"] for event in told if event.values["thread"] == thread]
        assert numbers == list(range(each))


def test_a_stream_nobody_reads_costs_a_publisher_nothing_and_says_what_it_dropped() -> None:
    bus = Bus()
    with Stream(bus, 100) as stream:
        before = time.monotonic()
        for number in range(10_000):
            bus.publish(made(number))
        assert time.monotonic() - before < 5
        batch = stream.take()
        assert batch.dropped == 9_900
        assert [event.values["number"] for event in batch.events] == list(range(9_900, 10_000))
        assert stream.take() == Batch(0, ())


def test_progress_is_dropped_before_what_matters() -> None:
    bus = Bus()
    with Stream(bus, 4) as stream:
        for number, kind in enumerate([Kind.HELD, Kind.UPLOAD_PROGRESS, Kind.LOCKED, Kind.UPLOAD_PROGRESS]):
            bus.publish(made(number, kind))
        for number in range(4, 7):
            bus.publish(made(number))
        batch = stream.take()
    assert batch.dropped == 3
    assert [event.values["number"] for event in batch.events] == [2, 4, 5, 6]


def test_a_reader_waits_for_the_next_event_and_is_woken_by_the_end() -> None:
    bus, taken, reading = Bus(), [], threading.Event()
    stream = Stream(bus)

    def read() -> None:
        while True:
            reading.set()
            batch = stream.take(30)
            taken.append(batch)
            if not batch.events:
                return

    reader = threading.Thread(target=read)
    reader.start()
    assert reading.wait(10)
    bus.publish(made(1))
    deadline = time.monotonic() + 10
    while not taken and time.monotonic() < deadline:
        time.sleep(0.002)
    before = time.monotonic()
    stream.close()
    reader.join(10)
    assert not reader.is_alive()
    assert time.monotonic() - before < 10
    assert taken == [Batch(0, (made(1),)), Batch(0, ())]
    bus.publish(made(2))
    assert stream.take() == Batch(0, ())


def test_a_wake_that_fails_ends_that_stream_alone() -> None:
    bus, heard = Bus(), []  # type: ignore[var-annotated]

    def closed() -> None:
        raise RuntimeError("Event loop is closed")

    with Stream(bus, wake=closed, name="status"):
        bus.subscribe(heard.append)
        bus.publish(made(1))
        bus.publish(made(2))
    assert [event.kind for event in heard] == [Kind.STARTED, Kind.LISTENER_LOST, Kind.STARTED]
    assert heard[1].values["listener"] == "status"
