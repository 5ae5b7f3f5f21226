"""`status --watch` at a terminal of its own: one screen, kept up to date, and gone with Ctrl-C."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.running import running
from tests.support.station import Station, copied, fill, sql, template
from tests.support.terminal import converse


@pytest.fixture
def station(tmp_path: Path) -> Station:
    made = template(tmp_path / "template")
    fill(made.source / "messages.db")
    (tmp_path / "room").mkdir()
    station = copied(made, tmp_path / "room")
    station.configure(station.source)
    with open(station.config, "a") as file:
        file.write("watch: {quiet: 1 hour, max_delay: 1 hour, min_interval: 0 seconds}\n")
    return station


def test_the_screen_follows_what_happens_until_ctrl_c(station: Station) -> None:
    def change(_shown: str) -> None:
        sql(station.source / "messages.db", "INSERT INTO messages(body) VALUES('seen')")
        station.run("backup")

    with running(station) as daemon:
        daemon.logged("snapshot-made")
        environment = {
            "TERM": "xterm-256color",
            "XDG_RUNTIME_DIR": str(station.runtime),
            "COLUMNS": "120",
            "LINES": "60",
        }
        code, shown = converse(
            station.argv("status", "--watch"),
            [("running since", change), ("snapshot 2,", "\x03")],
            environment,
        )
        assert code == 0, shown
        assert "\x1b[?1049h" in shown, "a screen of its own"
        assert shown.rstrip().endswith("\x1b[?25h") or "\x1b[?1049l" in shown, "and given back"
        assert "uploads wait until somebody unlocks" in shown
        assert daemon.standing()["mode"] == "running"
