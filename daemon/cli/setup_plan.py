"""What setup has to do, from what is there and what is wanted. Pure.

The order: nothing before the configuration; no vault without its keys handed over; the first snapshot before the
service, since a service waits with its uploads until somebody unlocks; and each step is passed over when it is done.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from chatkeep.daemon.cli.unit_files import Standing


class Name(enum.StrEnum):
    """The steps, in their order."""

    CONFIGURATION = "configuration"
    VAULT = "vault"
    SNAPSHOT = "snapshot"
    SERVICE = "service"


class State(enum.StrEnum):
    """How it is with a step: what a plan says of it, and what became of it."""

    ALREADY = "already"  # done before
    TO_DO = "to-do"
    LEFT_OUT = "left-out"  # not wanted
    IMPOSSIBLE = "impossible"  # not here
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Why(enum.StrEnum):
    """Why a step is as it is, where its state does not say it."""

    NOT_WANTED = "not-wanted"
    REPLACED = "replaced"  # what is there is to be replaced, as asked for
    NO_MANAGER = "no-manager"  # no systemd of this user
    NOT_OURS = "not-ours"  # another unit of that name
    EDITED = "edited"  # our unit, changed by somebody


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a plan, or what became of it."""

    name: Name
    state: State
    why: Why | None = None


@dataclass(frozen=True, slots=True)
class UnitFacts:
    """The service as it is. `manager`: there is a systemd of this user."""

    manager: bool
    standing: Standing
    enabled: bool
    active: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """What is there."""

    configured: bool
    vault: bool
    snapshots: bool  # every source has one, whole
    unit: UnitFacts


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted. `unit`: None for "if it can be"."""

    replace_config: bool = False
    snapshot: bool = True
    unit: bool | None = None


def plan(facts: Facts, wanted: Wanted) -> tuple[Step, ...]:
    """Every step, in order."""
    return (_configuration(facts, wanted), _vault(facts), _snapshot(facts, wanted), _service(facts.unit, wanted.unit))


def _configuration(facts: Facts, wanted: Wanted) -> Step:
    if not facts.configured:
        return Step(Name.CONFIGURATION, State.TO_DO)
    if wanted.replace_config:
        return Step(Name.CONFIGURATION, State.TO_DO, Why.REPLACED)
    return Step(Name.CONFIGURATION, State.ALREADY)


def _vault(facts: Facts) -> Step:
    return Step(Name.VAULT, State.ALREADY if facts.vault else State.TO_DO)


def _snapshot(facts: Facts, wanted: Wanted) -> Step:
    if facts.snapshots:
        return Step(Name.SNAPSHOT, State.ALREADY)
    return Step(Name.SNAPSHOT, State.TO_DO) if wanted.snapshot else _left_out(Name.SNAPSHOT)


def _service(unit: UnitFacts, wanted: bool | None) -> Step:
    if wanted is False:
        return _left_out(Name.SERVICE)
    if not unit.manager:
        return Step(Name.SERVICE, State.IMPOSSIBLE, Why.NO_MANAGER)
    match unit.standing:
        case Standing.FOREIGN:
            return Step(Name.SERVICE, State.IMPOSSIBLE, Why.NOT_OURS)
        case Standing.EDITED:
            # It is somebody's own now, and may be just what he wants: started, and never rewritten.
            return Step(Name.SERVICE, State.ALREADY if unit.enabled and unit.active else State.TO_DO, Why.EDITED)
        case Standing.SAME if unit.enabled and unit.active:
            return Step(Name.SERVICE, State.ALREADY)
    return Step(Name.SERVICE, State.TO_DO, Why.REPLACED if unit.standing is Standing.OLDER else None)


def _left_out(name: Name) -> Step:
    return Step(name, State.LEFT_OUT, Why.NOT_WANTED)
