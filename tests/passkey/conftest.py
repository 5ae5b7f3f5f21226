"""The real page in the real browser, and the command that it belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.chromium import Chromium, Stage, Tab
from tests.support.desktop import Desktop
from tests.support.owner import Owner
from tests.support.passkey_provider import PasskeyProvider
from tests.support.soft_key import SoftAuthenticator, SoftCtapDevice
from tests.support.station import Station, copied, template
from tests.support.visitor import Visitor


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    """One browser for all that one worker runs."""
    stage = Stage()
    yield stage
    stage.end()


@pytest.fixture
def chromium(stage: Stage) -> Iterator[Chromium]:
    with stage.on() as chromium:
        yield chromium


@pytest.fixture
def tab(chromium: Chromium) -> Iterator[Tab]:
    with chromium.tab() as tab:
        yield tab


@pytest.fixture
def visitor(tab: Tab) -> Visitor:
    return Visitor(tab)


@contextmanager
def sitting_at(room: Path) -> Iterator[Desktop]:
    """What is started in this block finds a desktop."""
    desktop = Desktop(room)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SSH_CONNECTION", "SSH_TTY", "WAYLAND_DISPLAY"):
            patch.delenv(name, raising=False)
        for name, value in desktop.environment().items():
            patch.setenv(name, value)
        yield desktop
    desktop.close()


@pytest.fixture
def desktop(tmp_path: Path) -> Iterator[Desktop]:
    with sitting_at(tmp_path / "desktop") as desktop:
        yield desktop


@pytest.fixture
def owner(desktop: Desktop, visitor: Visitor) -> Owner:
    return Owner(desktop, visitor)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Station:
    return template(tmp_path_factory.mktemp("made") / "room")


@pytest.fixture
def station(made: Station, tmp_path: Path) -> Iterator[Station]:
    """A source without anything in it, and a vault with a recovery key."""
    station = copied(made, tmp_path / "room")
    yield station
    station.run("lock")


class Enrolled(NamedTuple):
    """A vault with a recovery key and a passkey, and the device that has the passkey. It can be taken elsewhere."""

    station: Station
    key: SoftAuthenticator
    slot: str


@pytest.fixture(scope="session")
def made_enrolled(made: Station, stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Enrolled:
    top = tmp_path_factory.mktemp("enrolled")
    station, key = copied(made, top / "room"), SoftAuthenticator(uv=True)
    with stage.on() as chromium, chromium.tab() as tab, sitting_at(top / "desktop") as desktop:
        PasskeyProvider(SoftCtapDevice(key)).serve(tab)
        slot = Owner(desktop, Visitor(tab)).add_passkey(station, "--label", "phone")
    return Enrolled(station, key, slot)


@pytest.fixture
def enrolled(made_enrolled: Enrolled, tmp_path: Path) -> Iterator[Enrolled]:
    station, key = copied(made_enrolled.station, tmp_path / "room"), SoftAuthenticator(uv=True)
    key.restore(made_enrolled.key.export())
    yield Enrolled(station, key, made_enrolled.slot)
    station.run("lock")
