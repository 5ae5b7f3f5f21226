"""Durations that cannot hold together: each is named with its line, and with what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatkeep.config.amounts import NEVER
from chatkeep.config.loader import parse
from chatkeep.config.problems import ConfigInvalid, Problem, Reason
from chatkeep.config.running import JobsConfig, SessionConfig, TellConfig, WatchConfig
from chatkeep.daemon.cli.words_of_cases import PROBLEMS

HEAD = "sources: [/a]\nproviders: [{name: d, type: folder, path: /m}]\n"


def problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigInvalid) as caught:
        parse(HEAD + text, Path("c.yaml"))
    return caught.value.problems


def test_what_holds_when_nothing_is_said() -> None:
    config = parse(HEAD, Path("c.yaml"))
    watch, session, jobs, tell = config.watch, config.session, config.jobs, config.tell
    assert watch == WatchConfig()
    assert (watch.quiet, watch.max_delay, watch.min_interval) == (2, 8, 60)
    assert (watch.compare_every, watch.poll_every) == (21_600, 300)
    assert session == SessionConfig()
    assert (session.require_unlock, session.lock_on, session.idle_after) == (True, ("suspend", "logout"), 900)
    assert config.outbox.limit == 20_000_000_000
    assert jobs == JobsConfig()
    assert (jobs.verify.every, jobs.verify.sample) == (86_400, 0.01)
    assert (jobs.drill.every, jobs.prune.every) == (7 * 86_400, NEVER)
    assert tell == TellConfig()
    assert (tell.desktop, tell.webhook_file, tell.command, tell.heartbeat_file, tell.metrics_file) == (
        *(True, None, (), None, None),
    )
    assert (tell.held_after, tell.unverified_after) == (86_400, 7 * 86_400)


@pytest.mark.parametrize(
    ("text", "line", "key", "found", "other", "wanted"),
    [
        ("watch:\n  quiet: 1min\n", 4, "watch.quiet", "1 minute", "watch.max_delay", "8 seconds"),
        ("watch:\n  max_delay: 1s\n", 4, "watch.quiet", "2 seconds", "watch.max_delay", "1 second"),
        ("watch:\n  max_delay: 7h\n", 4, "watch.max_delay", "7 hours", "watch.compare_every", "6 hours"),
        ("watch:\n  min_interval: 1d\n", 4, "watch.min_interval", "1 day", "watch.compare_every", "6 hours"),
        ("watch:\n  poll_every: 361min\n", 4, "watch.poll_every", "361 minutes", "watch.compare_every", "6 hours"),
        (
            "session:\n  lock_on: [idle]\n  lock_after: 14min\n",
            *(5, "session.idle_after", "15 minutes", "session.lock_after", "14 minutes"),
        ),
    ],
)
def test_longer_than_the_other(text: str, line: int, key: str, found: str, other: str, wanted: str) -> None:
    (problem,) = problems(text)
    assert problem.reason is Reason.LONGER_THAN
    assert (problem.line, problem.key, problem.found) == (line, key, found)
    assert (problem.other, problem.wanted) == (other, wanted)
    said = PROBLEMS[problem.reason].format(**problem.plain())
    assert said == (f"{found} is longer than {other}, which is {wanted}: give {wanted} or less, or make {other} longer")


@pytest.mark.parametrize(
    ("text", "line", "found", "wanted"),
    [
        ("jobs:\n  verify:\n    every: 2w\n", 5, "14 days", "7 days"),
        ("jobs:\n  verify: {every: never}\n", 4, "never", "7 days"),
        ("jobs:\n  verify: {every: 1d}\ntell: {unverified_after: 24h}\n", 4, "1 day", "1 day"),
    ],
)
def test_an_alarm_that_would_never_end(text: str, line: int, found: str, wanted: str) -> None:
    (problem,) = problems(text)
    assert (problem.reason, problem.line, problem.key) == (Reason.ALARM_TOO_SOON, line, "jobs.verify.every")
    assert (problem.found, problem.other, problem.wanted) == (found, "tell.unverified_after", wanted)
    assert "longer, or never" in PROBLEMS[problem.reason].format(**problem.plain())


@pytest.mark.parametrize(
    "text",
    [
        "watch: {quiet: 30s, max_delay: 30s}\n",
        "watch: {max_delay: 1h, min_interval: 1h, poll_every: 1h, compare_every: 1h}\n",
        "session: {lock_after: 5 minutes}\n",  # idle_after says nothing as long as lock_on does not name idle
        "session: {lock_on: [idle], lock_after: 15min}\n",
        "jobs: {verify: {every: never}}\ntell: {unverified_after: never}\n",
        "jobs: {verify: {every: 2w}}\ntell: {unverified_after: 3w}\n",
    ],
)
def test_what_can_just_hold_together(text: str) -> None:
    parse(HEAD + text, Path("c.yaml"))


@pytest.mark.parametrize(
    ("key", "text", "reason", "wanted"),
    [
        ("watch.max_delay", "0 seconds", Reason.ZERO_DURATION, "1 second"),
        ("watch.poll_every", "0s", Reason.ZERO_DURATION, "1 second"),
        ("watch.compare_every", "59 seconds", Reason.TOO_SHORT, "1 minute"),
        ("session.lock_after", "59s", Reason.TOO_SHORT, "1 minute"),
        ("session.lock_after", "0s", Reason.ZERO_DURATION, "1 minute"),
        ("session.idle_after", "1 second", Reason.TOO_SHORT, "1 minute"),
        ("jobs.verify.every", "10s", Reason.TOO_SHORT, "1 minute"),
        ("jobs.drill.every", "10s", Reason.TOO_SHORT, "1 minute"),
        ("jobs.prune.every", "0 weeks", Reason.ZERO_DURATION, "1 minute"),
        ("tell.held_after", "30s", Reason.TOO_SHORT, "1 minute"),
        ("tell.unverified_after", "30s", Reason.TOO_SHORT, "1 minute"),
    ],
)
def test_too_short(key: str, text: str, reason: Reason, wanted: str) -> None:
    *outer, inner = key.split(".")
    block = "".join(f"{'  ' * depth}{name}:\n" for depth, name in enumerate(outer))
    (problem,) = problems(f"{block}{'  ' * len(outer)}{inner}: {text}\n")
    assert (problem.reason, problem.key, problem.found) == (reason, key, text)
    assert (problem.wanted, problem.line) == (wanted, 3 + len(outer))
    assert f"give {wanted} or more" in PROBLEMS[reason].format(**problem.plain())


@pytest.mark.parametrize(("text", "meant"), [("nevre", "never"), ("off", "never"), ("36 hrs", "36 hours"), ("x", "")])
def test_neither_a_duration_nor_never(text: str, meant: str) -> None:
    (problem,) = problems(f"jobs: {{drill: {{every: {text}}}}}\n")
    assert (problem.reason, problem.key, problem.nearest) == (Reason.BAD_EVERY, "jobs.drill.every", meant)


def test_a_wrong_word_among_what_locks() -> None:
    (problem,) = problems("session:\n  lock_on: [suspend, screenlock]\n")
    assert (problem.reason, problem.key, problem.line) == (Reason.UNKNOWN_WORD, "session.lock_on[1]", 4)
    assert (problem.wanted, problem.nearest) == ("suspend or screen-lock or logout or idle", "screen-lock")


def test_a_url_is_no_place_of_a_url() -> None:
    """A secret that was put into the file itself is refused, and is not repeated as a path that was looked for."""
    (problem,) = problems("tell: {heartbeat_file: 'https://example.org/ping/1'}\n")
    assert (problem.reason, problem.key) == (Reason.NOT_ABSOLUTE, "tell.heartbeat_file")
