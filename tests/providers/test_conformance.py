"""Every clause at every station. A new type of provider adds a station, and nothing here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chatkeep.providers.base import Provider
from tests.providers import stations
from tests.providers.contract import ProviderContract
from tests.providers.faults import HASTY_CLAUSES, FaultContract
from tests.providers.refusals import RefusalContract
from tests.providers.stations import HASTY, UNHURRIED, Bench, Place, Station
from tests.support.fault_proxy import FaultProxy

STATIONS = stations.find()
HTTP = [station for station in STATIONS if station.http]


def at(stations: list[Station]) -> pytest.MarkDecorator:
    """Each clause at each of them."""
    params = [pytest.param(station, id=station.name, marks=station.marks) for station in stations]
    return pytest.mark.parametrize("station", params)


@pytest.fixture(scope="session")
def running() -> Iterator[Callable[[Station], Any]]:
    """What a station's places share, begun when the first of them is asked for."""
    begun: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:

        def of(station: Station) -> Any:
            if station.name not in begun:
                begun[station.name] = stack.enter_context(station.running())
            return begun[station.name]

        yield of


@pytest.fixture
def place(station: Station, running: Callable[[Station], Any], tmp_path: Path) -> Iterator[Place]:
    with station.place(running(station), tmp_path) as place:
        yield place


@pytest.fixture
def bench(
    station: Station, place: Place, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    monkeypatch.setattr(station, "timeout", HASTY if request.function.__name__ in HASTY_CLAUSES else UNHURRIED)
    with contextlib.ExitStack() as stack:
        assert (place.port is not None) == station.http
        proxy = stack.enter_context(FaultProxy(place.port)) if place.port is not None else None
        direct = stack.enter_context(contextlib.closing(place.open(None)))
        provider = stack.enter_context(contextlib.closing(place.open(proxy.url))) if proxy is not None else direct
        yield Bench(station, place, proxy, provider, direct)


@at(STATIONS)
class TestContract(ProviderContract):
    @pytest.fixture
    def provider(self, station: Station, place: Place) -> Iterator[Provider]:
        self.many, self.lacks, self.digest = station.many, station.lacks, station.digest
        with contextlib.closing(place.open(None)) as provider:
            assert provider.name == station.name
            yield provider


@at(HTTP)
class TestFaults(FaultContract):
    pass


@at(STATIONS)
class TestRefusals(RefusalContract):
    pass


def test_a_station_without_http_says_what_it_lacks_instead() -> None:
    assert {"folder", "memory", "plain"} <= {station.name for station in STATIONS}
    assert len(HTTP) >= 1
