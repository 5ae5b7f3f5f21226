"""The figures, as a strict reader of the format reads them."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from chatkeep.config.amounts import UNLIMITED, Rate
from chatkeep.daemon.service.events import CARRIES, Event, Kind
from chatkeep.daemon.service.moment import Moment
from chatkeep.daemon.service.telling.metrics import _FAMILIES, Metrics, write_whole
from chatkeep.daemon.service.telling.notice import Notice, Problem
from chatkeep.providers.used import Used
from tests.support.telling import AT

ODD = 'a "b" \\ c\nd ünï'


def figures(text: str) -> dict[str, float]:
    """Every sample of a text that is as the format wants it."""
    assert text == "" or text.endswith("\n")
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert family.type in {"gauge", "counter"}
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            key = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert key not in found, "twice"
            found[key] = sample.value
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
    return found


class Room:
    def __init__(self) -> None:
        self.metrics, self.seconds = Metrics(), 0
        self.metrics.expect(["signal", ODD], ["disk", "cloud"], {"verify": 0, "drill": 0})

    def happens(self, kind: Kind, **values: Any) -> None:
        self.seconds += 10
        moment = Moment(AT.wall_ns + self.seconds * 10**9, AT.boot + self.seconds)
        self.metrics.take(Event(kind, moment, values))

    def figures(self, *standing: Notice) -> dict[str, float]:
        return figures(self.metrics.text(standing))


def test_what_is_counted() -> None:
    room = Room()
    room.happens(Kind.STARTED, version="1.2")
    room.happens(Kind.SNAPSHOT_MADE, source="signal", snapshot=1, taken_ns=AT.wall_ns, bytes=100, pending=False)
    room.happens(Kind.SNAPSHOT_MADE, source="signal", snapshot=2, taken_ns=AT.wall_ns + 10**9, bytes=50, pending=False)
    room.happens(Kind.SNAPSHOT_FAILED, source=ODD, code="x")
    room.happens(Kind.SNAPSHOT_NOTHING, source=ODD)
    room.happens(Kind.UPLOAD_BEGUN, provider="disk", waiting=150)
    room.happens(Kind.UPLOAD_PROGRESS, provider="disk", done=50, total=150)
    assert room.figures()["chatkeep_waiting_bytes{provider=disk}"] == 100
    room.happens(Kind.UPLOAD_DONE, provider="disk", bytes=150, waiting=0, acknowledged_ns=AT.wall_ns)
    room.happens(Kind.UPLOAD_FAILED, provider="cloud", code="unavailable")
    room.happens(Kind.UNLOCKED)
    room.happens(Kind.JOB_DONE, job="verify")
    room.happens(Kind.JOB_FAILED, job="drill", code="x")
    room.happens(Kind.WATCH_DEGRADED, source="signal", reason="limit")
    room.happens(Kind.LEFT_BEHIND, provider="disk")
    room.happens(Kind.CAUGHT_UP, provider="disk")
    room.happens(Kind.LEFT_BEHIND, provider="cloud")
    begun, odd = AT.wall_ns / 1e9, "source=" + ODD
    standing = [Notice(Problem.UPLOAD_FAILING, name, False, 0, AT) for name in ("a", "b")]
    assert room.figures(*standing) == {
        "chatkeep_info{version=1.2}": 1,
        "chatkeep_start_timestamp_seconds": begun + 10,
        "chatkeep_snapshot_timestamp_seconds{source=signal}": begun + 1,
        "chatkeep_compared_timestamp_seconds{source=signal}": begun + 30,
        f"chatkeep_compared_timestamp_seconds{{{odd}}}": begun + 50,
        "chatkeep_acknowledged_timestamp_seconds{provider=disk}": begun,
        "chatkeep_lag_seconds{provider=disk}": 1,
        "chatkeep_waiting_bytes{provider=disk}": 0,
        "chatkeep_waiting_bytes{provider=cloud}": 0,
        "chatkeep_left_behind{provider=disk}": 0,
        "chatkeep_left_behind{provider=cloud}": 1,
        "chatkeep_snapshots_total{source=signal}": 2,
        f"chatkeep_snapshots_total{{{odd}}}": 0,
        "chatkeep_snapshot_failures_total{source=signal}": 0,
        f"chatkeep_snapshot_failures_total{{{odd}}}": 1,
        "chatkeep_snapshot_bytes_total{source=signal}": 150,
        f"chatkeep_snapshot_bytes_total{{{odd}}}": 0,
        "chatkeep_uploads_total{provider=disk}": 1,
        "chatkeep_uploads_total{provider=cloud}": 0,
        "chatkeep_upload_failures_total{provider=disk}": 0,
        "chatkeep_upload_failures_total{provider=cloud}": 1,
        "chatkeep_uploaded_bytes_total{provider=disk}": 150,
        "chatkeep_uploaded_bytes_total{provider=cloud}": 0,
        "chatkeep_credential_refused{provider=disk}": 0,
        "chatkeep_credential_refused{provider=cloud}": 0,
        "chatkeep_session_open": 1,
        "chatkeep_uploads_held": 0,
        "chatkeep_outbox_full": 0,
        "chatkeep_watch_degraded{source=signal}": 1,
        f"chatkeep_watch_degraded{{{odd}}}": 0,
        "chatkeep_job_success_timestamp_seconds{job=verify}": begun + 110,
        "chatkeep_job_failures_total{job=verify}": 0,
        "chatkeep_job_failures_total{job=drill}": 1,
        "chatkeep_problems{problem=upload-failing}": 2,
    }


def test_what_was_before_the_start_is_known() -> None:
    room = Room()
    room.metrics.know({"signal": 9 * 10**9}, {"disk": 4 * 10**9}, {"drill": 3 * 10**9})
    found = room.figures()
    assert found["chatkeep_lag_seconds{provider=disk}"] == 5
    assert found["chatkeep_job_success_timestamp_seconds{job=drill}"] == 3
    room.happens(Kind.SNAPSHOT_MADE, source="signal", snapshot=1, taken_ns=11 * 10**9, bytes=1, pending=False)
    assert room.figures()["chatkeep_lag_seconds{provider=disk}"] == 7
    room.metrics.expect(["signal"], ["cloud"], {})
    assert not [name for name in room.figures() if "disk" in name or "drill" in name or ODD in name]


@pytest.mark.parametrize("code", ["login-needed", "storage-credential-refused"])
def test_a_provider_that_lets_nobody_in(code: str) -> None:
    room, name = Room(), "chatkeep_credential_refused{provider=cloud}"
    room.happens(Kind.UPLOAD_FAILED, provider="cloud", code=code)
    assert room.figures()[name] == 1
    room.happens(Kind.UPLOAD_FAILED, provider="cloud", code="unavailable")
    assert room.figures()[name] == 1, "that it cannot be reached does not say that it would let in"
    room.happens(Kind.UPLOAD_DONE, provider="cloud", bytes=1, waiting=0)
    assert room.figures()[name] == 0


def test_switches() -> None:
    room = Room()
    room.happens(Kind.STARTED, version="1")
    for on, off, name in (
        (Kind.UNLOCKED, Kind.LOCKED, "chatkeep_session_open"),
        (Kind.HELD, Kind.UNLOCKED, "chatkeep_uploads_held"),
        (Kind.OUTBOX_FULL, Kind.OUTBOX_FREED, "chatkeep_outbox_full"),
    ):
        room.happens(on)
        assert room.figures()[name] == 1
        room.happens(off)
        assert room.figures()[name] == 0


@pytest.mark.parametrize("value", [None, "text", -1, 0.5, True, ("a",), 10**30, "\ud800 x"])
def test_whatever_happens_the_format_holds(value: Any) -> None:
    room = Room()
    for kind in Kind:
        room.happens(kind)
        room.happens(kind, **dict.fromkeys((*CARRIES[kind], "done", "total"), value))
    assert room.figures()


def test_what_storage_was_used_for_and_may_be() -> None:
    room = Room()
    unlimited = (UNLIMITED, UNLIMITED)
    room.metrics.use({"disk": Used({"put": 3, "get": 1}, 500, 7)}, {"disk": (Rate(9), UNLIMITED), "cloud": unlimited})
    found = room.figures()
    assert found["chatkeep_day_requests{provider=disk}"] == 4
    assert found["chatkeep_day_sent_bytes{provider=disk}"] == 500
    assert found["chatkeep_day_received_bytes{provider=disk}"] == 7
    assert found["chatkeep_upload_limit_bytes_per_second{provider=disk}"] == 9
    assert not [name for name in found if "download_limit" in name or ("day_" in name and "cloud" in name)]
    room.metrics.use({}, {"disk": unlimited})
    assert not [name for name in room.figures() if "_day_" in name or "_limit_" in name]


def test_every_figure_is_explained() -> None:
    document = (Path(__file__).parents[3] / "docs" / "telling.md").read_text()
    assert [family.name for family in _FAMILIES if f"`{family.name}`" not in document] == []


def test_a_file_is_whole_whenever_it_is_read(tmp_path: Path) -> None:
    path, stop, seen = tmp_path / "chatkeep.prom", threading.Event(), set()
    write_whole(path, "a" * 200_000)

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        write_whole(path, "ab"[number % 2] * 200_000)
    stop.set()
    reader.join(20)
    assert seen <= {"a" * 200_000, "b" * 200_000}
    assert seen
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["chatkeep.prom"]


def test_a_file_that_cannot_be_replaced_leaves_nothing_beside(tmp_path: Path) -> None:
    (tmp_path / "chatkeep.prom").mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "chatkeep.prom", "a")
    assert os.listdir(tmp_path) == ["chatkeep.prom"]
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "missing" / "chatkeep.prom", "a")
