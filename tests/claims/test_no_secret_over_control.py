"""Everything that commands and the daemon say to each other is recorded; then every secret is looked for in it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from chatkeep.daemon.control.wire import ROUTES, socket_name
from chatkeep.daemon.keys.methods import RecoveryMethod
from chatkeep.daemon.keys.recovery import parse
from tests.support.relay import Relay
from tests.support.running import running
from tests.support.secret_hunt import Hunt, found_in, typed
from tests.support.station import Station, fill, template


class Recorded(NamedTuple):
    """Everything that was said, and the station."""

    said: bytes
    station: Station


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A daemon, and every command that speaks to it, with the recovery key wherever one can be given."""
    station = template(tmp_path_factory.mktemp("relay") / "room")
    fill(station.source / "messages.db")
    with open(station.config, "a") as file:
        file.write("session: {require_unlock: false}\nwatch: {quiet: 1 hour, max_delay: 1 hour, min_interval: 0s}\n")
    outside = station.room / "outside"  # where the commands look for the daemon
    outside.mkdir(mode=0o700)
    name = socket_name(station.state)
    relay = Relay()
    key = ("--key-file", station.key)

    with running(station) as daemon:
        daemon.logged("upload-done")
        inside, station.runtime = station.runtime, outside
        run = station.ok
        with relay.between(outside / "chatkeep" / name, inside / "chatkeep" / name):
            run("unlock", *key)
            run("status")
            fill(station.source / "messages.db", 3)
            run("backup")
            run("verify", "--deep", *key)
            run("prune", "--yes", *key)
            run("key", "rotate", "--yes", *key)
            fill(station.source / "messages.db", 3)
            run("backup")
            run("rebuild", *key)
            run("lock")
        station.runtime = inside
    return Recorded(b"".join(relay.said), station)


def test_commands_did_speak_to_it(recorded: Recorded) -> None:
    """A recording of nothing has no secret."""
    asked = {route.path for route in ROUTES if f"{route.method} {route.path} ".encode() in recorded.said}
    assert asked >= {"/v1/session", "/v1/status", "/v1/backup", "/v1/lend", "/v1/lock"}
    assert b'"line":"result"' in recorded.said
    assert recorded.said.count(b'"line":"lent"') >= 3


def test_no_secret_went_over_the_control_socket(recorded: Recorded) -> None:
    objects = {name: path.read_bytes() for name, path in recorded.station.objects().items()}
    key = parse(recorded.station.key.read_text())
    hunt = Hunt(objects)
    hunt.slots(recovery=RecoveryMethod(key))
    hunt.objects()
    secrets = hunt.secrets | typed("recovery key", "\n".join(key.lines))
    secrets |= {f"line {number}": line.replace(" ", "").encode() for number, line in enumerate(key.lines, 1)}
    credential = Path(recorded.station.state / "chatkeep-writer").read_bytes()
    secrets["device key"] = credential[-96:-64]
    assert len(secrets) > 15
    assert found_in(recorded.said, secrets) == set()
    assert found_in(recorded.said + secrets["device key"], secrets), "the search finds what is there"
