"""What setup does, from what is there: every state of the service, and a second run that finds all of it done."""

from __future__ import annotations

import dataclasses

import pytest

from chatkeep.daemon.cli.setup_plan import Facts, Name, State, Step, UnitFacts, Wanted, Why, plan
from chatkeep.daemon.cli.unit_files import Standing

NOTHING = UnitFacts(manager=True, standing=Standing.ABSENT, enabled=False, active=False)
RUNNING = UnitFacts(manager=True, standing=Standing.SAME, enabled=True, active=True)
FRESH = Facts(configured=False, vault=False, snapshots=False, unit=NOTHING)


def states(facts: Facts, wanted: Wanted | None = None) -> list[State]:
    return [step.state for step in plan(facts, wanted or Wanted())]


def service(unit: UnitFacts, wanted: bool | None = None) -> Step:
    return plan(Facts(True, True, True, unit), Wanted(unit=wanted))[-1]


def test_the_order() -> None:
    assert [step.name for step in plan(FRESH, Wanted())] == [*Name]


def test_from_nothing_everything_is_to_do() -> None:
    assert states(FRESH) == [State.TO_DO] * 4


def test_afterwards_nothing_is() -> None:
    assert states(Facts(configured=True, vault=True, snapshots=True, unit=RUNNING)) == [State.ALREADY] * 4


def test_what_is_not_wanted_is_left_out() -> None:
    assert states(FRESH, Wanted(snapshot=False, unit=False))[2:] == [State.LEFT_OUT] * 2
    # What is done is not called left out.
    done = Facts(configured=True, vault=True, snapshots=True, unit=RUNNING)
    assert states(done, Wanted(snapshot=False))[2] is State.ALREADY


def test_a_configuration_is_replaced_only_when_that_was_said() -> None:
    there = dataclasses.replace(FRESH, configured=True)
    assert plan(there, Wanted())[0] == Step(Name.CONFIGURATION, State.ALREADY)
    assert plan(there, Wanted(replace_config=True))[0] == Step(Name.CONFIGURATION, State.TO_DO, Why.REPLACED)


@pytest.mark.parametrize("standing", Standing)
@pytest.mark.parametrize("running", [False, True])
def test_every_state_of_the_service(standing: Standing, running: bool) -> None:
    step = service(UnitFacts(manager=True, standing=standing, enabled=running, active=running))
    expected = {
        Standing.ABSENT: (State.TO_DO, None),
        Standing.SAME: (State.ALREADY if running else State.TO_DO, None),
        Standing.OLDER: (State.TO_DO, Why.REPLACED),
        Standing.EDITED: (State.ALREADY if running else State.TO_DO, Why.EDITED),
        Standing.FOREIGN: (State.IMPOSSIBLE, Why.NOT_OURS),
    }
    assert (step.state, step.why) == expected[standing]


def test_one_that_is_enabled_and_does_not_run_is_started() -> None:
    assert service(dataclasses.replace(RUNNING, active=False)).state is State.TO_DO
    assert service(dataclasses.replace(RUNNING, enabled=False)).state is State.TO_DO


def test_without_a_manager_there_is_no_service() -> None:
    assert service(dataclasses.replace(NOTHING, manager=False)).why is Why.NO_MANAGER
    assert service(dataclasses.replace(NOTHING, manager=False), wanted=False).why is Why.NOT_WANTED
