"""The rules that concern several values of the configuration. Pure: how a path is made comparable is handed in."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from chatkeep.config.amounts import NEVER, Duration
from chatkeep.config.key import CREDENTIAL
from chatkeep.config.model import NAME, FolderOptions, ProviderConfig, Source, shapes
from chatkeep.config.problems import Reason
from chatkeep.config.running import SessionConfig, TellConfig, VerifyJob, WatchConfig


class Clash(NamedTuple):
    """Two values that cannot stand together, or a derived value that cannot be used."""

    reason: Reason
    key: str
    found: str
    other: str = ""
    wanted: str = ""


_Model = TypeVar("_Model")
Placed = tuple[str, Path]  # key, path in comparable form


def clashes(
    sources: Sequence[tuple[str, Source]],
    providers: Sequence[tuple[str, ProviderConfig]],
    state_dir: Path | None,
    comparable: Callable[[Path], Path],
) -> Iterator[Clash]:
    """Every clash among sources, providers and the state directory, each named once.

    `comparable` gives a path the form in which equal places are equal and inner ones lie below: by the text alone
    (os.path.normpath), or as the disk says (os.path.realpath).
    """
    places = [(f"{key}.path", comparable(source.path)) for key, source in sources]
    folders = [
        (f"{key}.path", comparable(config.options.path))
        for key, config in providers
        if isinstance(config.options, FolderOptions)
    ]
    yield from _names((f"{key}.name", source.name) for key, source in sources)
    yield from _names((f"{key}.name", config.name) for key, config in providers)
    yield from _overlaps(places)
    yield from _overlaps(folders)
    yield from _same_storage(providers)
    # A vault inside a source would back itself up, each snapshot making the next one larger.
    for key, path in folders:
        yield from _inside(key, path, places, Reason.PROVIDER_IN_SOURCE)
    # Whoever synchronises the folder, or holds the disk, would get the key to the other storage with the vault.
    for key, path in _secrets(providers):
        yield from _inside(key, comparable(path), folders, Reason.SECRET_IN_PROVIDER)
    if state_dir is not None:
        state = comparable(state_dir)
        yield from _inside("state_dir", state, places, Reason.STATE_IN_SOURCE)
        # The state directory holds the device's key for writing: in a synchronised folder it would leave the machine.
        yield from _inside("state_dir", state, folders, Reason.STATE_IN_PROVIDER)


def contradictions(values: Sequence[object]) -> Iterator[Clash]:
    """Every pair of durations that cannot hold together, among the values of the file that came out whole. What the
    file leaves out has its default."""

    def said(model: type[_Model]) -> _Model:
        return next((value for value in values if isinstance(value, model)), model())

    watch, session = said(WatchConfig), said(SessionConfig)
    yield from _longer("watch.quiet", watch.quiet, "watch.max_delay", watch.max_delay)
    yield from _longer("watch.max_delay", watch.max_delay, "watch.compare_every", watch.compare_every)
    yield from _longer("watch.min_interval", watch.min_interval, "watch.compare_every", watch.compare_every)
    yield from _longer("watch.poll_every", watch.poll_every, "watch.compare_every", watch.compare_every)
    if "idle" in session.lock_on:
        yield from _longer("session.idle_after", session.idle_after, "session.lock_after", session.lock_after)
    every, alarm = said(VerifyJob).every, said(TellConfig).unverified_after
    if alarm <= every and alarm < NEVER:
        yield Clash(Reason.ALARM_TOO_SOON, "jobs.verify.every", str(every), "tell.unverified_after", str(alarm))


def _longer(key: str, span: Duration, other: str, most: Duration) -> Iterator[Clash]:
    if span > most:
        yield Clash(Reason.LONGER_THAN, key, str(span), other, str(most))


def _names(named: Iterable[tuple[str, str]]) -> Iterator[Clash]:
    first: dict[str, str] = {}
    for key, name in named:
        if re.search(NAME, name) is None:  # only a name derived from a path gets here
            yield Clash(Reason.BAD_NAME, key, name)
        elif name in first:
            yield Clash(Reason.DUPLICATE_NAME, key, name, first[name])
        else:
            first[name] = key


def _overlaps(places: Sequence[Placed]) -> Iterator[Clash]:
    first: dict[Path, str] = {}
    for key, path in places:
        if path in first:
            yield Clash(Reason.SAME_DIRECTORY, key, str(path), first[path])
        else:
            first[path] = key
    for key, path in places:
        outer = next((first[parent] for parent in path.parents if parent in first), None)
        if outer is not None:
            yield Clash(Reason.NESTED_DIRECTORY, key, str(path), outer)


def _secrets(providers: Iterable[tuple[str, ProviderConfig]]) -> Iterator[Placed]:
    """The files that hold secrets of providers; credentials of systemd are none."""
    for key, config in providers:
        if not dataclasses.is_dataclass(config.options):
            continue
        for shape in shapes(type(config.options)):
            value = getattr(config.options, shape.field)
            if shape.key.secret and isinstance(value, Path) and not str(value).startswith(CREDENTIAL):
                yield f"{key}.{shape.name}", value


def _same_storage(providers: Sequence[tuple[str, ProviderConfig]]) -> Iterator[Clash]:
    """Two providers that are one: whoever believes to have two copies has one. A type says which of its keys make a
    place; folders are compared by their paths."""
    first: dict[tuple[object, ...], str] = {}
    for key, config in providers:
        kept: tuple[str, ...] = getattr(config.options, "place", ())
        if kept:
            place = (config.type, *(repr(getattr(config.options, name)).rstrip("/'\"") for name in kept))
            if first.setdefault(place, key) != key:
                yield Clash(Reason.SAME_STORAGE, f"{key}.type", config.type, first[place])


def _inside(key: str, path: Path, places: Sequence[Placed], reason: Reason) -> Iterator[Clash]:
    outer = {place: other for other, place in places}
    hit = next((outer[place] for place in (path, *path.parents) if place in outer), None)
    if hit is not None:
        yield Clash(reason, key, str(path), hit)
