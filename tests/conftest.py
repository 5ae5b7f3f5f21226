"""Options and fixtures of every test."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable, Generator
from typing import Any

import hypothesis
import pytest

from tests.support.independent import TALLY
from tests.support.memory_scan import TALLY as MEMORY

_LEFT_OUT = {kind: pytest.StashKey[int]() for kind in ("long", "machine", "ceph")}

# Neither a deadline nor a bound on how long the examples take to be made: a machine that stands still for a second, as
# one under load does, has shown nothing of what is tested.
hypothesis.settings.register_profile(
    "dev",
    print_blob=True,
    derandomize=False,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    max_examples=60,
)
hypothesis.settings.register_profile("ci", hypothesis.settings.get_profile("dev"), max_examples=400)
hypothesis.settings.load_profile("dev")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the tests that take minutes")
    parser.addoption("--machine", action="store_true", help="also run the tests that boot a machine, as root")
    parser.addoption("--ceph", action="store_true", help="also run the tests at Ceph, which wants packages")
    parser.addoption("--seed", type=int, default=None, help="the value of the `seed` fixture, from a failure report")


def pytest_configure() -> None:
    # A shell ignores interrupts for what it starts in the background, nohup hangups, and every program started from
    # here would too: tests would then send a Ctrl-C that is nothing, and wait.
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Deselected and not skipped: a skip is for what could not run, and nothing here may be allowed to not run.
    for kind, key in _LEFT_OUT.items():
        left = [] if config.getoption(kind) else [item for item in items if item.get_closest_marker(kind)]
        if left:
            items[:] = [item for item in items if not item.get_closest_marker(kind)]
            config.hook.pytest_deselected(items=left)
        config.stash[key] = len(left)
        if hasattr(config, "workeroutput"):  # under xdist each worker collects everything; the report is made elsewhere
            config.workeroutput[kind] = len(left)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["independent"] = TALLY.plain()
        session.config.workeroutput["memory"] = dataclasses.asdict(MEMORY)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    output = getattr(node, "workeroutput", {})
    for kind, key in _LEFT_OUT.items():
        node.config.stash[key] = max(node.config.stash.get(key, 0), output.get(kind, 0))
    if "independent" in output:
        TALLY.add(output["independent"])
    MEMORY.add(output.get("memory", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for report in terminalreporter.stats.get("passed", []):
        for what in [value for name, value in report.user_properties if name == "told"]:
            terminalreporter.write_line(f"{report.nodeid.rpartition('/')[2]}: {what}")
    for kind, key in _LEFT_OUT.items():
        count = config.stash.get(key, 0)
        if count:
            terminalreporter.write_line(f"{count} {kind} tests were left out; --{kind} runs them")
    if TALLY.snapshots:
        terminalreporter.write_line(TALLY.told())
    if MEMORY.looks:
        terminalreporter.write_line(MEMORY.told())


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Says at the end of the run how much a test tried: a loop that tries nothing passes too."""
    return lambda what: record_property("told", what)


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A fresh number for this test's random choices; `--seed N` repeats the one a failure report shows."""
    given: int | None = request.config.getoption("seed")
    return given if given is not None else int.from_bytes(os.urandom(6))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    seeds = getattr(item, "funcargs", {})
    if report.failed and "seed" in seeds:
        report.sections.append(("seed", f"replay with --seed {seeds['seed']}"))
    return report
