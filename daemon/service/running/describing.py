"""How things stand, put together from everything that knows a part of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from chatkeep.daemon.service.conducting.conductor import Conductor
from chatkeep.daemon.service.engine.figures import EngineStanding, ProviderFigures, SourceFigures
from chatkeep.daemon.service.moment import Moment
from chatkeep.daemon.service.running.gatekeeping import Gatekeeper
from chatkeep.daemon.service.running.pulse import wall_of
from chatkeep.daemon.service.running.workers import Piece
from chatkeep.daemon.service.schedule import COMPARE
from chatkeep.daemon.service.standing import (
    Doing,
    Fault,
    JobStanding,
    OutboxStanding,
    ProblemStanding,
    ProviderStanding,
    SessionStanding,
    SourceStanding,
)
from chatkeep.daemon.service.telling.notice import Notice

_WORK = frozenset({"snapshot", "upload", "job", "sweep"})


def doing(pieces: Iterable[Piece]) -> tuple[Doing, ...]:
    """What runs, and is worth a word."""
    found = []
    for piece in pieces:
        what, _, subject = piece.name.partition(" ")
        if what in _WORK:
            found.append(Doing(what, subject, piece.since_ns, piece.done, piece.total))
    return tuple(found)


def session(keeper: Gatekeeper, at: Moment) -> SessionStanding:
    """The session as it is seen."""
    about, rules = keeper.about, keeper.rules
    since = about.facts.since if about is not None else None
    return SessionStanding(
        unlocked=keeper.readable,
        uploads=rules.uploads,
        since_ns=since if keeper.readable else None,
        until_ns=wall_of(rules.until, at) if rules.session else None,
        locked=rules.reason,
    )


def sources(
    names: Sequence[str],
    figures: Mapping[str, SourceFigures],
    faults: Mapping[str, Fault],
    watched: Mapping[str, str],
    conductor: Conductor,
    at: Moment,
) -> tuple[SourceStanding, ...]:
    """Every source. `watched`: how, where it is not by events."""
    due = conductor.due(at)
    found = []
    for name in names:
        figure = figures.get(name)
        found.append(
            SourceStanding(
                name=name,
                watched=watched.get(name, "events"),
                changed=conductor.changed(name),
                next_ns=wall_of(due.get(name), at),
                looked_ns=figure.looked_ns if figure is not None else None,
                fault=faults.get(name) or (figure.fault if figure is not None else None),
            )
        )
    return tuple(found)


def comparing(sources: Sequence[SourceStanding], every_s: float, at: Moment) -> JobStanding:
    """The job that is done by each source's own pace. Nothing is noted of it: every snapshot compares a whole source,
    whatever it was begun for, so what is known of the sources says it all, after a restart too."""
    looked = [one.looked_ns for one in sources if one.looked_ns is not None]
    next_ns = min((one.next_ns for one in sources if one.next_ns is not None), default=None)
    faults = (
        dataclasses.replace(one.fault, params={**one.fault.params, "source": one.name})
        for one in sources
        if one.fault is not None
    )
    return JobStanding(
        name=COMPARE,
        every_s=every_s,
        next_ns=next_ns,
        last_ns=min(looked) if len(looked) == len(sources) else None,
        due=next_ns is not None and next_ns <= at.wall_ns,
        fault=next(faults, None),
    )


def providers(
    required: Mapping[str, bool],
    figures: Mapping[str, ProviderFigures],
    faults: Mapping[str, Fault],
    conductor: Conductor,
    at: Moment,
) -> tuple[ProviderStanding, ...]:
    """Every provider."""
    found = []
    for name, must in required.items():
        figure, fault = figures.get(name), faults.get(name)
        if fault is None and figure is not None:
            fault = figure.fault
        found.append(
            ProviderStanding(
                name=name,
                required=must,
                waiting=figure.waiting if figure is not None else 0,
                acknowledged_ns=figure.acknowledged_ns if figure is not None else None,
                behind_ns=figure.behind_ns if figure is not None else None,
                left_behind_ns=figure.left_behind_ns if figure is not None else None,
                next_ns=wall_of(conductor.next_try(name), at) if fault is not None else None,
                fault=fault,
            )
        )
    return tuple(found)


def problems(notices: Iterable[Notice]) -> tuple[ProblemStanding, ...]:
    """What a person should know."""
    return tuple(ProblemStanding(str(one.problem), one.subject, one.since_ns, one.values) for one in notices)


def outbox(figures: EngineStanding | None, limit: int) -> OutboxStanding:
    """What waits. Without figures: nobody can say."""
    if figures is None:
        return OutboxStanding(0, limit, full=False)
    return OutboxStanding(figures.waiting, figures.limit, figures.full)
