"""The log and `status --watch`: every kind of event has a sentence."""

from __future__ import annotations

import pytest

from chatkeep.daemon.cli.words_of_events import EVENTS, said
from chatkeep.daemon.service.events import CARRIES, Kind
from chatkeep.daemon.service.moment import Moment
from chatkeep.daemon.service.telling.notice import Notice, Problem

AT = Moment(1_700_000_000_000_000_000, 1.0)


def test_every_kind_has_a_sentence_that_needs_only_what_it_carries() -> None:
    assert set(EVENTS) == set(Kind)
    for kind in Kind:
        text = said(kind, dict.fromkeys(CARRIES[kind], 3))
        assert text
        assert "?" not in text
        assert "{" not in text


@pytest.mark.parametrize("problem", [*Problem, "chain-gap"])
def test_a_problem_and_its_end_are_sentences(problem: str) -> None:
    for over in (False, True):
        event = Notice(problem, "disk", over, AT.wall_ns, AT, values={"code": "quota-exceeded"}).event()
        assert said(event.kind, event.values).startswith("It is over: " if over else "Needs you: ")
    notice = Notice(Problem.STORAGE_FULL, "disk", False, AT.wall_ns, AT)
    assert said(Kind.PROBLEM, notice.event().values).startswith("Needs you: disk is full. It takes no more since ")


def test_a_provider_is_named_once() -> None:
    values = {"provider": "disk", "code": "unavailable"}
    assert said(Kind.UPLOAD_FAILED, values) == "disk: the upload failed. Storage cannot be reached."
    assert said(Kind.JOB_FAILED, {"job": "verify", **values}) == "verify: failed. disk: Storage cannot be reached."


def test_a_path_that_is_in_no_event_leaves_no_gap() -> None:
    values = {"source": "chat", "code": "source-missing", "disposition": "needs-user"}
    assert said(Kind.SNAPSHOT_FAILED, values) == "chat: not backed up. There is nothing at its path."
    values = {"problem": "state-moved-aside", "subject": "device", "code": "state-moved-aside"}
    assert "records were damaged. They are kept, and nothing is read of them any more." in said(Kind.PROBLEM, values)


def test_a_problem_says_what_to_do_and_what_is_not_remembered_is_not_announced() -> None:
    values = {"code": "config-invalid", "disposition": "needs-user"}
    text = "The new configuration is refused; the one before goes on. The configuration is wrong."
    assert said(Kind.RELOAD_REFUSED, values) == text
    notice = Notice(Problem.RELOAD_REFUSED, "", False, AT.wall_ns, AT, values=values)
    assert said(Kind.PROBLEM, notice.event().values).endswith(" Run: chatkeep config check")


def test_a_kind_of_another_version_is_its_name() -> None:
    assert said("from-the-future", {}) == "from-the-future"
