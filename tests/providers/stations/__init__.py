"""Where each type of provider is tested: one module here for each server or place, with a `STATION` in it.

`test_conformance.py` runs every clause at every station it finds here, so a new type of provider needs no test of its
own for what all of them promise. What a storage cannot do its station says (`lacks`), and a clause asserts that it is
so: nothing is left out in silence.
"""

from __future__ import annotations

import contextlib
import enum
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from chatkeep.providers import base
from tests.support.fault_proxy import Fault

Fired = Callable[[], int]
"""How often a fault that a place makes has fired."""
Hook = Callable[[], contextlib.AbstractContextManager[Fired]]


HASTY, UNHURRIED = 1.0, 15.0


class Lack(enum.Enum):
    """What a storage cannot do. Each is asserted at the station that says so."""

    EXCLUSIVE_CREATE = "it overwrites whatever condition a put has"  # the probe says so
    NAME_IN_NAME = "it cannot hold an object whose name goes on, after a slash, where that of another ends"
    TIMES = "it does not tell when an object was stored"  # the probe says so
    CLOCK = "its clock is this machine's"  # the probe finds no difference
    STALE_LISTS = "its listings are never old"  # the probe says so
    QUOTA = "it is never full"  # no refusal of that meaning and no hook
    CREDENTIALS = "it asks for no credential"  # the same
    PUT_ONLY = "no credential can be limited to put"  # no such provider


@dataclass(frozen=True)
class Refusal:
    """What this storage says when it will not do something, and what must become of that.

    Attributes:
        fault: the reply: a `status` fault with the storage's own status, headers and body. `on` says to which requests.
        means: the error, exactly of that class.
        verb: the verb that is called: put (of a new object), get, stat, list or delete (of one that is there).
        again: why the provider makes the same request once more, in words. None: it does not.
    """

    fault: Fault
    means: type[base.ProviderError]
    verb: str = "put"
    again: str | None = None


@dataclass(frozen=True)
class Lines:
    """How a configuration leads to a place.

    Attributes:
        keys: of the provider, besides its name and its type.
        environment: what the command is started with as well.
    """

    keys: Mapping[str, object]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Place:
    """An empty place in a storage, for one test.

    Attributes:
        open: opens a provider there: with the storage's own address for None, else with the given URL (of a proxy)
            in the place of `http://127.0.0.1:<port>`, and then with the station's short time-out.
        port: where the storage listens on 127.0.0.1 with plain http; None: it does not, and no fault clause applies.
        put_only: opens one whose credential may put and nothing else.
        copies: how many objects of that name the storage really has, where that can be more than one.
        full, expired, stale: make a real one of what else is injected: no room, a credential that is no longer
            accepted, listings that stay as they are now; for the length of a block, which gets a counter.
        skewed: the storage's clock is so many seconds ahead, for the length of a block.
        lines: what a person would write down to come there, or to come to the given URL as with `open`.
    """

    open: Callable[[str | None], base.Provider]
    port: int | None = None
    put_only: Callable[[], base.Provider] | None = None
    copies: Callable[[str], int] | None = None
    full: Hook | None = None
    expired: Hook | None = None
    stale: Hook | None = None
    skewed: Callable[[float], contextlib.AbstractContextManager[Fired]] | None = None
    lines: Callable[[str | None], Lines] | None = None


class Station:
    """How one type of provider is tested. A subclass gives `name`, `place`, and what differs from what stands here.

    Attributes:
        name: of the station, and of the providers opened there.
        type: the word for it in a configuration, and its places have `lines`. None: no configuration leads there.
        http: it speaks plain http to a port of this machine, so faults can be injected.
        lacks: what its storage cannot do.
        many: more objects than one page of a listing, however the provider was opened here.
        timeout: seconds that a provider opened through a proxy waits for a byte. To be read when one is opened: it is
            short (`HASTY`) where a clause waits for it to pass, and else so long that a busy machine changes nothing.
        writes, commits, reads, lists, deletes: which requests carry an object to the storage; make it visible there;
            bring one back; list; remove one. Patterns of `Fault.on`.
        refusals: by a word for the test's name, what the storage says when it will not.
        secrets: what no error may show: keys, passwords, tokens, or a part that tells them. None: there are none.
        digest: what `probe` reports as `refuses_damage`. None: it verifies none, and stores a bit that was flipped on
            the way.
        marker: of its tests, which are then asked for by an option of that name: it needs what not everybody installs.
    """

    name: str
    type: str | None = None
    http: bool = True
    lacks: frozenset[Lack] = frozenset()
    many: int = 40
    timeout: float = UNHURRIED
    writes: str = r"^PUT "
    commits: str = r"^PUT "
    reads: str = r"^GET "
    lists: str = r"^(GET|PROPFIND|REPORT) "
    deletes: str = r"^DELETE "
    refusals: ClassVar[Mapping[str, Refusal]] = {}
    secrets: tuple[str, ...] = ()
    digest: str | None = None
    marker: str | None = None

    @property
    def marks(self) -> list[pytest.MarkDecorator]:
        """Of every test there."""
        return [getattr(pytest.mark, self.marker)] if self.marker else []

    @contextlib.contextmanager
    def running(self) -> Iterator[Any]:
        """Whatever all places share, such as a server. Entered at most once in a session; given to each `place`."""
        yield None

    def place(self, running: Any, folder: Path) -> contextlib.AbstractContextManager[Place]:
        """An empty place of its own; `folder` is an empty directory that it may use."""
        raise NotImplementedError

    def answer(self, status: int, after: float | None = None) -> Fault:
        """How this storage says 429, 500 or 503, and to wait for `after` seconds."""
        headers = () if after is None else (("Retry-After", str(int(after))),)
        return Fault("status", status=status, headers=headers, times=None)


@dataclass
class Bench:
    """What a fault clause works with: the same place, through the proxy and directly."""

    station: Station
    place: Place
    proxy: Any
    provider: base.Provider
    direct: base.Provider
    opened: list[base.Provider] = field(default_factory=list)


def secret_file(path: Path, text: str) -> Path:
    """A file that only this user may read."""
    path.touch(0o600)
    path.write_text(text)
    return path


def find() -> list[Station]:
    """Every station there is."""
    found: list[Station] = []
    for each in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{each.name}")
        found += getattr(module, "STATIONS", None) or [module.STATION]
    names = [station.name for station in found]
    assert len(set(names)) == len(names), names
    return found
