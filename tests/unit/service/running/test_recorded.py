"""What the daemon knows of the time before it, from records that it has not opened yet."""

from __future__ import annotations

from pathlib import Path

from chatkeep.config.loader import load
from chatkeep.daemon.service.running.recorded import recorded
from chatkeep.daemon.service.telling.troubles import Known
from chatkeep.daemon.state.glance import Glance
from tests.support.station import Station, fill


def test_nothing_was_ever_done(tmp_path: Path) -> None:
    station = Station(tmp_path)
    station.configure(station.source)
    assert recorded(load(station.config)) == Known()


def test_what_was_taken_and_what_storage_has_of_it(tmp_path: Path) -> None:
    station = Station(tmp_path)
    fill(station.source / "messages.db")
    station.ok("init", "--recovery-key-file", station.key, "--no-passkey")
    station.ok("backup")
    fill(station.source / "more.db")
    station.ok("backup", "--no-upload")
    known = recorded(load(station.config))
    with Glance(station.state) as glance:
        (stream,) = glance.sources().values()
        times = dict(glance.rows("SELECT seq, clock FROM snapshots WHERE stream=?", stream.stream))
    (source,) = known.snapshots
    assert sorted(times) == [1, 2]
    assert known.snapshots[source] == times[2]
    assert known.acknowledged == {"disk": times[1]}
    assert known.compared[source] >= times[2]
