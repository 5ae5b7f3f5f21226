"""Objects that end or begin with what protocols take for their own: each storage gives them back as they were."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import pytest

from tests.providers import stations
from tests.providers.stations import Station

SPECIAL = (b"\r", b"\n", b"\r\n", b"\n--", b"\r\n--", b"\nFrom x\n", b"\n.\r\n", b"\0", b" ", b"\xff", b"0\r\n\r\n")


@pytest.mark.parametrize("station", [one for one in stations.find() if one.name == "gdrive"], ids=lambda one: one.name)
def test_every_end(station: Station, tmp_path: Path) -> None:
    bodies = [body for some in SPECIAL for body in (some, some + b"x", b"x" + some, b"x" + some + b"y")]
    bodies += [b"abc" + bytes([last]) for last in range(256)]
    with (
        station.running() as running,
        station.place(running, tmp_path) as place,
        contextlib.closing(place.open(None)) as provider,
    ):
        for body in bodies:
            name = f"d/{'ab' * 16}/p/{hashlib.sha256(body).hexdigest()}"
            provider.put(name, body)
            assert provider.get(name) == body
