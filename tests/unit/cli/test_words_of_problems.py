"""What a person reads on the desktop: every problem, and every error in it, has words without gaps."""

from __future__ import annotations

import re

import pytest

from chatkeep.daemon.cli.words import WORDS
from chatkeep.daemon.cli.words_of_problems import PROBLEMS, phrase, problem_words
from chatkeep.daemon.service.moment import Moment
from chatkeep.daemon.service.telling.notice import Notice, Problem

AT = Moment(1_700_000_000_000_000_000, 1.0)


def notice(problem: str, *, over: bool = False, **values: object) -> Notice:
    return Notice(problem, "my\x1bdisk", over, AT.wall_ns, AT, values=values)


def test_every_problem_has_words() -> None:
    assert set(PROBLEMS) == set(Problem)


@pytest.mark.parametrize("problem", [*Problem, "chain-gap"])
@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("values", [{}, {"reason": "mode", "errno": 13}])
def test_no_words_have_gaps_or_drive_a_terminal(problem: str, over: bool, values: dict[str, object]) -> None:
    for code in [*sorted(WORDS), "no-such-code"]:
        said = phrase(notice(problem, over=over, code=code, **values))
        for text in said:
            assert "?" not in text.replace("read-only?", "").replace("full, or", "")
            assert "{" not in text
            assert text.isprintable() or "\n" in text
        assert said.title
        assert "\n" not in said.title
        assert not said.title.endswith(".")
        assert over or said.remedy or problem == Problem.WATCH_DEGRADED


def test_a_full_storage_reads_well() -> None:
    said = phrase(
        Notice(
            Problem.UPLOAD_FAILING,
            "disk",
            False,
            AT.wall_ns,
            AT,
            values={"code": "permission-refused", "provider": "disk"},
        )
    )
    assert said.title == "Nothing reaches disk"
    assert "disk" not in said.text  # once is enough
    assert re.fullmatch(r"Uploads fail since .*2023.*\. Storage refuses access\.", said.text)
    assert said.remedy.startswith("Check that this user may read and write there")
    assert problem_words("upload-failing", "disk", AT.wall_ns, {"code": "permission-refused"}) == said
    over = phrase(Notice(Problem.UPLOAD_FAILING, "disk", True, AT.wall_ns, AT))
    assert over.title == "Uploads reach disk again"
    assert not over.remedy
